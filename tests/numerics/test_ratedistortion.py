"""Rate-aware rounding: against exhaustive search, against plain rounding and GPTQ, and on odd inputs."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from featherweight.numerics.gptq import RowGrids, gptq, row_errors
from featherweight.numerics.ratedistortion import MOST, PRICE, bits_of, compensated, descended, round_for_rate
from featherweight.numerics.sequential import factor_of, settled


def _problem(seed: int, rows: int, columns: int, groups: int = 1) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(groups, rows, columns, generator=generator, dtype=torch.float64)
    inputs = torch.randn(groups, 4 * columns, columns, generator=generator, dtype=torch.float64)
    inputs[..., 1:] += 0.8 * inputs[..., :-1]
    return weight, inputs.transpose(1, 2) @ inputs / (4 * columns)


def _entropy(levels: torch.Tensor) -> float:
    _, counts = levels.unique(return_counts=True)
    shares = counts.double() / counts.sum()
    return float(-(shares * shares.log2()).sum())


def _error(levels: torch.Tensor, step: float, weight: torch.Tensor, covariance: torch.Tensor) -> float:
    return float(row_errors(levels.double() * step - weight, covariance).sum())


def test_bits_are_what_frequencies_say() -> None:
    levels = torch.tensor([0] * 800 + [1] * 100 + [-1] * 100)
    bits = bits_of(levels)
    assert bits.shape == (2 * MOST + 1,)
    assert float(bits[MOST]) == pytest.approx(-math.log2(0.8), abs=0.2)
    assert float(bits[MOST + 1]) == pytest.approx(-math.log2(0.1), abs=0.3)
    assert bool(torch.isfinite(bits).all())
    assert float((-bits).exp2().sum()) == pytest.approx(1.0)


def test_signs_cost_alike() -> None:
    bits = bits_of(torch.tensor([3, 3, 3, -1, 0]))
    assert torch.equal(bits, bits.flip(0))


def test_a_row_is_nearly_always_the_best_of_all_rows() -> None:
    """Against all levels within one of plain rounding, under the bits that the result has."""
    best, count = 0, 0
    for seed, step in itertools.product(range(20), (0.3, 0.8, 1.5)):
        weight, covariance = _problem(seed, 1, 5)
        found, scaled, worth = round_for_rate(weight, covariance, step), weight / step, _worth(covariance)
        every = itertools.product(*({k - 1, k, k + 1, 0.0} for k in scaled.round()[0, 0].tolist()))
        rows = torch.tensor(list(every), dtype=torch.float64).unsqueeze(0)
        bits = bits_of(found)
        spent = bits[(rows + MOST).long()].sum(2) + row_errors(rows - scaled, covariance) / worth
        own = float(bits[(found + MOST).long()].sum() + row_errors(found - scaled, covariance).sum() / worth)
        plain = float(bits[(scaled.round() + MOST).long()].sum())
        plain += float(row_errors(scaled.round() - scaled, covariance).sum() / worth)
        assert own <= plain + 1e-9
        best += own <= float(spent.min()) + 1e-9
        count += 1
    assert best >= 0.8 * count


def _worth(covariance: torch.Tensor) -> float:
    """``λ`` from the definition: the geometric mean of what is left of a column's variance given those after it."""
    order = covariance[0].diagonal().argsort(descending=True, stable=True)
    damped = covariance[0] + 1e-2 * covariance[0].diagonal().mean() * torch.eye(len(order), dtype=torch.float64)
    _, logarithm = torch.linalg.slogdet(damped[order][:, order])
    return PRICE * float(torch.exp(logarithm / len(order)))


def _costs(groups: int, slope: float) -> torch.Tensor:
    """Levels cost by their magnitude, at most so much that the best is the nearest or the next towards zero."""
    return slope * torch.arange(-MOST, MOST + 1, dtype=torch.float64).abs().expand(groups, -1)


@given(st.integers(0, 30), st.floats(0.0, 0.2))
def test_columns_in_turn_are_least_squares_from_the_definition(seed: int, slope: float) -> None:
    """At every column all levels are tried, with the exact best that real values in the later columns could do."""
    weight, covariance = _problem(seed, 3, 5)
    free = torch.rand(weight.shape, generator=torch.Generator().manual_seed(seed)) < 0.8
    found = compensated(2 * weight, factor_of(covariance, 1e-2), _costs(1, slope), free)
    damped = (covariance[0] + 1e-2 * covariance[0].diagonal().mean() * torch.eye(5)).numpy()
    for row, levels, open_ in zip(2 * weight[0].numpy(), found[0].numpy(), free[0].numpy(), strict=True):
        for j in range(5):
            tried = {}
            for level in range(-12, 13):
                fixed = np.array([*levels[:j], level]) - row[: j + 1]
                rest = np.linalg.solve(damped[j + 1 :, j + 1 :], damped[j + 1 :, : j + 1] @ fixed)
                left = np.array([*fixed, *-rest])
                tried[level] = left @ damped @ left + slope * abs(level)
            wanted = min(tried, key=tried.__getitem__) if open_[j] else 0
            assert tried[levels[j]] == pytest.approx(tried[wanted], abs=1e-9)


@given(st.integers(0, 30), st.floats(0.0, 0.2))
def test_a_sweep_takes_every_entry_to_its_best_level(seed: int, slope: float) -> None:
    """At every entry all levels are tried on the whole objective."""
    weight, covariance = _problem(seed, 3, 5)
    free = torch.rand(weight.shape, generator=torch.Generator().manual_seed(seed)) < 0.8
    values, now = 2 * weight, (2 * weight).round() * free
    found = descended(now, values, covariance, _costs(1, slope), free)
    for i, j in itertools.product(range(3), range(5)):
        column = np.array([[*found[0, i, :j], level, *now[0, i, j + 1 :]] for level in range(-12, 13)])
        left = column - values[0, i].numpy()
        tried = ((left @ covariance[0].numpy()) * left).sum(1) + slope * np.abs(column[:, j])
        wanted = tried.min() if free[0, i, j] else tried[12]
        assert tried[int(found[0, i, j]) + 12] == pytest.approx(wanted, abs=1e-9)


def test_where_bits_cost_nothing_it_is_the_loop_of_gptq() -> None:
    weight, covariance = _problem(5, 40, 140)
    weight, covariance = 3 * weight, covariance.roll((60, 60), (1, 2))
    free = torch.ones_like(weight, dtype=torch.bool)
    found = compensated(weight, factor_of(covariance, 1e-2), _costs(1, 0.0), free)
    theirs = settled(weight, covariance, lambda some, _: some.round(), largest_first=False)
    kept = (theirs != weight.round()).any(2)
    assert int(kept.sum()) > 30
    assert torch.equal(found[kept], theirs[kept])


@given(st.integers(0, 20))
def test_groups_and_rows_together_are_as_if_alone(seed: int) -> None:
    weight, covariance = _problem(seed, 40, 7, groups=3)
    free = torch.rand(weight.shape, generator=torch.Generator().manual_seed(seed)) < 0.7
    factor, start = factor_of(covariance, 1e-2), weight.round() * free
    costs = _costs(3, 0.1) * torch.tensor([[1.0], [2.0], [4.0]])
    # Transposed in memory: nothing may depend on how it lies there.
    lying = weight.transpose(1, 2).contiguous().transpose(1, 2)
    swept = compensated(lying, factor, costs, free), descended(start, lying, covariance, costs, free)
    for g, i in itertools.product(range(3), range(0, 40, 13)):
        one, row = slice(g, g + 1), slice(i, i + 1)
        alone = compensated(weight[one, row], factor[one], costs[one], free[one, row])
        moved = descended(start[one, row], weight[one, row], covariance[one], costs[one], free[one, row])
        assert torch.equal(swept[0][one, row], alone)
        assert torch.equal(swept[1][one, row], moved)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 1e300, 127.5, -127.5])
def test_whatever_comes_becomes_a_level(value: float) -> None:
    values, eye, free = (
        torch.full((1, 2, 3), value, dtype=torch.float64),
        torch.eye(3).double().unsqueeze(0),
        torch.ones(1, 2, 3),
    )
    for levels in (
        compensated(values, eye, _costs(1, 0.1), free.bool()),
        descended(torch.zeros_like(values), values, eye, _costs(1, 0.1), free.bool()),
    ):
        assert bool((levels.abs() <= MOST).all())
        if math.isfinite(value):
            assert bool((levels == math.copysign(MOST, value)).all())


@given(st.integers(0, 30))
def test_dearer_bits_are_fewer(seed: int) -> None:
    weight, covariance = _problem(seed, 24, 16)
    cheap, dear = (round_for_rate(weight, covariance, 0.6, price=price) for price in (0.0, 8 * PRICE))
    assert _entropy(dear) < _entropy(cheap)
    assert _error(dear, 0.6, weight, covariance) > _error(cheap, 0.6, weight, covariance)


def test_at_equal_entropy_it_loses_a_fifth_less_than_gptq() -> None:
    weight, covariance = _problem(3, 64, 48)
    grids = RowGrids(*(torch.full((1, 64), value, dtype=torch.float64) for value in (2.0, -MOST, MOST)))
    levels = gptq(weight, covariance, grids) / 2.0
    ours = []
    for step in (1.4, 1.6, 1.8, 2.0):
        found = round_for_rate(weight, covariance, step)
        ours.append((_entropy(found), _error(found, step, weight, covariance)))
    entropies, errors = zip(*sorted(ours), strict=True)
    at_equal = float(np.interp(_entropy(levels), entropies, errors))
    assert at_equal < 0.8 * _error(levels, 2.0, weight, covariance)


@given(st.integers(0, 20), st.sampled_from([1, 3]))
def test_masks_hold_and_levels_fit_a_byte(seed: int, groups: int) -> None:
    weight, covariance = _problem(seed, 6, 8, groups)
    free = torch.rand(weight.shape, generator=torch.Generator().manual_seed(seed)) < 0.5
    levels = round_for_rate(weight * 1000, covariance, 0.5, free)
    assert levels.dtype == torch.int64
    assert int(levels.abs().max()) <= MOST
    assert not bool(levels[~free].any())


@pytest.mark.parametrize("kind", ["dead", "constant", "rank one", "zero weight"])
def test_odd_inputs_give_numbers(kind: str) -> None:
    weight, covariance = _problem(0, 4, 6)
    if kind == "dead":
        covariance[:, 2], covariance[:, :, 2] = 0.0, 0.0
    elif kind == "constant":
        covariance = torch.zeros_like(covariance)
    elif kind == "rank one":
        row = torch.ones(1, 6, 1, dtype=torch.float64)
        covariance = row @ row.transpose(1, 2)
    else:
        weight = torch.zeros_like(weight)
    levels = round_for_rate(weight, covariance, 0.5)
    assert math.isfinite(_error(levels, 0.5, weight, covariance))
    again = round_for_rate(weight, covariance, 0.5)
    assert torch.equal(levels, again)
