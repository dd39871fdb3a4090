"""Rounding that counts bits: levels chosen on ``tr(D C Dᵀ) + λ · bits``.

One coarse step serves a whole layer. Outputs are equally dear, so a common step spends bits where they save most
error, and an entropy coder gives small levels few bits (Gish and Pierce 1968: at equal error a uniform step with
entropy coding takes a quarter of a bit more than any code could). A level's bits are what its own frequency says,
``−log2 p(k)``; frequencies and levels are found by turns. Columns go one after another as in GPTQ
(:mod:`featherweight.numerics.sequential`): the true price of leaving column ``j`` at distance ``e`` is ``e² / U_jj²``,
since the later columns make up for the rest. Then levels are moved one by one, as in
:mod:`featherweight.numerics.rounding`, on the exact objective.

Both are one loop: a level is chosen for where its entry's error is least, and what that leaves moves where the later
entries' errors are least. A choice among three levels is next to nothing, and a table asks for millions of them, so
the loop is compiled; it runs on the CPU.

``λ`` isn't free: where a bit more halves the step, the error ``Δ²/12`` a weight falls by ``2 ln 2 · Δ²/12``, and a
level is worth its bits at just that rate (rate-distortion optimised quantization, Sullivan and Wiegand 1998).
"""

from __future__ import annotations

import math

import numpy as np
import torch
from numba import njit

from featherweight.numerics.gptq import row_errors
from featherweight.numerics.sequential import factor_of

Array = np.ndarray

PRICE = 2 * math.log(2) / 12
"""What a bit is worth in units of the squared step, at the slope of a uniform quantizer."""

MOST = 127
"""The largest magnitude of a level: it must fit a byte."""

_DAMPING = 1e-2
_SWEEPS = 3
_TILE = 32  # rows that go through the columns together, so that they stay in the cache


def bits_of(levels: torch.Tensor) -> torch.Tensor:
    """``−log2`` of every level's smoothed frequency: (2 · MOST + 1,), level ``k`` at ``k + MOST``.

    Args:
        levels: whole numbers from −MOST to MOST, any shape.
    """
    counts = torch.bincount((levels.flatten() + MOST).to(torch.int64), minlength=2 * MOST + 1).double()
    both = (counts + counts.flip(0)) / 2  # signs cost a bit each, whichever is more frequent
    # A level unseen isn't impossible, least of all beside one that was seen.
    smoothed = both + 0.03 * (both.roll(1) + both + both.roll(-1)) + 1e-3
    return -(smoothed / smoothed.sum()).log2()


def round_for_rate(
    weight: torch.Tensor,
    covariance: torch.Tensor,
    step: float,
    free: torch.Tensor | None = None,
    price: float = PRICE,
) -> torch.Tensor:
    """Levels of a weight on the grid of one step, chosen for error and bits together.

    Args:
        weight: (g, n, d), finite.
        covariance: (g, d, d) of the inputs, positive semidefinite; of any rank.
        step: of the grid, positive; large enough that no weight exceeds ``MOST`` steps.
        free: (g, n, d) bool; entries that are False become zero and stay it. None leaves all free.
        price: of a bit, in squared steps.

    Returns:
        Whole numbers (g, n, d), int64. Rows are compared with plain rounding under the bits found, and the better kept.
    """
    scaled, covariance = weight.double() / step, covariance.double()
    free = torch.ones_like(scaled, dtype=torch.bool) if free is None else free
    plain = torch.where(free, scaled.round().clamp(-MOST, MOST), 0.0)
    order = covariance.diagonal(dim1=1, dim2=2).sum(0).argsort(descending=True, stable=True)
    factor = factor_of(covariance[:, order][:, :, order], _DAMPING)
    # The geometric mean of 1 / U_jj² is what a column's error costs after the others made up for it.
    worth = price * torch.exp(-2 * factor.diagonal(dim1=1, dim2=2).log().mean(1))
    levels = plain
    for _ in range(2):
        costs = worth.unsqueeze(1) * bits_of(levels)
        levels = compensated(scaled[:, :, order], factor, costs, free[:, :, order])[:, :, order.argsort()]
    for _ in range(_SWEEPS):
        moved = descended(levels, scaled, covariance, worth.unsqueeze(1) * bits_of(levels), free)
        if torch.equal(moved, levels):
            break
        levels = moved
    bits = bits_of(levels)
    totals = [
        row_errors(one - scaled, covariance) + bits[(one + MOST).long()].sum(2) * worth.unsqueeze(1)
        for one in (levels, plain)
    ]
    return torch.where((totals[0] < totals[1]).unsqueeze(2), levels, plain).to(torch.int64)


def compensated(values: torch.Tensor, factor: torch.Tensor, costs: torch.Tensor, free: torch.Tensor) -> torch.Tensor:
    """Every column's levels in turn, the columns after it making up for what it leaves: GPTQ with a price on levels.

    Args:
        values: (g, n, d), float64, in steps.
        factor: ``U`` of :func:`featherweight.numerics.sequential.factor_of`, (g, d, d).
        costs: of every level, level ``k`` at ``k + MOST``: (g, 2 · MOST + 1).
        free: (g, n, d) bool; the others become zero.

    Returns:
        Levels (g, n, d), float64.
    """
    pivots = factor.diagonal(dim1=1, dim2=2)
    # None is held: what a level leaves counts from where the columns before it put the entry.
    return _chosen_in_turn(values, None, factor / pivots.unsqueeze(2), pivots**-2, costs, free)


def descended(
    levels: torch.Tensor, values: torch.Tensor, covariance: torch.Tensor, costs: torch.Tensor, free: torch.Tensor
) -> torch.Tensor:
    """One sweep of coordinate descent on ``tr(D C Dᵀ)`` and costs: every column in turn, seeing the moves before it.

    Args:
        levels: (g, n, d), float64, where it starts.
        values: (g, n, d), float64, in steps: what they stand for.
        covariance: (g, d, d), float64.
        costs: of every level, level ``k`` at ``k + MOST``: (g, 2 · MOST + 1).
        free: (g, n, d) bool; the others become zero.

    Returns:
        Levels (g, n, d), float64.
    """
    curvatures = covariance.diagonal(dim1=1, dim2=2)
    inverse = torch.where(curvatures > 0, 1 / curvatures.clamp(min=1e-300), 0.0).unsqueeze(1)
    lowest = levels - (levels - values) @ covariance * inverse
    return _chosen_in_turn(lowest, levels, -covariance * inverse, curvatures, costs, free)


def _chosen_in_turn(
    lowest: torch.Tensor,
    held: torch.Tensor | None,
    pull: torch.Tensor,
    curvatures: torch.Tensor,
    costs: torch.Tensor,
    free: torch.Tensor,
) -> torch.Tensor:
    """The loop on tensors: levels (g, n, d), float64. Where none is held, an entry was counted with its own place."""
    places = lowest.cpu().numpy().copy(order="C")
    before = places if held is None else _array(held)
    levels = np.empty_like(places)
    _choose_in_turn(places, before, _array(pull), _array(curvatures), _array(costs), _array(free), levels)
    return torch.from_numpy(levels).to(lowest.device)


def _array(tensor: torch.Tensor) -> Array:
    return np.ascontiguousarray(tensor.cpu().numpy())


@njit(cache=True, error_model="numpy")
def _choose_in_turn(
    lowest: Array, held: Array, pull: Array, curvatures: Array, costs: Array, free: Array, levels: Array
) -> None:
    """Choose every entry's level, column by column; rows don't meet.

    Args:
        lowest: (g, n, d), where every entry's error is least as things stand.
        held: (g, n, d), what every entry was counted with so far; may be ``lowest`` itself.
        pull: (g, d, d), how far ``lowest`` of column ``k`` moves where an entry of column ``j`` does by one.
        curvatures: (g, d), of the error in an entry.
        costs: (g, 2 · MOST + 1), of every level.
        free: (g, n, d) bool; the others become zero.
        levels: (g, n, d), filled.
    """
    groups, rows, width = lowest.shape
    for g in range(groups):
        for begin in range(0, rows, _TILE):
            for j in range(width):
                for i in range(begin, min(begin + _TILE, rows)):
                    level = _choice(lowest[g, i, j], curvatures[g, j], costs[g]) if free[g, i, j] else 0.0
                    levels[g, i, j] = level
                    move = level - held[g, i, j]
                    if move != 0.0:
                        row, by = lowest[g, i], pull[g, j]
                        for k in range(j + 1, width):
                            row[k] += move * by[k]


@njit(cache=True, error_model="numpy")
def _choice(value: float, curvature: float, costs: Array) -> float:
    """The level with the least ``curvature · (value − k)² + cost(k)``.

    The nearest level, the next one towards zero, and zero are tried: costs fall towards zero.
    """
    # Compiled code checks no bounds: whatever comes, a NaN too, must lead to a level that has a cost.
    nearest = np.rint(value) if abs(value) <= MOST else math.copysign(MOST, value)
    best, least = nearest, curvature * (value - nearest) ** 2 + costs[int(nearest) + MOST]
    for level in (nearest - np.sign(nearest), 0.0):
        cost = curvature * (value - level) ** 2 + costs[int(level) + MOST]
        if cost < least:
            best, least = level, cost
    return best
