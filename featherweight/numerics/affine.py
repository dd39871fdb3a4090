"""Affine grids: what an integer kernel computes with.

A grid has a scale ``s > 0``, a zero point ``z`` and integer levels ``lowest … highest``; it stands for the reals
``s · (q − z)``. A real is rounded to ``q = clip(round(x / s) + z, lowest, highest)`` (Jacob et al. 2018,
arXiv:1712.05877, equation 1; rounding half to even, as the runtimes do). Real zero is always on the grid, so that
padding is exact.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

_SMALLEST_SCALE = 1e-12
_RATIOS = torch.linspace(1.0, 0.3, 71, dtype=torch.float64)
_FEW_BITS = 4
_LOW_RATIOS = torch.linspace(1.0, 0.1, 91, dtype=torch.float64)  # few levels want more clipping


@dataclass(frozen=True, slots=True)
class AffineGrid:
    """An affine grid, or one for every channel.

    Attributes:
        scale: real value of one step, shape () or (channels,), or that of what is rounded; float32.
        zero_point: level of real zero, same shape, int64.
        lowest, highest: the first and the last level.
    """

    scale: torch.Tensor
    zero_point: torch.Tensor
    lowest: int
    highest: int

    def levels(self, x: torch.Tensor, axis: int | None = None) -> torch.Tensor:
        """The integer levels of ``x``, same shape, int64; ``axis`` is the channel axis of a grid per channel."""
        scale, zero_point = self._broadcast(x, axis)
        return torch.clamp(torch.round(x / scale) + zero_point, self.lowest, self.highest).to(torch.int64)

    def round(self, x: torch.Tensor, axis: int | None = None) -> torch.Tensor:
        """The grid's nearest reals to ``x``, same shape and type."""
        scale, zero_point = self._broadcast(x, axis)
        return ((self.levels(x, axis) - zero_point) * scale).to(x.dtype)

    def describe(self) -> tuple[float, int, int, int]:
        """A per-tensor grid as plain numbers: scale, zero point, lowest, highest."""
        return float(self.scale), int(self.zero_point), self.lowest, self.highest

    @classmethod
    def from_description(cls, row: Sequence[float]) -> AffineGrid:
        """The grid that :meth:`describe` told."""
        scale, zero, lowest, highest = row
        return cls(torch.tensor(scale, dtype=torch.float32), torch.tensor(int(zero)), int(lowest), int(highest))

    def _broadcast(self, x: torch.Tensor, axis: int | None) -> tuple[torch.Tensor, torch.Tensor]:
        if axis is None:
            return self.scale.to(x.device), self.zero_point.to(x.device)
        shape = [1] * x.ndim
        shape[axis] = -1
        return self.scale.to(x.device).view(shape), self.zero_point.to(x.device).view(shape)


def asymmetric_grid(low: torch.Tensor, high: torch.Tensor, bits: int = 8) -> AffineGrid:
    """The grid of ``2^bits`` levels that covers [low, high] and real zero.

    Args:
        low, high: ends of the range, same shape () or (channels,).
        bits: 2 to 16. Levels run from ``−2^(bits−1)`` to ``2^(bits−1) − 1``.
    """
    lowest, highest = -(2 ** (bits - 1)), 2 ** (bits - 1) - 1
    low = low.double().clamp(max=0.0)
    high = high.double().clamp(min=0.0)
    scale = ((high - low) / (highest - lowest)).clamp(min=_SMALLEST_SCALE).float()
    zero_point = torch.round(lowest - low / scale.double()).clamp(lowest, highest).to(torch.int64)
    return AffineGrid(scale, zero_point, lowest, highest)


def symmetric_grid(largest: torch.Tensor, bits: int = 8) -> AffineGrid:
    """The grid of ``2^bits − 1`` levels that covers [−largest, largest]; its zero point is 0.

    Args:
        largest: largest magnitude, shape () or (channels,).
        bits: 2 to 16. The level ``−2^(bits−1)`` is left out, as int8 kernels ask for weights.
    """
    highest = 2 ** (bits - 1) - 1
    scale = (largest.double() / highest).clamp(min=_SMALLEST_SCALE).float()
    return AffineGrid(scale, torch.zeros_like(scale, dtype=torch.int64), -highest, highest)


def fit_symmetric(weight: torch.Tensor, bits: int = 8, importance: torch.Tensor | None = None) -> AffineGrid:
    """The symmetric grid of every row with the least (weighted) squared rounding error.

    Searched over clippings from the row's largest magnitude down to 0.3 of it, with at most 4 bits down to 0.1, in
    steps of 0.01. A row of zeros gets the smallest scale, so nothing divides by zero.

    Args:
        weight: (rows, columns).
        bits: 2 to 16.
        importance: (columns,) or (rows, columns), weight of each column's squared error: the diagonal of the Gram
            matrix makes it the error of the output under uncorrelated inputs. None counts all alike.
    """
    weight = weight.double()
    largest = weight.abs().amax(1)
    ratio = _best_ratio(weight, lambda ratio: symmetric_grid(largest * ratio, bits), bits, importance)
    return symmetric_grid(largest * ratio, bits)


def fit_asymmetric_rows(weight: torch.Tensor, bits: int = 8, importance: torch.Tensor | None = None) -> AffineGrid:
    """The asymmetric grid of every row with the least (weighted) squared rounding error.

    The range of a row starts at its extremes; both ends are pulled in together, then each alone, over the clippings of
    :func:`fit_symmetric`, whose arguments these are.
    """
    weight = weight.double()
    low, high = weight.amin(1).clamp(max=0.0), weight.amax(1).clamp(min=0.0)
    ratio = _best_ratio(weight, lambda ratio: asymmetric_grid(low * ratio, high * ratio, bits), bits, importance)
    lower, higher = low * ratio, high * ratio
    ratio = _best_ratio(weight, lambda ratio: asymmetric_grid(lower * ratio, higher, bits), bits, importance)
    lowest = lower * ratio
    ratio = _best_ratio(weight, lambda ratio: asymmetric_grid(lowest, higher * ratio, bits), bits, importance)
    return asymmetric_grid(lowest, higher * ratio, bits)


def _best_ratio(
    weight: torch.Tensor,
    grid_at: Callable[[torch.Tensor], AffineGrid],
    bits: int,
    importance: torch.Tensor | None,
) -> torch.Tensor:
    """The clipping of every row, (rows,), whose grid rounds it with the least (weighted) squared error."""
    best_error = torch.full_like(weight[:, 0], torch.inf)
    best_ratio = torch.ones_like(best_error)
    for ratio in _RATIOS if bits > _FEW_BITS else _LOW_RATIOS:
        squared = (grid_at(ratio).round(weight, axis=0) - weight).square()
        error = (squared if importance is None else squared * importance).sum(1)
        better = error < best_error
        best_error = torch.where(better, error, best_error)
        best_ratio = torch.where(better, ratio, best_ratio)
    return best_ratio


def fit_blocks(
    weight: torch.Tensor,
    size: int = 32,
    bits: int = 8,
    *,
    symmetric: bool = True,
    importance: torch.Tensor | None = None,
) -> AffineGrid:
    """A grid for every block of ``size`` neighbouring columns of every row; the last block may be smaller.

    Args:
        weight: (rows, columns).
        size: columns that share a grid.
        bits: 2 to 16.
        symmetric: without or with a zero point.
        importance: (columns,), as for :func:`fit_symmetric`.

    Returns:
        A grid with one scale for every entry, (rows, columns): round with it without an axis.
    """
    rows, columns = weight.shape
    missing = -columns % size
    blocks = torch.constant_pad_nd(weight.double(), (0, missing)).reshape(-1, size)  # a zero more lies on every grid
    weights = torch.ones(columns) if importance is None else importance
    spread = torch.constant_pad_nd(weights.double(), (0, missing)).expand(rows, -1).reshape(-1, size)
    grid = (fit_symmetric if symmetric else fit_asymmetric_rows)(blocks, bits, spread)
    scale, zero_point = (
        part.view(rows, -1).repeat_interleave(size, 1)[:, :columns] for part in (grid.scale, grid.zero_point)
    )
    return AffineGrid(scale, zero_point, grid.lowest, grid.highest)


def fit_asymmetric(sample: torch.Tensor, low: float, high: float, bits: int = 8) -> AffineGrid:
    """The asymmetric per-tensor grid with the least squared rounding error on a sample of values.

    The range starts as [low, high] (the values' true extremes) and both ends are pulled in together, then each alone,
    over the same 71 clippings.

    Args:
        sample: (n,) values, a fair sample of what the grid must carry.
        low, high: smallest and largest value ever seen.
        bits: 2 to 16.
    """
    values = sample.double().flatten()
    low, high = min(low, 0.0), max(high, 0.0)
    if values.numel() == 0 or low == high:
        return asymmetric_grid(torch.tensor(low), torch.tensor(high), bits)

    def best(lows: torch.Tensor, highs: torch.Tensor) -> tuple[float, float]:
        # One range at a time: a sample of 16,000 values against 71 ranges at once would take a gigabyte of scratch.
        ends = list(zip(lows.tolist(), highs.tolist(), strict=True))
        grids = [asymmetric_grid(torch.tensor(a), torch.tensor(b), bits) for a, b in ends]
        errors = [rounding_noise(values, grid) for grid in grids]
        return ends[errors.index(min(errors))]

    same = torch.ones_like(_RATIOS)
    low, high = best(low * _RATIOS, high * _RATIOS)
    low, high = best(low * _RATIOS, high * same)
    low, high = best(low * same, high * _RATIOS)
    return asymmetric_grid(torch.tensor(low), torch.tensor(high), bits)


def rounding_noise(sample: torch.Tensor, grid: AffineGrid) -> float:
    """Mean squared error of a per-tensor grid on a sample of values, in the square of the values' unit."""
    values = sample.double()
    return float((grid.round(values) - values).square().mean()) if values.numel() else 0.0
