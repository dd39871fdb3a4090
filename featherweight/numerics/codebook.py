"""Codebooks: a few values that many weights share.

On the line, the best ``k`` values for weighted points are the best cut of the *sorted* points into ``k`` runs, so
k-means is a shortest path and not a guess: ``D_j(i) = min_m D_{j−1}(m) + cost(m, i)`` with
``cost(m, i) = Σ w x² − (Σ w x)² / Σ w`` over points ``m … i−1``, from prefix sums (Wang & Song 2011, *Ckmeans.1d.dp*).
``cost`` is Monge, so the best ``m`` never falls as ``i`` grows (Grønlund et al. 2017, arXiv:1701.07204): all rows of a
level are searched at once between the answers of the level above, O(n log n) a cluster.

A *pinned* zero is one more state: the run that belongs to it costs ``Σ w x²``, which is separable, so a running minimum
finds its start exactly.

Vectors have no order. :func:`fit_product` is k-means as everybody does it, under the metric of the data.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from featherweight.contracts import UsageError

EXACT_POINTS = 8192
_LLOYD_SWEEPS = 200


def nearest(x: torch.Tensor, codebook: torch.Tensor) -> torch.Tensor:
    """The nearest value of a rising codebook (k,) for every entry of ``x``; of two equally near ones the lower."""
    wide = torch.promote_types(torch.promote_types(x.dtype, codebook.dtype), torch.float32)
    if (x.dtype, codebook.dtype) != (wide, wide):  # halves are too coarse for the middle of two neighbours
        return nearest(x.to(wide), codebook.to(wide)).to(x.dtype)
    lower, upper = codebook[:-1], codebook[1:]
    # The middle of two subnormal neighbours rounds onto one of them: the upper one must stay above its boundary.
    middle = torch.minimum((lower + upper) / 2, torch.nextafter(upper, lower))
    return codebook[torch.bucketize(x.contiguous(), middle)]


def fit_codebook(
    values: torch.Tensor,
    count: int,
    importance: torch.Tensor | None = None,
    *,
    pinned_zero: bool = False,
    points: int = EXACT_POINTS,
) -> torch.Tensor:
    """The ``count`` values with the least weighted squared distance to the given ones: the true optimum.

    Up to ``points`` distinct values the optimum is exact. Beyond, cuts are searched among ``points`` places only – half
    of them evenly spread, half dividing the weight evenly – on the exact sums between them, and then moved by Lloyd's
    steps on all points, which only lower the error. The loss is then at most ``16 Σw · range² / points²``: moving an
    optimal cut to a neighbouring place costs ``2 · gap · spread · weight`` of the points between, the gaps between
    centres sum to at most the range, and a bin that isn't a single point spreads over at most ``2 range / points`` with
    at most ``4 Σw / points`` of the weight.

    Args:
        values: any shape, finite.
        count: at least 1, and at least 2 with a pinned zero.
        importance: not negative, of the values' shape; None counts all alike, and so do zeros everywhere.
        pinned_zero: whether 0 must be one of the codebook's values.
        points: where the exact search ends; at least 16.

    Returns:
        Rising and distinct, float64, (≤ count,): fewer where the values are fewer.

    Raises:
        UsageError: a count too small, values that are not finite, or a negative importance.
    """
    x, weight = _points(values, importance)
    if count < 1 + pinned_zero:
        raise UsageError("A codebook needs a value beside its zero.", f"count = {count}", "give 2 or more")
    distinct = np.union1d(x, [0.0]) if pinned_zero else x
    if len(distinct) <= count:
        return torch.from_numpy(distinct.copy())
    sums = _Sums.of(x, weight)
    cuts, zero = _best_cuts(sums.at(_places(x, weight, points)), count, pinned_zero)
    centres = _settled(sums, cuts, zero)
    return torch.from_numpy(np.unique(centres))


def _points(values: torch.Tensor, importance: torch.Tensor | None) -> tuple[np.ndarray, np.ndarray]:
    """Distinct values, rising, and the importance of each; points without any are left out."""
    flat = values.detach().double().flatten().cpu().numpy()
    weight = np.ones_like(flat) if importance is None else importance.detach().double().flatten().cpu().numpy()
    good = len(flat) > 0 and weight.shape == flat.shape and bool(np.isfinite(flat).all() and np.isfinite(weight).all())
    if not good or bool((weight < 0).any()):
        raise UsageError(
            "A codebook is fitted to finite values, each with an importance that isn't negative.",
            f"{len(flat)} values and {len(weight)} importances, some of them missing, negative, NaN or infinite",
            "look for a broken layer",
        )
    if weight.max() <= 0.0:
        weight = np.ones_like(flat)
    weight = weight / weight.max()  # so that sums neither over- nor underflow
    flat, weight = flat[weight > 0], weight[weight > 0]
    x, which = np.unique(flat, return_inverse=True)
    return x + 0.0, np.bincount(which, weights=weight)


@dataclass(frozen=True, slots=True)
class _Sums:
    """Prefix sums over points: weight, weight · x, weight · x², each (n + 1,), x counted from ``origin``."""

    weight: np.ndarray
    first: np.ndarray
    second: np.ndarray
    origin: float
    x: np.ndarray
    place: np.ndarray

    @classmethod
    def of(cls, x: np.ndarray, weight: np.ndarray) -> _Sums:
        origin = float(np.average(x, weights=weight))  # differences of squares stay small
        moved = x - origin
        zeroth, first, second = (np.concatenate([[0.0], np.cumsum(weight * moved**power)]) for power in range(3))
        return cls(zeroth, first, second, origin, x, np.arange(len(x) + 1))

    def at(self, places: np.ndarray) -> _Sums:
        """The same sums, known at some places only."""
        return _Sums(self.weight[places], self.first[places], self.second[places], self.origin, self.x, places)

    def cost(self, start: np.ndarray, end: np.ndarray) -> np.ndarray:
        """Weighted squared distance of points ``start … end − 1`` to their mean."""
        weight = self.weight[end] - self.weight[start]
        first = self.first[end] - self.first[start]
        spread = self.second[end] - self.second[start] - first * first / np.where(weight > 0, weight, 1.0)
        return np.maximum(spread, 0.0)

    def about_zero(self) -> np.ndarray:
        """Prefix sums of weight · x², x counted from zero."""
        return self.second + 2 * self.origin * self.first + self.origin**2 * self.weight


def _places(x: np.ndarray, weight: np.ndarray, points: int) -> np.ndarray:
    """Where cuts may lie: everywhere, or at ``points`` places that leave little between them."""
    if len(x) <= points:
        return np.arange(len(x) + 1)
    even = np.searchsorted(x, np.linspace(x[0], x[-1], points // 2 + 1))
    total = np.cumsum(weight)
    heavy = np.searchsorted(total, np.linspace(0.0, total[-1], points // 4 + 1))
    places = np.concatenate([[0, len(x)], even, heavy, heavy + 1])  # both sides: a heavy point stands alone
    return np.unique(np.clip(places, 0, len(x)))


def _monotone_minima(before: np.ndarray, sums: _Sums) -> tuple[np.ndarray, np.ndarray]:
    """``min_m before(m) + cost(m, i)`` and its ``m``, for every ``i``; the best ``m`` rises with ``i``."""
    last = len(before) - 1
    best, at = before.copy(), np.zeros(last + 1, dtype=np.int64)
    stride = 1 << last.bit_length()
    while stride:
        rows = np.arange(stride, last + 1, 2 * stride)
        if len(rows):
            low = at[rows - stride]
            high = np.minimum(np.where(rows + stride <= last, at[np.minimum(rows + stride, last)], last), rows)
            best[rows], at[rows] = _row_minima(before, sums, rows, low, high)
        stride //= 2
    return best, at


def _row_minima(
    before: np.ndarray, sums: _Sums, rows: np.ndarray, low: np.ndarray, high: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The same for some rows, each searched between its ``low`` and ``high``."""
    lengths = high - low + 1
    starts = np.cumsum(lengths) - lengths
    start = np.arange(int(lengths.sum())) + np.repeat(low - starts, lengths)
    value = before[start] + sums.cost(start, np.repeat(rows, lengths))
    least = np.minimum.reduceat(value, starts)
    hits = np.flatnonzero(value == np.repeat(least, lengths))
    return least, start[hits[np.searchsorted(hits, starts)]]


@dataclass(frozen=True, slots=True)
class _Turn:
    """One more run: where it starts for every end, without the zero's run, with it, and whether it is the zero's."""

    free_at: np.ndarray
    pinned_at: np.ndarray
    opened: np.ndarray


def _best_cuts(sums: _Sums, count: int, pinned_zero: bool) -> tuple[np.ndarray, int | None]:
    """The ends of the runs of points, (count + 1,), and which run belongs to zero."""
    size = len(sums.weight)
    free = np.full(size, np.inf)
    free[0] = 0.0
    pinned, square = np.full(size, np.inf), sums.about_zero()
    trail: list[_Turn] = []
    for _ in range(count):
        grown, grown_at = _monotone_minima(pinned, sums) if pinned_zero and trail else (pinned, np.arange(size))
        lead = np.minimum.accumulate(free - square)
        falls = np.flatnonzero(np.r_[True, lead[1:] < lead[:-1]])
        opened_at = falls[np.searchsorted(falls, np.arange(size), side="right") - 1]
        opened = square + lead <= grown
        pinned = np.minimum(grown, square + lead)
        free, free_at = _monotone_minima(free, sums)
        trail.append(_Turn(free_at, np.where(opened, opened_at, grown_at), opened))
    return _traced(trail, sums.place, pinned_zero)


def _traced(trail: list[_Turn], place: np.ndarray, pinned: bool) -> tuple[np.ndarray, int | None]:
    """Follow the best choices back from the last point."""
    end, zero = len(place) - 1, None
    cuts = [end]
    for step in range(len(trail) - 1, -1, -1):
        turn = trail[step]
        before = int((turn.pinned_at if pinned else turn.free_at)[end])
        if pinned and bool(turn.opened[end]):
            pinned, zero = False, step
        end = before
        cuts.append(end)
    return place[np.array(cuts[::-1])], zero


def _settled(sums: _Sums, cuts: np.ndarray, zero: int | None) -> np.ndarray:
    """The runs' means, moved by Lloyd's steps until no point changes its run."""
    centres = np.zeros(0)
    for _ in range(_LLOYD_SWEEPS):
        weight, first = np.diff(sums.weight[cuts]), np.diff(sums.first[cuts])
        filled = weight > 0
        if zero is not None:
            filled[zero] = True
        means = sums.origin + first / np.where(weight > 0, weight, 1.0)
        if zero is not None:
            means[zero] = 0.0
        centres = np.sort(means[filled])  # a zero without points may have been cut anywhere
        if zero is not None:
            zero = int(np.searchsorted(centres, 0.0))
        inner = np.searchsorted(sums.x, (centres[1:] + centres[:-1]) / 2, side="right")
        moved = np.concatenate([[0], inner, [len(sums.x)]])
        if np.array_equal(moved, cuts):
            break
        cuts = moved
    return centres


@dataclass(frozen=True, slots=True)
class ProductCode:
    """Rows of a weight as blocks of a codebook.

    Attributes:
        codebook: (k, b) blocks.
        codes: (n, d / b) int64, which block stands where.
        error: ``Σ (v − c)ᵀ C_j (v − c)`` over all blocks: that of the output, but for correlations across blocks.
    """

    codebook: torch.Tensor
    codes: torch.Tensor
    error: float

    def decode(self) -> torch.Tensor:
        """The weight that the codes stand for, (n, d)."""
        return self.codebook[self.codes].flatten(1)


def fit_product(
    weight: torch.Tensor, covariance: torch.Tensor, block: int, count: int, *, sweeps: int = 25, seed: int = 0
) -> ProductCode:
    """Product quantization under the metric of the data.

    Stock et al. 2020, arXiv:1907.05686, "And the bit goes down": a block that multiplies inputs ``x_j`` costs
    ``E((v − c)ᵀ x_j)²``, so the nearest code is the nearest under ``C_j``, the ``j``-th diagonal block of the
    covariance, and a code moves to ``(Σ C_j)⁻¹ Σ C_j v``. Both steps lower the error, so every sweep does; k-means++
    draws the start. This is a local optimum: no exact one is known for vectors.

    Args:
        weight: (n, d).
        covariance: (d, d), positive semidefinite.
        block: columns in a block; it divides ``d`` (4 for linear and 1×1 layers, 9 for 3×3).
        count: codes, at least 1; no more are made than there are blocks.
        sweeps: at most.
        seed: of the start.

    Raises:
        UsageError: a block that doesn't divide the width, or no codes.
    """
    rows, width = weight.shape
    if block < 1 or width % block or count < 1:
        raise UsageError(
            "Blocks must divide a row evenly, and there must be a code.",
            f"blocks of {block} in rows of {width}, {count} codes",
            f"choose a divisor of {width}",
        )
    vectors = weight.detach().double().reshape(rows, -1, block).transpose(0, 1)
    at = torch.arange(width).view(-1, block)
    metric = covariance.detach().double()[at.unsqueeze(2), at.unsqueeze(1)]
    floor = metric.diagonal(dim1=1, dim2=2).mean() * 1e-9
    metric = metric + (floor if floor > 0 else 1.0) * torch.eye(block, dtype=torch.float64, device=metric.device)
    codebook = _seeds(vectors, metric, min(count, rows * len(at)), seed)
    codes, best = _assigned(vectors, metric, codebook)
    for _ in range(sweeps):
        moved = _moved(vectors, metric, codebook, codes)
        new_codes, error = _assigned(vectors, metric, moved)
        if error >= best:
            break
        codebook, codes, best = moved, new_codes, error
    return ProductCode(codebook, codes.T.contiguous(), best)


def _distances(vectors: torch.Tensor, metric: torch.Tensor, codebook: torch.Tensor) -> torch.Tensor:
    """``(v − c)ᵀ C_j (v − c)``: (j, n, k) for vectors (j, n, b) and codes (k, b)."""
    own = ((vectors @ metric) * vectors).sum(2, keepdim=True)
    theirs = torch.einsum("kb,jbc,kc->jk", codebook, metric, codebook).unsqueeze(1)
    return (own + theirs - 2 * (vectors @ metric) @ codebook.T).clamp(min=0.0)


def _seeds(vectors: torch.Tensor, metric: torch.Tensor, count: int, seed: int) -> torch.Tensor:
    """k-means++: every further code is drawn by its squared distance to those before."""
    generator = torch.Generator().manual_seed(seed)
    flat = vectors.reshape(-1, vectors.shape[2])
    chosen = flat[torch.randint(len(flat), (1,), generator=generator)]
    nearest_so_far = _distances(vectors, metric, chosen).flatten()
    for _ in range(count - 1):
        total = float(nearest_so_far.sum())
        if total <= 0.0:
            break
        at = torch.searchsorted(nearest_so_far.cumsum(0).cpu(), torch.rand(1, generator=generator).double() * total)
        code = flat[at.clamp(max=len(flat) - 1)]
        chosen = torch.cat([chosen, code])
        nearest_so_far = torch.minimum(nearest_so_far, _distances(vectors, metric, code).flatten())
    return chosen


def _assigned(vectors: torch.Tensor, metric: torch.Tensor, codebook: torch.Tensor) -> tuple[torch.Tensor, float]:
    """The nearest code of every block, (j, n), and the error."""
    codes = torch.stack(
        [_distances(v[None], m[None], codebook)[0].argmin(1) for v, m in zip(vectors, metric, strict=True)]
    )
    difference = vectors - codebook[codes]
    return codes, float(((difference @ metric) * difference).sum())


def _moved(vectors: torch.Tensor, metric: torch.Tensor, codebook: torch.Tensor, codes: torch.Tensor) -> torch.Tensor:
    """Every code at the least-squares point of its members; a code without any stays."""
    count, block = codebook.shape
    members = (codes.unsqueeze(2) == torch.arange(count, device=codes.device)).double().sum(1)
    normal = torch.einsum("jk,jbc->kbc", members, metric)
    right = torch.zeros_like(codebook).index_add_(0, codes.flatten(), (vectors @ metric).reshape(-1, block))
    used = members.sum(0) > 0
    moved = codebook.clone()
    moved[used] = torch.linalg.solve(normal[used], right[used].unsqueeze(2)).squeeze(2)
    return moved
