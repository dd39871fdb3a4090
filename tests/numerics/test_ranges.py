"""Range searches: ends by definition, the entropy search against a plain loop, and what each is for."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from featherweight.numerics.affine import AffineGrid, rounding_noise
from featherweight.numerics.ranges import RANGE_SEARCHES, _divergence, entropy_grid, percentile_grid

samples = arrays(np.float32, st.integers(1, 80), elements=st.floats(-100, 100, width=32))


def reach(grid: AffineGrid) -> tuple[float, float]:
    """The grid's lowest and highest real."""
    scale, zero, lowest, highest = grid.describe()
    return scale * (lowest - zero), scale * (highest - zero)


@pytest.mark.parametrize("name", RANGE_SEARCHES)
@given(samples, st.sampled_from([4, 8]))
def test_ranges_stay_inside_the_extremes_and_hold_zero(name: str, values: np.ndarray, bits: int) -> None:
    low, high = float(values.min()), float(values.max())
    grid = RANGE_SEARCHES[name](torch.from_numpy(values), low, high, bits)
    step = float(grid.scale) + 1e-9
    found = reach(grid)
    assert min(low, 0.0) - 1.01 * step <= found[0] <= 0.0 <= found[1] <= max(high, 0.0) + 1.01 * step
    assert float(grid.round(torch.tensor(0.0))) == 0.0


@pytest.mark.parametrize("name", RANGE_SEARCHES)
@pytest.mark.parametrize("sample", [torch.empty(0), torch.zeros(5), torch.full((7,), 3.0)])
def test_empty_and_constant_samples_give_a_usable_grid(name: str, sample: torch.Tensor) -> None:
    high = 3.0 if sample.any() else 0.0
    grid = RANGE_SEARCHES[name](sample, 0.0, high, 8)
    assert float(grid.scale) > 0
    assert torch.allclose(grid.round(sample), sample, atol=0.02)


def test_a_percentile_leaves_its_share_outside() -> None:
    sample = torch.linspace(-1, 1, 20_001)
    low, high = reach(percentile_grid(sample, -1.0, 1.0, 16, percentile=98.0))
    assert low == pytest.approx(-0.98, abs=1e-3)
    assert high == pytest.approx(0.98, abs=1e-3)
    whole = reach(percentile_grid(sample, -1.0, 1.0, 16, percentile=100.0))
    assert whole == pytest.approx((-1.0, 1.0), abs=1e-3)


def test_the_default_percentile_drops_a_single_outlier_of_many() -> None:
    sample = torch.cat([torch.randn(50_000, generator=torch.Generator().manual_seed(0)), torch.tensor([1000.0])])
    _, high = reach(percentile_grid(sample, float(sample.min()), 1000.0))
    assert 3.0 < high < 6.0


def plain_divergence(counts: list[float], levels: int, kept: int) -> float:
    """Migacz's pseudocode, bin by bin."""
    p = counts[:kept]
    q = [0.0] * kept
    for level in range(levels):
        members = [i for i in range(kept) if i * levels // kept == level]
        filled = [i for i in members if p[i] > 0]
        for i in filled:
            q[i] = sum(p[j] for j in members) / len(filled)
    p = [*p[:-1], p[-1] + sum(counts[kept:])]
    total_p, total_q = sum(p), sum(q)
    if total_q == 0:
        return math.inf
    return sum(
        a / total_p * math.log((a / total_p) / max(b / total_q, 1e-10)) for a, b in zip(p, q, strict=True) if a > 0
    )


@given(arrays(np.int64, 24, elements=st.integers(0, 9)), st.integers(2, 8), st.integers(8, 24))
def test_the_divergence_is_the_plain_loops(counts: np.ndarray, levels: int, kept: int) -> None:
    expected = plain_divergence([float(count) for count in counts], levels, kept)
    assert _divergence(counts, kept, levels) == pytest.approx(expected, abs=1e-9)


def test_entropy_clips_a_long_tail_and_keeps_a_flat_histogram() -> None:
    generator = torch.Generator().manual_seed(0)
    tail = torch.cat([torch.rand(50_000, generator=generator), torch.tensor([40.0])])
    assert reach(entropy_grid(tail, 0.0, 40.0))[1] < 20.0
    flat = torch.rand(50_000, generator=generator)
    assert reach(entropy_grid(flat, 0.0, 1.0, 4))[1] > 0.9


def test_least_squares_is_least_squares() -> None:
    sample = torch.randn(20_000, generator=torch.Generator().manual_seed(1)).exp()
    low, high = float(sample.min()), float(sample.max())
    noise = {name: rounding_noise(sample, search(sample, low, high, 4)) for name, search in RANGE_SEARCHES.items()}
    assert noise["mse"] == min(noise.values())


def test_nonsense_is_refused() -> None:
    with pytest.raises(ValueError, match="percentile"):
        percentile_grid(torch.ones(3), 0.0, 1.0, percentile=0.0)
    with pytest.raises(ValueError, match="2 to 8 bits"):
        entropy_grid(torch.ones(3), 0.0, 1.0, 16)
