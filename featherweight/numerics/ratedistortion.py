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

import torch

from featherweight.numerics.gptq import row_errors
from featherweight.numerics.sequential import factor_of

PRICE = 2 * math.log(2) / 12
"""What a bit is worth in units of the squared step, at the slope of a uniform quantizer."""

MOST = 127
"""The largest magnitude of a level: it must fit a byte."""

_BLOCK = 128
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
    mask = None if free is None else free.double()
    plain = scaled.round().clamp(-MOST, MOST) if mask is None else scaled.round().clamp(-MOST, MOST) * mask
    order = covariance.diagonal(dim1=1, dim2=2).sum(0).argsort(descending=True, stable=True)
    factor = factor_of(covariance[:, order][:, :, order], _DAMPING)
    # The geometric mean of 1 / U_jj² is what a column's error costs after the others made up for it.
    worth = price * torch.exp(-2 * factor.diagonal(dim1=1, dim2=2).log().mean(1))
    levels = plain
    for _ in range(2):
        levels = _in_order(scaled, factor, order, mask, (worth, bits_of(levels)))
    for _ in range(_SWEEPS):
        moved = _descended(levels, scaled, covariance, mask, (worth, bits_of(levels)))
        if torch.equal(moved, levels):
            break
        levels = moved
    rate = (worth, bits_of(levels))
    better = _row_costs(levels, scaled, covariance, rate) < _row_costs(plain, scaled, covariance, rate)
    return torch.where(better.unsqueeze(2), levels, plain).to(torch.int64)


_Rate = tuple[torch.Tensor, torch.Tensor]
"""What a bit is worth by group (g,), and the bits of every level."""


def _row_costs(levels: torch.Tensor, scaled: torch.Tensor, covariance: torch.Tensor, rate: _Rate) -> torch.Tensor:
    """Every row's ``error + worth · bits``: (g, n)."""
    worth, bits = rate
    spent = bits[(levels + MOST).to(torch.int64)].sum(2) * worth.view(-1, 1)
    return row_errors(levels - scaled, covariance) + spent


def _chosen(values: torch.Tensor, curvature: torch.Tensor, rate: _Rate) -> torch.Tensor:
    """For (g, n) values the level with the least ``curvature · (value − k)² + worth · bits(k)``.

    The nearest level, the next one towards zero, and zero are tried: bits fall towards zero.
    """
    worth, bits = rate
    nearest = values.round().clamp(-MOST, MOST)
    candidates = torch.stack([nearest, nearest - nearest.sign(), torch.zeros_like(nearest)])
    spent = bits[(candidates + MOST).to(torch.int64)] * worth.view(1, -1, 1)
    cost = (values - candidates).square() * curvature.view(1, -1, 1) + spent
    return candidates.gather(0, cost.argmin(0, keepdim=True)).squeeze(0)


def _in_order(
    scaled: torch.Tensor, factor: torch.Tensor, order: torch.Tensor, mask: torch.Tensor | None, rate: _Rate
) -> torch.Tensor:
    """Columns one after another, each making up for those before it."""
    left, given = scaled[:, :, order].clone(), torch.empty_like(scaled)
    for start in range(0, len(order), _BLOCK):
        end = min(start + _BLOCK, len(order))
        errors = torch.empty_like(left[:, :, start:end])
        for at in range(start, end):
            level = _chosen(left[:, :, at], factor[:, at, at] ** -2, rate)
            if mask is not None:
                level = level * mask[:, :, order[at]]
            given[:, :, order[at]] = level
            error = (left[:, :, at] - level) / factor[:, at, at].view(-1, 1)
            left[:, :, at:end] -= error.unsqueeze(2) * factor[:, at : at + 1, at:end]
            errors[:, :, at - start] = error
        left[:, :, end:] -= errors @ factor[:, start:end, end:]
    return given


def _descended(
    levels: torch.Tensor, scaled: torch.Tensor, covariance: torch.Tensor, mask: torch.Tensor | None, rate: _Rate
) -> torch.Tensor:
    """One sweep of coordinate descent on the exact objective, every column's rows at once."""
    levels = levels.clone()
    residual = (levels - scaled) @ covariance
    diagonal = covariance.diagonal(dim1=1, dim2=2)
    for begin in range(0, levels.shape[2], _BLOCK):
        end = min(begin + _BLOCK, levels.shape[2])
        inner, moves = residual[:, :, begin:end].clone(), torch.zeros_like(levels[:, :, begin:end])
        for at in range(begin, end):
            curvature, here = diagonal[:, at], levels[:, :, at]
            best = here - inner[:, :, at - begin] / curvature.clamp(min=1e-300).unsqueeze(1)
            level = torch.where(curvature.unsqueeze(1) > 0, _chosen(best, curvature, rate), 0.0)
            if mask is not None:
                level = level * mask[:, :, at]
            move = level - here
            moves[:, :, at - begin] = move
            inner[:, :, at - begin + 1 :] += move.unsqueeze(2) * covariance[:, at : at + 1, at + 1 : end]
        residual += moves @ covariance[:, begin:end]
        levels[:, :, begin:end] += moves
    return levels
