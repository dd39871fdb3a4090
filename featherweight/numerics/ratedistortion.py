"""Rounding that counts bits: levels chosen on ``tr(D C Dᵀ) + λ · bits``.

One coarse step serves a whole layer. Outputs are equally dear, so a common step spends bits where they save most
error, and an entropy coder gives small levels few bits (Gish and Pierce 1968: at equal error a uniform step with
entropy coding takes a quarter of a bit more than any code could). A level's bits are what its own frequency says,
``−log2 p(k)``; frequencies and levels are found by turns. Columns go one after another as in GPTQ
(:mod:`featherweight.numerics.sequential`): the true price of leaving column ``j`` at distance ``e`` is ``e² / U_jj²``,
since the later columns make up for the rest. Then levels are moved one by one (:mod:`featherweight.numerics.rounding`)
on the exact objective.

``λ`` isn't free: where a bit more halves the step, the error ``Δ²/12`` a weight falls by ``2 ln 2 · Δ²/12``, and a
level is worth its bits at just that rate (rate-distortion optimised quantization, Sullivan and Wiegand 1998).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from featherweight.numerics.gptq import row_errors
from featherweight.numerics.rounding import descended
from featherweight.numerics.sequential import factor_of, swept

PRICE = 2 * math.log(2) / 12
"""What a bit is worth in units of the squared step, at the slope of a uniform quantizer."""

MOST = 127
"""The largest magnitude of a level: it must fit a byte."""

_DAMPING = 1e-2
_SWEEPS = 3


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
    open_ = torch.ones_like(scaled) if free is None else free.double()
    plain = scaled.round().clamp(-MOST, MOST) * open_
    order = covariance.diagonal(dim1=1, dim2=2).sum(0).argsort(descending=True, stable=True)
    factor = factor_of(covariance[:, order][:, :, order], _DAMPING)
    # The geometric mean of 1 / U_jj² is what a column's error costs after the others made up for it.
    worth = price * torch.exp(-2 * factor.diagonal(dim1=1, dim2=2).log().mean(1)).view(-1, 1)
    levels = plain
    for _ in range(2):
        rate = _Rate(worth.unsqueeze(2), bits_of(levels))
        levels = swept(scaled, factor, order, lambda c, at, k, rate=rate: rate.chosen(c, k) * open_[:, :, at])
    for _ in range(_SWEEPS):
        rate = _Rate(worth, bits_of(levels))
        moved = descended(levels, scaled, covariance, lambda v, at, k, r=rate: r.chosen(v, k) * open_[:, :, at])
        if torch.equal(moved, levels):
            break
        levels = moved
    rate = _Rate(worth, bits_of(levels))
    costs = [row_errors(one - scaled, covariance) + rate.of(one).sum(2) * worth for one in (levels, plain)]
    return torch.where((costs[0] < costs[1]).unsqueeze(2), levels, plain).to(torch.int64)


@dataclass(frozen=True, slots=True)
class _Rate:
    """What levels cost.

    Attributes:
        worth: of a bit, by group: (g, 1, …).
        bits: of every level, level ``k`` at ``k + MOST``.
    """

    worth: torch.Tensor
    bits: torch.Tensor

    def of(self, levels: torch.Tensor) -> torch.Tensor:
        """Bits of every level, same shape."""
        return self.bits[(levels + MOST).to(torch.int64)]

    def chosen(self, values: torch.Tensor, curvature: torch.Tensor) -> torch.Tensor:
        """The level with the least ``curvature · (value − k)² + worth · bits(k)``, same shape as ``values``.

        The nearest level, the next one towards zero, and zero are tried: bits fall towards zero.
        """
        nearest = values.round().clamp(-MOST, MOST)
        candidates = torch.stack([nearest, nearest - nearest.sign(), torch.zeros_like(nearest)])
        cost = (values - candidates).square() * curvature + self.of(candidates) * self.worth
        return candidates.gather(0, cost.argmin(0, keepdim=True)).squeeze(0)
