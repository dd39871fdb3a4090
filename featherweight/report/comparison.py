"""Original and artefact side by side: the rows that the page and the terminal's table share."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from featherweight.contracts import Quantity, Story
from featherweight.report import figures

_MOST_DIGITS = 6


@dataclass(frozen=True, slots=True)
class Unit:
    """How the task's metric and differences of it are written.

    Attributes:
        counted: whether the metric is a share of answers; then it is written in percent, and differences in points.
        digits: of a difference, after the point: as many as the goal needs, so that no rounding hides which side of
            it a figure is on.
    """

    counted: bool
    digits: int

    @classmethod
    def of(cls, story: Story) -> Unit:
        """The unit of a story's certificate and goal."""
        counted = story.certificate.points or story.certificate.lost is not None
        digits, limit = (2, 100.0 * limit_of(story)) if counted else (4, limit_of(story))
        while digits < _MOST_DIGITS and not math.isclose(round(limit, digits), limit):
            digits += 1
        return cls(counted, digits)

    @property
    def factor(self) -> float:
        """What a difference is multiplied with."""
        return 100.0 if self.counted else 1.0

    def level(self, value: float) -> str:
        """A value of the metric."""
        return figures.percent(value) if self.counted else figures.decimal(value, self.digits)

    def near(self, difference: float) -> str:
        """A difference, rounded to nearest."""
        return figures.decimal(self.factor * difference, self.digits) + self._name

    def above(self, bound: float) -> str:
        """An upper bound of a difference, rounded upwards, so that it stays one."""
        step = 10.0**self.digits
        raised = math.ceil(self.factor * bound * step - 1e-6) / step if math.isfinite(bound) else bound
        return figures.decimal(raised, self.digits) + self._name

    def exact(self, limit: float) -> str:
        """A limit, as short as it goes: ``1 point``."""
        number = f"{self.factor * limit:.10g}"
        return number + (" point" if self.counted and number == "1" else self._name)

    @property
    def _name(self) -> str:
        return " points" if self.counted else ""


@dataclass(frozen=True, slots=True)
class Row:
    """One measure of both.

    Attributes:
        label: what is measured.
        original, artefact: in words.
        change: from one to the other, in words.
        amounts: of both, where less is better and bars make sense.
    """

    label: str
    original: str
    artefact: str
    change: str
    amounts: tuple[float, float] | None = None


def limit_of(story: Story) -> float:
    """The largest drop allowed, in the metric's own unit; of a relative goal what its share comes to."""
    limit = story.certificate.limit
    return story.goal.max_drop if limit is None else limit


def ways(story: Story) -> tuple[str, str]:
    """What a drop of the metric and its opposite are called."""
    return ("lost", "gained") if story.certificate.higher_is_better else ("added", "saved")


def titled(metric: str) -> str:
    """The metric's name at the beginning of a line; names with capitals of their own stay ("mIoU")."""
    return metric.capitalize() if metric.islower() else metric


def measured_drop(story: Story) -> str:
    """What was lost on the test samples: ``0.07 points lost``."""
    drop = story.certificate.drop
    return f"{Unit.of(story).near(abs(drop))} {ways(story)[drop < 0]}"


def bounded_drop(story: Story) -> str:
    """What the bound says: ``at most 0.26 points lost``."""
    bound, unit, (worse, better) = story.certificate.drop_bound, Unit.of(story), ways(story)
    if bound >= 0:
        return f"at most {unit.above(bound)} {worse}"
    return f"at least {unit.above(bound).removeprefix('−')} {better}"


def goal_in_words(story: Story) -> str:
    """The goal as one sentence."""
    goal, metric = story.goal, story.certificate.metric
    verb = "loses" if story.certificate.higher_is_better else "adds"
    whose = "the original's " if goal.relative else ""
    loss = f"{verb} at most {_allowed(story, goal.max_drop)} of {whose}{metric}"
    parts = [f"the {_WANTED[goal.minimize]} that {loss}, {figures.confidence(goal.confidence)} sure"]
    if goal.max_group_drop is not None:
        parts.append(f"at most {_allowed(story, goal.max_group_drop)} in every group")
    for quantity, limit in goal.limits.items():
        parts.append(f"at most {_LIMITS[quantity](limit)}{_OF.get(quantity, '')}")
    return "; ".join(parts)


_WANTED: dict[Quantity, str] = {
    "size": "smallest file",
    "package": "smallest package",
    "macs": "network with the fewest multiply-accumulates",
    "latency": "fastest network",
    "memory": "network with the least activation memory",
}
_LIMITS: dict[Quantity, Callable[[float], str]] = {
    "size": figures.size,
    "package": figures.size,
    "macs": figures.macs,
    "latency": figures.milliseconds,
    "memory": figures.size,
}
_OF: dict[Quantity, str] = {
    "package": " to download",
    "latency": " for a sample",
    "memory": " of activations",
}


def _allowed(story: Story, drop: float) -> str:
    """A drop that the goal allows: in the metric's unit, or as a share of the original's."""
    return f"{100 * drop:.10g} %" if story.goal.relative else Unit.of(story).exact(drop)


def comparison(story: Story) -> tuple[Row, ...]:
    """Metric, file, MACs, parameters, time and memory of both."""
    proof, before, after, unit = story.certificate, story.original, story.compressed, Unit.of(story)
    sizes = before.artefact.size_bytes, after.artefact.size_bytes
    times = before.timing.median_ms, after.timing.median_ms
    packages = before.package_bytes, after.package_bytes
    memory = before.peak_activation_bytes, after.peak_activation_bytes
    certain = f"{bounded_drop(story)}, {figures.confidence(proof.confidence)} sure"
    return (
        Row(
            titled(proof.metric),
            unit.level(proof.original),
            unit.level(proof.artefact),
            f"{measured_drop(story)}; {certain}",
        ),
        _less("File", sizes, figures.size, ("smaller", "larger")),
        *([_less("Package", packages, figures.size, ("smaller", "larger"))] if all(packages) else []),
        _less("MACs", (before.macs, after.macs), figures.macs, ("fewer", "more")),
        _less("Parameters", (before.parameters, after.parameters), "{:,}".format, ("fewer", "more")),
        _less("Time for a sample", times, figures.milliseconds, ("faster", "slower")),
        _less("Peak activation memory", memory, figures.size, ("smaller", "larger")),
    )


def _less(label: str, amounts: tuple[Any, Any], show: Callable[[Any], str], words: tuple[str, str]) -> Row:
    """A row of a measure of which less is better."""
    before, after = amounts
    return Row(label, show(before), show(after), figures.change(before, after, *words), amounts)
