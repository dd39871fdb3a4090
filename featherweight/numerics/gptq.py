"""GPTQ: weights rounded to affine grids column by column, each column making up for those before it.

The loop is that of :mod:`featherweight.numerics.sequential` (Frantar et al. 2022, arXiv:2210.17323: blocks of 128
lazily updated columns, the columns with the largest inputs first, damping); the values that a column may have are the
levels of each row's grid. Rows don't meet: the error ``tr(D C Dᵀ)`` is a sum over rows, so each is rounded as if alone.

Shapes: weights (g, n, d) in ``g`` blocks, covariances (g, d, d), a grid for every row with scales (g, n).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from featherweight.numerics.affine import AffineGrid
from featherweight.numerics.sequential import settled

DAMPING = 1e-2


@dataclass(frozen=True, slots=True)
class RowGrids:
    """A grid for every row: the reals ``s · k`` with whole ``low ≤ k ≤ high``.

    Attributes:
        scale: (g, n), positive, float64.
        low, high: (g, n), whole, float64, ``low ≤ 0 ≤ high``: the grid's levels without its zero point.
    """

    scale: torch.Tensor
    low: torch.Tensor
    high: torch.Tensor

    @classmethod
    def of(cls, grid: AffineGrid, groups: int) -> RowGrids:
        """Of a grid per channel, (g · n,)."""
        zero = grid.zero_point.double().view(groups, -1)
        return cls(grid.scale.double().view(groups, -1), grid.lowest - zero, grid.highest - zero)

    def nearest(self, values: torch.Tensor) -> torch.Tensor:
        """The nearest reals to (g, n) or (g, n, d) values, float64."""
        scale, low, high = (
            part if values.ndim == 2 else part.unsqueeze(2) for part in (self.scale, self.low, self.high)
        )
        return torch.minimum(torch.maximum(torch.round(values / scale), low), high) * scale

    def repeated(self, factors: torch.Tensor) -> RowGrids:
        """Every row's grid once for each of (k,) factors of its scale: (g, n · k), a row's copies side by side."""
        count = len(factors)
        scale = (self.scale.unsqueeze(2) * factors.to(self.scale)).float().double()  # scales are stored as float32
        return RowGrids(scale.flatten(1), *(part.repeat_interleave(count, 1) for part in (self.low, self.high)))

    def picked(self, index: torch.Tensor, count: int) -> RowGrids:
        """Of ``count`` copies of every row the one with (g, n) index."""
        return RowGrids(*(pick_copies(part, index, count) for part in (self.scale, self.low, self.high)))


def pick_copies(values: torch.Tensor, index: torch.Tensor, count: int) -> torch.Tensor:
    """Of (g, n · count, …) values, a row's copies side by side, the copy with (g, n) index: (g, n, …)."""
    groups, rows = index.shape
    rest = values.shape[2:]
    copies = values.reshape(groups, rows, count, *rest)
    at = index.view(groups, rows, 1, *[1] * len(rest)).expand(groups, rows, 1, *rest)
    return copies.gather(2, at).squeeze(2)


def row_errors(difference: torch.Tensor, covariance: torch.Tensor) -> torch.Tensor:
    """``(D C Dᵀ)_ii``: every row's mean squared output error, (g, n), from (g, n, d) and (g, d, d); float64."""
    difference, covariance = difference.double(), covariance.double()
    return ((difference @ covariance) * difference).sum(2).clamp(min=0.0)


def gptq(
    weight: torch.Tensor,
    covariance: torch.Tensor,
    grids: RowGrids,
    free: torch.Tensor | None = None,
    damping: float = DAMPING,
    largest_first: bool = True,
) -> torch.Tensor:
    """The weight on its grids, errors compensated; no row ends worse than by rounding to nearest.

    Args:
        weight: (g, n, d), finite.
        covariance: (g, d, d) of the inputs, positive semidefinite; of any rank.
        grids: one for every row.
        free: (g, n, d) bool; entries that are False become zero and stay it. None leaves all free.
        damping: ``λ`` relative to the mean of the covariance's diagonal.
        largest_first: the order: the columns with the largest inputs first; False for the columns as they stand.

    Returns:
        (g, n, d), float64, every entry a level of its row's grid.
    """

    def settle(columns: torch.Tensor, at: torch.Tensor) -> torch.Tensor:
        value = grids.nearest(columns)
        return value if free is None else torch.where(free[:, :, at], value, 0.0)

    return settled(weight, covariance, settle, damping, largest_first)
