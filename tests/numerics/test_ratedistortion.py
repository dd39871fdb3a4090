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
from featherweight.numerics.ratedistortion import MOST, PRICE, bits_of, round_for_rate


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
