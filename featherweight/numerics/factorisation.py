"""Whitened factorisation: the best map of low rank for the data that a layer really sees.

Minimising ``E‖(W − W̃)x‖²`` over rank ``r`` is an SVD of ``W L`` with ``C = L Lᵀ`` (SVD-LLM, arXiv:2403.07378, section
3.2; DRONE, NeurIPS 2021, theorem 1). Its left singular vectors ``U`` are the eigenvectors of ``W C Wᵀ``, and the
solution is the projection ``W̃ = U_r U_rᵀ W``: no inverse of ``L`` is needed, so a singular ``C`` does no harm. The
error is the sum of the eigenvalues left out, for every rank at once.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch


@dataclass(frozen=True, slots=True)
class Spectrum:
    """One decomposition that serves every rank.

    Attributes:
        vectors: ``U``, (n, n), columns by falling eigenvalue.
        energies: eigenvalues of ``W C Wᵀ``, (n,), falling, never negative.
    """

    vectors: torch.Tensor
    energies: torch.Tensor

    def error(self, rank: int) -> float:
        """``tr(D C Dᵀ)`` of the best map of this rank: the energy left out."""
        return float(self.energies[rank:].sum())

    def rank_for(self, kept: float) -> int:
        """The smallest rank that keeps this share of the energy, at least 1."""
        total = float(self.energies.sum())
        if total <= 0.0:
            return 1
        shares = torch.cumsum(self.energies, 0) / total
        return int((shares < kept).sum()) + 1


def whitened_spectrum(weight: torch.Tensor, covariance: torch.Tensor) -> Spectrum:
    """Decompose a weight (n, d) under its inputs' covariance (d, d); float64."""
    weight, covariance = weight.double(), covariance.double()
    energies, vectors = torch.linalg.eigh(weight @ covariance @ weight.T)
    return Spectrum(vectors.flip(1), energies.flip(0).clamp(min=0.0))


def whitened_factors(weight: torch.Tensor, spectrum: Spectrum, rank: int) -> tuple[torch.Tensor, torch.Tensor]:
    """``A`` (n, r) and ``B`` (r, d) with ``A B`` the best map of rank ``r``.

    The inner channels are scaled to the fourth root of their energy on both sides: between a flat first factor and a
    flat second one, which suits rounding either.
    """
    vectors = spectrum.vectors[:, :rank]
    energies = spectrum.energies[:rank]
    floor = float(spectrum.energies[0]) * 1e-12 + 1e-30
    scale = energies.clamp(min=floor).pow(0.25)
    return vectors * scale, (vectors.T @ weight.double()) / scale.unsqueeze(1)
