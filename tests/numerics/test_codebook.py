"""Codebooks: the true optimum of k-means on the line, by brute force; product codes that only get better."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.cluster import KMeans

from featherweight.contracts import UsageError
from featherweight.numerics.codebook import fit_codebook, fit_product, nearest


def _error(values: torch.Tensor, importance: torch.Tensor, codebook: torch.Tensor) -> float:
    return float(((values - nearest(values, codebook)).square() * importance).sum())


def _brute_force(values: torch.Tensor, importance: torch.Tensor, count: int, pinned: bool) -> float:
    """The least error over every cut of the sorted values into runs, one of which may belong to zero."""
    order = values.argsort()
    x, weight = values[order], importance[order]
    best = float("inf")
    for cuts in itertools.combinations_with_replacement(range(len(x) + 1), count - 1):
        ends = (0, *cuts, len(x))
        runs = [(x[a:b], weight[a:b]) for a, b in itertools.pairwise(ends)]
        own = [float((w * (v - (w * v).sum() / w.sum()).square()).sum()) if len(v) else 0.0 for v, w in runs]
        zero = [float((w * v.square()).sum()) for v, w in runs]
        total = sum(own)
        best = min(best, *(total - a + b for a, b in zip(own, zero, strict=True))) if pinned else min(best, total)
    return best


_NUMBERS = st.lists(st.tuples(st.integers(-40, 40), st.integers(1, 9)), min_size=1, max_size=9)


@given(_NUMBERS, st.integers(2, 4), st.booleans())
@settings(max_examples=150)
def test_the_codebook_is_the_true_optimum(numbers: list[tuple[int, int]], count: int, pinned: bool) -> None:
    values, importance = torch.tensor(numbers, dtype=torch.float64).T
    codebook = fit_codebook(values / 7, count, importance, pinned_zero=pinned)
    assert 1 <= len(codebook) <= count
    assert bool((codebook.diff() > 0).all())
    assert not pinned or bool((codebook == 0).any())
    found = _error(values / 7, importance, codebook)
    assert found == pytest.approx(_brute_force(values / 7, importance, count, pinned), abs=1e-9)


@pytest.mark.parametrize("count", [2, 7, 16])
def test_it_never_loses_to_another_librarys_k_means(count: int) -> None:
    values = torch.randn(800).double() * torch.rand(800).double()
    importance = torch.rand(800).double() + 0.1
    other = KMeans(count, n_init=5, random_state=0).fit(values.numpy()[:, None], sample_weight=importance.numpy())
    theirs = torch.from_numpy(np.sort(other.cluster_centers_[:, 0]))
    ours = _error(values, importance, fit_codebook(values, count, importance))
    assert ours <= _error(values, importance, theirs) * (1 + 1e-12)
    assert ours >= 0.8 * _error(values, importance, theirs)


@given(st.integers(0, 300), st.integers(2, 12), st.booleans(), st.sampled_from([16, 32, 64]))
@settings(max_examples=60)
def test_fewer_places_for_cuts_lose_no_more_than_the_bound(seed: int, count: int, pinned: bool, points: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    values = torch.randn(300, generator=generator).double().pow(3)
    importance = torch.rand(300, generator=generator).double().pow(4) + 1e-6
    exact, coarse = (
        _error(values, importance, fit_codebook(values, count, importance, pinned_zero=pinned, points=p))
        for p in (8192, points)
    )
    spread = float(values.max() - values.min()) if not pinned else float(values.abs().max()) * 2
    assert exact <= coarse * (1 + 1e-9)
    assert coarse <= exact + 16 * float(importance.sum()) * spread**2 / points**2


def test_many_weights_take_little_time_and_lose_next_to_nothing() -> None:
    values = torch.randn(20_000).double()
    exact, coarse = (_error(values, torch.ones(20_000), fit_codebook(values, 16, points=p)) for p in (30_000, 1024))
    assert exact <= coarse <= 1.001 * exact


def test_few_distinct_values_come_back_as_they_are() -> None:
    values = torch.tensor([0.1, -0.7, 0.1, 0.3, 0.3])
    assert torch.equal(fit_codebook(values, 3).float(), torch.tensor([-0.7, 0.1, 0.3]))
    assert torch.equal(fit_codebook(values, 9, pinned_zero=True).float(), torch.tensor([-0.7, 0.0, 0.1, 0.3]))
    assert torch.equal(fit_codebook(torch.full((5,), 2.5), 4), torch.tensor([2.5]).double())
    assert torch.equal(fit_codebook(torch.zeros(5), 4, pinned_zero=True), torch.zeros(1).double())


def test_importance_decides_and_none_at_all_counts_all_alike() -> None:
    values = torch.tensor([0.0, 1.0, 10.0])
    heavy = fit_codebook(values, 1, torch.tensor([1e-12, 1e12, 1.0]))
    assert heavy.item() == pytest.approx(1.0, abs=1e-9)
    assert torch.equal(fit_codebook(values, 2, torch.zeros(3)), fit_codebook(values, 2))
    assert torch.equal(fit_codebook(values, 2, torch.tensor([1.0, 1.0, 0.0])), torch.tensor([0.0, 1.0]).double())


@pytest.mark.parametrize("scale", [1e-30, 1e-8, 1e8, 1e30])
def test_tiny_and_huge_weights_far_from_zero_keep_their_precision(scale: float) -> None:
    values = (torch.rand(200).double() + 1000) * scale
    codebook = fit_codebook(values, 8)
    reference = fit_codebook(values / scale, 8) * scale
    assert torch.allclose(codebook, reference, rtol=1e-9, atol=0)


@pytest.mark.parametrize(
    ("values", "count", "importance"),
    [
        (torch.tensor([1.0, float("nan")]), 2, None),
        (torch.tensor([1.0, float("inf")]), 2, None),
        (torch.zeros(0), 2, None),
        (torch.ones(3), 2, torch.tensor([1.0, -1.0, 1.0])),
        (torch.ones(3), 2, torch.ones(2)),
        (torch.ones(3), 0, None),
    ],
)
def test_what_has_no_codebook_is_refused(values: torch.Tensor, count: int, importance: torch.Tensor | None) -> None:
    with pytest.raises(UsageError):
        fit_codebook(values, count, importance)


def test_a_pinned_zero_needs_company() -> None:
    with pytest.raises(UsageError):
        fit_codebook(torch.ones(3), 1, pinned_zero=True)


@given(st.integers(0, 200), st.sampled_from([torch.float16, torch.float32, torch.float64]))
def test_rounding_twice_is_rounding_once(seed: int, dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(seed)
    codebook = torch.randn(9, generator=generator).to(dtype).sort().values
    x = (3 * torch.randn(50, generator=generator)).to(dtype)
    found = nearest(x, codebook)
    assert found.dtype == dtype
    assert torch.equal(nearest(found, codebook), found)
    distances = (x.double().unsqueeze(1) - codebook.double()).abs()
    assert torch.allclose((found.double() - x.double()).abs(), distances.min(1).values, atol=1e-6)


# ----------------------------------------------------------------------------------------------------- product codes


def _weight_and_covariance(rows: int, width: int) -> tuple[torch.Tensor, torch.Tensor]:
    inputs = torch.randn(200, width).double() @ torch.randn(width, width).double()
    return torch.randn(rows, width).double(), inputs.T @ inputs / 200


def test_more_sweeps_never_hurt_and_the_error_is_that_of_the_blocks() -> None:
    weight, covariance = _weight_and_covariance(24, 18)
    errors = [fit_product(weight, covariance, 9, 8, sweeps=sweeps).error for sweeps in (0, 1, 2, 5, 25)]
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < errors[0]
    code = fit_product(weight, covariance, 9, 8)
    difference = code.decode() - weight
    blocks = [difference[:, j : j + 9] @ covariance[j : j + 9, j : j + 9] * difference[:, j : j + 9] for j in (0, 9)]
    assert code.error == pytest.approx(float(sum(block.sum() for block in blocks)), rel=1e-6)
    assert code.codebook.shape == (8, 9)
    assert code.codes.shape == (24, 2)


def test_the_datas_metric_pays() -> None:
    weight, covariance = _weight_and_covariance(40, 16)
    covariance = covariance * torch.logspace(0, -2, 16).double().outer(torch.logspace(0, -2, 16).double())
    aware = fit_product(weight, covariance, 4, 16)
    blind = fit_product(weight, torch.eye(16).double(), 4, 16)
    at = torch.arange(16).view(-1, 4)
    metric = covariance[at.unsqueeze(2), at.unsqueeze(1)]
    difference = (blind.decode() - weight).view(40, -1, 4).transpose(0, 1)
    assert aware.error < 0.8 * float(((difference @ metric) * difference).sum())


def test_under_a_plain_metric_it_is_on_par_with_another_librarys_k_means() -> None:
    weight = torch.randn(60, 8).double()
    vectors = weight.view(-1, 4).numpy()
    theirs = KMeans(12, n_init=1, random_state=0).fit(vectors).inertia_
    ours = min(fit_product(weight, torch.eye(8).double(), 4, 12, seed=seed).error for seed in range(5))
    assert ours <= 1.05 * theirs


def test_as_many_codes_as_blocks_lose_nothing_and_the_call_is_repeatable() -> None:
    weight, covariance = _weight_and_covariance(3, 8)
    code = fit_product(weight, covariance, 4, 99)
    assert code.error == pytest.approx(0.0, abs=1e-9)
    assert torch.allclose(code.decode(), weight)
    again = fit_product(weight, covariance, 4, 99)
    assert torch.equal(code.codebook, again.codebook)


def test_dead_inputs_and_equal_blocks_stay_finite() -> None:
    code = fit_product(torch.ones(4, 8), torch.zeros(8, 8), 4, 3)
    assert torch.allclose(code.decode(), torch.ones(4, 8).double())
    with pytest.raises(UsageError):
        fit_product(torch.ones(4, 8), torch.eye(8), 3, 2)
