"""Plans as files: a small YAML that a person can read, edit and replay."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from featherweight.contracts import Choice, Cost, Knobs, Plan, PlanError, Step, Steps
from featherweight.files import write_atomically
from featherweight.numerics.ranges import RANGE_SEARCHES
from featherweight.planning.documents import SHOWN, Format

_VERSION = 1
_FORMAT = Format("A plan", "featherweight_plan", _VERSION, PlanError, "write one with `featherweight plan`")
_KEYS = {"featherweight_plan", "network", "target", "predicted", "knobs", "units"}
_LARGEST_FIGURE = 1e300
_MOST_SAMPLES = 1_000_000
_LEAST_DAMPING = 1e-12
_HEADER = """\
# A Featherweight plan: for every layer, the steps that are applied to it, in order; [] leaves its structure and
# type alone. `pruning: {keep: n}` leaves n of the layer's output channels (or heads), and of all that is tied to them.
# Edit it and run `featherweight apply MODEL --data DATA --plan plan.yaml --out DIR`.
"""


def plan_of(network: str, target: str, choice: Choice, fixed: Cost) -> Plan:
    """The plan that makes a choice; a unit's pruning stands first among the steps of the layer that it is named for.

    Args:
        network: its fingerprint.
        target: the target's name.
        choice: of a table.
        fixed: the table's cost that no option touches: what is predicted is the whole file's.
    """
    cost = choice.cost + fixed
    predicted = {"size_bytes": float(cost.size_bytes), "macs": float(cost.macs)}
    priced = {"package_bytes": cost.package_bytes, "milliseconds": cost.milliseconds}
    predicted |= {name: amount for name, amount in priced.items() if amount > 0}  # those that the table knows
    predicted["divergence"] = float(choice.divergence)
    steps: dict[str, Steps] = {layer: option.steps for layer, option in choice.layers.items()}
    for unit, keep in choice.keeps.items():
        if keep.steps:
            steps[unit] = (*keep.steps, *steps.get(unit, ()))
    return Plan(network, target, steps, predicted)


def plan_text(plan: Plan) -> str:
    """The plan as YAML."""
    units = {unit: [{step.method: dict(step.settings)} for step in steps] for unit, steps in plan.choices.items()}
    document = {
        "featherweight_plan": _VERSION,
        "network": plan.network,
        "target": plan.target,
        "predicted": dict(plan.predicted),
        **({"knobs": plan.knobs.turned} if plan.knobs.turned else {}),
        "units": units,
    }
    return _HEADER + yaml.safe_dump(document, sort_keys=False, default_flow_style=None, width=100)


def write_plan(plan: Plan, path: Path) -> None:
    """Write the plan as YAML, whole or not at all."""
    write_atomically(path, plan_text(plan))


def read_plan(path: Path) -> Plan:
    """Read a plan.

    Raises:
        PlanError: the file is missing, too large, no YAML, or says something a plan doesn't.
    """
    return parse_plan(_FORMAT.read(path), str(path))


def parse_plan(text: str, origin: str = "the plan") -> Plan:
    """A plan from its YAML text.

    Raises:
        PlanError: it isn't one.
    """
    document = _FORMAT.parsed(text, origin)
    unknown = set(document) - _KEYS
    missing = {"network", "target", "units"} - set(document)
    if unknown or missing:
        raise PlanError(
            f"A plan's keys are: {', '.join(sorted(_KEYS))}.",
            f"{origin}: " + ", ".join([*(f"unknown {key!r}" for key in unknown), *(f"no {key!r}" for key in missing)]),
            "take the key out, or put it back",
        )
    units = document["units"] or {}
    if not isinstance(units, dict):
        raise PlanError("A plan's units must be a mapping.", f"{origin}: {type(units).__name__}", "plan again")
    choices = {str(unit): _steps(str(unit), steps, origin) for unit, steps in units.items()}
    predicted = _predicted(document.get("predicted") or {}, origin)
    knobs = _knobs(document.get("knobs") or {}, origin)
    return Plan(str(document["network"]), str(document["target"]), choices, predicted, knobs)


def _predicted(values: Any, origin: str) -> dict[str, float]:
    numbers = isinstance(values, dict) and all(isinstance(value, int | float) for value in values.values())
    if not numbers or not all(-_LARGEST_FIGURE < value < _LARGEST_FIGURE for value in values.values()):
        raise PlanError(
            "What a plan predicts must be names with finite numbers.", f"{origin}: {values!r}"[:SHOWN], "plan again"
        )
    return {str(key): float(value) for key, value in values.items()}


def _knobs(values: Any, origin: str) -> Knobs:
    fits: dict[str, Callable[[Any], bool]] = {
        "samples": lambda value: type(value) is int and 0 <= value <= _MOST_SAMPLES,
        "draw": lambda value: type(value) is int and 0 <= value <= _MOST_SAMPLES,
        "ranges": lambda value: isinstance(value, str) and value in RANGE_SEARCHES,
        "refit": lambda value: type(value) is bool,
        "damping": lambda value: type(value) is float and _LEAST_DAMPING <= value <= 1 / _LEAST_DAMPING,
        "rounding_damping": lambda value: type(value) is float and _LEAST_DAMPING <= value <= 1 / _LEAST_DAMPING,
        "largest_first": lambda value: type(value) is bool,
    }
    if not isinstance(values, dict) or not all(key in fits and fits[key](value) for key, value in values.items()):
        raise PlanError(
            f"A plan's knobs are {', '.join(fits)}: whole numbers, true or false, dampings above zero written with a "
            f"point, and ranges out of {', '.join(RANGE_SEARCHES)}.",
            f"{origin}: {values!r}"[:SHOWN],
            "take the key knobs out for the defaults",
        )
    return Knobs(**values)


def _steps(unit: str, steps: Any, origin: str) -> Steps:
    made = []
    if not isinstance(steps, list | None):
        raise PlanError(
            "A unit's steps must be a list.", f"{origin}: {unit}: {steps!r}"[:SHOWN], "write it like [{lowrank: ...}]"
        )
    for step in steps or []:
        if not isinstance(step, dict) or len(step) != 1:
            raise PlanError(
                "Every step must be a method with its settings.",
                f"{origin}: {unit}: {step!r}"[:SHOWN],
                "write it like {lowrank: {rank: 16}}",
            )
        ((method, settings),) = step.items()
        settings = settings or {}
        if not isinstance(settings, dict) or not all(isinstance(v, (int, float, str, bool)) for v in settings.values()):
            raise PlanError(
                "A step's settings must be names with plain values.",
                f"{origin}: {unit}: {settings!r}"[:SHOWN],
                "see what `featherweight plan` writes",
            )
        made.append(Step(str(method), {str(key): value for key, value in settings.items()}))
    return tuple(made)
