"""Factorisation: one map as a chain of thinner ones, as near as can be for the data that a layer really sees.

*Pairs.* Minimising ``E‖(W − W̃)x‖²`` over rank ``r`` is an SVD of ``W L`` with ``C = L Lᵀ`` (SVD-LLM, arXiv:2403.07378,
section 3.2; DRONE, NeurIPS 2021, theorem 1). Its left singular vectors ``U`` are the eigenvectors of ``W C Wᵀ``, the
covariance of the responses (Zhang et al. 2015, arXiv:1505.06798, section 3.1), and the solution is the projection
``W̃ = U_r U_rᵀ W``: no inverse of ``L`` is needed, so a singular ``C`` does no harm. The error is the sum of the
eigenvalues left out, for every rank at once.

*Other targets.* Where the wanted responses ``y`` are not ``W x`` – those of the dense network, say, on inputs of the
compressed one – the best map of rank ``r`` projects the least-squares map ``K C⁻¹``, ``K = E[y xᵀ]``, on the leading
eigenvectors of ``K C⁻¹ Kᵀ``: reduced-rank regression (Izenman 1975; Zhang et al., section 3.2, "asymmetric").

*Chains.* A k×k kernel becomes k×1 then 1×k (Jaderberg et al. 2014, arXiv:1405.3866) or 1×1, k×k, 1×1 (Tucker-2, Kim
et al. 2016, arXiv:1511.06530). The first map gathers inputs into a few channels, ``z = T x``; once it stands, the best
rest is a regression on ``z`` under ``T C Tᵀ``, exact in closed form. For ``T`` itself there is no closed form: it spans
the leading directions of the kernel, once as it is and once weighted by the data, and the better of the two is taken.
So a chain never loses to the plain decomposition on the data that it was fitted to.

*Balance.* What parts compute together stays when a channel between them is scaled before and scaled back behind. Parts
are rounded later, so every inner channel is made about as large for the data as what reads it, and all parts as large
as one another (see ``_scales`` and ``_leveled``). With ``C = I`` a pair is the SVD with the root of each singular value
on either side.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch.linalg import vector_norm

_UNSEEN = 1e-3
"""Share of the largest variance that every inner channel is taken to have at least.

Calibration samples seldom vary along every direction that later inputs do. Without a floor a pair of rank 24, its
inputs of rank 4, lost 76 % in int8 of what it says of inputs never seen, with 1e-4 it lost 0.08 %, with 1e-2 0.012 %;
the error on the data rose from 1.25e-4 to 1.4e-4 and 2.1e-4.
"""


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

    The factors are balanced: see the module's notes.
    """
    vectors = spectrum.vectors[:, :rank]
    inner = vectors.T @ weight.double()
    scale = _scales(vector_norm(vectors, dim=0), vector_norm(inner, dim=1), spectrum.energies[:rank])
    first, second = _leveled(vectors / scale, inner * scale.unsqueeze(1))
    return first, second


def _scales(outer: torch.Tensor, inner: torch.Tensor, energies: torch.Tensor) -> torch.Tensor:
    """What to multiply inner channels with, and to divide by behind them, (r,), never 0.

    A channel ``z = b x`` that is read by weights ``a`` is balanced where ``|a| / t = t σ(z)``: either side is then as
    large as the other for the data, which suits rounding both. Where the inputs hardly vary along ``b`` that would make
    one side huge and the other tiny, so the variance along it is taken to be ``_UNSEEN`` of the largest at least.

    Args:
        outer: ``|a|``, (r,).
        inner: ``|b|``, (r,).
        energies: ``σ²(z)``, (r,).
    """
    squares = inner.double().square()
    there = squares > 0.0
    along = torch.where(
        there, energies.double().clamp(min=0.0) / torch.where(there, squares, 1.0), 0.0
    )  # per unit of |b|
    most = along.max()
    along = along / most + _UNSEEN if float(most) > 0.0 else torch.ones_like(along)
    sizes = inner.double() * along.sqrt()
    sound = there & (outer > 0.0)
    return torch.where(sound, outer.double() / torch.where(sound, sizes, 1.0), 1.0).sqrt()


def _leveled(*parts: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """Parts that are multiplied with one another, scaled to one norm; their product stays."""
    norms = torch.stack([vector_norm(part) for part in parts])
    if not bool((norms > 0.0).all()):
        return parts
    common = norms.log().mean().exp()
    return tuple(part * (common / norm) for part, norm in zip(parts, norms, strict=True))


def plain_factors(weight: torch.Tensor, rank: int) -> tuple[torch.Tensor, torch.Tensor]:
    """``A`` (n, r) and ``B`` (r, d) with ``A B`` nearest to the weight itself, blind to the data (Eckart–Young)."""
    left, values, right = torch.linalg.svd(weight.double(), full_matrices=False)
    scale = values[:rank].sqrt()
    return left[:, :rank] * scale, scale.unsqueeze(1) * right[:rank]


def reduced_rank_factors(cross: torch.Tensor, covariance: torch.Tensor, rank: int) -> tuple[torch.Tensor, torch.Tensor]:
    """``A`` (n, r) and ``B`` (r, d) with ``A B x`` nearest to ``y``: the best of all maps of rank ``r``.

    Args:
        cross: ``K = E[y xᵀ]``, (n, d).
        covariance: ``C = E[x xᵀ]``, (d, d), positive semidefinite; directions that never vary get weight 0.
        rank: at least 1.
    """
    cross = cross.double()
    best = cross @ pseudo_inverse(covariance)
    return whitened_factors(best, whitened_spectrum(best, covariance), rank)


def pseudo_inverse(matrix: torch.Tensor) -> torch.Tensor:
    """Of a symmetric positive semidefinite matrix (d, d), by its eigenvalues above 1e-12 of the largest; float64."""
    values, vectors = torch.linalg.eigh(matrix.double())
    sound = values > 1e-12 * values[-1].clamp(min=0.0)
    inverse = torch.where(sound, 1.0 / torch.where(sound, values, 1.0), 0.0)
    return (vectors * inverse) @ vectors.T


@dataclass(frozen=True, slots=True)
class SpatialFactors:
    """A kernel as k×1 then 1×k.

    Attributes:
        first: (r, c, kh, 1).
        second: (n, r, 1, kw).
    """

    first: torch.Tensor
    second: torch.Tensor

    def kernel(self) -> torch.Tensor:
        """The kernel that they compute together, (n, c, kh, kw)."""
        return torch.einsum("nrxj,rcix->ncij", self.second, self.first)


@dataclass(frozen=True, slots=True)
class TuckerFactors:
    """A kernel as 1×1, k×k, 1×1.

    Attributes:
        first: (p, c).
        core: (q, p, kh, kw).
        last: (n, q).
    """

    first: torch.Tensor
    core: torch.Tensor
    last: torch.Tensor

    def kernel(self) -> torch.Tensor:
        """The kernel that they compute together, (n, c, kh, kw)."""
        return torch.einsum("nq,qpij,pc->ncij", self.last, self.core, self.first)


def plain_spatial(kernel: torch.Tensor, rank: int) -> SpatialFactors:
    """The nearest k×1 then 1×k to a kernel (n, c, kh, kw) itself: an SVD of (n · kw) by (c · kh)."""
    outputs, inputs, height, width = kernel.shape
    left, right = plain_factors(_row_by_column(kernel), rank)
    second = left.view(outputs, width, 1, rank).permute(0, 3, 2, 1)
    return SpatialFactors(right.view(rank, inputs, height, 1), second)


def spatial_factors(kernel: torch.Tensor, covariance: torch.Tensor, rank: int) -> SpatialFactors:
    """k×1 then 1×k for the data: the second refit exactly, the first the better of two.

    Args:
        kernel: (n, c, kh, kw).
        covariance: of the kernel's rows, (c · kh · kw, …).
        rank: 1 to min(n · kw, c · kh).
    """
    outputs, inputs, height, width = kernel.shape
    grid = _floored(covariance).view(inputs, height, width, inputs, height, width)
    matrix = _row_by_column(kernel)
    seen = torch.einsum("ciwdjw->cidj", grid).reshape(inputs * height, -1) / width
    fits: list[tuple[float, SpatialFactors]] = []
    for metric in (torch.eye(len(seen), dtype=torch.float64), seen):
        first = _leading_rows(matrix, metric, rank).view(rank, inputs, height)
        halved = torch.einsum("rci,ciwdjv->rwdjv", first, grid)  # T C
        inner = torch.einsum("rwdjv,sdj->rwsv", halved, first).reshape(rank * width, -1)
        cross = torch.einsum("ndjv,rwdjv->nrw", kernel.double(), halved).reshape(outputs, -1)
        second = (cross @ pseudo_inverse(inner)).view(outputs, rank, 1, width)
        energies = inner.diagonal().view(rank, width).mean(1)
        scale = _scales(vector_norm(second, dim=(0, 2, 3)), vector_norm(first, dim=(1, 2)), energies)
        fit = SpatialFactors(*_leveled((first * scale.view(-1, 1, 1)).unsqueeze(3), second / scale.view(-1, 1, 1)))
        fits.append((_error(fit.kernel() - kernel, covariance), fit))
    return min(fits, key=lambda entry: entry[0])[1]


def plain_tucker(kernel: torch.Tensor, rank_in: int, rank_out: int, sweeps: int = 8) -> TuckerFactors:
    """The nearest 1×1, k×k, 1×1 to a kernel (n, c, kh, kw) itself: HOSVD, then HOOI sweeps, which only come nearer.

    De Lathauwer et al. 2000, "On the best rank-1 and rank-(R1, …, RN) approximation", on the two channel modes.
    """
    kernel = kernel.double()
    first = _input_directions(kernel, torch.eye(kernel.shape[1], dtype=torch.float64), rank_in, rank_out, sweeps)
    gathered = torch.einsum("ncij,pc->npij", kernel, first)
    last = _leading(gathered.flatten(1) @ gathered.flatten(1).T, rank_out)
    return TuckerFactors(first, torch.einsum("npij,nq->qpij", gathered, last), last)


def tucker_factors(
    kernel: torch.Tensor, covariance: torch.Tensor, rank_in: int, rank_out: int, sweeps: int = 8
) -> TuckerFactors:
    """1×1, k×k, 1×1 for the data: core and last exactly by reduced-rank regression, the first the better of two.

    Args:
        kernel: (n, c, kh, kw).
        covariance: of the kernel's rows, (c · kh · kw, …).
        rank_in: channels after the first, 1 to c.
        rank_out: channels before the last, 1 to min(n, rank_in · kh · kw).
        sweeps: of HOOI.
    """
    kernel = kernel.double()
    inputs, taps = kernel.shape[1], kernel[0, 0].numel()
    grid = _floored(covariance).view(inputs, taps, inputs, taps)
    seen = torch.einsum("ctdt->cd", grid) / taps
    fits: list[tuple[float, TuckerFactors]] = []
    for metric in (torch.eye(inputs, dtype=torch.float64), seen):
        first = _input_directions(kernel, metric, rank_in, rank_out, sweeps)
        halved = torch.einsum("pc,ctdu->ptdu", first, grid)  # T C
        inner = torch.einsum("ptdu,qd->ptqu", halved, first).reshape(rank_in * taps, -1)
        cross = torch.einsum("ndu,ptdu->npt", kernel.flatten(2), halved).reshape(len(kernel), -1)
        last, core = reduced_rank_factors(cross, inner, rank_out)
        core = core.view(rank_out, rank_in, *kernel.shape[2:])
        energies = inner.diagonal().view(rank_in, taps).mean(1)
        scale = _scales(vector_norm(core, dim=(0, 2, 3)), vector_norm(first, dim=1), energies)
        fit = TuckerFactors(*_leveled(first * scale.unsqueeze(1), core / scale.view(-1, 1, 1), last))
        fits.append((_error(fit.kernel() - kernel, covariance), fit))
    return min(fits, key=lambda entry: entry[0])[1]


def _row_by_column(kernel: torch.Tensor) -> torch.Tensor:
    """(n, c, kh, kw) → (n · kw, c · kh)."""
    return kernel.double().permute(0, 3, 1, 2).flatten(2).flatten(0, 1)


def _leading(gram: torch.Tensor, count: int) -> torch.Tensor:
    """The eigenvectors of the largest eigenvalues, as columns."""
    return torch.linalg.eigh(gram).eigenvectors.flip(1)[:, :count]


def _leading_rows(matrix: torch.Tensor, metric: torch.Tensor, rank: int) -> torch.Tensor:
    """Orthonormal rows (r, d) that span the best map of rank ``r`` to a matrix (n, d) under inputs of that metric.

    The best map is ``U Uᵀ M`` with ``U`` the leading left singular vectors of ``M C^½``; its rows span the columns of
    ``Mᵀ M C^½ V``, from the ``d`` by ``d`` side alone.
    """
    gram = matrix.T @ matrix
    values, vectors = torch.linalg.eigh(metric)
    root = (vectors * values.clamp(min=0.0).sqrt()) @ vectors.T
    spanned = gram @ root @ _leading(root @ gram @ root, rank)
    left, sizes, _ = torch.linalg.svd(spanned, full_matrices=True)
    if not bool((sizes > 0).any()):
        return torch.eye(len(gram), dtype=torch.float64)[:rank]
    return left[:, :rank].T.contiguous()


def _input_directions(
    kernel: torch.Tensor, metric: torch.Tensor, rank_in: int, rank_out: int, sweeps: int
) -> torch.Tensor:
    """HOOI on both channel modes under inputs of a metric (c, c); what the first map spans, (p, c)."""
    along = kernel.permute(0, 2, 3, 1).flatten(1, 2)  # (n, taps, c)
    first = _leading_rows(along.flatten(0, 1), metric, rank_in)
    for _ in range(sweeps):
        # What the gathered channels put out, under their own metric, tells the outputs that matter.
        gathered = along @ first.T
        inner = first @ metric @ first.T
        last = _leading(torch.einsum("ntp,pq,mtq->nm", gathered, inner, gathered), rank_out)
        moved = _leading_rows(torch.einsum("nq,ntc->qtc", last, along).flatten(0, 1), metric, rank_in)
        if torch.allclose(moved.T @ moved, first.T @ first, atol=1e-10):
            break
        first = moved
    return first


def _floored(covariance: torch.Tensor) -> torch.Tensor:
    """The covariance with next to nothing in every direction, so that unseen ones keep their weight."""
    covariance = covariance.double()
    size = covariance.diagonal().mean().clamp(min=0.0)
    floor = torch.where(size > 0, 1e-9 * size, 1.0)
    return covariance + floor * torch.eye(len(covariance), dtype=torch.float64, device=covariance.device)


def _error(difference: torch.Tensor, covariance: torch.Tensor) -> float:
    rows = difference.double().flatten(1)
    return float(((rows @ covariance.double()) * rows).sum())
