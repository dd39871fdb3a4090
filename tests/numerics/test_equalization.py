"""Equalization: the function stays, the ranges meet, and the published cases come out."""

from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from featherweight.numerics.affine import symmetric_grid
from featherweight.numerics.equalization import (
    Stage,
    bias_correction,
    equalize,
    equalizing_scales,
    input_ranges,
    output_ranges,
    rectified_mean,
    smoothing_scales,
)


def mobile_chain(seed: int, spread: float = 2.0) -> tuple[Stage, ...]:
    """1×1, depthwise 3×3 and 1×1, with channels of very different ranges."""
    generator = torch.Generator().manual_seed(seed)
    scale = torch.exp(spread * torch.randn(8, generator=generator)).float().view(-1, 1, 1, 1)

    def randn(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator)

    return (
        Stage(randn(8, 3, 1, 1) * scale, randn(8)),
        Stage(randn(8, 1, 3, 3) / scale, randn(8), depthwise=True),
        Stage(randn(5, 8, 1, 1)),
    )


def run(chain: tuple[Stage, ...], x: torch.Tensor) -> torch.Tensor:
    for index, stage in enumerate(chain):
        groups = len(stage.weight) if stage.depthwise else 1
        x = functional.conv2d(x, stage.weight, stage.bias, padding=stage.weight.shape[-1] // 2, groups=groups)
        x = torch.relu(x) if index < len(chain) - 1 else x
    return x


@given(st.integers(0, 10_000), st.floats(0.0, 3.0))
@settings(max_examples=25, deadline=None)
def test_the_function_stays(seed: int, spread: float) -> None:
    chain = mobile_chain(seed, spread)
    x = torch.randn(2, 3, 6, 6, generator=torch.Generator().manual_seed(seed + 1))
    before, after = run(chain, x), run(equalize(chain), x)
    assert float((after - before).abs().max()) <= 1e-5 * float(before.abs().max())


def test_neighbours_end_with_equal_ranges() -> None:
    chain = equalize(mobile_chain(0), sweeps=200, tolerance=1e-9)
    for first, second in itertools.pairwise(chain):
        ranges = output_ranges(first.weight), input_ranges(second.weight, depthwise=second.depthwise)
        assert torch.allclose(*ranges, rtol=1e-4)


def test_a_pair_takes_one_step_to_the_papers_solution() -> None:
    first, second = torch.tensor([8.0, 2.0, 0.5]), torch.tensor([2.0, 2.0, 2.0])
    scales = equalizing_scales(first, second)
    assert torch.allclose(scales, (torch.sqrt(first * second) / second).double())  # as the paper writes it
    assert scales.tolist() == [2.0, 1.0, 0.5]
    assert torch.allclose(first / scales, second * scales)


def test_grids_for_whole_tensors_fit_better() -> None:
    chain = mobile_chain(3, spread=3.0)
    x = torch.randn(4, 3, 6, 6, generator=torch.Generator().manual_seed(0))

    def rounded(stages: tuple[Stage, ...]) -> torch.Tensor:
        coarse = [Stage(symmetric_grid(s.weight.abs().max(), 8).round(s.weight), s.bias, s.depthwise) for s in stages]
        return (run(tuple(coarse), x) - run(stages, x)).square().mean()

    assert float(rounded(equalize(chain))) < 0.2 * float(rounded(chain))


def test_dead_channels_and_single_layers_stay() -> None:
    dead = Stage(torch.tensor([[1.0, 2.0], [0.0, 0.0]]), torch.tensor([1.0, 3.0]))
    after = Stage(torch.tensor([[4.0, 5.0]]))
    first, second = equalize([dead, after])
    assert first.weight[1].tolist() == [0.0, 0.0]
    assert (float(first.bias[1]), float(second.weight[0, 1])) == (3.0, 5.0)
    assert equalize([dead]) == (dead,)


def test_layers_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="2 channels into 3"):
        equalize([Stage(torch.ones(2, 2)), Stage(torch.ones(1, 3))])


@given(st.integers(0, 1000), st.floats(0, 1))
def test_smoothing_keeps_products_and_splits_the_range(seed: int, alpha: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    x, w = torch.randn(9, 5, generator=generator).double(), torch.randn(4, 5, generator=generator).double()
    ranges = x.abs().amax(0), w.abs().amax(0)
    scales = smoothing_scales(*ranges, alpha)
    assert torch.allclose((x / scales) @ (w * scales).T, x @ w.T)
    assert torch.allclose(scales, ranges[0] ** alpha / ranges[1] ** (1 - alpha))
    if alpha == 0.5:
        assert torch.allclose((x / scales).abs().amax(0), (w * scales).abs().amax(0))


def test_smoothing_at_its_ends_and_halfway() -> None:
    inputs, weights = torch.tensor([100.0, 1.0, 0.0]), torch.tensor([1.0, 4.0, 2.0])
    assert smoothing_scales(inputs, weights, 0.5).tolist() == [10.0, 0.5, 1.0]
    assert smoothing_scales(inputs, weights, 1.0).tolist() == [100.0, 1.0, 1.0]
    assert smoothing_scales(inputs, weights, 0.0).tolist() == [1.0, 0.25, 1.0]
    with pytest.raises(ValueError, match="alpha"):
        smoothing_scales(inputs, weights, 1.5)


def test_corrected_biases_keep_the_mean() -> None:
    generator = torch.Generator().manual_seed(0)
    x, weight = torch.rand(50, 6, generator=generator).double(), torch.randn(4, 6, generator=generator).double()
    rounded = weight.round()
    bias = bias_correction((rounded - weight).unsqueeze(0), x.mean(0, keepdim=True))
    assert torch.allclose((x @ rounded.T + bias).mean(0), (x @ weight.T).mean(0), atol=1e-12)


@pytest.mark.parametrize(("mean", "deviation"), [(0.0, 1.0), (2.0, 0.5), (-1.0, 3.0), (-5.0, 1.0), (3.0, 0.0)])
def test_the_mean_behind_relu_is_the_integral(mean: float, deviation: float) -> None:
    found = float(rectified_mean(torch.tensor([mean]), torch.tensor([deviation]))[0])
    z = torch.linspace(-12, 12, 400_001, dtype=torch.float64)
    density = torch.exp(-z.square() / 2) / (2 * torch.pi) ** 0.5
    expected = float(torch.trapezoid((mean + deviation * z).clamp(min=0) * density, z))
    assert found == pytest.approx(expected, abs=1e-8)
