"""Which widths are worth a closer look: sets of keeps along the trade of cost against divergence.

A layer's cost is a product of what its two neighbouring units leave, so units can't be chosen one by one. For a price
of divergence (a Lagrange multiplier) every unit and every layer in turn takes what is best beside the present choice
of the others, until nothing changes (coordinate descent: every move lowers ``cost + price · divergence``, so it ends).
A sweep of prices gives the candidates; the exact knapsack then settles the layers of each.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from featherweight.contracts import Cost, Keep, Option, Quantity, RealTerms, Table

_PRICES = 64
_ROUNDS = 8

Keeps = Mapping[str, Keep]


def narrowed(table: Table, keeps: Keeps) -> Table:
    """The table of layers alone, at the widths that these keeps leave, with what they save elsewhere taken off."""
    lost = _lost(table, keeps)
    options = {
        layer: tuple(_at(option, table.widths[layer], lost[layer]) for option in row) if layer in lost else row
        for layer, row in table.options.items()
    }
    fixed = table.fixed
    for keep in keeps.values():
        fixed -= keep.saved
    return replace(table, options=options, fixed=fixed, keeps={})


def _at(option: Option, widths: tuple[int, int], lost: tuple[int, int]) -> Option:
    if option.form is None:
        return option
    return replace(option, cost=option.form.at(widths[0] - lost[0], widths[1] - lost[1]))


def _lost(table: Table, keeps: Keeps) -> dict[str, tuple[int, int]]:
    """Layer → rows and columns that go, for layers that lose any."""
    lost: dict[str, tuple[int, int]] = {}
    for keep in keeps.values():
        for layer, count in keep.rows.items():
            rows, columns = lost.get(layer, (0, 0))
            lost[layer] = rows + count, columns
        for layer, count in keep.columns.items():
            rows, columns = lost.get(layer, (0, 0))
            lost[layer] = rows, columns + count
    return {layer: pair for layer, pair in lost.items() if any(pair)}


def candidates(table: Table, quantity: Quantity) -> list[Keeps]:
    """Sets of keeps, one for every unit each: keeping all first, then along the trade, without repetitions."""
    whole = {unit: keeps[0] for unit, keeps in table.keeps.items()}
    found: dict[tuple[int, ...], Keeps] = {(0,) * len(whole): whole}
    if whole:
        descent = _Descent.of(table, quantity)
        for price in _prices(table, quantity):
            at = descent.settle(price)
            found.setdefault(at, {u: table.keeps[u][n] for u, n in zip(table.keeps, at, strict=True)})
    return list(found.values())


def _prices(table: Table, quantity: Quantity) -> np.ndarray:
    """From a price at which divergence hardly counts to one at which nothing else does."""
    most = sum((row[0].cost for row in table.options.values()), Cost(0, 0, 0)).of(quantity)
    worst = max(keep.divergence for row in table.keeps.values() for keep in row)
    least = min((keep.divergence for row in table.keeps.values() for keep in row if keep.divergence > 0), default=1.0)
    sweep = np.geomspace(1e-3 * most / max(worst, 1e-12), most / max(least, 1e-12), _PRICES)
    return np.concatenate([[0.0], sweep])


@dataclass(frozen=True)
class _Descent:
    """The table as arrays.

    Attributes:
        units: for every unit its divergences and savings elsewhere, (keeps,) each, and what layers lose:
            (layer, rows (keeps,), columns (keeps,)).
        layers: for every layer its terms (options, 4), its divergences (options,) and its widths.
    """

    units: tuple[tuple[np.ndarray, np.ndarray, tuple[tuple[int, np.ndarray, np.ndarray], ...]], ...]
    layers: tuple[tuple[np.ndarray, np.ndarray, tuple[int, int]], ...]

    @classmethod
    def of(cls, table: Table, quantity: Quantity) -> _Descent:
        names = list(table.options)
        layers = tuple(
            (
                np.array([_terms(option, quantity) for option in row], dtype=float),
                np.array([option.divergence for option in row]),
                table.widths.get(name, (1, 1)),
            )
            for name, row in table.options.items()
        )
        units = []
        for row in table.keeps.values():
            touched = sorted({names.index(layer) for keep in row for layer in (*keep.rows, *keep.columns)})
            losses = tuple(
                (
                    at,
                    np.array([keep.rows.get(names[at], 0) for keep in row]),
                    np.array([keep.columns.get(names[at], 0) for keep in row]),
                )
                for at in touched
            )
            saved = np.array([keep.saved.of(quantity) for keep in row], dtype=float)
            units.append((np.array([keep.divergence for keep in row]), saved, losses))
        return cls(tuple(units), layers)

    def settle(self, price: float) -> tuple[int, ...]:
        """The keep of every unit at this price of divergence."""
        keeps = [0] * len(self.units)
        widths = np.array([layer[2] for layer in self.layers], dtype=float)
        options = [self._best(number, widths[number], price) for number in range(len(self.layers))]
        for _ in range(_ROUNDS):
            before = list(keeps), list(options)
            for number, (divergence, saved, losses) in enumerate(self.units):
                total = price * divergence - saved
                for at, rows, columns in losses:
                    widths[at] += rows[keeps[number]], columns[keeps[number]]
                    total = total + _cost(
                        self.layers[at][0][options[at]], widths[at][0] - rows, widths[at][1] - columns
                    )
                keeps[number] = int(total.argmin())
                for at, rows, columns in losses:
                    widths[at] -= rows[keeps[number]], columns[keeps[number]]
            options = [self._best(number, widths[number], price) for number in range(len(self.layers))]
            if (keeps, options) == before:
                break
        return tuple(keeps)

    def _best(self, number: int, widths: np.ndarray, price: float) -> int:
        terms, divergence, _ = self.layers[number]
        return int((_cost(terms.T, widths[0], widths[1]) + price * divergence).argmin())


def _terms(option: Option, quantity: Quantity) -> RealTerms:
    return (0.0, 0.0, 0.0, option.cost.of(quantity)) if option.form is None else option.form.terms(quantity)


def _cost(terms: np.ndarray, rows: np.ndarray | float, columns: np.ndarray | float) -> np.ndarray:
    """``a·rows·columns + b·rows + c·columns + d`` with terms (4,) or (4, options)."""
    return terms[0] * rows * columns + terms[1] * rows + terms[2] * columns + terms[3]
