"""The certificate: what was measured on the artefact, with a confidence bound, and whether the goal holds."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from scipy.special import ndtri

from featherweight.audit.bounds import FEWEST_DIFFERING, Bound, answers_bound, tango, worst_case
from featherweight.audit.exact import upper_share
from featherweight.audit.measure import Pair, measured
from featherweight.audit.statement import Words, statement, tested
from featherweight.contracts import Certificate, Goal
from featherweight.tasks.metrics import Metric

MOST_SAMPLES = 10**9  # a claim that needs more test samples than this can't be made in practice
_RESOLUTION = 1000  # counts of samples are found to a thousandth


def certify(metric: Metric, pair: Pair, targets: np.ndarray, goal: Goal) -> Certificate:
    """Whether the artefact keeps the goal's drop, shown on test samples that no earlier stage saw.

    Args:
        metric: what is measured.
        pair: outputs of the original and of the artefact for the same samples in the same order, (n, …) each.
        targets: (n, …).
        goal: its drop and confidence are used.

    Raises:
        DataError: outputs that can't be paired, or that no bound can be made from (see ``measure.measured``).
    """
    found = measured(metric, pair, targets, goal)
    bound, words = found.bound, Words.of(metric, found.limit)
    needed = samples_needed(bound, found.limit)
    return Certificate(
        metric=metric.name,
        samples=bound.samples,
        original=found.original,
        artefact=found.artefact,
        drop=bound.drop,
        drop_bound=bound.upper,
        confidence=goal.confidence,
        bound_method=bound.method,
        lost=bound.lost,
        gained=bound.gained,
        holds=bound.upper <= found.limit,
        statement=statement(found, words, goal, needed),
        samples_needed=needed,
        higher_is_better=metric.higher_is_better,
        points=metric.points,
        limit=found.limit,
        tested=tested(found, words, goal),
        smallest_provable=None if bound.lost is None else smallest_provable_drop(bound.samples, bound.confidence),
    )


def smallest_provable_drop(samples: int, confidence: float) -> float:
    """What a test set could prove at best about a 0/1 metric: the bound without a single answer lost or gained.

    About ``−ln(1 − confidence) / samples``, three in ``samples`` at 95 %.

    Raises:
        DataError, GoalError: no samples, or a confidence outside (0.5, 1).
    """
    return answers_bound(0, 0, samples, confidence)[0]


def samples_needed(bound: Bound, limit: float) -> int | None:
    """How many test samples would prove a drop of at most ``limit`` if they scored at the rates of ``bound``.

    Found by galloping and halving on ``expected_upper``, to a thousandth. None where more samples don't help: the
    observed drop is at or above the limit (or so near that ``MOST_SAMPLES`` wouldn't do).

    Args:
        bound: of the scores at hand.
        limit: the largest drop allowed.
    """
    if bound.drop >= limit or expected_upper(bound, MOST_SAMPLES) > limit:
        return None
    start = smallest_count(lambda n: _guessed_upper(bound, n) <= limit, bound.samples)
    return smallest_count(lambda n: expected_upper(bound, n) <= limit, start)


def _guessed_upper(bound: Bound, samples: int) -> float:
    """Near ``expected_upper``, and quick: closed forms at fractional counts."""
    if bound.lost is None or bound.gained is None:
        return expected_upper(bound, samples)
    lost, gained = bound.lost * samples / bound.samples, bound.gained * samples / bound.samples
    if bound.gained == 0:
        return float(upper_share(lost, samples, bound.confidence))
    return float(tango(lost, gained, samples, bound.confidence))


def expected_upper(bound: Bound, samples: int) -> float:
    """The bound that ``samples`` test samples would give at the rates seen.

    For 0/1 scores it is linear between whole counts of lost and gained answers, so that it falls evenly with the
    number of samples; a bootstrap's distance from the drop shrinks with the root of that number. Where too few samples
    differ now, more may differ enough for a bootstrap, and the normal approximation stands for it.
    """
    scale = samples / bound.samples
    if bound.lost is not None and bound.gained is not None:
        return _between(bound.lost * scale, bound.gained * scale, samples, bound.confidence)
    if bound.rare is not None and bound.rare.differing * scale < FEWEST_DIFFERING:
        return worst_case(bound.rare.losses, bound.rare.largest, samples, bound.confidence, times=scale)
    if bound.rare is not None:
        return bound.drop + float(ndtri(bound.confidence)) * bound.rare.deviation / math.sqrt(samples)
    return bound.drop + (bound.upper - bound.drop) / math.sqrt(scale)


def _between(lost: float, gained: float, samples: int, confidence: float) -> float:
    """The default 0/1 bound at fractional counts: on the plane through the three whole pairs around them."""
    b, c = math.floor(lost), math.floor(gained)
    over, under = lost - b, gained - c
    if over + under <= 1.0:
        corners = ((b, c, 1.0 - over - under), (b + 1, c, over), (b, c + 1, under))
    else:
        corners = ((b + 1, c + 1, over + under - 1.0), (b, c + 1, 1.0 - over), (b + 1, c, 1.0 - under))
    return sum(
        weight * answers_bound(lost, gained, samples, confidence)[0]
        for lost, gained, weight in corners
        if weight > 1e-9
    )


def smallest_count(holds: Callable[[int], bool], start: int) -> int:
    """The smallest count, to a thousandth, at which a claim holds that more samples only help; ``start`` is a guess."""
    low, high, step = 1, MOST_SAMPLES, max(1, start // 200)
    if holds(start):
        high = start
        while high > 2 and holds(max(2, high - step)):
            high, step = max(2, high - step), 2 * step
        low = max(1, high - step)
    else:
        low = start
        while low + step < MOST_SAMPLES and not holds(low + step):
            low, step = low + step, 2 * step
        high = min(low + step, MOST_SAMPLES)
    while high - low > max(1, high // _RESOLUTION):
        middle = (low + high) // 2
        low, high = (low, middle) if holds(middle) else (middle, high)
    return high
