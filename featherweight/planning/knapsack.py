"""The multiple-choice knapsack, solved exactly.

Choose one option of every class so that ``Σ weight ≤ budget`` and ``Σ value`` is least. Values are whole numbers
(bytes, MACs), weights are reals.

Notation: classes ``u``, options ``o``, values ``v``, weights ``w``, budget ``B``, multiplier ``λ ≥ 0``.

1. The Lagrangian ``L(λ) = Σ_u min_o (v + λ w) − λ B`` is a lower bound for every ``λ``; its best ``λ`` is the slope at
   which the greedy filling of the classes' lower convex hulls runs out of budget (Sinha & Zoltners 1979). That filling
   is itself a feasible choice: an upper bound ``U``.
2. An option's reduced cost ``r = v + λ w − min_o (v + λ w) ≥ 0`` is what the bound rises by when it is chosen. A choice
   better than ``U`` has ``Σ r ≤ U − 1 − L(λ)``, so options above that go at once (Pisinger 1995, section 3).
3. What is left is a dynamic programme over the classes. States are (weight, value) pairs; a state goes when its
   ``Σ r`` exceeds the gap, when the rest can't fit, or when another is no heavier and no dearer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

_SLACK = 1e-9  # relative: sums of reals in another order must not lose a choice that fits exactly


@dataclass(frozen=True, slots=True)
class _Class:
    """One class's options that are still open.

    Attributes:
        index: their numbers in the caller's order.
        weights, values, reduced: of each, same order.
    """

    index: np.ndarray
    weights: np.ndarray
    values: np.ndarray
    reduced: np.ndarray


def _hull(weights: np.ndarray, values: np.ndarray) -> list[int]:
    """Options on the lower convex hull, from the dearest lightest one to the cheapest, by rising weight."""
    order = np.lexsort((values, weights))
    hull: list[int] = []
    for option in order:
        if hull and values[option] >= values[hull[-1]]:
            continue
        while len(hull) > 1:
            a, b = hull[-2], hull[-1]
            rise = (values[a] - values[b]) * (weights[option] - weights[a])
            if rise > (values[a] - values[option]) * (weights[b] - weights[a]):
                break
            hull.pop()
        hull.append(int(option))
    return hull


def _greedy(weights: Sequence[np.ndarray], values: Sequence[np.ndarray], budget: float) -> tuple[list[int], float]:
    """Fill the hulls by falling saving for a unit of weight: a feasible choice, and the slope where it got stuck."""
    hulls = [_hull(w, v) for w, v in zip(weights, values, strict=True)]
    steps = []
    for u, hull in enumerate(hulls):
        for a, b in pairwise(hull):
            more = weights[u][b] - weights[u][a]
            saved = values[u][a] - values[u][b]
            steps.append((saved / more if more > 0 else np.inf, more, u, b))
    steps.sort(key=lambda step: -step[0])
    choice = [hull[0] for hull in hulls]
    left = budget - sum(float(weights[u][o]) for u, o in enumerate(choice))
    blocked: set[int] = set()
    slope = 0.0
    for steepness, more, u, option in steps:
        if u not in blocked and more <= left:
            choice[u], left = option, left - more
        else:
            slope = slope or float(steepness)  # a class takes its steps in order, so the first that fails ends it
            blocked.add(u)
    return choice, slope


def _states(
    classes: Sequence[_Class], budget: float, gap: float
) -> tuple[np.ndarray, np.ndarray, list[tuple[np.ndarray, np.ndarray]]]:
    """The dynamic programme: the last states' weights and values, and each class's (parent, option) of every state."""
    lightest = np.array([c.weights.min() for c in classes])
    rest = np.concatenate([np.cumsum(lightest[::-1])[::-1][1:], [0.0]])
    weight, value, reduced = np.zeros(1), np.zeros(1), np.zeros(1)
    trail: list[tuple[np.ndarray, np.ndarray]] = []
    for position, c in enumerate(classes):
        weights = np.add.outer(weight, c.weights).ravel()
        values = np.add.outer(value, c.values).ravel()
        reductions = np.add.outer(reduced, c.reduced).ravel()
        open_ = np.flatnonzero((reductions <= gap) & (weights + rest[position] <= budget))
        order = open_[np.lexsort((values[open_], weights[open_]))]
        best = np.minimum.accumulate(values[order]) if len(order) else values[order]
        keep = order[np.concatenate([[True], values[order][1:] < best[:-1]])] if len(order) else order
        weight, value, reduced = weights[keep], values[keep], reductions[keep]
        trail.append((keep // len(c.weights), c.index[keep % len(c.weights)]))
    return weight, value, trail


def solve(weights: Sequence[np.ndarray], values: Sequence[np.ndarray], budget: float) -> list[int] | None:
    """The option of every class with the least summed value whose summed weight is within the budget.

    Args:
        weights: for every class the weights of its options, reals of 0 or more.
        values: for every class their values, whole numbers.
        budget: limit on the summed weight.

    Returns:
        One option's number for every class; among equal values one of least weight. None where nothing fits.
    """
    if np.isposinf(budget):  # nothing to weigh
        return [int(np.lexsort((w, v))[0]) for w, v in zip(weights, values, strict=True)]
    limit = budget + _SLACK * abs(budget)
    if sum(float(w.min()) for w in weights) > limit:
        return None
    choice, slope = _greedy(weights, values, limit)
    upper = float(sum(values[u][o] for u, o in enumerate(choice)))
    priced = [v + slope * w for v, w in zip(values, weights, strict=True)]
    bound = sum(float(p.min()) for p in priced) - slope * limit
    gap = max(upper - bound, 0.0) * (1 + _SLACK) + 1e-6
    classes = []
    for w, v, p in zip(weights, values, priced, strict=True):
        reduced = p - p.min()
        index = np.flatnonzero(reduced <= gap)
        classes.append(_Class(index, w[index], v[index], reduced[index]))
    # Classes with most choice come last: until then there are few states to multiply.
    order = sorted(range(len(classes)), key=lambda u: len(classes[u].index))
    weight, value, trail = _states([classes[u] for u in order], limit, gap)
    if not len(value):
        return choice
    at = int(np.lexsort((weight, value))[0])
    found = [0] * len(classes)
    for u, (parents, options) in zip(reversed(order), reversed(trail), strict=True):
        found[u] = int(options[at])
        at = int(parents[at])
    return found
