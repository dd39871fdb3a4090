"""Metrics of answers: the class of the largest logit, or the few largest.

Notation: ``z`` the logits (n, classes), ``y`` the labels (n,), whole numbers from 0.
"""

from __future__ import annotations

import numpy as np
import torch

from featherweight.contracts import DataError, UsageError
from featherweight.tasks.metrics.metric import Floats, SampleMetric, SetMetric, Weigh

_NONE = -1  # the answer of a network whose logits aren't numbers: always wrong


def check_logits(outputs: np.ndarray) -> None:
    """Refuses outputs that are no logits.

    Raises:
        DataError: they aren't (samples, classes) with two classes at least.
    """
    if outputs.ndim != 2 or outputs.shape[1] < 2:
        raise DataError(
            "Classification wants outputs (samples, classes) with at least two classes.",
            f"outputs {outputs.shape}",
            "return one logit per class and pool dense outputs, or choose the task regression",
        )


def check_labelled(outputs: np.ndarray, labels: np.ndarray) -> None:
    """Refuses outputs that are no logits, and anything but one label for each.

    Raises:
        DataError: what it says.
    """
    check_logits(outputs)
    if labels.shape != outputs.shape[:1]:
        got = f"labels {labels.shape} for outputs {outputs.shape}"
        raise DataError("Classification wants one label per sample.", got, "give the labels as (samples,)")


def answers_of(outputs: np.ndarray) -> np.ndarray:
    """The class of the largest logit, (n,) int64; the first of equals, −1 where a logit is NaN."""
    check_logits(outputs)
    return np.where(np.isnan(outputs).any(axis=1), _NONE, outputs.argmax(axis=1)).astype(np.int64)


def right_answers(outputs: np.ndarray, labels: np.ndarray) -> Floats:
    """1 where the largest logit is the label's, else 0; 0 also where a logit is NaN."""
    check_labelled(outputs, labels)
    return (answers_of(outputs) == labels).astype(np.float64)


ACCURACY = SampleMetric(name="accuracy", points=True, scores=right_answers, binary=True)


def top(count: int) -> SampleMetric:
    """The share of samples whose label is among the ``count`` largest logits; of equal ones the first count first.

    Raises:
        UsageError: the count isn't positive.
    """
    if count < 1:
        raise UsageError("Top-k counts the k largest logits.", f"top-{count}", "--metric top-5")

    def scores(outputs: np.ndarray, labels: np.ndarray) -> Floats:
        check_labelled(outputs, labels)
        if count >= outputs.shape[1]:
            got = f"top-{count} of {outputs.shape[1]} classes"
            raise DataError("Top-k needs more classes than k: else every answer is right.", got, "choose a smaller k")
        own = np.take_along_axis(outputs, labels[:, None].astype(np.int64), axis=1)
        first = np.arange(outputs.shape[1]) < labels[:, None]
        ahead = (outputs > own).sum(axis=1) + ((outputs == own) & first).sum(axis=1)
        return ((ahead < count) & ~np.isnan(outputs).any(axis=1)).astype(np.float64)

    return SampleMetric(name=f"top-{count} accuracy", points=True, scores=scores, binary=True)


def _f1_weigh(outputs: np.ndarray, labels: np.ndarray, classes: np.ndarray) -> Weigh:
    """F1 of each class, ``2 TP / (labelled + answered)``, averaged over those of ``classes`` that have samples."""
    answers, width = answers_of(outputs), outputs.shape[1]
    valid = torch.from_numpy((answers != _NONE).astype(np.float64))
    right = torch.from_numpy((answers == labels).astype(np.float64))
    said, true = torch.from_numpy(np.maximum(answers, 0)), torch.from_numpy(labels.astype(np.int64))
    counted = torch.from_numpy(classes)

    def weigh(weights: torch.Tensor) -> torch.Tensor:
        empty = weights.new_zeros(len(weights), width)
        hits = empty.index_add(1, true, weights * right)[:, counted]
        labelled = empty.index_add(1, true, weights)[:, counted]
        answered = empty.index_add(1, said, weights * valid)[:, counted]
        there = labelled > 0
        scores = torch.where(there, 2 * hits / torch.where(there, labelled + answered, 1.0), 0.0)
        return scores.sum(1) / there.sum(1)  # 0 / 0 is NaN: nothing to measure

    return weigh


def _f1_macro(outputs: np.ndarray, labels: np.ndarray) -> Weigh:
    check_labelled(outputs, labels)
    return _f1_weigh(outputs, labels, np.unique(labels))


def _f1_binary(outputs: np.ndarray, labels: np.ndarray) -> Weigh:
    check_labelled(outputs, labels)
    if outputs.shape[1] != 2:
        got = f"{outputs.shape[1]} classes"
        raise DataError("Binary F1 is of class 1 of two.", got, "choose f1, the mean over all classes")
    if not (labels == 1).any():
        raise DataError("Binary F1 needs samples of class 1.", "none", "add some to the split")
    return _f1_weigh(outputs, labels, np.array([1]))


def _f1_largest(outputs: np.ndarray, labels: np.ndarray, classes: np.ndarray) -> float:
    """The most that one changed answer takes from the mean of F1, times n.

    With d = labelled + answered, a hit of class y that is lost takes ``2 TP / d − 2 (TP − 1) / (d − 1)`` from F1 of y;
    when k hits go, at most ``k F1 TP⁻¹ = 2 k / d`` (the loss is convex in k and all F1 is gone at k = TP). The class
    that is answered instead loses ``F1 / (d + 1)`` at most, the first time the most.
    """
    answers, width = answers_of(outputs), outputs.shape[1]
    hits = np.bincount(labels[answers == labels], minlength=width)[classes]
    both = np.bincount(labels, minlength=width)[classes] + np.bincount(np.maximum(answers, 0), minlength=width)[classes]
    both = np.maximum(both, 1)
    missed, joined = 2.0 / both, 2.0 * hits / both / (both + 1)
    return len(labels) * float(missed.max() + joined.max()) / len(classes)


def class_sizes(labels: np.ndarray) -> np.ndarray:
    """The number of samples of every class that has some, (k,)."""
    return np.unique(labels, return_counts=True)[1]


def _decisive_answers(outputs: np.ndarray, labels: np.ndarray) -> np.ndarray:
    return answers_of(outputs)[:, None]


F1 = SetMetric(
    name="macro F1",
    points=True,
    weigh=_f1_macro,
    decisive=_decisive_answers,
    largest=lambda outputs, labels: _f1_largest(outputs, labels, np.unique(labels)),
    sizes=class_sizes,
)
F1_BINARY = SetMetric(
    name="F1",
    points=True,
    weigh=_f1_binary,
    decisive=_decisive_answers,
    largest=lambda outputs, labels: _f1_largest(outputs, labels, np.array([1])),
    sizes=lambda labels: np.array([min((labels == 1).sum(), (labels != 1).sum())]),
)


def log_softmax(logits: np.ndarray) -> Floats:
    """``z - max z - log Σ exp(z - max z)`` along the last axis, in float64."""
    shifted = logits.astype(np.float64) - logits.max(axis=-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))


def negative_log_likelihood(outputs: np.ndarray, labels: np.ndarray) -> Floats:
    """Mean of ``−log softmax(z)[y]`` over each sample's tokens, (n,), in nats.

    Args:
        outputs: (n, classes), or (n, tokens, …, classes).
        labels: (n,), or (n, tokens, …).

    Raises:
        DataError: shapes that don't fit, labels beyond the classes, or outputs that aren't finite.
    """
    if outputs.ndim < 2 or labels.shape != outputs.shape[:-1] or labels.size == 0 or labels.dtype.kind not in "iu":
        got = f"{labels.dtype} labels {labels.shape} for outputs {outputs.shape}"
        raise DataError("Perplexity wants the number of one class for every token.", got, "give whole numbers from 0")
    if labels.min() < 0 or labels.max() >= outputs.shape[-1]:
        got = f"labels from {labels.min()} to {labels.max()} for {outputs.shape[-1]} classes"
        raise DataError("Labels run from 0 to the number of classes less one.", got, "number the classes from 0")
    if not np.isfinite(outputs).all():
        raise DataError("Perplexity wants finite outputs.", "NaN or infinity", "find the samples that give them")
    chosen = np.take_along_axis(log_softmax(outputs), labels[..., None].astype(np.int64), axis=-1)
    return -chosen.reshape(len(outputs), -1).mean(axis=1)


def _perplexity(outputs: np.ndarray, labels: np.ndarray) -> Weigh:
    loss = torch.from_numpy(negative_log_likelihood(outputs, labels))
    return lambda weights: torch.exp(weights @ loss / weights.sum(1))


def _perplexity_largest(outputs: np.ndarray, labels: np.ndarray) -> float:
    """From the best to the worst sample seen; perplexity itself knows no limit."""
    loss = negative_log_likelihood(outputs, labels)
    return float(np.exp(loss.mean()) * np.ptp(loss))


PERPLEXITY = SetMetric(
    name="perplexity",
    higher_is_better=False,
    needs_labels=True,  # against its own answers an original that is less sure would score worse
    weigh=_perplexity,
    decisive=lambda outputs, labels: negative_log_likelihood(outputs, labels)[:, None],
    largest=_perplexity_largest,
)
