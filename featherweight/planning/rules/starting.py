"""An earlier plan as a start: what it chose stays chosen, as far as the table and the rules allow."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

from featherweight.contracts import Plan, PlanError, Refusal, Table, describe
from featherweight.methods.seam import PRUNING, layer_steps


def started(left: Table, table: Table, plan: Plan, lifted: tuple[Collection[str], Collection[str]]) -> Table:
    """The table with every layer and unit that the plan names fixed to what the plan chose there.

    A layer that the plan leaves out stays free, and so does one where the rules exclude the plan's choice. What isn't
    on the table can't be had again: a refusal says so.

    Args:
        left: what the rules left of the table.
        table: the whole one.
        plan: the earlier plan.
        lifted: layers, and units, that a rule sets free of it.

    Raises:
        PlanError: nothing of the plan is on the table.
    """
    options, keeps = dict(left.options), dict(left.keeps)
    refusals: list[Refusal] = []
    found = 0
    for name, steps in plan.choices.items():
        own, pruning = layer_steps(steps), steps[:1] if steps and steps[0].method == PRUNING else ()
        wanted = []
        if name in table.options:
            wanted.append((options, table.options[name], own, lifted[0]))
        if name in table.keeps:
            wanted.append((keeps, table.keeps[name], pruning, lifted[1]))
        elif pruning:
            refusals.append(_refusal(name, describe(pruning), "the table has no such unit of channels"))
        if not wanted and not pruning:
            refusals.append(_refusal(name, describe(own), "the table has no such layer"))
        for rows, row, chosen, free in wanted:
            if not any(one.steps == chosen for one in row):
                refusals.append(_refusal(name, describe(chosen), "it isn't among the options here"))
                continue
            found += 1
            same = tuple(one for one in rows[name] if one.steps == chosen)
            if same and name not in free:
                rows[name] = same  # type: ignore[assignment]  # rows of options get options, rows of keeps keeps
    if not found:
        raise PlanError(
            "An earlier plan must have something in common with this network.",
            f"none of its {len(plan.choices)} choices is on the table",
            "start from a plan for a network with the same layers",
        )
    return replace(left, options=options, keeps=keeps, refusals=(*left.refusals, *refusals))


def _refusal(name: str, steps: str, reason: str) -> Refusal:
    return Refusal(name, "start", f"the earlier plan's {steps} can't be taken up: {reason}", "it is chosen anew")
