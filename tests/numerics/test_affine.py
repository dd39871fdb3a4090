"""Affine grids: properties, and the search against brute force."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from featherweight.numerics.affine import (
    AffineGrid,
    asymmetric_grid,
    fit_asymmetric,
    fit_symmetric,
    rounding_noise,
    symmetric_grid,
)

reals = st.floats(-1e3, 1e3, width=32)
vectors = arrays(np.float32, st.integers(1, 50), elements=reals)
bit_widths = st.integers(2, 8)


@given(vectors, bit_widths)
def test_inside_the_range_the_error_is_at_most_half_a_step(values: np.ndarray, bits: int) -> None:
    x = torch.from_numpy(values)
    grid = symmetric_grid(x.abs().max(), bits)
    assert bool(((grid.round(x) - x).abs() <= grid.scale * 0.5001 + 1e-9).all())


@given(vectors, bit_widths)
def test_rounding_twice_is_rounding_once(values: np.ndarray, bits: int) -> None:
    x = torch.from_numpy(values)
    grid = asymmetric_grid(x.min(), x.max(), bits)
    once = grid.round(x)
    assert torch.equal(grid.round(once), once)


@given(reals, reals, bit_widths)
def test_zero_is_on_every_asymmetric_grid(low: float, high: float, bits: int) -> None:
    grid = asymmetric_grid(torch.tensor(min(low, high)), torch.tensor(max(low, high)), bits)
    assert float(grid.round(torch.tensor(0.0))) == 0.0
    assert grid.lowest <= int(grid.zero_point) <= grid.highest


@given(vectors)
def test_levels_agree_with_pytorchs_own_fake_quantization(values: np.ndarray) -> None:
    x = torch.from_numpy(values)
    grid = asymmetric_grid(x.min(), x.max())
    theirs = torch.fake_quantize_per_tensor_affine(
        x, float(grid.scale), int(grid.zero_point), grid.lowest, grid.highest
    )
    assert bool(((grid.round(x) - theirs).abs() <= grid.scale * 1.0001).all())
    assert float((grid.round(x) - theirs).abs().mean()) <= float(grid.scale) * 0.05 + 1e-9


def test_a_symmetric_int8_grid_leaves_out_the_lowest_level() -> None:
    grid = symmetric_grid(torch.tensor(1.0))
    assert (grid.lowest, grid.highest) == (-127, 127)
    assert grid.levels(torch.tensor([-5.0, 5.0])).tolist() == [-127, 127]


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_the_symmetric_search_is_the_best_of_all_its_clippings(bits: int) -> None:
    weight = torch.randn(5, 40, generator=torch.Generator().manual_seed(bits)).double()
    importance = torch.rand(40, generator=torch.Generator().manual_seed(1)).double()
    found = fit_symmetric(weight, bits, importance)
    error = ((found.round(weight, axis=0) - weight).square() * importance).sum(1)
    for row in range(5):
        brute = min(
            float(
                (
                    (symmetric_grid(weight[row].abs().max() * r, bits).round(weight[row]) - weight[row]).square()
                    * importance
                ).sum()
            )
            for r in torch.linspace(1.0, 0.3, 71, dtype=torch.float64).tolist()
        )
        assert float(error[row]) == pytest.approx(brute, rel=1e-9)


def test_the_asymmetric_search_never_loses_to_the_full_range() -> None:
    generator = torch.Generator().manual_seed(0)
    for spread in (0.1, 1.0, 30.0):
        sample = torch.randn(4000, generator=generator) * spread + spread
        low, high = float(sample.min()), float(sample.max())
        plain = asymmetric_grid(torch.tensor(low), torch.tensor(high), 4)
        found = fit_asymmetric(sample, low, high, 4)
        assert rounding_noise(sample, found) <= rounding_noise(sample, plain)


@pytest.mark.parametrize("weight", [torch.zeros(3, 4), torch.full((3, 4), 7.0), torch.full((1, 1), -1e-30)])
def test_constant_and_zero_weights_stay_finite(weight: torch.Tensor) -> None:
    grid = fit_symmetric(weight)
    assert bool(torch.isfinite(grid.round(weight, axis=0)).all())
    assert torch.allclose(grid.round(weight, axis=0), weight, rtol=1e-2, atol=1e-12)


def test_a_grid_per_channel_rounds_every_channel_by_its_own_scale() -> None:
    x = torch.tensor([[0.3, 10.0], [0.3, 10.0]])
    grid = AffineGrid(torch.tensor([0.5, 4.0]), torch.tensor([0, 0]), -8, 7)
    assert grid.round(x, axis=1).tolist() == [[0.5, 8.0], [0.5, 8.0]]
    assert grid.round(x, axis=0).tolist() == [[0.5, 3.5], [0.0, 8.0]]


def test_an_empty_or_constant_sample_gives_a_usable_grid() -> None:
    assert float(fit_asymmetric(torch.empty(0), 0.0, 0.0).scale) > 0
    assert rounding_noise(torch.empty(0), symmetric_grid(torch.tensor(1.0))) == 0.0
    grid = fit_asymmetric(torch.full((9,), 2.0), 2.0, 2.0)
    assert float(grid.round(torch.tensor(2.0))) == pytest.approx(2.0, rel=1e-2)
