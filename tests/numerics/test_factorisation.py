"""Whitened factorisation: optimal by the Eckart–Young theorem, with its error known for every rank."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from featherweight.numerics.factorisation import (
    SpatialFactors,
    TuckerFactors,
    plain_factors,
    plain_spatial,
    plain_tucker,
    pseudo_inverse,
    reduced_rank_factors,
    spatial_factors,
    tucker_factors,
    whitened_factors,
    whitened_spectrum,
)
from featherweight.numerics.gram import output_error


def _problem(seed: int, outputs: int, width: int, rank: int | None = None) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randn(rank or 3 * width, width, generator=generator).double()
    rows = rows * torch.logspace(0, -2, width).double()
    return torch.randn(outputs, width, generator=generator).double(), rows.T @ rows / len(rows)


@given(st.integers(0, 500), st.integers(1, 10), st.integers(1, 12), st.data())
@settings(max_examples=40)
def test_the_error_is_what_the_spectrum_says(seed: int, outputs: int, width: int, data: st.DataObject) -> None:
    weight, covariance = _problem(seed, outputs, width)
    rank = data.draw(st.integers(1, min(outputs, width)))
    spectrum = whitened_spectrum(weight, covariance)
    first, second = whitened_factors(weight, spectrum, rank)
    assert first.shape == (outputs, rank)
    assert second.shape == (rank, width)
    measured = output_error((first @ second - weight).unsqueeze(0), covariance.unsqueeze(0))
    assert measured == pytest.approx(spectrum.error(rank), rel=1e-6, abs=1e-9 * float(spectrum.energies.sum()))


@pytest.mark.parametrize("rank", [1, 2, 5])
def test_it_agrees_with_the_svd_of_the_whitened_weight_and_beats_the_plain_one(rank: int) -> None:
    weight, covariance = _problem(1, 8, 10)
    found = whitened_spectrum(weight, covariance).error(rank)
    singular = torch.linalg.svdvals(weight @ torch.linalg.cholesky(covariance))
    assert found == pytest.approx(float(singular[rank:].square().sum()), rel=1e-8)
    u, s, v = torch.linalg.svd(weight, full_matrices=False)
    plain = (u[:, :rank] * s[:rank]) @ v[:rank] - weight
    assert found <= output_error(plain.unsqueeze(0), covariance.unsqueeze(0))


def test_full_rank_gives_the_weight_back() -> None:
    weight, covariance = _problem(2, 4, 9)
    first, second = whitened_factors(weight, whitened_spectrum(weight, covariance), 4)
    assert torch.allclose(first @ second, weight, atol=1e-10)


@pytest.mark.parametrize("rank", [1, 3])
def test_data_of_low_rank_is_matched_exactly_and_stays_finite(rank: int) -> None:
    weight, covariance = _problem(3, 6, 8, rank=rank)
    first, second = whitened_factors(weight, whitened_spectrum(weight, covariance), rank)
    assert bool(torch.isfinite(first).all())
    assert output_error((first @ second - weight).unsqueeze(0), covariance.unsqueeze(0)) < 1e-12
    zeros = whitened_factors(weight * 0, whitened_spectrum(weight * 0, covariance), 2)
    assert bool(torch.isfinite(zeros[0] @ zeros[1]).all())


def test_the_rank_for_a_share_of_energy_is_the_smallest_that_keeps_it() -> None:
    weight, covariance = _problem(4, 8, 10)
    spectrum = whitened_spectrum(weight, covariance)
    total = float(spectrum.energies.sum())
    rank = spectrum.rank_for(0.9)
    assert spectrum.error(rank) <= 0.1 * total < spectrum.error(rank - 1)
    assert whitened_spectrum(weight * 0, covariance).rank_for(0.9) == 1


def test_the_plain_factors_are_the_truncated_svd() -> None:
    weight, covariance = _problem(5, 7, 9)
    first, second = plain_factors(weight, 3)
    values = torch.linalg.svdvals(weight)
    assert float((first @ second - weight).square().sum()) == pytest.approx(float(values[3:].square().sum()))
    aware = whitened_spectrum(weight, covariance).error(3)
    assert aware <= output_error((first @ second - weight)[None], covariance[None])


# --------------------------------------------------------------------------------------------------------- balance


@pytest.mark.parametrize("variance", [1e-30, 1.0, 1e12])
def test_with_inputs_that_vary_alike_the_factors_are_those_of_the_svd(variance: float) -> None:
    weight, _ = _problem(20, 7, 9)
    first, second = whitened_factors(weight, whitened_spectrum(weight, variance * torch.eye(9)), 5)
    oracle = plain_factors(weight, 5)
    assert torch.allclose(first.abs(), oracle[0].abs(), atol=1e-9)
    assert torch.allclose(second.abs(), oracle[1].abs(), atol=1e-9)


@given(st.integers(0, 300), st.sampled_from([None, 1, 3]), st.integers(-120, 120), st.integers(-40, 40), st.data())
@settings(max_examples=60)
def test_pairs_are_balanced_at_any_scale(
    seed: int, seen: int | None, weights: int, inputs: int, data: st.DataObject
) -> None:
    """However few directions the inputs vary in, and in whatever unit weights and inputs are."""
    weight, covariance = _problem(seed, 6, 9, seen)
    rank = data.draw(st.integers(1, 6))
    spectrum = whitened_spectrum(weight, covariance)
    first, second = whitened_factors(weight, spectrum, rank)
    best = spectrum.vectors[:, :rank] @ spectrum.vectors[:, :rank].T @ weight
    assert torch.allclose(first @ second, best, atol=1e-10)
    assert float(first.norm()) == pytest.approx(float(second.norm()), rel=1e-9)
    ratios = first.norm(dim=0) / second.norm(dim=1)
    assert float(ratios.max() / ratios.min()) <= 1.001 * 1001**0.5  # √((1 + ε) / ε)
    moved = weight * 2.0**weights, covariance * 4.0**inputs
    other = whitened_factors(moved[0], whitened_spectrum(*moved), rank)
    assert torch.allclose(other[0] @ other[1] / 2.0**weights, best, atol=1e-9)
    for here, there in zip((first, second), other, strict=True):
        assert float(there.norm()) == pytest.approx(float(here.norm()) * 2.0 ** (weights / 2), rel=1e-6)


def _level(part: torch.Tensor, bits: int = 8) -> torch.Tensor:
    """Every row on a symmetric grid of its own."""
    rows = part.flatten(1)
    steps = rows.abs().amax(1, keepdim=True).clamp(min=1e-300) / (2 ** (bits - 1) - 1)
    return ((rows / steps).round() * steps).view_as(part)


@pytest.mark.parametrize("scale", [1e-9, 1.0, 1e4])
@pytest.mark.parametrize("seen", [1, 4])
def test_factors_in_small_types_keep_what_inputs_never_showed(seen: int, scale: float) -> None:
    """Inputs of low rank, or next to none: halves and 8 bits still say what the weight says elsewhere."""
    weight, covariance = _problem(21, 48, 64, seen)
    weight, sizes = weight * scale, (1.0, 1e-25)
    for size in sizes:
        factors = whitened_factors(weight, whitened_spectrum(weight, covariance * size), 24)
        whole = factors[0] @ factors[1]
        for small in ((part.half().double() for part in factors), map(_level, factors)):
            first, second = small
            assert float((first @ second - whole).norm() / whole.norm()) < 0.03


@pytest.mark.parametrize("seen", [None, 1, 5])
def test_chains_in_small_types_keep_what_inputs_never_showed(seen: int | None) -> None:
    kernel, covariance = _kernel(22, (12, 10, 3, 3), seen)
    for scale in (1e-9, 1.0, 1e4):
        spatial = spatial_factors(kernel * scale, covariance, 8)
        tucker = tucker_factors(kernel * scale, covariance, 6, 8)
        for fit, parts in (
            (spatial, (spatial.first, spatial.second)),
            (tucker, (tucker.first, tucker.core, tucker.last)),
        ):
            norms = [float(part.norm()) for part in parts]
            assert max(norms) == pytest.approx(min(norms), rel=1e-9)
            for small in ([part.half().double() for part in parts], [_level(part) for part in parts]):
                kept = type(fit)(*small).kernel()
                assert float((kept - fit.kernel()).norm() / fit.kernel().norm()) < 0.03


def test_channels_that_nothing_goes_through_do_no_harm() -> None:
    weight, covariance = _problem(23, 4, 6)
    weight[2:] = 0.0  # rank 2: two of four inner channels are empty
    first, second = whitened_factors(weight, whitened_spectrum(weight, covariance), 4)
    assert torch.allclose(first @ second, weight, atol=1e-12)
    assert float(first.abs().max()) < 10 * float(second.abs().max())


# ------------------------------------------------------------------------------------------- responses as the target


@given(st.integers(0, 300), st.integers(1, 6), st.integers(1, 8), st.data())
@settings(max_examples=40)
def test_reduced_rank_regression_is_least_squares_then_the_best_rank(
    seed: int, outputs: int, width: int, data: st.DataObject
) -> None:
    """Against the other route: fit on the samples, then truncate the SVD of the fitted responses."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(60, width, generator=generator).double()
    y = x[:, :1] + torch.randn(60, outputs, generator=generator).double()
    rank = data.draw(st.integers(1, min(outputs, width)))
    first, second = reduced_rank_factors(y.T @ x / 60, x.T @ x / 60, rank)
    fitted = x @ torch.linalg.lstsq(x, y).solution
    left, values, right = torch.linalg.svd(fitted, full_matrices=False)
    best = (left[:, :rank] * values[:rank]) @ right[:rank]
    found = float((x @ (first @ second).T - y).square().sum())
    assert found == pytest.approx(float((best - y).square().sum()), rel=1e-8)


def test_it_repairs_what_a_changed_prefix_did() -> None:
    """Inputs pass a lossy prefix: aiming at the dense responses beats factorising the weight under the new inputs."""
    weight, covariance = _problem(6, 8, 10)
    mixing = torch.randn(10, 10).double() * 0.2 + torch.eye(10).double()
    moved = mixing @ covariance @ mixing.T
    first, second = reduced_rank_factors(weight @ covariance @ mixing.T, moved, 4)
    naive_first, naive_second = whitened_factors(weight, whitened_spectrum(weight, moved), 4)
    found, naive = (
        output_error((a @ b @ mixing - weight)[None], covariance[None])
        for a, b in ((first, second), (naive_first, naive_second))
    )
    assert found < 0.9 * naive


def test_directions_that_never_vary_get_no_weight() -> None:
    singular = torch.diag(torch.tensor([2.0, 0.0, 1e-30]))
    assert torch.equal(pseudo_inverse(singular), torch.diag(torch.tensor([0.5, 0.0, 0.0])).double())
    assert torch.equal(pseudo_inverse(torch.zeros(2, 2)), torch.zeros(2, 2).double())


# ------------------------------------------------------------------------------------------------ chains for kernels


def _kernel(seed: int, shape: tuple[int, int, int, int], rank: int | None = None) -> tuple[torch.Tensor, torch.Tensor]:
    weight, covariance = _problem(seed, shape[0], shape[1] * shape[2] * shape[3], rank)
    return weight.view(shape), covariance


def _of(difference: torch.Tensor, covariance: torch.Tensor) -> float:
    return output_error(difference.flatten(1)[None], covariance[None])


@pytest.mark.parametrize("rank", [1, 2, 5])
def test_plain_spatial_is_optimal_by_eckart_and_young(rank: int) -> None:
    kernel, _ = _kernel(7, (4, 3, 3, 2))
    matrix = kernel.permute(0, 3, 1, 2).reshape(4 * 2, 3 * 3)  # rows (n, j), columns (c, i)
    left = float(torch.linalg.svdvals(matrix)[rank:].square().sum())
    assert float((plain_spatial(kernel, rank).kernel() - kernel).square().sum()) == pytest.approx(left)


def test_plain_tucker_is_hosvd_made_better_by_sweeps() -> None:
    """Against HOSVD written with unfoldings, and its known bound: within the two modes' tails, above the larger."""
    kernel, _ = _kernel(8, (6, 5, 3, 3))
    u = torch.linalg.svd(kernel.reshape(6, -1), full_matrices=False)
    v = torch.linalg.svd(kernel.transpose(0, 1).reshape(5, -1), full_matrices=False)
    p, q = 2, 3
    hosvd = torch.einsum("nm,cd,mdij->ncij", u[0][:, :q] @ u[0][:, :q].T, v[0][:, :p] @ v[0][:, :p].T, kernel)
    error = float((hosvd - kernel).square().sum())
    tails = float(u[1][q:].square().sum()), float(v[1][p:].square().sum())
    errors = [float((plain_tucker(kernel, p, q, sweeps=n).kernel() - kernel).square().sum()) for n in (0, 1, 3, 30)]
    assert errors == sorted(errors, reverse=True)
    assert max(tails) <= errors[-1] < errors[0] <= error * (1 + 1e-9) <= sum(tails) * (1 + 1e-9)


def test_plain_tucker_meets_a_minimiser_that_knows_nothing_of_tensors() -> None:
    kernel, _ = _kernel(9, (4, 4, 2, 2))
    best = float((plain_tucker(kernel, 2, 2, sweeps=200).kernel() - kernel).square().sum())
    reached = [_searched(kernel, seed) for seed in range(6)]
    assert best <= min(reached) * 1.02


def _searched(kernel: torch.Tensor, seed: int) -> float:
    """The squared error that a quasi-Newton search over all entries of the factors comes to."""
    generator = torch.Generator().manual_seed(seed)
    shapes = ((2, 4), (2, 2, 2, 2), (4, 2))
    parts = [torch.randn(shape, generator=generator).double().requires_grad_() for shape in shapes]
    search = torch.optim.LBFGS(parts, max_iter=400, line_search_fn="strong_wolfe")

    def loss() -> torch.Tensor:
        search.zero_grad()
        value = (TuckerFactors(*parts).kernel() - kernel).square().sum()
        value.backward()
        return value

    search.step(loss)
    return float(loss().detach())


@given(st.integers(0, 300), st.integers(1, 4), st.integers(1, 4), st.data())
@settings(max_examples=40)
def test_chains_for_the_data_never_lose_to_plain_ones(seed: int, inner: int, outer: int, data: st.DataObject) -> None:
    kernel, covariance = _kernel(seed, (4, 4, 3, 2), data.draw(st.sampled_from([None, 1, 7])))
    scale = _of(kernel, covariance)
    aware, plain = (
        _of(fit.kernel() - kernel, covariance)
        for fit in (tucker_factors(kernel, covariance, inner, outer), plain_tucker(kernel, inner, outer))
    )
    assert aware <= plain + 1e-7 * scale
    rank = data.draw(st.integers(1, 8))
    aware, plain = (
        _of(fit.kernel() - kernel, covariance)
        for fit in (spatial_factors(kernel, covariance, rank), plain_spatial(kernel, rank))
    )
    assert aware <= plain + 1e-7 * scale


def test_the_rest_of_a_chain_is_the_best_there_is_for_its_first_part() -> None:
    """No step of any size in core, last or second lowers the error: gradients vanish there."""
    kernel, covariance = _kernel(10, (5, 4, 3, 3))
    tucker, spatial = tucker_factors(kernel, covariance, 2, 3), spatial_factors(kernel, covariance, 3)
    for fixed, free, build in (
        (tucker.first, (tucker.core, tucker.last), TuckerFactors),
        (spatial.first, (spatial.second,), SpatialFactors),
    ):
        moving = [part.clone().requires_grad_() for part in free]
        rows = (build(fixed, *moving).kernel() - kernel).flatten(1)
        error = ((rows @ covariance) * rows).sum()
        gradients = torch.autograd.grad(error, moving)
        sizes = [
            float(g.norm() * part.detach().norm() / error.detach()) for g, part in zip(gradients, moving, strict=True)
        ]
        assert max(sizes) < 1e-5


def test_full_ranks_give_the_kernel_back() -> None:
    kernel, covariance = _kernel(11, (3, 4, 3, 2))
    for fit in (
        spatial_factors(kernel, covariance, 6),
        tucker_factors(kernel, covariance, 4, 3),
        plain_tucker(kernel, 4, 3),
    ):
        assert torch.allclose(fit.kernel(), kernel, atol=1e-6)


@pytest.mark.parametrize("rank", [1, 3])
def test_few_samples_dead_inputs_and_zeros_stay_finite(rank: int) -> None:
    kernel, covariance = _kernel(12, (4, 4, 3, 3), rank)
    assert _of(tucker_factors(kernel, covariance, 4, 3).kernel() - kernel, covariance) < 1e-6 * _of(kernel, covariance)
    for weight, moments in ((kernel, covariance * 0), (kernel * 0, covariance), (kernel * 0 + 1, covariance * 1e-30)):
        for fit in (tucker_factors(weight, moments, 2, 2), spatial_factors(weight, moments, 2)):
            assert bool(torch.isfinite(fit.kernel()).all())
    unseen = tucker_factors(kernel, covariance * 0, 4, 4)
    assert torch.allclose(unseen.kernel(), kernel)  # nothing is known of the inputs: the weight itself is kept
