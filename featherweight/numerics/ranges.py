"""Ranges for the grids of activations: how far out a grid should reach.

A wide range makes coarse steps, a narrow one clips. Four answers, each an affine grid for a whole tensor, found on a
sample of its values:

- least squares: the range whose grid rounds the sample with the least squared error
  (:func:`featherweight.numerics.affine.fit_asymmetric`);
- percentiles: the ends beyond which only a small share of the sample lies; outliers may be what matters, so it is the
  caller's choice;
- entropy: the range whose histogram, put on the grid's levels, keeps most of what the full histogram tells, by the
  Kullback-Leibler divergence (Migacz 2017, "8-bit inference with TensorRT", GTC; as its pseudocode on slides 32 to 36,
  over both signs);
- extremes: the smallest and the largest value ever seen; nothing clips.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import torch

from featherweight.numerics.affine import AffineGrid, asymmetric_grid, fit_asymmetric

_BINS = 2048
_CANDIDATES = 100

RangeSearch = Callable[[torch.Tensor, float, float, int], AffineGrid]
"""Sample, lowest and highest value ever seen, bits → grid."""


def percentile_grid(
    sample: torch.Tensor, low: float, high: float, bits: int = 8, percentile: float = 99.99
) -> AffineGrid:
    """The grid between the two ends that leave ``100 − percentile`` percent of the sample outside, half on each side.

    Args:
        sample: (n,) values.
        low, high: smallest and largest value ever seen; the range never exceeds them.
        bits: 2 to 16.
        percentile: above 0, at most 100.

    Raises:
        ValueError: a percentile out of range.
    """
    if not 0.0 < percentile <= 100.0:
        raise ValueError(f"A percentile lies above 0 and at most at 100; got {percentile}.")
    values = sample.detach().double().flatten().cpu().numpy()
    if values.size:
        outside = (100.0 - percentile) / 2
        inner = np.percentile(values, [outside, 100.0 - outside])
        low, high = max(low, float(inner[0])), min(high, float(inner[1]))
    return asymmetric_grid(torch.tensor(low), torch.tensor(high), bits)


def entropy_grid(sample: torch.Tensor, low: float, high: float, bits: int = 8) -> AffineGrid:
    """The grid whose range loses the least information of the sample's histogram.

    Magnitudes are sorted into 2,048 bins up to the largest. For a threshold, bins beyond it are counted into the last
    one inside (``P``); the inside, merged into the grid's positive levels and spread back over the bins that aren't
    empty, is ``Q``; the threshold with the least ``KL(P‖Q)`` wins. Values of one sign get all ``2^bits`` levels, values
    of both signs half of them a sign.

    Args:
        sample: (n,) values.
        low, high: smallest and largest value ever seen; the range never exceeds them.
        bits: 2 to 8: more levels than bins tell nothing.

    Raises:
        ValueError: more bits than that.
    """
    if not 2 <= bits <= 8:
        raise ValueError(f"The entropy search works for 2 to 8 bits; got {bits}.")
    magnitudes = sample.detach().double().flatten().abs().cpu().numpy()
    largest = float(magnitudes.max()) if magnitudes.size else 0.0
    if largest == 0.0:
        return asymmetric_grid(torch.tensor(low), torch.tensor(high), bits)
    levels = 2 ** (bits if low >= 0 or high <= 0 else bits - 1)
    counts, _ = np.histogram(magnitudes, _BINS, (0.0, largest))
    reaches = np.unique(np.linspace(levels, _BINS, _CANDIDATES).astype(int))
    divergences = [_divergence(counts, int(reach), levels) for reach in reaches]
    threshold = float(reaches[int(np.argmin(divergences))]) / _BINS * largest
    return asymmetric_grid(torch.tensor(max(low, -threshold)), torch.tensor(min(high, threshold)), bits)


def _divergence(counts: np.ndarray, reach: int, levels: int) -> float:
    """``KL(P‖Q)`` of keeping the first ``reach`` bins on some levels, in nats."""
    inside = counts[:reach].astype(np.float64)
    kept = inside.copy()
    kept[-1] += counts[reach:].sum()
    level_of = np.arange(reach) * levels // reach
    filled = inside > 0
    sums, members = np.bincount(level_of, inside, levels), np.bincount(level_of, filled, levels)
    spread = np.where(filled, sums[level_of] / np.maximum(members[level_of], 1), 0.0)
    total = spread.sum()
    if total == 0.0:
        return float("inf")
    wanted, given = kept / kept.sum(), spread / total
    told = wanted > 0
    # What was clipped into an empty bin has no counterpart; a hair of probability keeps the divergence finite.
    return float((wanted[told] * np.log(wanted[told] / np.maximum(given[told], 1e-10))).sum())


def extremes_grid(sample: torch.Tensor, low: float, high: float, bits: int = 8) -> AffineGrid:
    """The grid from the smallest to the largest value ever seen, whatever the sample holds.

    Args:
        sample: (n,) values; not looked at.
        low, high: smallest and largest value ever seen.
        bits: 2 to 16.
    """
    del sample
    return asymmetric_grid(torch.tensor(low), torch.tensor(high), bits)


RANGE_SEARCHES: Mapping[str, RangeSearch] = {
    "mse": fit_asymmetric,
    "percentile": percentile_grid,
    "entropy": entropy_grid,
    "minmax": extremes_grid,
}
