"""Weights and activations of one or two bits: signs, with a real scale for every output channel.

Minimising ``Σ d (w − α b)²`` over ``b ∈ {−1, 1}`` and ``α > 0`` gives ``b = sign w`` and ``α = Σ d|w| / Σ d``; with
``d = 1`` it is XNOR-Net's mean of magnitudes (Rastegari et al. 2016, arXiv:1603.05279, section 3.1). With a zero level
the best support for a given ``α`` is ``|w| > α/2``, a run of the magnitudes sorted by size; over runs the error is
``Σ d w² − (Σ_run d|w|)² / Σ_run d``, so one pass over prefix sums finds the optimum exactly (the threshold 0.7·mean|w|
of Ternary Weight Networks, arXiv:1605.04711, is its guess for Gaussian weights).

Under the full Gram matrix the best scale for given levels ``b`` is ``α = (w C bᵀ) / (b C bᵀ)``.
"""

from __future__ import annotations

import torch


def on_levels(weight: torch.Tensor, scale: torch.Tensor, *, zero: bool) -> torch.Tensor:
    """The nearest of −α, α and, where asked for, 0.

    Args:
        weight: (..., n, d).
        scale: ``α``, (..., n), of the weight's type, not negative.
        zero: whether 0 is a level.

    Returns:
        Of the weight's shape and type. A weight of 0 goes to ``α`` where 0 is no level.
    """
    alpha = scale.unsqueeze(-1)
    signed = torch.where(weight >= 0, alpha, -alpha)
    return torch.where(weight.abs() > alpha / 2, signed, 0.0) if zero else signed


def fit_binary(weight: torch.Tensor, importance: torch.Tensor | None = None) -> torch.Tensor:
    """The best scale of every row for its signs, ``Σ d|w| / Σ d``.

    Args:
        weight: (..., n, d).
        importance: ``d``, broadcastable to the weight, not negative; None counts all alike, and so do rows of zeros.

    Returns:
        (..., n), float64.
    """
    weight, share = _weighted(weight, importance)
    return (weight.abs() * share).sum(-1)


def fit_ternary(weight: torch.Tensor, importance: torch.Tensor | None = None) -> torch.Tensor:
    """The scale of every row with the least error on {−α, 0, α}: the true optimum.

    Args:
        weight: (..., n, d).
        importance: as for :func:`fit_binary`.

    Returns:
        (..., n), float64; 0 for a row of zeros.
    """
    weight, share = _weighted(weight, importance)
    magnitude, order = weight.abs().sort(-1, descending=True)
    share = share.gather(-1, order)
    total = share.cumsum(-1)
    moment = (share * magnitude).cumsum(-1)
    gain = torch.where(total > 0, moment.square() / total.clamp(min=1e-300), 0.0)
    best = gain.argmax(-1, keepdim=True)
    return (moment.gather(-1, best) / total.gather(-1, best).clamp(min=1e-300)).squeeze(-1)


def _weighted(weight: torch.Tensor, importance: torch.Tensor | None) -> tuple[torch.Tensor, torch.Tensor]:
    """The weight and every entry's share of its row's importance, (..., n, d), float64."""
    weight = weight.double()
    share = torch.ones_like(weight) if importance is None else importance.double().expand_as(weight)
    total = share.sum(-1, keepdim=True)
    alike = torch.full_like(share, 1.0 / weight.shape[-1])
    return weight, torch.where(total > 0, share / torch.where(total > 0, total, 1.0), alike)


def gram_scale(
    weight: torch.Tensor, levels: torch.Tensor, covariance: torch.Tensor, fallback: torch.Tensor
) -> torch.Tensor:
    """The scale of every row with the least output error for given levels.

    Args:
        weight, levels: (g, n, d).
        covariance: (g, d, d).
        fallback: (g, n), for rows whose levels put out nothing, or would have to be turned around.

    Returns:
        (g, n), float64, not negative.
    """
    weight, levels, covariance = weight.double(), levels.double(), covariance.double()
    seen = levels @ covariance
    energy, match = (seen * levels).sum(-1), (seen * weight).sum(-1)
    size = covariance.diagonal(dim1=-2, dim2=-1).sum(-1, keepdim=True)
    sound = (energy > 1e-12 * size) & (match > 0)
    return torch.where(sound, match / torch.where(sound, energy, 1.0), fallback.double())


def binary_activations(
    x: torch.Tensor, kernel: tuple[int, int], stride: tuple[int, int], padding: tuple[int, int]
) -> tuple[torch.Tensor, torch.Tensor]:
    """XNOR-Net's activations: signs, and the scale ``K`` of every output position.

    ``conv(x, W) ≈ conv(sign x, sign W) · K · α`` with ``K`` the mean magnitude of the patch under the kernel: the mean
    over channels of ``|x|``, convolved with a box (arXiv:1603.05279, section 3.2). It is the best scale of the patch's
    signs, but the product of two best scales is not the best scale of the product unless the two are independent.

    Args:
        x: (batch, channels, height, width).
        kernel, stride, padding: of the convolution. Padding counts as magnitude 0.

    Returns:
        The signs, of ``x``'s shape, and ``K``, (batch, 1, out height, out width).
    """
    signs = torch.where(x >= 0, 1.0, -1.0).to(x.dtype)
    box = x.new_full((1, 1, *kernel), 1.0 / (kernel[0] * kernel[1]))
    return signs, torch.conv2d(x.abs().mean(1, keepdim=True), box, stride=stride, padding=padding)
