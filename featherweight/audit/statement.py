"""What a certificate says in words: the claim or why it can't be made, and exactly what was tested."""

from __future__ import annotations

import math
from dataclasses import dataclass

from featherweight.audit.bounds import Bound
from featherweight.audit.measure import Measured
from featherweight.contracts import Goal
from featherweight.tasks.metrics import Metric

_MOST_DIGITS = 6
_CLOSE = 1e-12


@dataclass(frozen=True, slots=True)
class Words:
    """How a drop is written: in points where the metric is a share, in its own unit otherwise.

    Attributes:
        metric: its name.
        scale: what a drop is multiplied with.
        digits: after the point; as many as the goal needs, so that no rounding hides which side of it a bound is on.
        rising: whether more of the metric is worse.
    """

    metric: str
    scale: float
    digits: int
    rising: bool = False

    @staticmethod
    def of(metric: Metric, limit: float) -> Words:
        """For a metric and the goal's limit on its drop."""
        scale, digits = (100.0, 2) if metric.points else (1.0, 4)
        while digits < _MOST_DIGITS and abs(round(scale * limit, digits) - scale * limit) > _CLOSE:
            digits += 1
        return Words(metric.name, scale, digits, not metric.higher_is_better)

    def goal(self, limit: float) -> str:
        """A limit: ``1.00 points``."""
        return f"{self.scale * limit:.{self.digits}f}" + (" points" if self.scale > 1.0 else "")

    def near(self, drop: float) -> str:
        """The size of a drop, rounded to nearest: ``0.28 points of accuracy``."""
        return self._named(abs(self.scale * drop))

    def above(self, bound: float) -> str:
        """The size of a bound, rounded so that the claim stays true."""
        step = 10.0**self.digits
        return self._named(abs(math.ceil(self.scale * bound * step - 1e-6) / step))

    def changes(self, drop: float) -> str:
        """``loses`` or ``gains``; of a metric that is better when it falls, ``adds`` or ``sheds``."""
        return ("adds" if self.rising else "loses") if drop >= 0.0 else ("sheds" if self.rising else "gains")

    def _named(self, amount: float) -> str:
        return f"{amount:.{self.digits}f} {'points of ' if self.scale > 1.0 else 'of '}{self.metric}"


def statement(found: Measured, words: Words, goal: Goal, needed: int | None) -> str:
    """The claim, or why it can't be made, as one plain sentence."""
    bound, limit, sure = found.bound, found.limit, f"{100.0 * goal.confidence:.10g} %"
    wanted, against = _wanted(found, words, goal), f"against the original ({seen(bound)})"
    if bound.upper <= limit:
        most = f"at {'most' if bound.upper >= 0.0 else 'least'} {words.above(bound.upper)}"
        return f"With {sure} confidence the artefact {words.changes(bound.upper)} {most} {against}; the {wanted} holds."
    change = f"the artefact {words.changes(bound.drop)} {words.near(bound.drop)} {against}"
    if bound.drop == limit == 0.0:
        return f"The {wanted} can't be shown: {change}, but no finite test shows that nothing at all is lost."
    if bound.drop >= limit:
        return (
            f"The {wanted} does not hold, because the drop itself is too large: {change}, "
            "so more test samples would not help."
        )
    enough = "no practical number of" if needed is None else f"about {rounded_up(needed):,}"
    return (
        f"The {wanted} can't be shown, because the test set is too small for the claim: {change}, but so few samples "
        f"leave {words.above(bound.upper)} possible at {sure} confidence; "
        f"{enough} test samples would do at these rates."
    )


def _wanted(found: Measured, words: Words, goal: Goal) -> str:
    """The goal: ``goal of 1.00 points``, or what a share of the original's level comes to."""
    if found.level is None:
        return f"goal of {words.goal(found.limit)}"
    share = f"{100.0 * goal.max_drop:.10g} %"
    return f"goal of {share} of the original's {words.metric}, {words.goal(found.limit)} at its lower bound,"


def tested(found: Measured, words: Words, goal: Goal) -> str:
    """The hypothesis and the test, word for word as they were carried out."""
    error = f"{100.0 * (1.0 - goal.confidence):.10g} %"
    worse = "artefact − original" if words.rising else "original − artefact"
    claim = f"that {worse} in {words.metric} is at most {words.goal(goal.max_drop)}"
    if found.level is not None:
        claim = f"that {worse} in {words.metric} is at most {100.0 * goal.max_drop:.10g} % of the original's"
    if found.bound.upper <= found.limit:
        outcome = "the opposite was rejected"
    else:
        outcome = "the opposite could not be rejected"
    return (
        f"Tested on {found.bound.samples:,} samples that no earlier stage saw, as if drawn at random from where the "
        f"artefact will be used: {claim}. By a one-sided paired {found.bound.method} bound, {outcome} at {error} "
        "error probability."
    )


def seen(bound: Bound) -> str:
    """What the bound rests on: "797 test samples: 2 answers lost, 0 gained"."""
    if bound.lost is not None:
        answers = "answer" if bound.lost == 1 else "answers"
        return f"{bound.samples:,} test samples: {bound.lost:,} {answers} lost, {bound.gained:,} gained"
    if bound.rare is not None:
        change = "changed" if bound.rare.whole else "score lower"
        return f"{bound.samples:,} test samples, of which {bound.rare.lowered:,} {change}"
    return f"{bound.samples:,} test samples, paired bootstrap"


def rounded_up(count: int) -> int:
    """A count to three digits, upwards."""
    step = 10 ** max(0, len(str(count)) - 3)
    return -(-count // step) * step
