"""Rules: what a person wants of a plan, in one small YAML file.

A file pins, forbids or limits what may be done, for all layers, for kinds of layers and for layers by name; it may
start from an earlier plan, and hold the goal's fields too. These are its values;
:mod:`featherweight.planning.rules.rulebook` reads them, and :mod:`featherweight.planning.rules.restriction` holds a
table to them. ``docs/rules.md`` shows every key.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, Literal

from featherweight.contracts import Goal, Plan, Step, Steps, UsageError

ANY: Literal["any"] = "any"
"""The pin that lifts a less specific one."""

NO_LIMIT = 1e300  # JSON has no infinity
MOST_TRIALS = 10_000


@dataclass(frozen=True, slots=True)
class Bound:
    """A closed range of numbers: "at least 4", "at most 8", or exactly one."""

    least: float
    most: float

    def __contains__(self, number: float) -> bool:
        return self.least <= number <= self.most

    def __str__(self) -> str:
        if self.least == self.most:
            return f"{self.least:g}"
        return f"at least {self.least:g}" if self.most == NO_LIMIT else f"at most {self.most:g}"


@dataclass(frozen=True, slots=True)
class Rule:
    """What is said of some layers; None where nothing is.

    Attributes:
        place: where it stands in the file ("layers.stem").
        untouched: neither the weight nor its rows and columns may change.
        methods: the only families that may act.
        forbid: steps that must not occur; settings that aren't named may be any.
        pin: the steps that are taken, without pruning; ``"any"`` lifts a less specific pin.
        pruning: the pruning step that a pin begins with.
        bits: of the weights as they are encoded.
        keep: the least share of the output channels that stays.
        activations: the allowed types of the layer's activations.
    """

    place: str = "all"
    untouched: bool | None = None
    methods: tuple[str, ...] | None = None
    forbid: Steps | None = None
    pin: Steps | Literal["any"] | None = None
    pruning: Step | None = None
    bits: Bound | None = None
    keep: float | None = None
    activations: tuple[str, ...] | None = None

    @property
    def said(self) -> dict[str, Any]:
        """Key → value, for every key that the rule has."""
        pairs = ((one.name, getattr(self, one.name)) for one in fields(self) if one.name != "place")
        return {key: value for key, value in pairs if value is not None}


@dataclass(frozen=True, slots=True)
class Rules:
    """A whole file.

    Attributes:
        all: for every layer.
        types: kind of layer, or a pattern of kinds → rule.
        layers: name of a layer or of a coupled unit, or a pattern of such → rule.
        goal: fields of :class:`featherweight.contracts.Goal` → their values, those that the file gives.
        metric: the metric's name, or None.
        start: an earlier plan.
        search: how many trials the search over the global knobs has; 0 for no search.
        storage: the URL of a database for these trials; empty for a file in the run's folder.

    Raises:
        UsageError: the trials aren't a whole number from 0 to 10,000.
    """

    all: Rule = Rule()
    types: Mapping[str, Rule] = field(default_factory=dict)
    layers: Mapping[str, Rule] = field(default_factory=dict)
    goal: Mapping[str, float | int | bool | str] = field(default_factory=dict)
    metric: str | None = None
    start: Plan | None = None
    search: int = 0
    storage: str = ""

    def __post_init__(self) -> None:
        if type(self.search) is not int or not 0 <= self.search <= MOST_TRIALS:
            raise UsageError(
                f"A search has a whole number of trials, from 0 to {MOST_TRIALS:,}.", repr(self.search), "search: 20"
            )


def goal_of(rules: Rules, given: Mapping[str, float | int | bool | str | None] | None = None) -> Goal:
    """The goal of a file, with what was given beside it: that wins.

    Args:
        rules: the file.
        given: fields of the goal → values; None where the field wasn't given.

    Raises:
        GoalError: the goal contradicts itself.
    """
    words = {key: value for key, value in (given or {}).items() if value is not None}
    return replace(Goal(), **{**rules.goal, **words})
