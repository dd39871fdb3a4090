"""Whitened factorisation: optimal by the Eckart–Young theorem, with its error known for every rank."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from featherweight.numerics.factorisation import whitened_factors, whitened_spectrum
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
