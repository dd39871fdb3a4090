"""Elimination against brute-force least squares, in float64."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from featherweight.numerics.elimination import Consumer, compensated, eliminate


def _problem(seed: int, outputs: int, groups: int, width: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    size = groups * width
    mixing = torch.randn(size, size, generator=generator).double() / size**0.5
    covariance = mixing @ mixing.T + 0.1 * torch.eye(size).double()
    weight = torch.randn(outputs, size, generator=generator).double()
    return weight, covariance, torch.arange(size).view(groups, width)


def _best_error(weight: torch.Tensor, covariance: torch.Tensor, gone: torch.Tensor) -> float:
    """The error of the best refit that uses only the kept columns, from the normal equations."""
    kept = [column for column in range(weight.shape[1]) if column not in set(gone.tolist())]
    refit = torch.zeros_like(weight)
    if kept:
        inner = covariance[kept][:, kept]
        refit[:, kept] = torch.linalg.solve(inner, covariance[kept] @ weight.T).T
    difference = refit - weight
    return float(((difference @ covariance) * difference).sum())


@given(st.integers(0, 200), st.integers(1, 5), st.integers(2, 6), st.integers(1, 3))
@settings(max_examples=40)
def test_every_prefix_costs_what_least_squares_says(seed: int, outputs: int, groups: int, width: int) -> None:
    weight, covariance, columns = _problem(seed, outputs, groups, width)
    found = eliminate([Consumer(weight, covariance, columns)], damping=1e-12)
    assert sorted(found.order.tolist()) == list(range(groups))
    for count in range(groups):
        gone = columns[found.order[:count]].flatten()
        assert float(found.errors[count]) == pytest.approx(_best_error(weight, covariance, gone), rel=1e-6, abs=1e-9)


@given(st.integers(0, 200), st.integers(2, 6))
@settings(max_examples=20)
def test_every_step_takes_the_cheapest_group(seed: int, groups: int) -> None:
    weight, covariance, columns = _problem(seed, 3, groups, 2)
    found = eliminate([Consumer(weight, covariance, columns)], damping=1e-12)
    first = int(found.order[0])
    costs = [_best_error(weight, covariance, columns[group]) for group in range(groups)]
    assert costs[first] == pytest.approx(min(costs), rel=1e-6)


def test_several_consumers_are_judged_together() -> None:
    one, two = _problem(0, 3, 5, 1), _problem(1, 4, 5, 2)
    both = eliminate([Consumer(*one), Consumer(*two, scale=3.0)], damping=1e-12)
    gone = both.order[:2]
    expected = _best_error(one[0], one[1], one[2][gone].flatten())
    expected += 3 * _best_error(two[0], two[1], two[2][gone].flatten())
    assert float(both.errors[2]) == pytest.approx(expected, rel=1e-6)


def test_groups_of_unequal_width_and_dead_columns_stay_finite() -> None:
    weight, covariance, _ = _problem(2, 3, 5, 1)
    covariance[0], covariance[:, 0] = 0.0, 0.0
    columns = torch.tensor([[0, -1], [1, 2], [3, 4]])
    found = eliminate([Consumer(weight, covariance, columns)], damping=1e-9)
    assert int(found.order[0]) == 0
    assert bool(torch.isfinite(found.errors).all())
    assert float(found.errors[1]) < 1e-6
    assert bool((found.errors.diff() >= 0).all())


def test_rounding_below_zero_is_damped_away() -> None:
    """A covariance of one sample: what is left of the mean's subtraction, negative here and there."""
    weight = torch.randn(4, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    covariance = -1e-9 * torch.eye(6, dtype=torch.float64)
    fitted = compensated(weight, covariance, torch.tensor([1, 4]))
    assert bool(torch.isfinite(fitted).all())
    assert not bool(fitted[:, [1, 4]].any())
