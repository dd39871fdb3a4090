"""The certificate: what was measured on the artefact, with a confidence bound, and whether the goal holds."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from numpy.typing import ArrayLike
from scipy.special import ndtri

from featherweight.audit.bounds import FEWEST_DIFFERING, Bound, answers_bound, drop_bound, paired, tango, worst_case
from featherweight.audit.exact import upper_share
from featherweight.contracts import Certificate, Goal

MOST_SAMPLES = 10**9  # a claim that needs more test samples than this can't be made in practice
_RESOLUTION = 1000  # counts of samples are found to a thousandth
_MOST_DIGITS = 6


def certify(original_scores: ArrayLike, artefact_scores: ArrayLike, goal: Goal, metric: str) -> Certificate:
    """Whether the artefact keeps the goal's drop, shown on test scores that no earlier stage saw.

    Args:
        original_scores, artefact_scores: per-sample scores of the same samples in the same order, higher is better,
            shape (samples,); 0/1 for accuracy.
        goal: its ``max_drop`` and ``confidence`` are used.
        metric: the metric's name, for the statement.

    Raises:
        DataError: scores that can't be paired (see ``bounds.drop_bound``), or that no bound can be made from.
    """
    original, artefact = paired(original_scores, artefact_scores)
    bound = drop_bound(original, artefact, goal.confidence)
    needed = samples_needed(bound, goal.max_drop)
    return Certificate(
        metric=metric,
        samples=bound.samples,
        original=float(original.mean()),
        artefact=float(artefact.mean()),
        drop=bound.drop,
        drop_bound=bound.upper,
        confidence=bound.confidence,
        bound_method=bound.method,
        lost=bound.lost,
        gained=bound.gained,
        holds=bound.upper <= goal.max_drop,
        statement=_statement(bound, goal.max_drop, metric, needed),
        samples_needed=needed,
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
    start = _smallest(lambda n: _guessed_upper(bound, n) <= limit, bound.samples)
    return _smallest(lambda n: expected_upper(bound, n) <= limit, start)


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
        return worst_case(bound.rare.lowered * scale, bound.rare.largest, samples, bound.confidence)
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


def _smallest(holds: Callable[[int], bool], start: int) -> int:
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


def _statement(bound: Bound, limit: float, metric: str, needed: int | None) -> str:
    """The claim, or why it can't be made, as one plain sentence."""
    unit, sure = _Unit.of(bound, limit, metric), f"{100.0 * bound.confidence:.10g} %"
    goal, against = f"goal of {unit.goal(limit)}", f"against the original ({_seen(bound)})"
    if bound.upper <= limit:
        claim = f"{'loses at most' if bound.upper >= 0.0 else 'gains at least'} {unit.above(bound.upper)}"
        return f"With {sure} confidence the artefact {claim} {against}; the {goal} holds."
    change = f"the artefact {'loses' if bound.drop >= 0.0 else 'gains'} {unit.near(bound.drop)} {against}"
    if bound.drop == limit == 0.0:
        return f"The {goal} can't be shown: {change}, but no finite test shows that nothing at all is lost."
    if bound.drop >= limit:
        return (
            f"The {goal} does not hold, because the drop itself is too large: {change}, "
            "so more test samples would not help."
        )
    enough = "no practical number of" if needed is None else f"about {_rounded_up(needed):,}"
    return (
        f"The {goal} can't be shown, because the test set is too small for the claim: {change}, but so few samples "
        f"leave {unit.above(bound.upper)} possible at {sure} confidence; "
        f"{enough} test samples would do at these rates."
    )


def _seen(bound: Bound) -> str:
    """What the bound rests on: "797 test samples: 2 answers lost, 0 gained"."""
    if bound.lost is not None:
        answers = "answer" if bound.lost == 1 else "answers"
        return f"{bound.samples:,} test samples: {bound.lost:,} {answers} lost, {bound.gained:,} gained"
    if bound.rare is not None:
        return f"{bound.samples:,} test samples, of which {bound.rare.lowered:,} score lower"
    return f"{bound.samples:,} test samples, paired bootstrap"


def _rounded_up(count: int) -> int:
    """A count to three digits, upwards."""
    step = 10 ** max(0, len(str(count)) - 3)
    return -(-count // step) * step


@dataclass(frozen=True, slots=True)
class _Unit:
    """How a drop is written: in points for 0/1 metrics, in the metric's own unit for others.

    Attributes:
        scale: what a drop is multiplied with.
        digits: after the point; as many as the goal needs, so that no rounding hides which side of it a bound is on.
        name: "points of accuracy".
    """

    scale: float
    digits: int
    name: str

    @staticmethod
    def of(bound: Bound, limit: float, metric: str) -> _Unit:
        scale, digits = (1.0, 4) if bound.lost is None else (100.0, 2)
        while digits < _MOST_DIGITS and abs(round(scale * limit, digits) - scale * limit) > 1e-12:
            digits += 1
        return _Unit(scale, digits, f"of {metric}" if bound.lost is None else f"points of {metric}")

    def goal(self, limit: float) -> str:
        return f"{self.scale * limit:.{self.digits}f}" + (" points" if self.scale > 1.0 else "")

    def near(self, drop: float) -> str:
        """The size of a drop, rounded to nearest."""
        return f"{abs(self.scale * drop):.{self.digits}f} {self.name}"

    def above(self, bound: float) -> str:
        """The size of a bound, rounded so that the claim stays true."""
        step = 10.0**self.digits
        return f"{abs(math.ceil(self.scale * bound * step - 1e-6) / step):.{self.digits}f} {self.name}"
