"""Zeros in a linear map, against brute force and against their own promises."""

from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from featherweight.numerics.gram import output_error
from featherweight.numerics.sparsity import (
    CRITERIA,
    Runs,
    Share,
    compensate,
    magnitude_mask,
    sparsegpt,
    sparsify,
    surgeon_mask,
    wanda_mask,
)

HALF, SEVENTY, NINETY, TWO_OF_FOUR = Share(0.5), Share(0.7), Share(0.9), Runs(2, 4)
PATTERNS = [HALF, SEVENTY, NINETY, TWO_OF_FOUR, Runs(1, 2), Runs(3, 8)]


def problem(seed: int = 0, groups: int = 1, rows: int = 8, width: int = 24) -> tuple[torch.Tensor, torch.Tensor]:
    """A map and the covariance of correlated inputs of unequal strength."""
    generator = torch.Generator().manual_seed(seed)
    mixing = torch.randn(groups, width, max(2, width // 3), generator=generator).double()
    strength = 0.2 + 2 * torch.rand(groups, width, 1, generator=generator).double()
    inputs = strength * (mixing / mixing.shape[2] ** 0.5)
    covariance = inputs @ inputs.transpose(1, 2) + 0.05 * torch.diag_embed(strength.squeeze(2).square())
    return torch.randn(groups, rows, width, generator=generator).double(), covariance


def row_errors(difference: torch.Tensor, covariance: torch.Tensor) -> torch.Tensor:
    return ((difference @ covariance) * difference).sum(-1)


def mask_for(criterion: str, weight: torch.Tensor, covariance: torch.Tensor, pattern: Share | Runs) -> torch.Tensor:
    if criterion == "sparsegpt":
        return sparsegpt(weight, covariance, pattern).mask
    if criterion == "obs":
        return surgeon_mask(weight, covariance, pattern)
    return magnitude_mask(weight, pattern) if criterion == "magnitude" else wanda_mask(weight, covariance, pattern)


# ------------------------------------------------------------------------------------------------------ which ones go


@pytest.mark.parametrize("criterion", CRITERIA)
@pytest.mark.parametrize("zeros", [0.01, 0.1, 0.5, 0.7, 0.9, 0.99])
@pytest.mark.parametrize("shape", [(1, 7, 24), (1, 5, 37), (12, 1, 9), (3, 4, 20)])
def test_exactly_the_asked_number_goes(criterion: str, zeros: float, shape: tuple[int, int, int]) -> None:
    weight, covariance = problem(0, *shape)
    mask = mask_for(criterion, weight, covariance, Share(zeros))
    if criterion == "wanda":  # every row by itself
        assert ((~mask).sum(-1) == int(zeros * shape[2] + 0.5)).all()
    else:
        assert int((~mask).sum()) == int(zeros * weight.numel() + 0.5)


@pytest.mark.parametrize("criterion", CRITERIA)
@pytest.mark.parametrize("runs", [TWO_OF_FOUR, Runs(1, 2), Runs(3, 8), Runs(1, 4), Runs(5, 24)])
def test_patterns_hold_in_every_run(criterion: str, runs: Runs) -> None:
    weight, covariance = problem(0, 2, 5, 48)
    mask = mask_for(criterion, weight, covariance, runs)
    assert (mask.unflatten(-1, (-1, runs.of)).sum(-1) == runs.keep).all()


def test_magnitude_takes_the_smallest_of_the_map_and_not_the_negative_ones() -> None:
    weight = torch.tensor([[[-5.0, 0.1, 3.0, -0.2], [0.3, -4.0, 0.4, 6.0]]])
    kept = magnitude_mask(weight, HALF)
    assert kept.tolist() == [[[True, False, True, False], [False, True, False, True]]]


def test_wanda_takes_the_smallest_of_every_row_by_weight_times_input_norm() -> None:
    weight, covariance = problem()
    kept = wanda_mask(weight, covariance, HALF)[0]
    for row, mask in zip(weight[0], kept, strict=True):
        scores = [abs(float(w)) * float(covariance[0, j, j]) ** 0.5 for j, w in enumerate(row)]
        assert {j for j, keep in enumerate(mask.tolist()) if not keep} == set(
            sorted(range(24), key=scores.__getitem__)[:12]
        )


def test_without_correlation_sparsegpt_takes_what_wanda_would_and_changes_nothing_else() -> None:
    weight, covariance = problem(1, 1, 6, 12)
    covariance = torch.diag_embed(covariance.diagonal(dim1=1, dim2=2))
    found = sparsegpt(weight, covariance, TWO_OF_FOUR, damping=1e-9)
    assert torch.equal(found.mask, wanda_mask(weight, covariance, TWO_OF_FOUR))
    assert torch.allclose(found.weight, weight * found.mask)


@pytest.mark.parametrize("criterion", ["obs", "sparsegpt", "wanda"])
def test_zeros_go_first_where_inputs_are_dead(criterion: str) -> None:
    weight, covariance = problem(2, 1, 6, 48)
    covariance[:, :24], covariance[:, :, :24] = 0.0, 0.0
    found = sparsify(weight, covariance, HALF, criterion)
    assert not found.mask[..., :24].any()
    assert torch.equal(found.weight[..., 24:], weight[..., 24:])


# ------------------------------------------------------------------------------------------------- against brute force


def best_by_brute_force(weight: torch.Tensor, covariance: torch.Tensor, zeros: int) -> float:
    """The least error over all masks of one row with so many zeros, every one refit exactly."""
    least = float("inf")
    for gone in itertools.combinations(range(len(weight)), zeros):
        at = list(gone)
        schur = torch.linalg.inv(covariance)[at][:, at]
        least = min(least, float(weight[at] @ torch.linalg.solve(schur, weight[at])))
    return least


@pytest.mark.parametrize("seed", range(6))
def test_sparsify_comes_close_to_the_best_of_all_masks(seed: int) -> None:
    weight, covariance = problem(seed, 1, 1, 8)
    best = best_by_brute_force(weight[0, 0], covariance[0], 4)
    for criterion, factor in (("obs", 1.6), ("sparsegpt", 4.0)):
        found = output_error(sparsify(weight, covariance, HALF, criterion).weight - weight, covariance)
        assert best * (1 - 1e-3) <= found <= factor * best
        assert found < output_error(weight * magnitude_mask(weight, HALF) - weight, covariance)


def row_by_hand(weight: torch.Tensor, covariance: torch.Tensor) -> list[tuple[float, int]]:
    """(dearest step so far, column) in the order in which a row's columns go, every error computed afresh."""
    inverse, gone, total, dearest, steps = torch.linalg.inv(covariance), [], 0.0, 0.0, []
    while len(gone) < len(weight):
        totals = {}
        for column in set(range(len(weight))) - set(gone):
            at = [*gone, column]
            totals[column] = float(weight[at] @ torch.linalg.solve(inverse[at][:, at], weight[at]))
        column = min(totals, key=totals.__getitem__)
        dearest = max(dearest, totals[column] - total)
        total = totals[column]
        gone.append(column)
        steps.append((dearest, column))
    return steps


def test_the_surgeon_takes_the_cheapest_steps_of_all_rows() -> None:
    weight, covariance = problem(5, 2, 3, 10)
    steps = [
        (cost, (group, row, column))
        for group, row in itertools.product(range(2), range(3))
        for cost, column in row_by_hand(weight[group, row], covariance[group])
    ]
    cheapest = {where for _, where in sorted(steps, key=lambda step: step[0])[:24]}
    mask = surgeon_mask(weight, covariance, Share(0.4), damping=1e-9)
    assert {tuple(at) for at in (~mask).nonzero().tolist()} == cheapest


def test_the_errors_of_all_zeros_add_up_to_the_error_of_the_map() -> None:
    """One zero, chosen and made up for in the first column, costs ``w² / [C⁻¹]_11`` as brute force has it."""
    weight, covariance = problem(3, 1, 1, 6)
    weight[..., 0] = 1e-3
    found = sparsegpt(weight, covariance, Share(1 / 6), damping=1e-12)
    assert found.mask[0, 0].tolist() == [False, True, True, True, True, True]
    error = output_error(found.weight - weight, covariance)
    assert error == pytest.approx(best_by_brute_force(weight[0, 0], covariance[0], 1), rel=1e-6)


def test_compensation_is_the_exact_least_squares_solution() -> None:
    weight, covariance = problem(4, 2, 5, 24)
    mask = wanda_mask(weight, covariance, HALF)
    fitted = compensate(weight, covariance, mask, damping=1e-4)
    for group in range(2):
        strength = 1e-4 * float(covariance[group].diagonal().mean())
        ridge = covariance[group] + strength * torch.eye(24)
        for row in range(5):
            keep = mask[group, row]
            exact = torch.linalg.solve(ridge[keep][:, keep], ridge[keep] @ weight[group, row])
            assert torch.allclose(fitted[group, row, keep], exact, rtol=1e-3, atol=1e-3)


# ----------------------------------------------------------------------------------------------------------- promises


@given(
    st.integers(0, 10**6),
    st.integers(1, 3),
    st.integers(1, 6),
    st.sampled_from(PATTERNS),
    st.sampled_from(CRITERIA),
    st.booleans(),
)
def test_compensation_never_hurts_and_zeros_stay(
    seed: int, groups: int, rows: int, pattern: Share | Runs, criterion: str, lame: bool
) -> None:
    weight, covariance = problem(seed, groups, rows, 16)
    if lame:  # fewer samples than inputs
        covariance[:, 5:], covariance[:, :, 5:] = 0.0, 0.0
    found = sparsify(weight, covariance, pattern, criterion)
    assert not found.weight[~found.mask].any()
    plain = row_errors(weight * found.mask - weight, covariance)
    fitted = row_errors(found.weight - weight, covariance)
    assert (fitted <= plain * (1 + 1e-9) + 1e-12).all()


def test_a_bad_guess_doesnt_hurt_either() -> None:
    """The eliminations' own answer can be worse than plain zeros: here a later zero undoes what an earlier one did."""
    inputs = torch.tensor([[1.0, -1.0, 0.05], [1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]).double()
    covariance = (inputs @ inputs.T).unsqueeze(0) + 1e-3 * torch.eye(3)
    covariance[:, 1, 2] = covariance[:, 2, 1] = 0.95
    covariance[:, 0, :] = covariance[:, 1, :] - covariance[:, 2, :]
    covariance[:, :, 0] = covariance[:, :, 1] - covariance[:, :, 2]
    covariance[:, 0, 0] = 0.1025
    weight, mask = torch.tensor([[[1.0, 0.0, -1.0]]]).double(), torch.tensor([[[False, True, False]]])
    guess = torch.tensor([[[0.0, 1.0, 0.0]]]).double()
    plain = output_error(weight * mask - weight, covariance)
    assert output_error(guess - weight, covariance) > 2 * plain
    assert output_error(compensate(weight, covariance, mask, guess) - weight, covariance) <= plain


@pytest.mark.parametrize("pattern", [SEVENTY, NINETY, TWO_OF_FOUR])
@pytest.mark.parametrize("seed", range(4))
def test_the_more_a_criterion_knows_the_better_it_chooses(pattern: Share | Runs, seed: int) -> None:
    """Not a law, but so on correlated inputs; and every one beats Wanda's zeros as they are."""
    weight, covariance = problem(seed, 1, 32, 64)
    errors = [
        output_error(sparsify(weight, covariance, pattern, name).weight - weight, covariance) for name in CRITERIA
    ]
    assert all(better < 1.01 * worse for better, worse in itertools.pairwise(errors))
    assert errors[1] < output_error(weight * wanda_mask(weight, covariance, pattern) - weight, covariance)


def test_a_constant_input_is_no_reason_to_fail() -> None:
    weight, covariance = problem()
    found = sparsify(weight, covariance * 0, HALF)
    assert torch.isfinite(found.weight).all()
    assert int((~found.mask).sum()) == weight.numel() // 2


def test_unknown_criteria_are_refused() -> None:
    with pytest.raises(ValueError, match="luck"):
        sparsify(*problem(), HALF, "luck")
