"""What a task means, as three functions of arrays: how good answers are, how far apart they are, what they are."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from featherweight.contracts import DataError, UsageError
from featherweight.tasks.metrics import Metric, SampleMetric


@dataclass(frozen=True, slots=True)
class Task:
    """A task: one value a task, written in a file of its own.

    Attributes:
        name: what it is called on the command line ("classification").
        metric: what the certificate speaks about.
        by_sample: a metric that is a mean over samples: it steers plans, and measures groups where ``metric`` is no
            such mean.
        divergence: (the original's outputs, outputs) → how far the second lie from the first, 0 where they agree;
            infinite where an output of the second is no finite number.
        answers: the original's outputs → the labels that they stand for, where there are no others.
        check_labels: (split's name, labels, number of classes or None) → None, or a ``DataError``.

    ``divergence`` and ``answers`` raise ``DataError`` where shapes don't fit the task, and where the original's outputs
    aren't finite.
    """

    name: str
    metric: Metric
    by_sample: SampleMetric
    divergence: Callable[[np.ndarray, np.ndarray], float]
    answers: Callable[[np.ndarray], np.ndarray]
    check_labels: Callable[[str, np.ndarray, int | None], None]

    @property
    def binary(self) -> bool:
        """Whether a score is 0 or 1: a sample's answer is right or wrong."""
        return self.by_sample.binary

    def scores(self, outputs: np.ndarray, labels: np.ndarray) -> np.ndarray:
        """Per-sample scores by ``by_sample``, (n,) float64, higher is better: what plans are steered by.

        A sample with an output that is no finite number gets the worst score.

        Raises:
            DataError: shapes that don't fit the task.
        """
        return self.by_sample.sign * self.by_sample.scores(outputs, labels)

    def with_metric(self, metric: Metric) -> Task:
        """The task with another metric; where that is a mean over samples, it steers too.

        Raises:
            UsageError: the metric isn't for this task.
        """
        if metric.tasks and self.name not in metric.tasks:
            fitting = " or ".join(metric.tasks)
            raise UsageError(
                f"The metric {metric.name} is for {fitting}.", f"the task {self.name}", f"--task {metric.tasks[0]}"
            )
        by_sample = metric if isinstance(metric, SampleMetric) else self.by_sample
        return replace(self, metric=metric, by_sample=by_sample)


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
