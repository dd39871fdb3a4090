"""Allocate: one option for every unit, the best that the goal allows, proven best.

A multiple-choice knapsack: choose ``x_{u,o} ∈ {0, 1}`` with ``Σ_o x_{u,o} = 1`` for every unit, minimise the summed
quantity under limits on the summed divergence and on the other quantities. With the divergence alone as limit, our own
exact solver answers in milliseconds (:mod:`featherweight.planning.knapsack`); further limits make it a mixed-integer
linear program, solved to optimality by HiGHS (``scipy.optimize.milp``).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import numpy as np

from featherweight.contracts import Choice, Cost, Goal, Keep, Option, Quantity, Table
from featherweight.planning import knapsack
from featherweight.planning.widths import candidates, narrowed


def undominated(options: tuple[Option, ...]) -> list[Option]:
    """The options that no other beats or equals in bytes, MACs and divergence at once; ties keep the first."""
    keys = [(o.cost.size_bytes, o.cost.macs, o.divergence) for o in options]
    kept: list[int] = []
    for index, key in enumerate(keys):
        beaten = any(
            all(a <= b for a, b in zip(other, key, strict=True)) and (other != key or at < index)
            for at, other in enumerate(keys)
            if at != index
        )
        if not beaten:
            kept.append(index)
    return [options[index] for index in kept]


def allocate(table: Table, goal: Goal, budget: float) -> Choice | None:
    """The cheapest choice whose summed predicted divergence stays within a budget.

    Without coupled units the choice is proven best. With them, every set of kept widths that
    :func:`featherweight.planning.widths.candidates` finds gets the best options for its layers, proven best for it, and
    the cheapest of all is taken; keeping all channels is always among them, so coupled units never make a plan worse.

    Args:
        table: all options.
        goal: what is minimised, and the limits on bytes and MACs (they count the table's fixed cost).
        budget: limit on the summed divergence.

    Returns:
        One option for every layer and one keep for every unit, or None where the limits can't be met together.
    """
    pick = _quantity(goal.minimize)

    def solve(narrow: Table, room: float) -> dict[str, Option] | None:
        if goal.max_size_bytes is not None or goal.max_macs is not None:
            return _solve(narrow, goal, lambda programme: programme.quantity(goal.minimize), room)
        return _cheapest_within(narrow, pick, room)

    found = _over_widths(table, goal, solve, budget)
    return min(found, key=lambda choice: (pick(choice.cost), choice.divergence), default=None)


def _cheapest_within(table: Table, pick: Callable[[Cost], int], budget: float) -> dict[str, Option] | None:
    rows = [undominated(options) for options in table.options.values()]
    chosen = knapsack.solve(
        [np.array([option.divergence for option in row]) for row in rows],
        [np.array([pick(option.cost) for option in row], dtype=float) for row in rows],
        budget,
    )
    if chosen is None:
        return None
    return {unit: row[number] for unit, row, number in zip(table.options, rows, chosen, strict=True)}


def _over_widths(
    table: Table, goal: Goal, solve: Callable[[Table, float], dict[str, Option] | None], budget: float
) -> list[Choice]:
    """A choice for every candidate set of widths that leaves room in the budget."""
    found = []
    for keeps in _candidates(table, goal):
        room = budget - sum(keep.divergence for keep in keeps.values())
        layers = solve(narrowed(table, keeps), room) if room >= 0 else None
        if layers is not None:
            found.append(Choice(layers, keeps))
    return found


def _candidates(table: Table, goal: Goal) -> list[Mapping[str, Keep]]:
    """Sets of keeps along the trades of everything that the goal minimises or limits, without repetitions."""
    limited = {"size": goal.max_size_bytes, "macs": goal.max_macs}
    quantities: list[Quantity] = [goal.minimize, *(q for q in ("size", "macs") if limited[q] is not None)]
    found: dict[tuple[int, ...], Mapping[str, Keep]] = {}
    for quantity in dict.fromkeys(quantities):
        for keeps in candidates(table, quantity):
            found.setdefault(tuple(table.keeps[unit].index(keep) for unit, keep in keeps.items()), keeps)
    return list(found.values())


def gentlest(table: Table, goal: Goal) -> Choice | None:
    """The choice with the least summed divergence under the goal's limits on bytes and MACs; None where none fits."""
    found = _over_widths(
        table,
        goal,
        lambda narrow, _: _solve(narrow, goal, lambda p: _scaled(p.divergence, float(p.divergence.max())), None),
        math.inf,
    )
    return min(found, key=lambda choice: choice.divergence, default=None)


def _quantity(name: Quantity) -> Callable[[Cost], int]:
    return (lambda cost: cost.size_bytes) if name == "size" else (lambda cost: cost.macs)


class _Programme:
    """The table as arrays, one entry an undominated option."""

    def __init__(self, table: Table) -> None:
        self.rows = [undominated(options) for options in table.options.values()]
        self.flat = [option for row in self.rows for option in row]
        self.divergence = np.array([option.divergence for option in self.flat])
        unit = np.repeat(np.arange(len(self.rows)), [len(row) for row in self.rows])
        self.one_each = (unit == np.arange(len(self.rows))[:, None]).astype(float)

    def quantity(self, name: Quantity) -> np.ndarray:
        """Bytes or MACs of every option, float64."""
        pick = _quantity(name)
        return np.array([pick(option.cost) for option in self.flat], dtype=float)


def _solve(
    table: Table, goal: Goal, objective: Callable[[_Programme], np.ndarray], budget: float | None
) -> dict[str, Option] | None:
    if not table.options:
        within = (goal.max_size_bytes is None or table.fixed.size_bytes <= goal.max_size_bytes) and (
            goal.max_macs is None or table.fixed.macs <= goal.max_macs
        )
        return {} if within else None
    programme = _Programme(table)
    from scipy.optimize import Bounds, LinearConstraint, milp  # noqa: PLC0415  (slow to import, and limits are rare)

    constraints = [LinearConstraint(programme.one_each, 1, 1)]
    if budget is not None:
        constraints.append(LinearConstraint(_scaled(programme.divergence, budget), -np.inf, 1))
    if goal.max_size_bytes is not None:
        room = goal.max_size_bytes - table.fixed.size_bytes
        constraints.append(LinearConstraint(programme.quantity("size"), -np.inf, room))
    if goal.max_macs is not None:
        constraints.append(LinearConstraint(programme.quantity("macs"), -np.inf, goal.max_macs - table.fixed.macs))
    solved = milp(
        objective(programme),
        constraints=constraints,
        integrality=np.ones(len(programme.flat)),
        bounds=Bounds(0, 1),
        options={"mip_rel_gap": 0.0},
    )
    if solved.x is None:
        return None
    chosen = [option for option, value in zip(programme.flat, solved.x, strict=True) if value > 0.5]
    return {option.unit: option for option in chosen}


def _scaled(divergence: np.ndarray, unit: float) -> np.ndarray:
    """Divergence in some unit, so that the solver's absolute tolerances mean the same at every scale."""
    return divergence / max(unit, 1e-300)


def cheapest(table: Table, goal: Goal) -> Choice:
    """The choice with the least of the goal's quantity, whatever it diverges: how far the table reaches."""
    pick = _quantity(goal.minimize)
    found = _over_widths(
        table,
        goal,
        lambda narrow, _: {
            unit: min(options, key=lambda o: (pick(o.cost), o.divergence)) for unit, options in narrow.options.items()
        },
        math.inf,
    )
    return min(found, key=lambda choice: (pick(choice.cost), choice.divergence))
