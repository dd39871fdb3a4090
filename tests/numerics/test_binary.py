"""Signs with scales: closed forms against brute force, and XNOR-Net's activations against a loop over patches."""

from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from featherweight.numerics.binary import binary_activations, fit_binary, fit_ternary, gram_scale, on_levels

_ROW = st.lists(st.tuples(st.integers(-30, 30), st.integers(0, 5)), min_size=1, max_size=6)


def _least(weight: torch.Tensor, importance: torch.Tensor, levels: tuple[int, ...]) -> float:
    """The least error over all assignments of levels, each with its own best scale."""
    best = float((importance * weight.square()).sum())
    for chosen in itertools.product(levels, repeat=len(weight)):
        b = torch.tensor(chosen, dtype=torch.float64)
        energy = float((importance * b.square()).sum())
        scale = max(float((importance * b * weight).sum()) / energy, 0.0) if energy else 0.0
        best = min(best, float((importance * (weight - scale * b).square()).sum()))
    return best


@given(_ROW)
@settings(max_examples=60)
def test_scales_are_the_true_optimum(row: list[tuple[int, int]]) -> None:
    weight, importance = torch.tensor(row, dtype=torch.float64).T
    for fit, levels, zero in ((fit_binary, (-1, 1), False), (fit_ternary, (-1, 0, 1), True)):
        rounded = on_levels(weight[None], fit(weight[None], importance[None]), zero=zero)[0]
        counted = importance if importance.any() else torch.ones_like(importance)
        found = float((counted * (weight - rounded).square()).sum())
        assert found == pytest.approx(_least(weight, counted, levels), abs=1e-9)


def test_without_importance_the_binary_scale_is_the_mean_of_magnitudes() -> None:
    weight = torch.randn(3, 5, 40)
    assert torch.allclose(fit_binary(weight), weight.double().abs().mean(2))


def test_the_ternary_optimum_beats_the_usual_threshold() -> None:
    weight = torch.randn(64, 200).double() * torch.rand(64, 1).double()
    error = (on_levels(weight, fit_ternary(weight), zero=True) - weight).square().sum(1)
    kept = weight.abs() > 0.7 * weight.abs().mean(1, keepdim=True)  # Ternary Weight Networks' guess
    scale = (weight.abs() * kept).sum(1, keepdim=True) / kept.sum(1, keepdim=True)
    guess = (scale * weight.sign() * kept - weight).square().sum(1)
    assert bool((error <= guess + 1e-12).all())
    assert bool((error < guess - 1e-9).any())


def test_ternary_never_loses_to_binary() -> None:
    weight = torch.randn(32, 50).double()
    binary, ternary = fit_binary(weight), fit_ternary(weight)
    errors = [
        (on_levels(weight, s, zero=zero) - weight).square().sum(1) for s, zero in ((binary, False), (ternary, True))
    ]
    assert bool((errors[1] <= errors[0] + 1e-12).all())


@given(st.integers(0, 300), st.integers(1, 8), st.integers(1, 10))
@settings(max_examples=40)
def test_the_gram_scale_is_the_least_squares_one(seed: int, width: int, rank: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(2, 3, width, generator=generator).double()
    inputs = torch.randn(2, rank, width, generator=generator).double()
    covariance = inputs.transpose(1, 2) @ inputs
    levels, fallback = weight.sign(), fit_binary(weight)
    scale = gram_scale(weight, levels, covariance, fallback)
    found, plain = (
        (((weight - levels * s.unsqueeze(2)) @ inputs.transpose(1, 2)).square().sum(2)) for s in (scale, fallback)
    )
    assert bool((scale >= 0).all())
    moved = scale != fallback
    assert bool((found[moved] <= plain[moved] + 1e-9).all())
    for group, row in moved.nonzero().tolist():
        wanted = torch.linalg.lstsq(
            inputs[group] @ levels[group, row][:, None], inputs[group] @ weight[group, row][:, None]
        )
        assert float(scale[group, row]) == pytest.approx(float(wanted.solution), rel=1e-6)


def test_rows_that_put_nothing_out_keep_their_scale() -> None:
    weight, covariance = torch.ones(1, 2, 3), torch.zeros(1, 3, 3)
    assert torch.equal(
        gram_scale(weight, weight, covariance, torch.full((1, 2), 0.7)), torch.full((1, 2), 0.7).double()
    )
    assert torch.equal(fit_ternary(torch.zeros(2, 4)), torch.zeros(2).double())
    assert torch.equal(on_levels(torch.zeros(2, 4), torch.zeros(2), zero=False), torch.zeros(2, 4))


@given(st.integers(0, 100), st.sampled_from([torch.float16, torch.float32, torch.float64]), st.booleans())
def test_rounding_twice_is_rounding_once(seed: int, dtype: torch.dtype, zero: bool) -> None:
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(4, 9, generator=generator).to(dtype)
    scale = torch.rand(4, generator=generator).to(dtype)
    once = on_levels(weight, scale, zero=zero)
    assert once.dtype == dtype
    assert torch.equal(on_levels(once, scale, zero=zero), once)


@pytest.mark.parametrize(("kernel", "stride", "padding"), [((3, 3), (1, 1), (1, 1)), ((2, 3), (2, 1), (0, 1))])
def test_activation_scales_are_mean_magnitudes_of_patches(
    kernel: tuple[int, int], stride: tuple[int, int], padding: tuple[int, int]
) -> None:
    x = torch.randn(2, 4, 7, 6).double()
    signs, scale = binary_activations(x, kernel, stride, padding)
    assert torch.equal(signs.abs(), torch.ones_like(x))
    padded = functional.pad(x.abs(), (padding[1], padding[1], padding[0], padding[0]))
    for i, j in itertools.product(range(scale.shape[2]), range(scale.shape[3])):
        top, left = i * stride[0], j * stride[1]
        patch = padded[:, :, top : top + kernel[0], left : left + kernel[1]]
        assert torch.allclose(scale[:, 0, i, j], patch.mean((1, 2, 3)))


def test_signs_and_scales_come_near_the_convolution() -> None:
    """On wide independent inputs XNOR-Net's product correlates with the real one as √(2/π)² ≈ 0.64."""
    x, weight = torch.randn(2, 64, 8, 8).double(), torch.randn(16, 64, 3, 3).double()
    signs, scale = binary_activations(x, (3, 3), (1, 1), (0, 0))
    alpha = fit_binary(weight.flatten(1)).view(1, -1, 1, 1)
    found = functional.conv2d(signs, weight.sign()) * scale * alpha
    wanted = functional.conv2d(x, weight)
    correlation = float((found * wanted).sum() / (found.norm() * wanted.norm()))
    assert correlation == pytest.approx(0.64, abs=0.05)
