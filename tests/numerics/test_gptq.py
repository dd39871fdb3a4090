"""GPTQ against a textbook version, and what it must never do."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from featherweight.numerics.affine import fit_asymmetric_rows, fit_symmetric
from featherweight.numerics.gptq import RowGrids, gptq, row_errors
from featherweight.numerics.gram import output_error


def problem(
    seed: int, groups: int = 1, rows: int = 5, columns: int = 12, rank: int | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Weights (g, n, d) and covariances (g, d, d) of correlated inputs."""
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(groups, rows, columns, generator=generator).double()
    mixing = torch.randn(groups, columns, columns if rank is None else rank, generator=generator).double()
    return weight, mixing @ mixing.transpose(1, 2) / columns


def grids_of(weight: torch.Tensor, bits: int, *, symmetric: bool = True) -> RowGrids:
    fit = fit_symmetric if symmetric else fit_asymmetric_rows
    return RowGrids.of(fit(weight.flatten(0, 1), bits), len(weight))


def on_grids(values: torch.Tensor, grids: RowGrids) -> bool:
    return bool(torch.allclose(grids.nearest(values), values, rtol=0, atol=1e-9))


def textbook(weight: torch.Tensor, covariance: torch.Tensor, grids: RowGrids, damping: float) -> torch.Tensor:
    """One block, one row at a time: round a column, spread its error, eliminate it from the inverse (OBQ's step)."""
    strength = damping * covariance.diagonal().mean()
    order = covariance.diagonal().argsort(descending=True, stable=True).tolist()
    rounded = torch.empty_like(weight)
    for row in range(len(weight)):
        own = RowGrids(*(part[:, row : row + 1] for part in (grids.scale, grids.low, grids.high)))
        left, inverse = weight[row].clone(), torch.linalg.inv(covariance + strength * torch.eye(len(covariance)))
        for j in order:
            value = own.nearest(left[j].view(1, 1))[0, 0]
            rounded[row, j] = value
            left -= (left[j] - value) / inverse[j, j] * inverse[j]
            inverse = inverse - torch.outer(inverse[:, j], inverse[j]) / inverse[j, j]
    return rounded


@pytest.mark.parametrize("columns", [1, 7, 140])
@pytest.mark.parametrize("bits", [3, 8])
def test_it_is_the_textbooks_gptq(columns: int, bits: int) -> None:
    weight, covariance = problem(columns + bits, rows=4, columns=columns)
    grids = grids_of(weight, bits)
    found = gptq(weight, covariance, grids, damping=0.01)
    expected = textbook(weight[0], covariance[0], grids, 0.01).unsqueeze(0)
    nearest = grids.nearest(weight)
    better = row_errors(expected - weight, covariance) < row_errors(nearest - weight, covariance)
    assert torch.allclose(found, torch.where(better.unsqueeze(2), expected, nearest), atol=1e-9)
    if columns > 1:
        assert bool(better.any())


@given(
    st.integers(0, 10_000), st.integers(1, 3), st.integers(1, 4), st.integers(1, 9), st.integers(2, 8), st.booleans()
)
@settings(max_examples=40, deadline=None)
def test_no_row_is_worse_than_nearest_rounding(
    seed: int, groups: int, rows: int, columns: int, bits: int, symmetric: bool
) -> None:
    rank = seed % columns + 1  # often deficient
    weight, covariance = problem(seed, groups, rows, columns, rank)
    grids = grids_of(weight, bits, symmetric=symmetric)
    found = gptq(weight, covariance, grids)
    plain = row_errors(grids.nearest(weight) - weight, covariance)
    assert bool((row_errors(found - weight, covariance) <= plain * (1 + 1e-9) + 1e-15).all())
    assert on_grids(found, grids)


def test_correlated_inputs_are_where_it_gains() -> None:
    weight, covariance = problem(0, rows=16, columns=64, rank=16)
    grids = grids_of(weight, 4)
    ours = output_error(gptq(weight, covariance, grids) - weight, covariance)
    assert ours < 0.6 * output_error(grids.nearest(weight) - weight, covariance)


def test_uncorrelated_inputs_leave_nothing_to_gain() -> None:
    weight, _ = problem(0, rows=4)
    grids = grids_of(weight, 4)
    covariance = torch.diag(torch.rand(12).double() + 0.5).unsqueeze(0)
    assert torch.equal(gptq(weight, covariance, grids), grids.nearest(weight))


@pytest.mark.parametrize("mask_seed", [0, 1])
def test_masked_entries_are_zero_and_the_others_make_up_for_them(mask_seed: int) -> None:
    weight, covariance = problem(4, groups=2, rows=6, columns=20)
    free = torch.rand(weight.shape, generator=torch.Generator().manual_seed(mask_seed)) > 0.5
    grids = grids_of(weight, 8)
    found = gptq(weight, covariance, grids, free)
    assert not found[~free].any()
    cut = output_error(grids.nearest(weight) * free - weight, covariance)
    assert output_error(found - weight, covariance) < 0.85 * cut


def _dead(covariance: torch.Tensor) -> torch.Tensor:
    covariance = covariance.clone()
    covariance[:, 3], covariance[:, :, 3] = 0.0, 0.0
    return covariance


@pytest.mark.parametrize(
    ("weight", "covariance"),
    [
        (problem(0)[0], torch.zeros(1, 12, 12)),
        (problem(0)[0], problem(0)[1] * 1e-30),
        (problem(0)[0], problem(0)[1] * 1e30),
        (problem(0)[0], problem(0, rank=1)[1]),
        (problem(0)[0], _dead(problem(0)[1])),
        (torch.zeros(1, 5, 12), problem(0)[1]),
        (torch.full((1, 5, 12), 0.7), problem(0)[1]),
        (torch.full((1, 1, 1), -3.0), torch.ones(1, 1, 1)),
        (problem(0)[0].half(), problem(0)[1].half()),
    ],
    ids=["zero", "tiny", "huge", "rank 1", "dead input", "zero weight", "constant weight", "one entry", "half"],
)
def test_odd_inputs_stay_finite_and_on_the_grid(weight: torch.Tensor, covariance: torch.Tensor) -> None:
    for bits in (2, 8):
        grids = grids_of(weight, bits)
        found = gptq(weight, covariance, grids)
        assert bool(torch.isfinite(found).all())
        assert on_grids(found, grids)
        plain = row_errors(grids.nearest(weight.double()) - weight.double(), covariance)
        assert bool((row_errors(found - weight.double(), covariance) <= plain * (1 + 1e-9)).all())


def test_groups_are_rounded_as_if_alone() -> None:
    weight, covariance = problem(7, groups=3)
    covariance = covariance[:1].expand(3, -1, -1)  # one order for all of them
    grids = grids_of(weight, 4)
    together = gptq(weight, covariance, grids)
    for block in range(3):
        one = slice(block, block + 1)
        own = RowGrids(*(part[one] for part in (grids.scale, grids.low, grids.high)))
        assert torch.allclose(together[one], gptq(weight[one], covariance[one], own), atol=1e-12)


def test_copies_of_rows_are_told_apart() -> None:
    grids = RowGrids(*(torch.arange(4.0).double().view(2, 2) + 1 for _ in range(3)))
    copies = grids.repeated(torch.tensor([1.0, 0.5]).double())
    assert copies.scale.tolist() == [[1.0, 0.5, 2.0, 1.0], [3.0, 1.5, 4.0, 2.0]]
    picked = copies.picked(torch.tensor([[1, 0], [0, 1]]), 2)
    assert picked.scale.tolist() == [[0.5, 2.0], [3.0, 2.0]]
    assert picked.high.tolist() == grids.high.tolist()
