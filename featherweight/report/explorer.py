"""Try another goal: the table of options in the page, and a solver beside it that runs in the reader's browser.

The script is one, in four files: ``explorer.solver.js`` chooses, ``explorer.plan.js`` writes plans, the other two show.
They read one JSON document, from :func:`explorer_data`: counts stand there exactly, reals to six significant digits,
and terms and steps that many options share stand there once.
"""

from __future__ import annotations

import json
import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Generic, TypeVar

import yaml

from featherweight.contracts import (
    QUANTITIES,
    Attempt,
    Keep,
    Option,
    Plan,
    Quantity,
    RealTerms,
    Step,
    Steps,
    Story,
    Table,
)
from featherweight.report.comparison import Unit, limit_of, ways
from featherweight.report.markup import Markup, element, section

_HERE = Path(__file__)
EXPLORER_STYLE = _HERE.with_name("explorer.css").read_text(encoding="utf-8")
_SCRIPTS = ("explorer.solver.js", "explorer.plan.js", "explorer.drawing.js", "explorer.js")
EXPLORER_SCRIPT = "\n".join(
    ["(() => {", '"use strict";', *(_HERE.with_name(name).read_text(encoding="utf-8") for name in _SCRIPTS), "})();"]
)
_SUMS: tuple[Quantity, ...] = tuple(quantity for quantity in QUANTITIES if quantity != "memory")
_MEMORY = "Peak memory is no sum over layers, so it can't be limited here; only making a plan tells it."
_ALWAYS: tuple[Quantity, ...] = ("size", "macs")
_WIDEST = 1 << 30  # characters of a line of YAML: pieces are never folded
_EXACT = 2**53  # whole numbers up to here are what a browser calculates with

Key = TypeVar("Key", bound=Hashable)


def explorer(story: Story) -> Markup | None:
    """The section with its data; nothing where a story comes without a table, or with an empty one."""
    if story.table is None or not story.table.options:
        return None
    text = json.dumps(explorer_data(story), separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")
    return section(
        "explore",
        "Try another goal",
        element(
            "p",
            "Every option of every layer stands on this page. Move a limit: the best plan under it is worked out here, "
            "in your browser, and nothing leaves it. The figures are predicted; only making the plan measures them.",
        ),
        element("p", _MEMORY, class_="note") if "memory" in story.goal.quantities else None,
        element(
            "p",
            "This part needs JavaScript, which is switched off or blocked here. Everything else on this page works "
            "without; for plans under other goals, run ",
            element("code", "featherweight plan"),
            ".",
            id="explore-off",
            class_="note",
        ),
        element("div", id="explore-room"),
        element("script", Markup(text), type="application/json", id="explore-data"),
    )


def explorer_data(story: Story) -> dict[str, Any]:
    """What the script reads, as plain values for JSON.

    Raises:
        ValueError: the story has no table.
    """
    if story.table is None:
        raise ValueError("a story without a table has nothing to explore")
    table = _finite(story.table)
    quantities: list[Quantity] = [quantity for quantity in _SUMS if quantity in _ALWAYS or _is_priced(table, quantity)]
    forms, steps = _Shared[RealTerms](), _Shared[tuple[str, str]]()
    return {
        "network": story.plan.network,
        "target": story.plan.target,
        "quantities": quantities,
        "fixed": [_short(table.fixed.of(quantity)) for quantity in quantities],
        "layers": [_layer(table, name, quantities, forms, steps) for name in table.options],
        "units": [_unit(table, name, quantities, steps) for name in table.keeps],
        "forms": [[_short(value) for value in form] for form in forms.values],
        "steps": steps.values,
        "shipped": _places(table, story.plan),
        "attempts": [_attempt(one, story, quantities) for one in story.attempts if math.isfinite(one.check.drop)],
        "goal": {
            "minimize": story.goal.minimize,
            "limits": {quantity: _short(limit) for quantity, limit in story.goal.limits.items()},
            "max_drop": limit_of(story),
        },
        "metric": {
            "name": story.certificate.metric,
            "factor": Unit.of(story).factor,
            "worse": ways(story)[0],
        },
    }


class _Shared(Generic[Key]):
    """Values that stand once, known by their number."""

    def __init__(self) -> None:
        self._numbers: dict[Key, int] = {}

    def number(self, value: Key) -> int:
        return self._numbers.setdefault(value, len(self._numbers))

    @property
    def values(self) -> list[Key]:
        return list(self._numbers)


def _finite(table: Table) -> Table:
    """The table without choices of infinite divergence, which no budget allows; the first choices always stay."""

    def kept(row: tuple[Any, ...]) -> tuple[Any, ...]:
        return (row[0], *(one for one in row[1:] if math.isfinite(one.divergence)))

    options = {name: kept(row) for name, row in table.options.items()}
    keeps = {name: kept(row) for name, row in table.keeps.items()}
    return replace(table, options=options, keeps=keeps)


def _is_priced(table: Table, quantity: Quantity) -> bool:
    """Whether anybody asked for a quantity when the table was made."""
    return any(option.cost.of(quantity) > 0 for row in table.options.values() for option in row)


def _layer(
    table: Table,
    name: str,
    quantities: Sequence[Quantity],
    forms: _Shared[RealTerms],
    steps: _Shared[tuple[str, str]],
) -> dict[str, Any]:
    row = table.options[name]
    return {
        "name": name,
        "key": yaml_key(name),
        "widths": list(table.widths.get(name, (1, 1))),
        "steps": [_numbers(option.steps, steps) for option in row],
        "divergence": [_short(option.divergence) for option in row],
        "forms": [
            [forms.number(_terms(option, quantity, name in table.widths)) for option in row] for quantity in quantities
        ],
    }


def _terms(option: Option, quantity: Quantity, has_widths: bool) -> RealTerms:
    """An option's cost as terms; constant where it has no form, or its layer no widths to put into one."""
    if option.form is None or not has_widths:
        return 0, 0, 0, option.cost.of(quantity)
    return option.form.terms(quantity)


def _unit(table: Table, name: str, quantities: Sequence[Quantity], steps: _Shared[tuple[str, str]]) -> dict[str, Any]:
    row = table.keeps[name]
    return {
        "name": name,
        "key": yaml_key(name),
        "steps": [_numbers(keep.steps, steps) for keep in row],
        "divergence": [_short(keep.divergence) for keep in row],
        "saved": [[_short(keep.saved.of(quantity)) for keep in row] for quantity in quantities],
        "rows": _losses(table, [keep.rows for keep in row]),
        "columns": _losses(table, [keep.columns for keep in row]),
    }


def _losses(table: Table, lost: list[Mapping[str, int]]) -> list[tuple[int, list[int]]]:
    """(layer's number, what it loses at every keep), for layers that lose any."""
    touched = [(at, name) for at, name in enumerate(table.options) if any(one.get(name) for one in lost)]
    return [(at, [one.get(name, 0) for one in lost]) for at, name in touched]


def _numbers(steps: Steps, shared: _Shared[tuple[str, str]]) -> list[int]:
    return [shared.number((str(step), _yaml_step(step))) for step in steps]


def _yaml_step(step: Step) -> str:
    """A step as it stands in a plan, on one line."""
    value = {step.method: dict(step.settings)}
    return yaml.safe_dump(value, sort_keys=False, default_flow_style=True, width=_WIDEST).strip()


def yaml_key(name: str) -> str:
    """A layer's name as a key of a plan's units: what stands before the colon, whatever the name is made of."""
    text = yaml.safe_dump({name: 0}, width=_WIDEST).removesuffix(": 0\n")
    return text.replace("\n", "\n  ")  # a long key stands on a line of its own


def _places(table: Table, plan: Plan) -> dict[str, list[int]] | None:
    """A plan as numbers of its options and keeps; None where it does what the table doesn't hold."""
    keeps = [_place(row, plan.choices.get(name, ())) for name, row in table.keeps.items()]
    begun = {name: row[at].steps for (name, row), at in zip(table.keeps.items(), keeps, strict=True)}
    options = []
    for name, row in table.options.items():
        wanted = plan.choices.get(name, ())
        rest = wanted[len(begun.get(name, ())) :]
        options.append(next((at for at, option in enumerate(row) if option.steps == rest), None))
    return None if None in options else {"keeps": keeps, "options": options}


def _place(row: tuple[Keep, ...], steps: Steps) -> int:
    """The keep that a plan's steps begin with; 0, which keeps all, where they begin with none."""
    return next((at for at, keep in enumerate(row) if keep.steps and steps[: len(keep.steps)] == keep.steps), 0)


def _attempt(one: Attempt, story: Story, quantities: Sequence[Quantity]) -> dict[str, Any]:
    return {
        "number": one.number,
        "predicted": _short(one.predicted_divergence) if math.isfinite(one.predicted_divergence) else None,
        "drop": _short(one.check.drop),
        "measured": {quantity: _short(one.of(quantity)) for quantity in quantities if one.of(quantity) > 0},
        "shipped": one.plan.choices == story.plan.choices,
    }


def _short(value: float) -> float:
    """Six significant digits of a real; whole numbers as they are, in as few characters as they take."""
    if isinstance(value, int):
        return value
    rounded = float(f"{value:.6g}")
    return int(rounded) if rounded.is_integer() and abs(rounded) < _EXACT else rounded
