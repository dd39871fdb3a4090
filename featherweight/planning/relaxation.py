"""Several limits at once by pricing: one stays exact, the others get a price each.

``min f`` under ``Σ w_i ≤ r_i`` becomes ``min f + Σ_{i>0} μ_i w_i`` under the first limit alone, which the exact
knapsack solves. Where a limit is exceeded its price rises; the least prices that keep all limits are found by halving,
one limit after another, a few times round (coordinate ascent on the Lagrangian dual; Everett 1963: what is best for
prices is best for the amounts that it uses). The best choice met on the way that keeps every limit is the answer.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

import numpy as np

from featherweight.planning import knapsack

Chosen = TypeVar("Chosen")

_ROUNDS = 2
_HALVINGS = 14
_DOUBLINGS = 24
_SLACK = 1e-9


def relaxed(
    starts: np.ndarray,
    objective: np.ndarray,
    limits: Sequence[tuple[np.ndarray, float]],
    chosen: Callable[[Sequence[int]], Chosen],
) -> Chosen | None:
    """The best choice found that keeps every limit; None where none was found.

    Args:
        starts: where every class's options begin in the arrays, and the end: (classes + 1,).
        objective: what is to be least, of every option.
        limits: amounts of every option, and what their sum may be; the first is kept exactly.
        chosen: makes the answer from one option's number for every class.
    """
    if not limits:
        return chosen([int(row.argmin()) for row in np.split(objective, starts[1:-1])])
    search = _Search(starts, objective, limits)
    search.run()
    return None if search.best is None else chosen(search.best)


class _Search:
    """Prices being looked for, and the best choice met."""

    def __init__(self, starts: np.ndarray, objective: np.ndarray, limits: Sequence[tuple[np.ndarray, float]]) -> None:
        self.starts, self.objective = starts, objective
        (self.weights, self.budget), *self.priced = limits
        self.prices = np.zeros(len(self.priced))
        self.best: list[int] | None = None
        self.least = np.inf

    def run(self) -> None:
        excess = self.tried(self.prices)
        if excess is None:  # not even the first limit can be kept
            return
        for _ in range(_ROUNDS):
            if not len(self.priced) or bool((excess <= 0).all()):
                return
            for at in range(len(self.priced)):
                self._price(at)
            excess = self.tried(self.prices)
            if excess is None:
                return

    def _price(self, at: int) -> None:
        """The least price of one limit at which it is kept, the others staying as they are."""
        spread = max(float(np.ptp(self.objective)), 1e-300) / max(float(np.ptp(self.priced[at][0])), 1e-300)
        low, high = 0.0, spread
        for _ in range(_DOUBLINGS):
            if self._kept(at, high):
                break
            low, high = high, 4 * high
        for _ in range(_HALVINGS):
            middle = (low + high) / 2
            low, high = (low, middle) if self._kept(at, middle) else (middle, high)
        self.prices[at] = high

    def _kept(self, at: int, price: float) -> bool:
        prices = self.prices.copy()
        prices[at] = price
        excess = self.tried(prices)
        return excess is None or bool(excess[at] <= 0)

    def tried(self, prices: np.ndarray) -> np.ndarray | None:
        """How far each priced limit is exceeded, (limits,); None where the first can't be kept."""
        values = self.objective + sum(
            (price * amounts for price, (amounts, _) in zip(prices, self.priced, strict=True)), np.zeros(1)
        )
        weights, priced = (np.split(array, self.starts[1:-1]) for array in (self.weights, values))
        numbers = knapsack.solve(weights, priced, self.budget)
        if numbers is None:
            return None
        at = self.starts[:-1] + np.asarray(numbers)
        excess = np.array([amounts[at].sum() - room * (1 + _SLACK) for amounts, room in self.priced])
        value = float(self.objective[at].sum())
        if bool((excess <= 0).all()) and value < self.least:
            self.best, self.least = numbers, value
        return excess
