"""Rounding column by column on any set of values: never worse than rounding to the nearest, row by row."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from featherweight.numerics.codebook import nearest
from featherweight.numerics.sequential import settled

CODEBOOK = torch.tensor([-1.0, -0.2, 0.3, 1.1]).double()


def _covariance(groups: int, width: int, rank: int) -> torch.Tensor:
    inputs = torch.randn(groups, rank, width).double() @ torch.randn(width, width).double()
    return inputs.transpose(1, 2) @ inputs / rank


def _row_errors(given_: torch.Tensor, weight: torch.Tensor, covariance: torch.Tensor) -> torch.Tensor:
    difference = given_ - weight
    return ((difference @ covariance) * difference).sum(2)


@given(st.integers(0, 500), st.integers(1, 3), st.integers(1, 9), st.integers(1, 12))
@settings(max_examples=40)
def test_no_row_ends_worse_than_rounded_to_the_nearest(seed: int, groups: int, width: int, rank: int) -> None:
    torch.manual_seed(seed)
    weight, covariance = torch.randn(groups, 5, width).double(), _covariance(groups, width, rank)
    found = settled(weight, covariance, lambda some, _: nearest(some, CODEBOOK))
    plain = _row_errors(nearest(weight, CODEBOOK), weight, covariance)
    assert bool((_row_errors(found, weight, covariance) <= plain + 1e-12).all())
    assert torch.equal(nearest(found, CODEBOOK), found)


def test_correlated_inputs_gain_much() -> None:
    weight, covariance = torch.randn(1, 32, 150).double() * 0.5, _covariance(1, 150, 20)
    found = settled(weight, covariance, lambda some, _: nearest(some, CODEBOOK))
    plain = _row_errors(nearest(weight, CODEBOOK), weight, covariance).sum()
    assert _row_errors(found, weight, covariance).sum() < 0.5 * plain


def test_blocks_change_nothing() -> None:
    """Against the textbook's loop: one column at a time, no blocks, an inverse taken anew for what is left."""
    weight, covariance = torch.randn(1, 4, 140).double(), _covariance(1, 140, 300)
    found = settled(weight, covariance, lambda some, _: nearest(some, CODEBOOK))
    order = covariance[0].diagonal().argsort(descending=True, stable=True)
    damped = covariance[0] + 0.01 * covariance[0].diagonal().mean() * torch.eye(140).double()
    left = weight[0].clone()
    for step, at in enumerate(order.tolist()):
        value = nearest(left[:, at], CODEBOOK)
        error, rest = left[:, at] - value, order[step + 1 :]
        if len(rest):
            left[:, rest] += error.unsqueeze(1) * torch.linalg.solve(damped[rest][:, rest], damped[rest, at])
        left[:, at] = value
    plain = nearest(weight, CODEBOOK)
    better = _row_errors(left[None], weight, covariance) < _row_errors(plain, weight, covariance)
    assert torch.allclose(found, torch.where(better.unsqueeze(2), left[None], plain))


@pytest.mark.parametrize("covariance", [torch.zeros(1, 6, 6), torch.ones(1, 6, 6), torch.eye(6)[None] * 1e-30])
def test_singular_and_tiny_moments_stay_finite(covariance: torch.Tensor) -> None:
    weight = torch.randn(1, 3, 6)
    found = settled(weight, covariance, lambda some, _: nearest(some, CODEBOOK))
    assert bool(torch.isfinite(found).all())
    assert torch.equal(nearest(found, CODEBOOK), found)
