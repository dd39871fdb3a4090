"""Plans as files: a small YAML that a person can read, edit and replay."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from featherweight.contracts import Option, Plan, PlanError, Step, Steps
from featherweight.files import write_atomically

_VERSION = 1
_KEYS = {"featherweight_plan", "network", "target", "predicted", "units"}
_LARGEST_BYTES = 8 << 20
_HEADER = """\
# A Featherweight plan: for every layer, the steps that are applied to it, in order; [] keeps it as it is.
# Edit it and run `featherweight apply MODEL --data DATA --plan plan.yaml --out DIR`.
"""


def plan_of(network: str, target: str, choice: Mapping[str, Option]) -> Plan:
    """The plan that makes a choice."""
    predicted = {
        "size_bytes": float(sum(option.cost.size_bytes for option in choice.values())),
        "macs": float(sum(option.cost.macs for option in choice.values())),
        "divergence": float(sum(option.divergence for option in choice.values())),
    }
    return Plan(network, target, {unit: option.steps for unit, option in choice.items()}, predicted)


def plan_text(plan: Plan) -> str:
    """The plan as YAML."""
    units = {unit: [{step.method: dict(step.settings)} for step in steps] for unit, steps in plan.choices.items()}
    document = {
        "featherweight_plan": _VERSION,
        "network": plan.network,
        "target": plan.target,
        "predicted": dict(plan.predicted),
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
    try:
        if path.stat().st_size > _LARGEST_BYTES:
            raise PlanError(
                "A plan is a small file.", f"{path}: {path.stat().st_size:,} bytes", "is it the right file?"
            )
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise PlanError("The plan must be a readable text file.", f"{path}: {error}", "check the path") from error
    return parse_plan(text, str(path))


def parse_plan(text: str, origin: str = "the plan") -> Plan:
    """A plan from its YAML text.

    Raises:
        PlanError: it isn't one.
    """
    try:
        document = yaml.safe_load(text)
    except yaml.YAMLError as error:
        line = str(error).replace("\n", " ")
        raise PlanError("A plan must be YAML.", f"{origin}: {line}", "undo the last edit, or plan again") from error
    if not isinstance(document, dict) or document.get("featherweight_plan") != _VERSION:
        raise PlanError(
            f"A plan must begin with featherweight_plan: {_VERSION}.",
            f"{origin}: {str(document)[:80]!r}",
            "write one with `featherweight plan`",
        )
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
    predicted = {str(key): float(value) for key, value in (document.get("predicted") or {}).items()}
    return Plan(str(document["network"]), str(document["target"]), choices, predicted)


def _steps(unit: str, steps: Any, origin: str) -> Steps:
    made = []
    for step in steps or []:
        if not isinstance(step, dict) or len(step) != 1:
            raise PlanError(
                "Every step must be a method with its settings.",
                f"{origin}: {unit}: {step!r}",
                "write it like {lowrank: {rank: 16}}",
            )
        ((method, settings),) = step.items()
        settings = settings or {}
        if not isinstance(settings, dict) or not all(isinstance(v, (int, float, str, bool)) for v in settings.values()):
            raise PlanError(
                "A step's settings must be names with plain values.", f"{origin}: {unit}: {settings!r}", "see `plan`"
            )
        made.append(Step(str(method), {str(key): value for key, value in settings.items()}))
    return tuple(made)
