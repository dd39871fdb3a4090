"""Metrics of rankings: how well a class's score puts its own samples before the others.

Notation: ``s`` the scores of one class (n,), ``p`` whether each sample belongs to it (n,).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

from featherweight.contracts import DataError
from featherweight.tasks.metrics.answers import check_labelled, log_softmax
from featherweight.tasks.metrics.metric import Floats, SetMetric, Weigh

_Ranked = Callable[[np.ndarray, np.ndarray], Weigh]


def _auc_of(scores: np.ndarray, members: np.ndarray) -> Weigh:
    """Area under the ROC curve: the weighted share of pairs (member, other) in the right order, ties counting half."""
    order = np.argsort(scores, kind="stable")
    ranked = scores[order]
    mine = np.flatnonzero(members[order])
    low = torch.from_numpy(np.searchsorted(ranked, ranked[mine], "left"))
    high = torch.from_numpy(np.searchsorted(ranked, ranked[mine], "right"))
    rows, others = torch.from_numpy(order), torch.from_numpy(~members[order]).double()
    own = torch.from_numpy(order[mine])

    def weigh(weights: torch.Tensor) -> torch.Tensor:
        passed = torch.nn.functional.pad((weights[:, rows] * others).cumsum(1), (1, 0))
        wins = (weights[:, own] * (passed[:, low] + passed[:, high])).sum(1) / 2
        return _share(wins, weights[:, own].sum(1) * passed[:, -1])

    return weigh


def _precision_of(scores: np.ndarray, members: np.ndarray) -> Weigh:
    """Average precision ``Σ (R_k − R_{k−1}) P_k`` over falling thresholds, without interpolation."""
    order = np.argsort(-scores, kind="stable")
    ranked = -scores[order]
    mine = np.flatnonzero(members[order])
    last = torch.from_numpy(np.searchsorted(ranked, ranked[mine], "right") - 1)
    rows, inside = torch.from_numpy(order), torch.from_numpy(members[order]).double()
    own = torch.from_numpy(order[mine])

    def weigh(weights: torch.Tensor) -> torch.Tensor:
        sorted_weights = weights[:, rows]
        precision = _share((sorted_weights * inside).cumsum(1)[:, last], sorted_weights.cumsum(1)[:, last], 0.0)
        return _share((weights[:, own] * precision).sum(1), weights[:, own].sum(1))

    return weigh


def _share(part: torch.Tensor, whole: torch.Tensor, empty: float = torch.nan) -> torch.Tensor:
    """``part / whole``, and ``empty`` where there is nothing; its gradient is 0 there."""
    there = whole > 0
    return torch.where(there, part / torch.where(there, whole, 1.0), empty)


def _macro(ranked: _Ranked, scores: Floats, members: np.ndarray) -> Weigh:
    """The mean over the columns, leaving out those that a replicate has no members of (or no others)."""
    columns = [ranked(scores[:, column], members[:, column]) for column in range(scores.shape[1])]

    def weigh(weights: torch.Tensor) -> torch.Tensor:
        total, there = weights.new_zeros(len(weights)), weights.new_zeros(len(weights))
        for column in columns:
            found = column(weights)
            known = ~found.isnan()
            total, there = total + torch.where(known, found, 0.0), there + known
        return total / there

    return weigh


def _class_scores(outputs: np.ndarray, labels: np.ndarray) -> tuple[Floats, np.ndarray]:
    """Scores and membership by class, (n, classes) each, of the classes that have both members and others.

    With one label per sample the scores are log-probabilities, since logits of different samples don't compare; two
    classes mirror one another, and one of them does. With a row of 0 and 1 per sample every class has its own score.
    NaN ranks where it harms most.

    Raises:
        DataError: labels of another kind, or no class with members and others.
    """
    if labels.ndim == 2:
        members = _marked(outputs, labels)
        scores = outputs.astype(np.float64)
    else:
        check_labelled(outputs, labels)
        members = labels[:, None] == np.arange(outputs.shape[1])
        broken = np.isnan(outputs).any(axis=1, keepdims=True)
        with np.errstate(invalid="ignore"):
            scores = np.where(broken, np.nan, log_softmax(outputs))
        scores, members = (scores[:, 1:], members[:, 1:]) if outputs.shape[1] == 2 else (scores, members)
    sound = members.any(axis=0) & ~members.all(axis=0)
    if not sound.any():
        got = f"{len(outputs)} samples of one kind"
        raise DataError("A ranking needs members and others of a class.", got, "add samples of other classes")
    scores, members = scores[:, sound], members[:, sound]
    return np.where(np.isnan(scores), np.where(members, -np.inf, np.inf), scores), members


def _marked(outputs: np.ndarray, labels: np.ndarray) -> np.ndarray:
    if labels.shape != outputs.shape or not np.isin(labels, (0, 1)).all():
        got = f"labels {labels.shape} for outputs {outputs.shape}"
        remedy = "give 1 where a sample belongs to a class and 0 elsewhere"
        raise DataError("Labels of several classes at once are 0 or 1, one for every output.", got, remedy)
    return labels.astype(bool)


def _placements(outputs: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """How many of the other kind rank below each sample, ties counting half, (n, classes): what AUC rests on."""
    scores, members = _class_scores(outputs, labels)
    return np.stack([_below(scores[:, column], members[:, column]) for column in range(scores.shape[1])], axis=1)


def _below(scores: np.ndarray, members: np.ndarray) -> Floats:
    found = np.empty(len(scores))
    for kind in (members, ~members):
        others = np.sort(scores[~kind])
        ends = (np.searchsorted(others, scores[kind], side) for side in ("left", "right"))
        found[kind] = 0.5 * sum(ends)
    return found


def _ranks(outputs: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Placements, and for members their place among members too: what average precision rests on, (n, 2 classes)."""
    scores, members = _class_scores(outputs, labels)
    among = np.zeros(scores.shape)
    for column in range(scores.shape[1]):
        mine = members[:, column]
        inside = np.sort(scores[mine, column])
        among[mine, column] = np.searchsorted(inside, scores[mine, column], "left")
    return np.concatenate([_placements(outputs, labels), among], axis=1)


def _auc_largest(outputs: np.ndarray, labels: np.ndarray) -> float:
    """From first to last place a member takes ``1 / members`` from its class's AUC, another sample ``1 / others``."""
    _, members = _class_scores(outputs, labels)
    inside = members.sum(axis=0)
    return _worst(members, 1.0 / inside, 1.0 / (len(members) - inside))


def _precision_largest(outputs: np.ndarray, labels: np.ndarray) -> float:
    """With m members and H = 1 + 1/2 + … + 1/m a member takes ``(1 + H) / m`` at most, another sample ``H / m``.

    A sample that comes in above the j-th member, at place k >= j, takes ``j/k − j/(k + 1) < 1/j`` from its precision;
    one that goes takes less. A member that goes takes its own precision along.
    """
    _, members = _class_scores(outputs, labels)
    inside = members.sum(axis=0)
    harmonic = np.cumsum(1.0 / np.arange(1, inside.max() + 1))[inside - 1]
    return _worst(members, (1.0 + harmonic) / inside, harmonic / inside)


def _sizes(labels: np.ndarray) -> np.ndarray:
    """Of each class the samples that belong to it or those that don't, whichever are fewer, (classes,)."""
    members = labels.sum(axis=0) if labels.ndim == 2 else np.unique(labels, return_counts=True)[1]
    fewer = np.minimum(members, len(labels) - members)
    mirrored = labels.ndim == 1 and len(fewer) == 2
    return fewer[:1] if mirrored else fewer[fewer > 0]


def _worst(members: np.ndarray, member: Floats, other: Floats) -> float:
    """The most that one sample can take from the mean over classes, times n, from what it takes from each."""
    return float(np.where(members, member, other).sum(axis=1).max() * len(members) / members.shape[1])


AUC = SetMetric(
    name="AUC",
    points=True,
    tasks=("classification", "multi-label"),
    weigh=lambda outputs, labels: _macro(_auc_of, *_class_scores(outputs, labels)),
    decisive=_placements,
    largest=_auc_largest,
    sizes=_sizes,
)
AVERAGE_PRECISION = SetMetric(
    name="mAP",
    points=True,
    tasks=("classification", "multi-label"),
    weigh=lambda outputs, labels: _macro(_precision_of, *_class_scores(outputs, labels)),
    decisive=_ranks,
    largest=_precision_largest,
    sizes=_sizes,
)
