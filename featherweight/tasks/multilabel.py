"""Several labels at once: one logit per class, each class by itself there or not.

Notation: ``z`` the logits (n, classes), ``p = 1 / (1 + exp(−z))``, ``y`` the labels (n, classes), 0 or 1.
"""

from __future__ import annotations

import numpy as np

from featherweight.contracts import DataError
from featherweight.tasks.metrics import SampleMetric
from featherweight.tasks.metrics.metric import Floats
from featherweight.tasks.metrics.ranking import AVERAGE_PRECISION
from featherweight.tasks.task import Task, check_finite_reference, check_same_shape


def _label_accuracy(outputs: np.ndarray, labels: np.ndarray) -> Floats:
    """The share of each sample's classes that are answered right, (n,); 0 where a logit is NaN."""
    _check_logits(outputs)
    if labels.shape != outputs.shape:
        got = f"labels {labels.shape} for outputs {outputs.shape}"
        raise DataError("Every output has a label, 0 or 1.", got, "give the labels as (samples, classes)")
    return np.where(np.isnan(outputs).any(axis=1), 0.0, ((outputs > 0.0) == (labels == 1)).mean(axis=1))


def _divergence(reference: np.ndarray, outputs: np.ndarray) -> float:
    """Mean over samples of ``Σ_c KL(Bernoulli(p_reference) ‖ Bernoulli(p_outputs))``, in nats, in float64."""
    _check_logits(outputs)
    check_same_shape(reference, outputs)
    check_finite_reference(reference)
    if not np.isfinite(outputs).all():
        return float("inf")
    ours, theirs = reference.astype(np.float64), outputs.astype(np.float64)
    # log p = −log(1 + exp(−z)) and log(1 − p) = −log(1 + exp(z)), neither of which overflows as logaddexp.
    there = np.exp(-np.logaddexp(0.0, -ours)) * (np.logaddexp(0.0, -theirs) - np.logaddexp(0.0, -ours))
    not_there = np.exp(-np.logaddexp(0.0, ours)) * (np.logaddexp(0.0, theirs) - np.logaddexp(0.0, ours))
    return max(0.0, float((there + not_there).sum(axis=1).mean()))


def _answers(outputs: np.ndarray) -> np.ndarray:
    """1 where a logit is above zero, (n, classes) int64."""
    _check_logits(outputs)
    check_finite_reference(outputs)
    return (outputs > 0.0).astype(np.int64)


def _check_labels(split: str, labels: np.ndarray, classes: int | None) -> None:
    """Refuses labels that aren't 0 or 1, one for each class."""
    rule = "Labels of several classes at once are 0 or 1, one for every output."
    remedy = "give a row of 0 and 1 per sample, or choose the task classification for one class per sample"
    if labels.ndim != 2 or (classes is not None and labels.shape[1] != classes):
        wanted = "" if classes is None else f" for {classes} classes"
        raise DataError(rule, f"{split} labels of shape {labels.shape}{wanted}", remedy)
    if not np.isin(labels, (0, 1)).all():
        raise DataError(rule, f"other values in {split}", remedy)
    if len(labels) and not ((labels == 1).any(axis=0) & (labels == 0).any(axis=0)).any():
        got = f"no class in {split} that some samples have and others don't"
        raise DataError("Every split holds samples with and without a class.", got, "shuffle before splitting")


def _check_logits(outputs: np.ndarray) -> None:
    if outputs.ndim != 2:
        remedy = "return one logit per class and pool dense outputs"
        raise DataError("Several labels at once want outputs (samples, classes).", f"outputs {outputs.shape}", remedy)


LABEL_ACCURACY = SampleMetric(name="label accuracy", points=True, tasks=("multi-label",), scores=_label_accuracy)
MULTI_LABEL = Task(
    name="multi-label",
    metric=AVERAGE_PRECISION,
    by_sample=LABEL_ACCURACY,
    divergence=_divergence,
    answers=_answers,
    check_labels=_check_labels,
)
