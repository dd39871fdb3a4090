"""Classification: one logit per class, the largest is the answer.

Notation: ``z`` the logits (n, classes), ``p = softmax(z)``, ``y`` the labels (n,), whole numbers from 0.
"""

from __future__ import annotations

import numpy as np

from featherweight.contracts import DataError
from featherweight.tasks.metrics.answers import ACCURACY, answers_of, check_logits, log_softmax
from featherweight.tasks.task import Task, check_finite_reference, check_same_shape


def _divergence(reference: np.ndarray, outputs: np.ndarray) -> float:
    """Mean over samples of ``KL(p_reference ‖ p_outputs)``, in nats, in float64."""
    check_logits(outputs)
    check_same_shape(reference, outputs)
    check_finite_reference(reference)
    if not np.isfinite(outputs).all():
        return float("inf")
    ours, theirs = log_softmax(reference), log_softmax(outputs)
    # Rounding can leave a hair below zero, which no divergence is.
    return max(0.0, float((np.exp(ours) * (ours - theirs)).sum(axis=1).mean()))


def _answers(outputs: np.ndarray) -> np.ndarray:
    """The class of the largest logit, (n,) int64; the first of equals."""
    check_logits(outputs)
    check_finite_reference(outputs)
    return answers_of(outputs)


def _check_labels(split: str, labels: np.ndarray, classes: int | None) -> None:
    """Refuses labels that aren't whole numbers from 0 to ``classes`` - 1, and splits of a single class."""
    if labels.ndim != 1 or labels.dtype.kind not in "iu":
        got = f"{split} labels of type {labels.dtype} and shape {labels.shape}"
        remedy = "give class numbers (samples,) from 0: labels.astype(int), or one_hot.argmax(axis=1)"
        raise DataError("Labels of classification are whole numbers, one per sample.", got, remedy)
    beyond = (labels < 0) | (labels >= classes if classes is not None else False)
    if beyond.any():
        first = int(beyond.argmax())
        top = "" if classes is None else f" to {classes - 1}, one per output of the network"
        got = f"{int(beyond.sum())} others in {split}; the first is {int(labels[first])} at sample {first}"
        raise DataError(f"Labels run from 0{top}.", got, "number the classes from 0, or use the network's own numbers")
    if len(labels) and (labels == labels[0]).all():
        got = f"all {len(labels)} labels in {split} are {int(labels[0])}"
        remedy = "shuffle before splitting, or use a stratified split"
        raise DataError("Every split holds at least two classes.", got, remedy)


CLASSIFICATION = Task(
    name="classification",
    metric=ACCURACY,
    by_sample=ACCURACY,
    divergence=_divergence,
    answers=_answers,
    check_labels=_check_labels,
)
