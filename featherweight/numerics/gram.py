"""Gram algebra: the error of replacing a linear map, and the best map under a Gram matrix.

For ``y = W x`` and any replacement ``W + D`` with its bias corrected, the mean squared output error over the data is
``tr(D C Dᵀ)`` with the covariance ``C = E[x xᵀ] − E[x] E[x]ᵀ``: exactly, for any distribution of ``x``.

Shapes: a grouped map holds ``g`` blocks: weights (g, n, d), covariances (g, d, d).
"""

from __future__ import annotations

import torch


def output_error(difference: torch.Tensor, covariance: torch.Tensor) -> float:
    """``tr(D C Dᵀ)``: mean squared error, summed over outputs.

    Args:
        difference: (g, n, d), what the replacement adds to the weight.
        covariance: (g, d, d).
    """
    difference = difference.double()
    return float(((difference @ covariance.double()) * difference).sum().clamp(min=0.0))


def covariance_of(gram: torch.Tensor, mean: torch.Tensor) -> torch.Tensor:
    """``E[x xᵀ] − E[x] E[x]ᵀ``, (g, d, d), from the raw second moment (g, d, d) and the mean (g, d); float64."""
    mean = mean.double()
    return gram.double() - mean.unsqueeze(2) * mean.unsqueeze(1)


def refit(prior: torch.Tensor, covariance: torch.Tensor, cross: torch.Tensor, damping: float = 1e-3) -> torch.Tensor:
    """The map that sends given inputs closest to given targets and stays near a prior.

    Minimises ``E‖W x − y‖² + λ‖W − W₀‖²`` over centred ``x`` and ``y``, with ``λ = damping · mean diag C``:
    ``W = (K + λ W₀)(C + λ I)⁻¹`` with the cross-covariance ``K = E[y xᵀ]``.

    Args:
        prior: ``W₀``, (g, n, d).
        covariance: ``C`` of the inputs, (g, d, d).
        cross: ``K``, (g, n, d).
        damping: relative to the mean of ``C``'s diagonal; where ``C`` is zero the prior comes back.

    Returns:
        (g, n, d), float64.
    """
    covariance, cross, prior = covariance.double(), cross.double(), prior.double()
    size = covariance.shape[-1]
    strength = damping * covariance.diagonal(dim1=-2, dim2=-1).mean(-1).clamp(min=1e-12)
    ridge = strength.view(-1, 1, 1) * torch.eye(size, dtype=torch.float64, device=covariance.device)
    factor, info = torch.linalg.cholesky_ex(covariance + ridge)
    if bool(info.any()):  # rounding can leave a tiny negative eigenvalue: more damping always mends it
        return refit(prior, covariance, cross, damping * 10)
    right = cross + strength.view(-1, 1, 1) * prior
    return torch.cholesky_solve(right.transpose(1, 2), factor).transpose(1, 2)
