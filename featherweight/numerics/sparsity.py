"""Zeros in a linear map: which entries go, and what the others become so that the outputs stay.

Notation: ``W`` (g, n, d) the map in ``g`` blocks, ``C`` (g, d, d) the covariance of its inputs, ``D`` what is added to
``W``; a mask (g, n, d) is True where an entry stays. The error of the outputs is ``tr(D C Dᵀ)``
(:mod:`featherweight.numerics.gram`).

Which entries go: the smallest ``|w|`` of the whole map (magnitude); in every row the smallest ``|w_j| √C_jj`` (Wanda:
Sun et al. 2023, arXiv:2306.11695, equation 1, with the covariance in place of the second moment, since our biases take
the means); block of columns by block the smallest ``w_j² / [(C_{j:,j:})⁻¹]_jj``, each zero being made up for by the
columns to its right before the next block is chosen (SparseGPT: Frantar & Alistarh 2023, arXiv:2301.00774, algorithm
1); or one at a time the smallest ``w_j² / [C⁻¹]_jj`` of what is left of its row, all others making up for it (obs, the
optimal brain surgeon: Frantar & Alistarh 2022, arXiv:2208.11580, section 4), which is the best and takes ``n d³``.

What the others become: the least-squares problem ``min tr(D C Dᵀ)`` over the entries that stay, a different one for
every row. Conjugate gradients solve all rows at once; what they minimise falls with every step, so no row ends worse
than it started.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

CRITERIA = ("obs", "sparsegpt", "wanda", "magnitude")

_BLOCK = 16
_STEPS = 32
_SETTLED = 1e-10
_VALUES_AT_ONCE = 1 << 23  # of the rows' inverses


@dataclass(frozen=True, slots=True)
class Share:
    """A share of all entries is zero, wherever that hurts least.

    Attributes:
        zeros: in (0, 1).
    """

    zeros: float

    def count(self, entries: int) -> int:
        """How many of so many entries go."""
        return int(self.zeros * entries + 0.5)


@dataclass(frozen=True, slots=True)
class Runs:
    """Of every ``of`` consecutive inputs of a row, ``keep`` stay: N:M sparsity, 2:4 being ``Runs(2, 4)``.

    Attributes:
        keep, of: ``0 < keep < of``; ``of`` divides the number of inputs.
    """

    keep: int
    of: int


Pattern = Share | Runs


@dataclass(frozen=True, slots=True)
class Sparse:
    """A map with zeros.

    Attributes:
        weight: (g, n, d), float64, zero where the mask says so.
        mask: (g, n, d), True where an entry stays.
    """

    weight: torch.Tensor
    mask: torch.Tensor


def sparsify(weight: torch.Tensor, covariance: torch.Tensor, pattern: Pattern, criterion: str = "sparsegpt") -> Sparse:
    """Choose zeros by a criterion and refit what stays.

    Args:
        weight: (g, n, d).
        covariance: of its inputs, (g, d, d).
        pattern: how many zeros, and how they lie.
        criterion: one of ``CRITERIA``.

    Raises:
        ValueError: an unknown criterion.
    """
    if criterion == "sparsegpt":
        chosen = sparsegpt(weight, covariance, pattern)
        return Sparse(compensate(weight, covariance, chosen.mask, chosen.weight), chosen.mask)
    if criterion not in CRITERIA:
        raise ValueError(f"criterion {criterion!r}, known are {', '.join(CRITERIA)}")
    if criterion == "magnitude":
        mask = magnitude_mask(weight, pattern)
    else:
        mask = (surgeon_mask if criterion == "obs" else wanda_mask)(weight, covariance, pattern)
    return Sparse(compensate(weight, covariance, mask), mask)


def magnitude_mask(weight: torch.Tensor, pattern: Pattern) -> torch.Tensor:
    """The entries of smallest ``|w|`` go: of the whole map, or of every run."""
    scores = weight.double().abs()
    if isinstance(pattern, Runs):
        return _of_every(scores, pattern)
    return _all_but(scores.flatten(), pattern.count(scores.numel())).view(scores.shape)


def wanda_mask(weight: torch.Tensor, covariance: torch.Tensor, pattern: Pattern) -> torch.Tensor:
    """The entries of smallest ``|w_j| √C_jj`` go: of every row by itself, or of every run."""
    scores = wanda_scores(weight, covariance)
    if isinstance(pattern, Runs):
        return _of_every(scores, pattern)
    return _all_but(scores, pattern.count(scores.shape[-1]))


def wanda_scores(weight: torch.Tensor, covariance: torch.Tensor) -> torch.Tensor:
    """``|w_j| √C_jj``, (g, n, d): the root of what zeroing this entry alone costs without compensation."""
    variances = covariance.double().diagonal(dim1=1, dim2=2).clamp(min=0.0)
    return weight.double().abs() * variances.sqrt().unsqueeze(1)


def _all_but(scores: torch.Tensor, count: int) -> torch.Tensor:
    """True but for the ``count`` lowest along the last axis; of equal ones the first go."""
    order = scores.argsort(dim=-1, stable=True)
    return torch.ones_like(scores, dtype=torch.bool).scatter_(-1, order[..., :count], False)


def _of_every(scores: torch.Tensor, runs: Runs) -> torch.Tensor:
    return _all_but(scores.unflatten(-1, (-1, runs.of)), runs.of - runs.keep).flatten(-2)


def surgeon_mask(
    weight: torch.Tensor, covariance: torch.Tensor, pattern: Pattern, damping: float = 1e-3
) -> torch.Tensor:
    """Greedy elimination in every row by itself, each zero being made up for by all others before the next is chosen.

    For a share, every row goes on to its end and tells what each step costs; the map's cheapest steps are taken, a
    row's later ones never before its earlier ones. Work grows with ``g n d³``.

    Args:
        weight: (g, n, d).
        covariance: of its inputs, (g, d, d).
        pattern: how many zeros, and how they lie.
        damping: added to the covariance's diagonal, relative to its mean.
    """
    groups, rows, width = weight.shape
    factor = _inverse_factor(covariance, damping)
    inverse = factor.transpose(1, 2) @ factor
    of_row = torch.arange(groups, device=weight.device).repeat_interleave(rows)
    size = max(1, _VALUES_AT_ONCE // width**2)
    chunks = zip(_of_live_inputs(weight, covariance).flatten(0, 1).split(size), of_row.split(size), strict=True)
    orders, costs = zip(*(_steps(part, inverse[of], pattern) for part, of in chunks), strict=True)
    order, cost = torch.cat(orders), torch.cat(costs)
    stays = torch.zeros_like(order, dtype=torch.bool)
    if isinstance(pattern, Share):
        stays = _all_but(cost.cummax(1).values.flatten(), pattern.count(weight.numel())).view(order.shape)
    mask = torch.ones(len(order), width, dtype=torch.bool, device=weight.device)
    return mask.scatter_(1, order, stays).view(weight.shape)


def _steps(weight: torch.Tensor, inverse: torch.Tensor, pattern: Pattern) -> tuple[torch.Tensor, torch.Tensor]:
    """Columns of every row in the order in which they go, and what each costs: (m, steps) both.

    ``weight`` (m, d) and ``inverse`` (m, d, d), every row's own, are used up.
    """
    (count, width), rows = weight.shape, torch.arange(len(weight), device=weight.device)
    weight, open_columns = weight.clone(), torch.ones_like(weight, dtype=torch.bool)
    orders, costs = [], []
    for _ in range(width - (width // pattern.of * pattern.keep if isinstance(pattern, Runs) else 0)):
        free = open_columns
        if isinstance(pattern, Runs):
            free = free & (free.view(count, -1, pattern.of).sum(2) > pattern.keep).repeat_interleave(pattern.of, 1)
        scores = weight.square() / inverse.diagonal(dim1=1, dim2=2)
        cost, column = scores.masked_fill(~free, torch.inf).min(1)
        line = inverse[rows, column]
        scaled = line / line[rows, column].unsqueeze(1)
        weight -= weight[rows, column].unsqueeze(1) * scaled
        inverse -= line.unsqueeze(2) * scaled.unsqueeze(1)
        # What is gone stays gone: rounding must not bring it back.
        inverse[rows, column], inverse[rows, :, column], inverse[rows, column, column] = 0.0, 0.0, 1.0
        open_columns[rows, column], weight[rows, column] = False, 0.0
        orders.append(column)
        costs.append(cost)
    return torch.stack(orders, 1), torch.stack(costs, 1)


def sparsegpt(weight: torch.Tensor, covariance: torch.Tensor, pattern: Pattern, damping: float = 1e-2) -> Sparse:
    """Blocked optimal-brain-surgeon elimination, column after column, all rows at once.

    With ``C⁻¹ = Uᵀ U`` and ``U`` upper triangular, zeroing entry ``j`` of a row while the columns to its left stand
    costs ``w_j² / U_jj²``, and the best answer of the columns to its right is ``w ← w − (w_j / U_jj) U_j:``. The costs
    of all zeros add up to ``tr(D C Dᵀ)`` exactly.

    For a share, every block of columns gets the number of zeros that lie there when Wanda's scores are compared over
    the whole map: where inputs are dead or loud block by block, equal numbers would be a bad rule.

    Args:
        weight: (g, n, d).
        covariance: of its inputs, (g, d, d).
        pattern: how many zeros, and how they lie.
        damping: added to the covariance's diagonal, relative to its mean.
    """
    weight, factor = _of_live_inputs(weight, covariance), _inverse_factor(covariance, damping)
    mask = torch.ones_like(weight, dtype=torch.bool)
    ahead = torch.zeros_like(mask)
    if isinstance(pattern, Share):
        scores = wanda_scores(weight, covariance)
        ahead = ~_all_but(scores.flatten(), pattern.count(scores.numel())).view(scores.shape)
    block = _BLOCK if isinstance(pattern, Share) else pattern.of * max(1, _BLOCK // pattern.of)
    for start in range(0, weight.shape[-1], block):
        at = slice(start, min(start + block, weight.shape[-1]))
        part, inner = weight[..., at], factor[:, at, at]
        lost = _eliminate_block(part, inner, mask[..., at], pattern, int(ahead[..., at].sum()))
        weight[..., at.stop :] -= lost @ factor[:, at, at.stop :]
    return Sparse(weight * mask, mask)


def _eliminate_block(
    part: torch.Tensor, factor: torch.Tensor, mask: torch.Tensor, pattern: Pattern, count: int
) -> torch.Tensor:
    """Zero a block's entries in place and note them in the mask; the errors to pass on, (g, n, block)."""
    scale = factor.diagonal(dim1=1, dim2=2).unsqueeze(1)
    if isinstance(pattern, Share):
        scores = (part / scale).abs()
        mask.copy_(_all_but(scores.flatten(), count).view(scores.shape))
    lost = torch.zeros_like(part)
    for column in range(part.shape[-1]):
        if isinstance(pattern, Runs) and column % pattern.of == 0:
            run = slice(column, column + pattern.of)
            mask[..., run] = _of_every((part[..., run] / scale[..., run]).abs(), pattern)
        gone = torch.where(mask[..., column], 0.0, part[..., column]) / scale[..., column]
        part[..., column:] -= gone.unsqueeze(-1) * factor[:, column, column:].unsqueeze(1)
        lost[..., column] = gone
    return lost


def _inverse_factor(covariance: torch.Tensor, damping: float) -> torch.Tensor:
    """Upper triangular ``U`` with ``(C + λ I)⁻¹ = Uᵀ U``, (g, d, d)."""
    lower, info = torch.linalg.cholesky_ex(_damped(covariance, damping))
    if not bool(info.any()):
        factor, info = torch.linalg.cholesky_ex(torch.cholesky_inverse(lower), upper=True)
        if not bool(info.any()):
            return factor
    # Rounding can leave a tiny negative eigenvalue: more damping always mends it.
    return _inverse_factor(covariance, damping * 10)


def _of_live_inputs(weight: torch.Tensor, covariance: torch.Tensor) -> torch.Tensor:
    """A copy whose weights of constant inputs are zero, so that these are the first to go."""
    return weight.double() * (covariance.diagonal(dim1=1, dim2=2).unsqueeze(1) > 0.0)


def _damped(covariance: torch.Tensor, damping: float) -> torch.Tensor:
    covariance = covariance.double()
    strength = damping * covariance.diagonal(dim1=1, dim2=2).mean(1).clamp(min=1e-12)
    identity = torch.eye(covariance.shape[-1], dtype=torch.float64, device=covariance.device)
    return covariance + strength.view(-1, 1, 1) * identity


def compensate(
    weight: torch.Tensor,
    covariance: torch.Tensor,
    mask: torch.Tensor,
    start: torch.Tensor | None = None,
    damping: float = 1e-4,
) -> torch.Tensor:
    """The map with these zeros that stays closest to the whole one on the data.

    Minimises ``tr(D C Dᵀ) + λ‖D‖²`` over the entries that stay, by conjugate gradients with the diagonal as
    preconditioner. On no row is ``tr(D C Dᵀ)`` larger than with the same zeros and the other entries as they were:
    these have the smallest ``‖D‖`` of all, so a smaller sum means a smaller first term.

    Args:
        weight: (g, n, d).
        covariance: of its inputs, (g, d, d).
        mask: (g, n, d), True where an entry stays.
        start: a guess, (g, n, d); a row of it is used where it beats the plain zeros.
        damping: relative to the mean of the covariance's diagonal.

    Returns:
        (g, n, d), float64, zero where the mask is False.
    """
    weight, ridge = weight.double(), _damped(covariance, damping)
    fitted = weight * mask
    if start is not None:
        guess = start.double() * mask
        better = _energy(guess - weight, ridge) < _energy(fitted - weight, ridge)
        fitted = torch.where(better, guess, fitted)
    variances = ridge.diagonal(dim1=1, dim2=2).unsqueeze(1)
    residual = ((weight - fitted) @ ridge) * mask
    direction = residual / variances
    power = (residual * direction).sum(-1, keepdim=True)
    goal = _SETTLED * power.max()
    for _ in range(_STEPS):
        if bool(power.max() <= goal):
            break
        image = (direction @ ridge) * mask
        length = _ratio(power, (direction * image).sum(-1, keepdim=True))
        fitted += length * direction
        residual -= length * image
        scaled = residual / variances
        previous, power = power, (residual * scaled).sum(-1, keepdim=True)
        direction = scaled + _ratio(power, previous) * direction
    return fitted


def _energy(difference: torch.Tensor, ridge: torch.Tensor) -> torch.Tensor:
    """``D A Dᵀ`` of every row, (g, n, 1)."""
    return ((difference @ ridge) * difference).sum(-1, keepdim=True)


def _ratio(above: torch.Tensor, below: torch.Tensor) -> torch.Tensor:
    """The quotient, 0 where a row is solved and nothing is left to divide by."""
    return torch.where(below > 0.0, above / below.clamp(min=torch.finfo(below.dtype).tiny), 0.0)
