"""What a task means, as three functions of arrays: how good answers are, how far apart they are, what they are."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from featherweight.contracts import DataError


@dataclass(frozen=True, slots=True)
class Task:
    """A task: one value a task, written in a file of its own.

    Attributes:
        name: what it is called on the command line ("classification").
        metric: what the mean of the scores is called in a report ("accuracy").
        binary: whether a score is 0 or 1, so that exact bounds on proportions hold.
        scores: (outputs (n, ...), labels (n, ...)) → (n,) float64, higher is better. A sample with an output that is
            no finite number gets the worst score.
        divergence: (the original's outputs, outputs) → how far the second lie from the first, 0 where they agree;
            infinite where an output of the second is no finite number.
        answers: the original's outputs → the labels that they stand for, where there are no others.
        check_labels: (split's name, labels, number of classes or None) → None, or a ``DataError``.

    The first three raise ``DataError`` where shapes don't fit the task, and where the original's outputs aren't finite.
    """

    name: str
    metric: str
    binary: bool
    scores: Callable[[np.ndarray, np.ndarray], np.ndarray]
    divergence: Callable[[np.ndarray, np.ndarray], float]
    answers: Callable[[np.ndarray], np.ndarray]
    check_labels: Callable[[str, np.ndarray, int | None], None]


def check_same_shape(reference: np.ndarray, outputs: np.ndarray) -> None:
    """Refuses outputs that can't be compared one by one.

    Raises:
        DataError: the shapes differ, or there are no samples.
    """
    if reference.shape != outputs.shape or reference.size == 0:
        got = f"{reference.shape} and {outputs.shape}"
        raise DataError("Two networks are compared on outputs of one shape.", got, "run both on the same samples")


def check_finite_reference(reference: np.ndarray) -> None:
    """Refuses answers of the original that are no finite numbers.

    Raises:
        DataError: with the first sample that has one.
    """
    bad = ~np.isfinite(reference).reshape(len(reference), -1).all(axis=1)
    if bad.any():
        got = f"{int(bad.sum())} samples have NaN or infinite ones, the first is sample {int(bad.argmax())}"
        raise DataError("The original's outputs must be finite numbers.", got, "check the model on these samples")
