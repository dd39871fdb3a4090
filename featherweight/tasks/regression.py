"""Regression: outputs are the answers, numbers (n, ...) compared with labels of the same shape."""

from __future__ import annotations

import numpy as np

from featherweight.contracts import DataError
from featherweight.tasks.task import Task, check_finite_reference, check_same_shape


def _scores(outputs: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """The negated absolute error, averaged over each sample's outputs; negative infinity where one isn't finite.

    (n, 1) and (n,) count as the same shape, either way round.
    """
    if outputs.ndim == 0 or len(labels) != len(outputs) or labels.size != outputs.size or labels.size == 0:
        got = f"labels {labels.shape} for outputs {outputs.shape}"
        raise DataError("Regression wants labels of the outputs' shape.", got, "give one number per output and sample")
    if labels.shape != outputs.shape and labels.size != len(labels):
        got = f"labels {labels.shape} for outputs {outputs.shape}"
        raise DataError("Regression wants labels of the outputs' shape.", got, "bring their axes into one order")
    rows = len(outputs)
    error = np.abs(outputs.reshape(rows, -1).astype(np.float64) - labels.reshape(rows, -1)).mean(axis=1)
    return -np.where(np.isfinite(error), error, np.inf)


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
    metric="mean absolute error",
    binary=False,
    scores=_scores,
    divergence=_divergence,
    answers=_answers,
    check_labels=_check_labels,
)
