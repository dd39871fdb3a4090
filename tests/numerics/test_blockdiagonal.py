"""Block-diagonal fits: exact within their sets, never worse than channels left where they are."""

from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from featherweight.contracts import UsageError
from featherweight.numerics.blockdiagonal import fit_block_diagonal
from featherweight.numerics.gram import output_error


def _rows(count: int, width: int) -> torch.Tensor:
    return torch.randn(count, width).double() @ (torch.eye(width) + 0.3 * torch.randn(width, width)).double()


def _least_squares(weight: torch.Tensor, rows: torch.Tensor, inputs: torch.Tensor, outputs: torch.Tensor) -> float:
    """The error of the best block-diagonal map of given sets (columns of inputs), by another solver."""
    total = 0.0
    for columns, rows_out in zip(inputs, outputs, strict=True):
        wanted = rows @ weight[rows_out].T
        fitted = torch.linalg.lstsq(rows[:, columns], wanted).solution
        total += float((rows[:, columns] @ fitted - wanted).square().sum()) / len(rows)
    return total


@given(st.integers(0, 200), st.sampled_from([1, 2, 3]), st.integers(1, 2), st.integers(1, 2), st.sampled_from([1, 4]))
@settings(max_examples=30)
def test_the_error_is_that_of_least_squares_in_the_chosen_sets(
    seed: int, groups: int, wide: int, high: int, kernel: int
) -> None:
    torch.manual_seed(seed)
    channels, outputs = groups * wide, groups * high
    rows, weight = _rows(90, channels * kernel), torch.randn(outputs, channels * kernel).double()
    covariance = rows.T @ rows / len(rows)
    fit = fit_block_diagonal(weight, covariance, groups, kernel=kernel)
    assert sorted(fit.inputs.flatten().tolist()) == list(range(channels))
    assert sorted(fit.outputs.flatten().tolist()) == list(range(outputs))
    measured = output_error((fit.dense() - weight)[None], covariance[None])
    assert fit.error == pytest.approx(measured, rel=1e-6, abs=1e-9)
    columns = (fit.inputs.unsqueeze(2) * kernel + torch.arange(kernel)).flatten(1)
    assert fit.error == pytest.approx(_least_squares(weight, rows, columns, fit.outputs), rel=1e-5, abs=1e-8)
    in_place = torch.arange(channels * kernel).view(groups, -1)
    assert (
        fit.error <= _least_squares(weight, rows, in_place, torch.arange(outputs).view(groups, -1)) * (1 + 1e-6) + 1e-9
    )


def test_hidden_sets_are_found() -> None:
    blocks = torch.block_diag(*torch.randn(4, 6, 5).double())
    weight = blocks[torch.randperm(24)][:, torch.randperm(20)]
    rows = _rows(300, 20)
    fit = fit_block_diagonal(weight, rows.T @ rows / 300, 4)
    assert fit.error < 1e-10
    assert torch.allclose(fit.dense(), weight, atol=1e-6)


def test_it_is_near_the_best_of_all_sets() -> None:
    """Six channels in two sets: every choice tried."""
    ratios = []
    for seed in range(10):
        torch.manual_seed(seed)
        rows, weight = _rows(80, 6), torch.randn(6, 6).double()
        fit = fit_block_diagonal(weight, rows.T @ rows / 80, 2)
        halves = [half for half in itertools.combinations(range(6), 3) if 0 in half]
        sets = [torch.tensor([half, [i for i in range(6) if i not in half]]) for half in halves]
        every = [*sets, *(one.flip(0) for one in sets)]
        best = min(_least_squares(weight, rows, a, b) for a in sets for b in every)
        ratios.append(fit.error / best)
        assert fit.error >= best * (1 - 1e-6)
    assert sum(ratios) / len(ratios) < 1.25


def test_zeros_dead_inputs_and_one_sample_stay_finite() -> None:
    for weight, covariance in (
        (torch.zeros(4, 4), torch.eye(4)),
        (torch.randn(4, 4), torch.zeros(4, 4)),
        (torch.randn(4, 4), torch.ones(4, 4)),
    ):
        fit = fit_block_diagonal(weight, covariance, 2)
        assert bool(torch.isfinite(fit.dense()).all())
        assert fit.error == pytest.approx(output_error((fit.dense() - weight)[None], covariance[None]), abs=1e-6)


@pytest.mark.parametrize(("groups", "kernel"), [(3, 1), (0, 1), (2, 3)])
def test_sets_of_unequal_size_are_refused(groups: int, kernel: int) -> None:
    with pytest.raises(UsageError):
        fit_block_diagonal(torch.randn(4, 4), torch.eye(4), groups, kernel=kernel)
