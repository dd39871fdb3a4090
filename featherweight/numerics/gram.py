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


WELL_SEEN = 16
"""Rows for every column from which on a covariance is taken as it was seen."""


def shrunk(covariance: torch.Tensor, rows: int) -> torch.Tensor:
    """The covariance to reckon with where few rows were seen: correlations shrunk towards none.

    A sample covariance of fewer rows than columns has directions without any variance, and whatever is chosen by it
    puts its error there, where later inputs do vary. Oracle-approximating shrinkage (Chen, Wiesel, Eldar, Hero 2010,
    arXiv:0907.4698, eq. 23, for many columns) of the correlations, so that scales of channels don't matter; variances
    stay.

    Args:
        covariance: (g, d, d), of the rows seen.
        rows: how many those were.

    Returns:
        (g, d, d), float64; what was given where rows are plenty.
    """
    size = covariance.shape[-1]
    if rows >= WELL_SEEN * size:
        return covariance
    covariance = covariance.double()
    spread = covariance.diagonal(dim1=1, dim2=2).clamp(min=0.0).sqrt()
    scale = torch.where(spread > 0.0, 1.0 / spread.clamp(min=1e-300), 0.0)
    alive = (spread > 0.0).sum(1).double().clamp(min=1.0)
    squares = (covariance * scale.unsqueeze(1) * scale.unsqueeze(2)).square().sum((1, 2))
    above, below = squares + alive.square(), (rows + 1) * (squares - alive)
    share = torch.where(below > 0.0, above / below.clamp(min=1e-300), 1.0).clamp(0.0, 1.0).view(-1, 1, 1)
    return covariance * (1 - share) + torch.diag_embed(covariance.diagonal(dim1=1, dim2=2)) * share


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
