"""Allocate: one option for every unit, the best that the goal allows, proven best.

A multiple-choice knapsack: choose ``x_{u,o} ∈ {0, 1}`` with ``Σ_o x_{u,o} = 1`` for every unit, minimise the summed
quantity under limits on the summed divergence and on the other quantities. With the divergence alone as limit, our own
exact solver answers in milliseconds (:mod:`featherweight.planning.knapsack`). Further limits make it a mixed-integer
linear program: small ones are solved to optimality by HiGHS (``scipy.optimize.milp``), in large ones the limits are
priced (:mod:`featherweight.planning.relaxation`). Peak memory is no sum over units: it is read
off every choice found, and the choices that exceed its limit go.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from featherweight.contracts import Choice, Goal, Keep, Option, Quantity, Table
from featherweight.planning import knapsack
from featherweight.planning.relaxation import relaxed
from featherweight.planning.widths import candidates, narrowed

Peak = Callable[[Choice], float]
"""Peak bytes of a choice's activations."""

_PLAIN: tuple[Quantity, ...] = ("size", "macs")
_SLACK = 1e-6  # relative: the programme's own tolerance
_EXACT_OPTIONS = 120  # beyond, branch and bound may take minutes: limits are priced instead


def undominated(options: Sequence[Option], quantities: Sequence[Quantity] = _PLAIN) -> list[Option]:
    """The options that no other beats or equals in these quantities and in divergence at once; ties keep the first."""
    keys = np.array([[*(option.cost.of(q) for q in quantities), option.divergence] for option in options])
    below = (keys[:, None] <= keys[None]).all(2)  # [a, b]: a is nowhere above b
    alike = below & below.T
    beats = below & (~alike | np.triu(np.ones_like(below), 1))
    return [options[index] for index in np.flatnonzero(~beats.any(0)).tolist()]


def summed(goal: Goal) -> tuple[Quantity, ...]:
    """The goal's quantities that are sums over units; where there is none, MACs stand in: they fall with memory."""
    return tuple(q for q in goal.quantities if q != "memory") or ("macs",)


def allocate(table: Table, goal: Goal, budget: float, peak: Peak | None = None) -> Choice | None:
    """The cheapest choice whose summed predicted divergence stays within a budget.

    Without coupled units the choice is proven best. With them, every set of kept widths that
    :func:`featherweight.planning.widths.candidates` finds gets the best options for its layers, proven best for it, and
    the cheapest of all is taken; keeping all channels is always among them, so coupled units never make a plan worse.

    Args:
        table: all options.
        goal: what is minimised, and the limits (they count the table's fixed cost).
        budget: limit on the summed divergence.
        peak: of a choice; needed where the goal speaks of memory.

    Returns:
        One option for every layer and one keep for every unit, or None where the limits can't be met together.
    """
    objective = summed(goal)[0]

    def solve(narrow: Table, room: float) -> dict[str, Option] | None:
        if any(limit != "memory" for limit in goal.limits):
            return _solve(narrow, goal, lambda programme: programme.quantity(objective), room)
        return _cheapest_within(narrow, objective, room)

    found = _fitting(_over_widths(table, goal, solve, budget), goal, peak)
    rank = _rank(goal, peak)
    return min(found, key=lambda choice: (rank(choice), choice.divergence), default=None)


def _rank(goal: Goal, peak: Peak | None) -> Callable[[Choice], float]:
    if goal.minimize != "memory":
        return lambda choice: choice.cost.of(goal.minimize)
    if peak is None:
        raise TypeError("a goal on memory needs the peak of a choice")
    return peak


def _fitting(choices: list[Choice], goal: Goal, peak: Peak | None) -> list[Choice]:
    limit = goal.limits.get("memory")
    if limit is None:
        return choices
    if peak is None:
        raise TypeError("a limit on memory needs the peak of a choice")
    return [choice for choice in choices if peak(choice) <= limit]


def _cheapest_within(table: Table, quantity: Quantity, budget: float) -> dict[str, Option] | None:
    rows = [undominated(options, (quantity,)) for options in table.options.values()]
    chosen = knapsack.solve(
        [np.array([option.divergence for option in row]) for row in rows],
        [np.array([option.cost.of(quantity) for option in row], dtype=float) for row in rows],
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
    found: dict[tuple[int, ...], Mapping[str, Keep]] = {}
    for quantity in summed(goal):
        for keeps in candidates(table, quantity):
            found.setdefault(tuple(table.keeps[unit].index(keep) for unit, keep in keeps.items()), keeps)
    return list(found.values())


def gentlest(table: Table, goal: Goal, peak: Peak | None = None) -> Choice | None:
    """The choice with the least summed divergence under the goal's limits; None where none fits."""
    found = _over_widths(
        table,
        goal,
        lambda narrow, _: _solve(narrow, goal, lambda p: _scaled(p.divergence, float(p.divergence.max())), None),
        math.inf,
    )
    return min(_fitting(found, goal, peak), key=lambda choice: choice.divergence, default=None)


def cheapest(table: Table, goal: Goal, peak: Peak | None = None) -> Choice:
    """The choice with the least of the goal's quantity, whatever it diverges: how far the table reaches."""
    objective, rank = summed(goal)[0], _rank(goal, peak)
    found = _over_widths(
        table,
        goal,
        lambda narrow, _: {
            unit: min(options, key=lambda o: (o.cost.of(objective), o.divergence))
            for unit, options in narrow.options.items()
        },
        math.inf,
    )
    return min(found, key=lambda choice: (rank(choice), choice.divergence))


def least(table: Table, quantity: Quantity, goal: Goal, peak: Peak | None = None) -> float:
    """The least of a quantity that the table reaches under the goal's *other* limits, whatever it diverges.

    Infinite where the other limits can't be met together either.
    """
    alone = replace(goal, minimize=quantity).with_limits({quantity: None})
    choice = allocate(table, alone, math.inf, peak)
    if choice is None:
        return math.inf
    return peak(choice) if quantity == "memory" and peak else choice.cost.of(quantity) + table.fixed.of(quantity)


class _Programme:
    """The table as arrays, one entry an undominated option.

    Attributes:
        flat: all of them, row after row.
        starts: where a row begins, and the end.
    """

    def __init__(self, table: Table, quantities: Sequence[Quantity]) -> None:
        rows = [undominated(options, quantities) for options in table.options.values()]
        self.flat = [option for row in rows for option in row]
        self.starts = np.cumsum([0, *map(len, rows)])
        self.divergence = np.array([option.divergence for option in self.flat])

    def quantity(self, name: Quantity) -> np.ndarray:
        """Of every option, float64."""
        return np.array([option.cost.of(name) for option in self.flat], dtype=float)

    def chosen(self, numbers: Sequence[int]) -> dict[str, Option]:
        """Layer → option, from the numbers of options within their rows."""
        found = [self.flat[start + number] for start, number in zip(self.starts[:-1], numbers, strict=True)]
        return {option.unit: option for option in found}

    def exact(self, objective: np.ndarray, amounts: Mapping[str, tuple[np.ndarray, float]]) -> dict[str, Option] | None:
        """Proven best, by branch and bound: in time for a few layers."""
        from scipy.optimize import Bounds, LinearConstraint, milp  # noqa: PLC0415  (slow to import, and limits are rare)

        row = np.repeat(np.arange(len(self.starts) - 1), np.diff(self.starts))
        constraints = [LinearConstraint((row == np.arange(len(self.starts) - 1)[:, None]).astype(float), 1, 1)]
        for name, (amount, room) in amounts.items():
            # Whole numbers as they are, so that the solver's absolute tolerance is less than one of them.
            unit = 1.0 if name in _PLAIN else max(room, 1e-300)
            constraints.append(LinearConstraint(amount / unit, -np.inf, room / unit))
        ones = np.ones(len(self.flat))
        options = {"mip_rel_gap": 0.0}
        solved = milp(objective, constraints=constraints, integrality=ones, bounds=Bounds(0, 1), options=options)
        if solved.x is None:
            return None
        picked = np.flatnonzero(solved.x > 0.5)
        if any(amount[picked].sum() > room * (1 + _SLACK) for amount, room in amounts.values()):
            return None
        return {self.flat[index].unit: self.flat[index] for index in picked.tolist()}


def _solve(
    table: Table, goal: Goal, objective: Callable[[_Programme], np.ndarray], budget: float | None
) -> dict[str, Option] | None:
    rooms: dict[Quantity, float] = {}
    for quantity, limit in goal.limits.items():
        if quantity != "memory":
            rooms[quantity] = limit - table.fixed.of(quantity)
    if any(room < 0 for room in rooms.values()):
        return None
    if not table.options:
        return {}
    programme = _Programme(table, summed(goal))
    amounts = {str(quantity): (programme.quantity(quantity), room) for quantity, room in rooms.items()}
    if budget is not None and math.isfinite(budget):
        amounts = {"divergence": (programme.divergence, budget), **amounts}
    if len(programme.flat) <= _EXACT_OPTIONS:
        return programme.exact(objective(programme), amounts)
    return relaxed(programme.starts, objective(programme), list(amounts.values()), programme.chosen)


def _scaled(amounts: np.ndarray, unit: float) -> np.ndarray:
    """Amounts in some unit, so that the solver's absolute tolerances mean the same at every scale."""
    return amounts / max(unit, 1e-300)
