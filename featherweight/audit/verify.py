"""Verify: two callables and data; how the artefact was made can't be seen from here."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from featherweight.audit.certificate import certify
from featherweight.contracts import Certificate, Goal, Parity
from featherweight.progress import track
from featherweight.tasks.data import Split
from featherweight.tasks.task import Task

Outputs = Callable[[tuple[np.ndarray, ...]], np.ndarray]
_BATCH = 64


def outputs_of(model: Outputs, split: Split, what: str = "running") -> np.ndarray:
    """A model's outputs on a split, (n, …), batch by batch, with progress shown."""
    count = -(-len(split) // _BATCH)
    rows = [model(tuple(x.numpy() for x in batch.inputs)) for batch in track(split.batches(_BATCH), what, total=count)]
    return np.concatenate(rows)


def labels_of(split: Split, reference: np.ndarray, task: Task) -> np.ndarray:
    """The split's labels; the original's own answers where there are none."""
    return task.answers(reference) if split.labels is None else np.asarray(split.labels)


def compare(reference: np.ndarray, outputs: np.ndarray, split: Split, task: Task, goal: Goal) -> Certificate:
    """The certificate from the outputs of the original and of the artefact on one split."""
    labels = labels_of(split, reference, task)
    return certify(task.scores(reference, labels), task.scores(outputs, labels), goal, task.metric)


def verify(original: Outputs, artefact: Outputs, split: Split, task: Task, goal: Goal) -> Certificate:
    """Run both on data that no earlier stage saw, and say what that proves.

    Args:
        original, artefact: callables on batches (arrays, batch first), each in its own runtime.
        split: test samples.
        task: scores the outputs.
        goal: the drop that is allowed, and how sure to be.
    """
    reference = outputs_of(original, split, "running the original on test data")
    outputs = outputs_of(artefact, split, "running the artefact on test data")
    return compare(reference, outputs, split, task, goal)


def parity(expected: np.ndarray, found: np.ndarray, task: Task) -> Parity:
    """How well an artefact's outputs agree with those of the network that it was lowered from, (n, …) each.

    Raises:
        DataError: the network's outputs aren't finite.
    """
    rows = task.answers(expected) == task.answers(np.nan_to_num(found))
    difference = np.abs(expected.astype(np.float64) - found.astype(np.float64))
    return Parity(
        samples=len(expected),
        largest=float(difference.max()),
        mean=float(difference.mean()),
        spread=float(expected.std()),
        same_answers=float(np.mean(rows.reshape(len(rows), -1).all(1))),
    )
