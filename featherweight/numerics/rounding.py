"""Rounding chosen on the output's error ``tr(D C Dᵀ)``: levels moved up and down, scales fitted in closed form.

With the residual ``R = D C`` the best move of one entry is exact: the error is a parabola in it, whose lowest point
lies at ``w̃_ij − R_ij / C_jj``, so the best level is the nearest to that. Going through the columns again and again only
ever lowers the error: AdaRound's problem (Nagel et al. 2020, arXiv:2004.10568, equation 13) without gradients, over all
levels instead of two. For fixed levels ``k`` the best scale of a row is least squares:
``s = (k C wᵀ) / (k C kᵀ)``. Both alternate until neither gains.

Shapes as in :mod:`featherweight.numerics.gptq`.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

from featherweight.numerics.gptq import DAMPING, RowGrids, gptq, pick_copies, row_errors

_BLOCK = 128
_SWEEPS = 4
_ROUNDS = 3
_FACTORS = torch.tensor([0.7, 0.78, 0.86, 0.93, 1.0, 1.08, 1.16, 1.26], dtype=torch.float64)
_ENTRIES_AT_ONCE = 16_000_000  # of the copies that are rounded together: 128 MB, held four times

_Choose = Callable[[torch.Tensor, int], torch.Tensor]
"""Where a column's error is least (g, n), and which column it is → what it becomes, (g, n)."""


def descend(
    start: torch.Tensor,
    weight: torch.Tensor,
    covariance: torch.Tensor,
    grids: RowGrids,
    free: torch.Tensor | None = None,
    sweeps: int = _SWEEPS,
) -> torch.Tensor:
    """Coordinate descent over levels, every column's rows at once; never worse than where it starts.

    Args:
        start: (g, n, d), on the grids, zero where not free.
        weight: (g, n, d), what it stands for.
        covariance: (g, d, d).
        grids: one for every row.
        free: (g, n, d) bool, or None.
        sweeps: at most this often through all columns; it stops where nothing moves.
    """
    weight, covariance = weight.double(), covariance.double()
    rounded = start.double().clone()

    def choose(values: torch.Tensor, at: int) -> torch.Tensor:
        wanted = grids.nearest(values)
        return wanted if free is None else torch.where(free[:, :, at], wanted, 0.0)

    for _ in range(sweeps):
        moved = _descended(rounded, weight, covariance, choose)
        if torch.equal(moved, rounded):
            break
        rounded = moved
    better = row_errors(rounded - weight, covariance) < row_errors(start - weight, covariance)
    return torch.where(better.unsqueeze(2), rounded, start.double())


def _descended(rounded: torch.Tensor, weight: torch.Tensor, covariance: torch.Tensor, choose: _Choose) -> torch.Tensor:
    """One sweep of coordinate descent: every column in turn, all rows at once, seeing the moves before it."""
    rounded, residual = rounded.clone(), (rounded - weight) @ covariance
    diagonal = covariance.diagonal(dim1=1, dim2=2)
    for begin in range(0, weight.shape[2], _BLOCK):
        end = min(begin + _BLOCK, weight.shape[2])
        inner, moves = residual[:, :, begin:end].clone(), torch.zeros_like(rounded[:, :, begin:end])
        for at in range(begin, end):
            curvature, here = diagonal[:, at].unsqueeze(1), rounded[:, :, at]
            steepest = torch.where(curvature > 0, inner[:, :, at - begin] / curvature.clamp(min=1e-300), 0.0)
            move = choose(here - steepest, at) - here
            moves[:, :, at - begin] = move
            inner[:, :, at - begin + 1 :] += move.unsqueeze(2) * covariance[:, at : at + 1, at + 1 : end]
        residual += moves @ covariance[:, begin:end]
        rounded[:, :, begin:end] += moves
    return rounded


def fit_scales(
    rounded: torch.Tensor, weight: torch.Tensor, covariance: torch.Tensor, grids: RowGrids
) -> tuple[torch.Tensor, RowGrids]:
    """The least-squares scale of every row for the levels that it has, and the row on it; kept where it gains.

    Args:
        rounded: (g, n, d), on the grids.
        weight: (g, n, d), what it stands for.
        covariance: (g, d, d).
        grids: one for every row.
    """
    weight, covariance = weight.double(), covariance.double()
    onto = rounded @ covariance
    factor = (onto * weight).sum(2) / (onto * rounded).sum(2)
    usable = torch.isfinite(factor) & (factor > 1e-3) & (factor < 1e3)
    scale = (torch.where(usable, factor, 1.0) * grids.scale).float().double()  # stored as float32
    moved = rounded / grids.scale.unsqueeze(2) * scale.unsqueeze(2)
    better = row_errors(moved - weight, covariance) < row_errors(rounded - weight, covariance)
    kept = RowGrids(torch.where(better, scale, grids.scale), grids.low, grids.high)
    return torch.where(better.unsqueeze(2), moved, rounded), kept


def search_scales(
    weight: torch.Tensor,
    covariance: torch.Tensor,
    grids: RowGrids,
    free: torch.Tensor | None = None,
    damping: float = DAMPING,
    largest_first: bool = True,
) -> tuple[torch.Tensor, RowGrids]:
    """GPTQ with every row's scale as it is and at seven others; of a row's eight results the best under ``C``.

    Args:
        weight: (g, n, d).
        covariance: (g, d, d).
        grids: one for every row.
        free: (g, n, d) bool, or None.
        damping, largest_first: of GPTQ.

    Returns:
        The rounded weight (g, n, d), and the grids that it lies on.
    """
    count = len(_FACTORS)
    step = max(1, _ENTRIES_AT_ONCE // (count * weight.shape[0] * weight.shape[2]))
    found: list[tuple[torch.Tensor, RowGrids]] = []
    for begin in range(0, weight.shape[1], step):
        rows = slice(begin, begin + step)
        own = RowGrids(*(part[:, rows] for part in (grids.scale, grids.low, grids.high)))
        copies = weight[:, rows].double().repeat_interleave(count, 1)
        masks = None if free is None else free[:, rows].repeat_interleave(count, 1)
        tried = own.repeated(_FACTORS)
        rounded = gptq(copies, covariance, tried, masks, damping, largest_first)
        errors = row_errors(rounded - copies, covariance)
        best = errors.view(len(weight), -1, count).argmin(2)
        found.append((pick_copies(rounded, best, count), tried.picked(best, count)))
    parts = [torch.cat([getattr(own, name) for _, own in found], 1) for name in ("scale", "low", "high")]
    return torch.cat([rounded for rounded, _ in found], 1), RowGrids(*parts)


def round_weight(
    weight: torch.Tensor,
    covariance: torch.Tensor,
    grids: RowGrids,
    free: torch.Tensor | None = None,
    damping: float = DAMPING,
    largest_first: bool = True,
) -> tuple[torch.Tensor, RowGrids]:
    """All of the above in turn: GPTQ over scales, then levels and scales by turns. Worth its time below six bits.

    Args:
        weight: (g, n, d).
        covariance: (g, d, d).
        grids: where the search starts.
        free: (g, n, d) bool, or None.
        damping, largest_first: of GPTQ.

    Returns:
        The rounded weight (g, n, d), float64, and the grids that it lies on.
    """
    rounded, grids = search_scales(weight, covariance, grids, free, damping, largest_first)
    for _ in range(_ROUNDS):
        rounded = descend(rounded, weight, covariance, grids, free)
        rounded, grids = fit_scales(rounded, weight, covariance, grids)
    return descend(rounded, weight, covariance, grids, free), grids
