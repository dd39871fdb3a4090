"""Rounding column by column, each column making up for those before it: GPTQ with any set of values for a grid.

Rounding column ``j`` of ``W`` leaves ``e = w_j − q_j``; the least-squares best the later columns can do about it is
``W_{>j} −= e / U_jj · U_{j,>j}`` with ``H⁻¹ = Uᵀ U`` and ``H = C + λ I`` (Frantar et al. 2023, arXiv:2210.17323,
section 3). The columns with the largest inputs go first, while there are many left to make up for them.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

_BLOCK = 128
_DAMPING = 1e-2

Settle = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
"""Columns (g, n, m) and which of the weight's they are (m,) → the nearest values that they may have, (g, n, m)."""


def settled(
    weight: torch.Tensor,
    covariance: torch.Tensor,
    settle: Settle,
    damping: float = _DAMPING,
    largest_first: bool = True,
) -> torch.Tensor:
    """Every column settled on its values, errors compensated as they arise; no row ends worse than without.

    Args:
        weight: (g, n, d).
        covariance: (g, d, d), positive semidefinite.
        settle: the nearest allowed values of some columns.
        damping: ``λ`` relative to the mean of the diagonal.
        largest_first: the columns with the largest inputs first; False for the columns as they stand.

    Returns:
        (g, n, d), float64. Rows are compared one by one with plain settling under ``covariance``, and the better kept.
    """
    weight, covariance = weight.double(), covariance.double()
    plain = settle(weight, torch.arange(weight.shape[2], device=weight.device))
    order = covariance.diagonal(dim1=1, dim2=2).sum(0).argsort(descending=True, stable=True)
    order = order if largest_first else torch.arange(len(order), device=weight.device)
    factor = factor_of(covariance[:, order][:, :, order], damping)
    given = _swept(weight, factor, order, settle)
    better = _row_errors(given - weight, covariance) < _row_errors(plain - weight, covariance)
    return torch.where(better.unsqueeze(2), given, plain)


def _swept(weight: torch.Tensor, factor: torch.Tensor, order: torch.Tensor, settle: Settle) -> torch.Tensor:
    """Every column settled in turn, those after it making up for what it leaves; the factor's columns are in order."""
    left, given = weight[:, :, order].clone(), torch.empty_like(weight)
    for start in range(0, len(order), _BLOCK):
        end = min(start + _BLOCK, len(order))
        errors = torch.empty_like(left[:, :, start:end])
        for at in range(start, end):
            pivot = factor[:, at, at].view(-1, 1, 1)
            value = settle(left[:, :, at : at + 1], order[at : at + 1])
            given[:, :, order[at : at + 1]] = value
            error = (left[:, :, at : at + 1] - value) / pivot
            left[:, :, at:end] -= error * factor[:, at : at + 1, at:end]
            errors[:, :, at - start] = error.squeeze(2)
        left[:, :, end:] -= errors @ factor[:, start:end, end:]
    return given


def _row_errors(difference: torch.Tensor, covariance: torch.Tensor) -> torch.Tensor:
    return ((difference @ covariance) * difference).sum(2)


def factor_of(covariance: torch.Tensor, damping: float) -> torch.Tensor:
    """``U``, upper triangular, with ``Uᵀ U = (C + λ I)⁻¹``: (g, d, d)."""
    strength = damping * covariance.diagonal(dim1=1, dim2=2).mean(1)
    strength = torch.where(strength > 0, strength, 1.0)  # inputs that never vary: every map is as good
    eye = torch.eye(covariance.shape[1], dtype=torch.float64, device=covariance.device)
    lower, info = torch.linalg.cholesky_ex(covariance + strength.view(-1, 1, 1) * eye)
    if bool(info.any()):  # rounding can leave a tiny negative eigenvalue: more damping always mends it
        return factor_of(covariance, damping * 10)
    return torch.linalg.cholesky(torch.cholesky_inverse(lower), upper=True)
