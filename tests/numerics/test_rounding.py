"""Levels and scales on the output's error: against brute force over all levels and over all scales."""

from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from featherweight.numerics.affine import fit_asymmetric_rows, fit_symmetric
from featherweight.numerics.gptq import RowGrids, gptq, row_errors
from featherweight.numerics.rounding import descend, fit_scales, round_weight, search_scales


def problem(seed: int, groups: int, rows: int, columns: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(groups, rows, columns, generator=generator).double()
    mixing = torch.randn(groups, columns, max(1, columns - seed % 3), generator=generator).double()
    return weight, mixing @ mixing.transpose(1, 2) / columns


def grids_of(weight: torch.Tensor, bits: int, *, symmetric: bool = True) -> RowGrids:
    fit = fit_symmetric if symmetric else fit_asymmetric_rows
    return RowGrids.of(fit(weight.flatten(0, 1), bits), len(weight))


problems = st.tuples(st.integers(0, 10_000), st.integers(1, 3), st.integers(1, 4), st.integers(1, 7))


@given(problems, st.integers(2, 5), st.booleans())
@settings(max_examples=40, deadline=None)
def test_descent_never_climbs_and_ends_where_no_single_level_helps(
    shape: tuple[int, int, int, int], bits: int, symmetric: bool
) -> None:
    weight, covariance = problem(*shape)
    grids = grids_of(weight, bits, symmetric=symmetric)
    start = grids.nearest(weight)
    found = descend(start, weight, covariance, grids, sweeps=100)
    errors = row_errors(found - weight, covariance)
    assert bool((errors <= row_errors(start - weight, covariance)).all())
    assert torch.allclose(grids.nearest(found), found, atol=1e-9)
    scale = grids.scale.unsqueeze(2)
    for column, step in itertools.product(range(weight.shape[2]), (-1, 1)):
        moved = found.clone()
        moved[:, :, column] = grids.nearest(found + step * scale)[:, :, column]
        assert bool((row_errors(moved - weight, covariance) >= errors - 1e-9).all())


def test_all_in_turn_comes_close_to_the_best_of_all_levels() -> None:
    reached = possible = 0.0
    for seed in range(20):
        weight, covariance = problem(seed, 1, 8, 6)
        rounded, grids = round_weight(weight, covariance, grids_of(weight, 2))
        levels = torch.tensor(list(itertools.product((-1.0, 0.0, 1.0), repeat=6))).double()
        every = levels.unsqueeze(0) * grids.scale.view(-1, 1, 1) - weight[0].unsqueeze(1)
        best = ((every @ covariance[0]) * every).sum(2).min(1).values
        found = row_errors(rounded - weight, covariance)[0]
        assert bool((found >= best - 1e-12).all())
        reached, possible = reached + float(found.sum()), possible + float(best.sum())
    assert reached <= 1.15 * possible


def test_a_scale_is_the_least_squares_one() -> None:
    weight, covariance = problem(2, 2, 3, 8)
    grids = grids_of(weight, 3)
    rounded = gptq(weight, covariance, grids)
    moved, fitted = fit_scales(rounded, weight, covariance, grids)
    errors = row_errors(moved - weight, covariance)
    assert bool((errors <= row_errors(rounded - weight, covariance)).all())
    assert torch.allclose(moved / fitted.scale.unsqueeze(2), rounded / grids.scale.unsqueeze(2))
    for factor in torch.linspace(0.7, 1.4, 200).tolist():
        assert bool((row_errors(rounded * factor - weight, covariance) >= errors - 1e-7 * errors).all())
    assert torch.equal(fitted.scale, fitted.scale.float().double())  # it is stored so


@given(problems, st.integers(2, 4), st.booleans())
@settings(max_examples=30, deadline=None)
def test_every_part_of_the_search_is_at_least_as_good_as_the_one_before(
    shape: tuple[int, int, int, int], bits: int, symmetric: bool
) -> None:
    weight, covariance = problem(*shape)
    grids = grids_of(weight, bits, symmetric=symmetric)
    plain = row_errors(gptq(weight, covariance, grids) - weight, covariance)
    searched, at = search_scales(weight, covariance, grids)
    whole, final = round_weight(weight, covariance, grids)
    errors = [row_errors(rounded - weight, covariance) for rounded in (searched, whole)]
    assert bool((errors[0] <= plain * (1 + 1e-6) + 1e-15).all())
    assert bool((errors[1] <= errors[0]).all())
    assert torch.allclose(at.nearest(searched), searched, atol=1e-9)
    assert torch.allclose(final.nearest(whole), whole, atol=1e-9)


def test_rows_in_parts_are_rows_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    weight, covariance = problem(3, 2, 9, 10)
    grids = grids_of(weight, 3)
    at_once = search_scales(weight, covariance, grids)
    monkeypatch.setattr("featherweight.numerics.rounding._ENTRIES_AT_ONCE", 2 * 10 * 8 * 2)
    parts = search_scales(weight, covariance, grids)
    assert torch.allclose(at_once[0], parts[0], atol=1e-9)
    assert torch.equal(at_once[1].scale, parts[1].scale)


def test_masked_entries_stay_zero() -> None:
    weight, covariance = problem(5, 2, 6, 140)
    free = torch.rand(weight.shape, generator=torch.Generator().manual_seed(0)) > 0.6
    rounded, _ = round_weight(weight, covariance, grids_of(weight * free, 3), free)
    assert not rounded[~free].any()
    assert bool(rounded[free].any())


@pytest.mark.parametrize("bits", [2, 4])
@pytest.mark.parametrize(
    ("weight", "covariance"),
    [
        (torch.randn(1, 3, 5).double(), torch.zeros(1, 5, 5)),
        (torch.zeros(1, 3, 5).double(), torch.eye(5).unsqueeze(0)),
        (torch.full((1, 3, 5), -2.0), torch.ones(1, 5, 5)),
        (torch.ones(4, 1, 1), torch.full((4, 1, 1), 1e-20)),
    ],
    ids=["no covariance", "zero weight", "constant", "single entries"],
)
def test_odd_inputs_stay_finite(weight: torch.Tensor, covariance: torch.Tensor, bits: int) -> None:
    rounded, grids = round_weight(weight, covariance, grids_of(weight, bits))
    assert bool(torch.isfinite(rounded).all())
    assert bool((grids.scale > 0).all())
    plain = row_errors(grids_of(weight, bits).nearest(weight.double()) - weight, covariance)
    assert bool((row_errors(rounded - weight, covariance) <= plain + 1e-15).all())
