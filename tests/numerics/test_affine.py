"""Affine grids: properties, and the search against brute force."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from torchao.quantization.quant_primitives import MappingType, choose_qparams_affine, quantize_affine

from featherweight.numerics.affine import (
    AffineGrid,
    asymmetric_grid,
    fit_asymmetric,
    fit_asymmetric_rows,
    fit_blocks,
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
            for r in torch.linspace(
                1.0, 0.3 if bits == 8 else 0.1, 71 if bits == 8 else 91, dtype=torch.float64
            ).tolist()
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


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
def test_the_search_over_both_ends_of_rows_never_loses_to_the_full_range(bits: int) -> None:
    weight = torch.randn(6, 50, generator=torch.Generator().manual_seed(bits)).double() + 0.5
    found = fit_asymmetric_rows(weight, bits)
    plain = asymmetric_grid(weight.amin(1), weight.amax(1), bits)
    errors = [(grid.round(weight, axis=0) - weight).square().sum(1) for grid in (found, plain)]
    assert bool((errors[0] <= errors[1] + 1e-12).all())
    assert bool((found.round(torch.zeros(6, 1).double(), axis=0) == 0).all())


def test_a_zero_point_pays_where_weights_have_one_sign() -> None:
    weight = torch.rand(4, 60, generator=torch.Generator().manual_seed(3)).double()
    asymmetric, symmetric = fit_asymmetric_rows(weight, 4), fit_symmetric(weight, 4)
    errors = [(grid.round(weight, axis=0) - weight).square().sum() for grid in (asymmetric, symmetric)]
    assert float(errors[0]) < 0.4 * float(errors[1])


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("columns", [5, 32, 70])
def test_every_block_is_rounded_on_the_grid_that_it_would_get_alone(columns: int, symmetric: bool) -> None:
    generator = torch.Generator().manual_seed(columns)
    weight = torch.randn(3, columns, generator=generator).double() * torch.logspace(-2, 2, columns).double()
    importance = torch.rand(columns, generator=generator).double()
    rounded = fit_blocks(weight, 32, 4, symmetric=symmetric, importance=importance).round(weight)
    fit = fit_symmetric if symmetric else fit_asymmetric_rows
    for start in range(0, columns, 32):
        block = weight[:, start : start + 32]
        expected = fit(block, 4, importance[start : start + 32]).round(block, axis=0)
        assert torch.equal(rounded[:, start : start + 32], expected)


def test_blocks_beat_whole_rows_where_columns_differ() -> None:
    weight = torch.randn(4, 96, generator=torch.Generator().manual_seed(0)).double()
    weight[:, 32:64] *= 30
    errors = [
        (rounded - weight)[:, :32].square().sum()
        for rounded in (fit_blocks(weight, 32, 4).round(weight), fit_symmetric(weight, 4).round(weight, axis=0))
    ]
    assert float(errors[0]) < 0.1 * float(errors[1])


@given(vectors)
def test_sixteen_bits_round_to_within_their_step(values: np.ndarray) -> None:
    x = torch.from_numpy(values)
    grid = asymmetric_grid(x.min(), x.max(), 16)
    assert (grid.lowest, grid.highest) == (-32768, 32767)
    assert bool(((grid.round(x) - x).abs().double() <= grid.scale.double() * 1.01 + 1e-9).all())


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("bits", [4, 8])
def test_scales_and_zero_points_agree_with_torchao(bits: int, symmetric: bool) -> None:
    x = torch.randn(8, 40, generator=torch.Generator().manual_seed(bits)) + 0.3
    lowest, highest = -(2 ** (bits - 1)) + int(symmetric), 2 ** (bits - 1) - 1
    kind = MappingType.SYMMETRIC if symmetric else MappingType.ASYMMETRIC
    scale, zero = choose_qparams_affine(x, kind, (1, 40), torch.int8, quant_min=lowest, quant_max=highest)
    ours = symmetric_grid(x.abs().amax(1), bits) if symmetric else asymmetric_grid(x.amin(1), x.amax(1), bits)
    theirs = quantize_affine(x, (1, 40), scale, zero, torch.int8, lowest, highest)
    if symmetric:
        # torchao spans −2^(bits−1) … 2^(bits−1) − 1 with half of 2^bits − 1 steps; on its scale levels agree.
        ours = AffineGrid(scale.flatten().float(), ours.zero_point, lowest, highest)
    else:
        assert torch.allclose(ours.scale, scale.flatten(), rtol=1e-6)
        assert torch.equal(ours.zero_point, zero.flatten().to(torch.int64))
    assert torch.equal(ours.levels(x, axis=0).to(torch.int8), theirs)
