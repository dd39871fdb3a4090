"""Gram algebra against plain least squares and measured errors, in float64."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.covariance import oas

from featherweight.numerics.affine import fit_symmetric
from featherweight.numerics.gptq import RowGrids, gptq
from featherweight.numerics.gram import WELL_SEEN, covariance_of, output_error, refit, shrunk


def _rows(seed: int, count: int, width: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    mixing = torch.randn(width, width, generator=generator).double()
    return torch.randn(count, width, generator=generator).double() @ mixing + torch.randn(width, generator=generator)


def _moments(rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    return (rows.T @ rows / len(rows)).unsqueeze(0), rows.mean(0, keepdim=True)


@given(st.integers(0, 1000), st.integers(2, 12), st.integers(1, 6))
@settings(max_examples=30)
def test_predicted_error_is_the_measured_one(seed: int, width: int, outputs: int) -> None:
    rows = _rows(seed, 200, width)
    gram, mean = _moments(rows)
    generator = torch.Generator().manual_seed(seed + 1)
    weight = torch.randn(outputs, width, generator=generator).double()
    other = weight + 0.1 * torch.randn(outputs, width, generator=generator)
    bias = (weight - other) @ mean[0]
    measured = float((rows @ weight.T - rows @ other.T - bias).square().sum(1).mean())
    predicted = output_error((other - weight).unsqueeze(0), covariance_of(gram, mean))
    assert predicted == pytest.approx(measured, rel=1e-9)


def test_refit_without_damping_is_least_squares() -> None:
    rows = _rows(0, 500, 6)
    targets = _rows(1, 500, 3)
    gram, mean = _moments(rows)
    covariance = covariance_of(gram, mean)
    centred = rows - rows.mean(0)
    cross = ((targets - targets.mean(0)).T @ centred / len(rows)).unsqueeze(0)
    found = refit(torch.zeros(1, 3, 6), covariance, cross, damping=1e-12)[0]
    expected = np.linalg.lstsq(centred.numpy(), (targets - targets.mean(0)).numpy(), rcond=None)[0].T
    assert np.allclose(found.numpy(), expected, rtol=1e-6, atol=1e-8)


def test_refit_on_what_the_prior_computes_gives_the_prior() -> None:
    rows = _rows(2, 300, 5)
    gram, mean = _moments(rows)
    covariance = covariance_of(gram, mean)
    prior = torch.randn(1, 4, 5, generator=torch.Generator().manual_seed(3)).double()
    assert torch.allclose(refit(prior, covariance, prior @ covariance), prior, atol=1e-10)


@pytest.mark.parametrize("rank", [0, 1, 3])
def test_a_singular_covariance_keeps_the_prior_where_nothing_is_known(rank: int) -> None:
    basis = torch.randn(rank, 6, generator=torch.Generator().manual_seed(rank)).double()
    covariance = (basis.T @ basis).unsqueeze(0)
    prior = torch.randn(1, 2, 6, generator=torch.Generator().manual_seed(9)).double()
    found = refit(prior, covariance, torch.zeros(1, 2, 6))
    assert bool(torch.isfinite(found).all())
    beyond = torch.eye(6).double() - torch.linalg.pinv(basis) @ basis if rank else torch.eye(6).double()
    assert torch.allclose(found @ beyond, prior @ beyond, atol=1e-6)


def test_groups_are_independent() -> None:
    covariances = torch.stack([torch.eye(3).double(), 4 * torch.eye(3).double()])
    difference = torch.ones(2, 2, 3).double()
    assert output_error(difference, covariances) == pytest.approx(2 * 3 * 1 + 2 * 3 * 4)


@pytest.mark.parametrize("rows", [8, 40, 200])
def test_few_rows_are_shrunk_as_scikit_learn_does(rows: int) -> None:
    """On standardised data correlations are covariances, and the shares agree."""
    generator = np.random.default_rng(rows)
    x = generator.normal(size=(rows, 40)) @ (np.eye(40) + 0.3 * generator.normal(size=(40, 40)))
    x = (x - x.mean(0)) / x.std(0)
    wanted, share = oas(x, assume_centered=True)
    found = shrunk(torch.tensor(x.T @ x / rows).unsqueeze(0), rows)[0].numpy()
    assert 0.0 < share <= 1.0
    np.testing.assert_allclose(found, wanted, atol=1e-12)


def test_shrinking_knows_no_scale_and_leaves_variances_and_dead_channels() -> None:
    torch.manual_seed(0)
    x = torch.randn(12, 20).double()
    x[:, 3] = 0.0
    covariance = (x.T @ x / 12).unsqueeze(0)
    scale = torch.rand(20).double() * 1e6 + 1e-6
    found = shrunk(covariance, 12)
    assert torch.allclose(shrunk(covariance * scale * scale.unsqueeze(1), 12), found * scale * scale.unsqueeze(1))
    assert torch.allclose(found.diagonal(dim1=1, dim2=2), covariance.diagonal(dim1=1, dim2=2))
    assert not found[0, 3].any()
    assert torch.linalg.eigvalsh(found[0, torch.arange(20) != 3][:, torch.arange(20) != 3])[0] > 0.0


def test_many_rows_and_no_variance_change_nothing() -> None:
    covariance = torch.eye(4).double().unsqueeze(0)
    assert shrunk(covariance, WELL_SEEN * 4) is covariance
    assert torch.equal(shrunk(covariance, 3), covariance)  # no correlations to shrink
    assert not shrunk(torch.zeros(1, 4, 4), 3).any()


def test_what_is_said_of_unseen_rows_is_nearer_to_the_truth() -> None:
    """Rounding for few rows by their own covariance promises next to nothing, and errs a lot elsewhere."""
    torch.manual_seed(0)
    mix = torch.randn(160, 160).double() * torch.linspace(1.0, 0.05, 160).double()
    truth = (mix @ mix.T).unsqueeze(0)
    x = torch.randn(60, 160).double() @ mix.T
    seen = (x.T @ x / 60).unsqueeze(0)
    weight = torch.randn(1, 30, 160).double()
    grids = RowGrids.of(fit_symmetric(weight[0], 4, torch.ones(160).double()), 1)
    lost = {}
    for name, covariance in (("seen", seen), ("shrunk", shrunk(seen, 60))):
        difference = gptq(weight, covariance, grids) - weight
        lost[name] = output_error(difference, covariance), output_error(difference, truth)
    assert lost["shrunk"][1] < 0.8 * lost["seen"][1]
    assert lost["seen"][1] > 5 * lost["seen"][0]
    assert 0.5 < lost["shrunk"][0] / lost["shrunk"][1] < 2
