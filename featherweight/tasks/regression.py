"""Regression: outputs are the answers, numbers (n, ...) compared with labels of the same shape."""

from __future__ import annotations

import numpy as np

from featherweight.contracts import DataError
from featherweight.tasks.metrics.errors import MEAN_ABSOLUTE_ERROR
from featherweight.tasks.task import Task, check_finite_reference, check_same_shape


def _divergence(reference: np.ndarray, outputs: np.ndarray) -> float:
    """Normalised mean squared error ``Σ (outputs - reference)² / Σ reference²``, in float64.

    A reference of zeros is matched exactly (0) or not at all (infinity).
    """
    check_same_shape(reference, outputs)
    check_finite_reference(reference)
    if not np.isfinite(outputs).all():
        return float("inf")
    wanted = reference.astype(np.float64)
    error, power = np.square(outputs - wanted).sum(), np.square(wanted).sum()
    if power == 0.0:
        return 0.0 if error == 0.0 else float("inf")
    return float(error / power)


def _answers(outputs: np.ndarray) -> np.ndarray:
    """The outputs themselves."""
    check_finite_reference(outputs)
    return outputs


def _check_labels(split: str, labels: np.ndarray, classes: int | None) -> None:
    """Refuses labels that aren't finite; ``classes`` means nothing here."""
    bad = ~np.isfinite(labels)
    if bad.any():
        got = f"{int(bad.sum())} NaN or infinite values in {split}"
        raise DataError("Labels of regression are finite numbers.", got, "drop or mend these samples")


REGRESSION = Task(
    name="regression",
    metric=MEAN_ABSOLUTE_ERROR,
    by_sample=MEAN_ABSOLUTE_ERROR,
    divergence=_divergence,
    answers=_answers,
    check_labels=_check_labels,
)
