"""Limits by prices: never beyond a limit, never better than the proven best, and seldom much worse."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from featherweight.planning.relaxation import relaxed


def _problem(seed: int, classes: int, options: int, limits: int) -> tuple[np.ndarray, np.ndarray, list]:
    generator = np.random.default_rng(seed)
    starts = np.arange(classes + 1) * options
    amounts = generator.uniform(0.05, 1.0, (limits + 1, classes * options))
    amounts[0] = 1.0 / (amounts[1:].mean(0) + generator.uniform(0.2, 0.6, classes * options))  # what saves costs
    rooms = amounts[1:].mean(1) * classes * generator.uniform(0.6, 1.1, limits)
    return starts, amounts[0], list(zip(amounts[1:], rooms, strict=True))


def _brute(starts: np.ndarray, objective: np.ndarray, limits: list) -> float:
    best = np.inf
    for chosen in itertools.product(*(range(a, b) for a, b in itertools.pairwise(starts.tolist()))):
        at = list(chosen)
        if all(amount[at].sum() <= room for amount, room in limits):
            best = min(best, float(objective[at].sum()))
    return best


@given(st.integers(0, 10_000), st.integers(1, 3))
@settings(max_examples=60)
def test_no_limit_is_passed_and_nothing_beats_brute_force(seed: int, count: int) -> None:
    starts, objective, limits = _problem(seed, 4, 4, count)
    numbers = relaxed(starts, objective, limits, list)
    best = _brute(starts, objective, limits)
    if numbers is None:
        return  # a price may find none where one is; the next test says how seldom
    at = starts[:-1] + np.array(numbers)
    assert all(amount[at].sum() <= room * (1 + 1e-6) for amount, room in limits)
    assert objective[at].sum() >= best - 1e-9


def test_it_is_nearly_always_near_the_best() -> None:
    off, missed, count = [], 0, 0
    for seed in range(60):
        starts, objective, limits = _problem(seed, 5, 5, 2)
        best = _brute(starts, objective, limits)
        if not np.isfinite(best):
            continue
        count += 1
        numbers = relaxed(starts, objective, limits, list)
        if numbers is None:
            missed += 1
        else:
            off.append(objective[starts[:-1] + np.array(numbers)].sum() / best - 1)
    assert count > 30
    assert missed <= 0.05 * count
    assert float(np.mean(off)) < 0.03


def test_one_limit_is_exact_and_none_takes_the_least() -> None:
    starts, objective, limits = _problem(1, 5, 4, 1)
    numbers = relaxed(starts, objective, limits, list)
    assert numbers is not None
    assert objective[starts[:-1] + np.array(numbers)].sum() == pytest.approx(_brute(starts, objective, limits))
    free = relaxed(starts, objective, [], list)
    assert free is not None
    assert objective[starts[:-1] + np.array(free)].sum() == pytest.approx(
        sum(row.min() for row in np.split(objective, starts[1:-1]))
    )
    assert relaxed(starts, objective, [(limits[0][0], -1.0)], list) is None
