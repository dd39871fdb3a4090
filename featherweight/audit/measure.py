"""What both networks reach by a metric, and by how much the artefact is worse at most: one way in for every metric."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from featherweight.audit.bounds import AnswersRule, Bound, answers_bound, drop_bound
from featherweight.audit.exact import Floats, lower_share
from featherweight.audit.resampling import own_bound, own_lower, set_bound, set_lower
from featherweight.contracts import Goal
from featherweight.tasks.metrics import Metric, OwnMetric, SampleMetric, SetMetric

_LEVEL_SHARE = 0.1  # of the error probability, spent on the original's own level where the goal is relative to it

Pair = tuple[np.ndarray, np.ndarray]


@dataclass(frozen=True, slots=True)
class Measured:
    """A metric of both, the bound on the drop, and the drop that the goal allows.

    Attributes:
        original, artefact: the metric.
        bound: of the drop, which is positive where the artefact is worse.
        limit: the largest drop allowed, in the metric's own unit; of a relative goal rounded down to three digits.
        level: for a relative goal what the original has at least; else None.
    """

    original: float
    artefact: float
    bound: Bound
    limit: float
    level: float | None = None


def measured(
    metric: Metric, pair: Pair, targets: np.ndarray, goal: Goal, answers: AnswersRule = answers_bound
) -> Measured:
    """Measure both, and bound the drop at the goal's confidence.

    A relative goal, ``drop <= r · original``, is about two unknown levels. Its claim rests on an upper bound of the
    drop at ``1 − 0.9 α`` and a lower bound of the original's level at ``1 − 0.1 α``: at least one of the two is off
    with probability α at most, whatever they have to do with one another (Bonferroni).

    Args:
        metric: of any kind.
        pair: outputs of the original and of the artefact, (n, …) each.
        targets: (n, …).
        goal: its drop and confidence.
        answers: the bound for 0/1 scores.

    Raises:
        DataError: outputs and targets that the metric can't take, or too few samples for a claim.
    """
    if not goal.relative:
        return Measured(*bounded(metric, pair, targets, goal.confidence, answers), goal.max_drop)
    error = 1.0 - goal.confidence
    before, after, bound = bounded(metric, pair, targets, 1.0 - (1.0 - _LEVEL_SHARE) * error, answers)
    level = max(0.0, lower_level(metric, pair[0], targets, 1.0 - _LEVEL_SHARE * error))
    return Measured(before, after, bound, _floored(goal.max_drop * level), level)


def _floored(limit: float) -> float:
    """A limit to three digits, downwards: what is tested is what is written."""
    if limit <= 0.0:
        return 0.0
    digits = 2 - math.floor(math.log10(limit))
    return round(math.floor(limit * 10.0**digits) / 10.0**digits, digits)


def bounded(
    metric: Metric, pair: Pair, targets: np.ndarray, confidence: float, answers: AnswersRule = answers_bound
) -> tuple[float, float, Bound]:
    """The metric of both, and the bound on the drop, by the way that suits the metric.

    Raises:
        DataError: see :func:`measured`.
    """
    if isinstance(metric, SetMetric):
        return set_bound(metric, pair, targets, confidence)
    if isinstance(metric, OwnMetric) and metric.scores_or_value(pair[0], targets).ndim == 0:
        return own_bound(metric, pair, targets, confidence)
    before, after = (sample_scores(metric, outputs, targets) for outputs in pair)
    bound = drop_bound(metric.sign * before, metric.sign * after, confidence, answers)
    return float(before.mean()), float(after.mean()), bound


def lower_level(metric: Metric, outputs: np.ndarray, targets: np.ndarray, confidence: float) -> float:
    """A lower confidence bound on the metric of one network."""
    if isinstance(metric, SetMetric):
        return set_lower(metric, outputs, targets, confidence)
    if isinstance(metric, OwnMetric) and metric.scores_or_value(outputs, targets).ndim == 0:
        return own_lower(metric, outputs, targets, confidence)
    scores = sample_scores(metric, outputs, targets)
    if np.isin(scores, (0.0, 1.0)).all():
        return float(lower_share(scores.sum(), len(scores), confidence))
    return -drop_bound(np.zeros(len(scores)), scores, confidence).upper


def sample_scores(metric: Metric, outputs: np.ndarray, targets: np.ndarray) -> Floats:
    """The samples' scores, (n,), of a metric that is their mean.

    Raises:
        TypeError: the metric is no such mean.
    """
    if isinstance(metric, SampleMetric):
        return metric.scores(outputs, targets)
    if isinstance(metric, OwnMetric):
        return metric.scores_or_value(outputs, targets)
    raise TypeError(f"{metric.name} is no mean over samples")
