"""The knapsack against brute force on small problems, and against its own bound on large ones."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from featherweight.planning.knapsack import solve

options = st.lists(st.tuples(st.integers(0, 40), st.integers(0, 60)), min_size=1, max_size=5)
problems = st.lists(options, min_size=1, max_size=5)


def _split(rows: list[list[tuple[int, int]]]) -> tuple[list[np.ndarray], list[np.ndarray]]:
    weights = [np.array([w for w, _ in row], dtype=float) / 8 for row in rows]
    return weights, [np.array([v for _, v in row], dtype=float) for row in rows]


def _total(values: list[np.ndarray], choice: list[int]) -> float:
    return float(sum(v[o] for v, o in zip(values, choice, strict=True)))


@given(problems, st.integers(0, 120))
@settings(max_examples=300)
def test_it_is_the_best_of_all_choices(rows: list[list[tuple[int, int]]], budget: int) -> None:
    weights, values = _split(rows)
    feasible = [
        (_total(values, list(choice)), _total(weights, list(choice)))
        for choice in itertools.product(*(range(len(row)) for row in rows))
        if _total(weights, list(choice)) <= budget / 8
    ]
    found = solve(weights, values, budget / 8)
    if not feasible:
        assert found is None
        return
    assert found is not None
    assert (_total(values, found), _total(weights, found)) == min(feasible)


@pytest.mark.parametrize("seed", range(6))
def test_large_problems_stay_within_the_bound_of_their_relaxation(seed: int) -> None:
    generator = np.random.default_rng(seed)
    weights = [np.concatenate([[0.0], generator.random(30) ** 3]) for _ in range(60)]
    values = [np.concatenate([[10**6], generator.integers(1, 10**6, 30)]).astype(float) for _ in range(60)]
    budget = 0.02 * sum(float(w.max()) for w in weights) * (seed + 1)
    found = solve(weights, values, budget)
    assert found is not None
    assert _total(weights, found) <= budget * (1 + 1e-9)
    slopes = np.geomspace(1e3, 1e9, 400)
    bound = max(
        sum(float((v + slope * w).min()) for v, w in zip(values, weights, strict=True)) - slope * budget
        for slope in slopes
    )
    assert bound - 1e-6 <= _total(values, found) <= bound * 1.01


def test_a_choice_that_fits_exactly_is_found() -> None:
    weights = [np.array([0.0, 0.1]), np.array([0.0, 0.2])]
    values = [np.array([5.0, 1.0]), np.array([5.0, 1.0])]
    assert solve(weights, values, 0.1 + 0.2) == [1, 1]
    assert solve(weights, values, 0.0) == [0, 0]
    assert solve([np.array([1.0])], [np.array([1.0])], 0.5) is None
