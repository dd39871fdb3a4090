"""Exact one-sided bounds for shares and for the paired drop of a 0/1 metric.

Notation, kept in the whole file::

    samples n     pairs (answer of the original, answer of the artefact)
    lost b        right → wrong, with unknown share l
    gained c      wrong → right, with unknown share g
    drop          l − g, estimated by (b − c) / n; (b, c, n − b − c) is trinomial

*Exact* means that the coverage is at least the stated confidence for every l, g and n; it is proven in ``exact`` and
needs no large samples.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import betaincc, betaincinv, ndtr, ndtri

from featherweight.contracts import DataError, GoalError

Floats = NDArray[np.float64]

_WINDOW_SHARE = 1e-3  # of the error probability, spent on confining g
_CELLS = 192  # cells that the window of g is cut into at first
_GRIDS = 3  # grids that are tried, each with twice the cells, while
_LOOSE = 4e-3  # the cells' width costs this much, in standard normal units
_CLOSE = 1e-3  # how far below the allowed probability, in standard normal units, the search may stop
_COARSE = 0.01  # above this curvature term, as a share of the allowed probability's root, a cell's corner is tried
_STEPS = 60


def upper_share(count: ArrayLike, samples: int, confidence: float) -> Floats:
    """Clopper-Pearson upper bound of a share, elementwise.

    The share p at which ``P(Binomial(n, p) <= count) = 1 − confidence``: the ``confidence`` quantile of
    Beta(count + 1, n − count), and 1 where every sample counts. Source: Clopper and Pearson 1934, Biometrika 26,
    404-413. Counts may be fractions (an interpolation, used for planning only).
    """
    count = np.asarray(count, dtype=np.float64)
    below = count < samples
    return np.where(below, betaincinv(count + 1.0, np.where(below, samples - count, 1.0), confidence), 1.0)


def lower_share(count: ArrayLike, samples: int, confidence: float) -> Floats:
    """Clopper-Pearson lower bound of a share, elementwise: the share of the others from above."""
    return 1.0 - upper_share(samples - np.asarray(count, dtype=np.float64), samples, confidence)


def check_counts(lost: ArrayLike, gained: ArrayLike, samples: ArrayLike, confidence: float) -> None:
    """Refuse counts that are no split of the samples, and confidences outside (0.5, 1).

    Raises:
        DataError, GoalError: what it says.
    """
    lost, gained, samples = np.asarray(lost), np.asarray(gained), np.asarray(samples)
    room = samples * (1.0 + 1e-12) - lost - gained  # fractional counts are right but for rounding
    if np.any(samples < 1) or np.any(lost < 0) or np.any(gained < 0) or np.any(room < 0):
        raise DataError(
            "Lost and gained answers are counts, together at most the samples.",
            f"lost = {lost}, gained = {gained}, samples = {samples}",
            "count every test sample once",
        )
    if not 0.5 < confidence < 1.0:
        raise GoalError(
            "The confidence must lie between 50 % and 100 %, both excluded.",
            f"{confidence!r}",
            "95% is the usual choice",
        )


def exact(lost: int, gained: int, samples: int, confidence: float) -> float:
    """Upper bound of the drop whose coverage is at least ``confidence``, always.

    It is Buehler's bound (1957, J. Am. Stat. Assoc. 52, 482-493; for paired shares Lloyd and Moldovan 2007, Stat. Med.
    26, 3369-3381), the sharpest one that respects a given order of the outcomes, with the nuisance share g confined
    as in Berger and Boos 1994 (J. Am. Stat. Assoc. 89, 1012-1016)::

        bound = sup { l − g : P(A | l, g) > α − γ, g in W },    α = 1 − confidence, γ = α / 1000

    A are the outcomes that speak for a drop at most as large as the observed one does, W is the two-sided
    Clopper-Pearson interval of g with error γ. The order is that of the square-and-add bound from Clopper-Pearson
    limits (``_order``). Without gained answers the bound is Clopper-Pearson's for the lost share; with some it is
    about as sharp as Tango's score bound. It rises with lost answers and with the confidence, and falls with gained
    answers (but for its third digit where nearly all answers of a tiny test set are discordant).

    *Coverage.* Let (l, g) be true. If bound < l − g, then g is outside W, which has probability γ at most, or
    P(A | l, g) <= α − γ. The sets A are nested, so all outcomes whose A passes that test lie in the largest such A
    and have probability α − γ at most. The sum is α.

    *Computation, always on the safe side.* A is closed under fewer lost and under more gained answers (adding the
    missing outcomes only enlarges it), so P(A | l, g) falls with l and rises with g. Hence the drops that pass, for a
    fixed g, are all below some drop, and it is enough to find a drop u with P(A | u + g, g) <= α − γ for all g in W.
    W is cut into cells [g₀, g₁]; on each, P is at most the smaller of

    - the corner, ``P(A | u + g₀, g₁)``;
    - F from the chord: with ``J = 1/l + 1/g + 4/(1 − l − g)`` the second derivative of P along the cell is the mean
      over A of ``Σ_{i≠j} sᵢ sⱼ``, where sᵢ is the score of sample i, with mean 0 and variance J. By Cauchy and Schwarz
      it is at most ``n J √(2 F)``, and a function exceeds its chord by an eighth of that times the squared width at
      most. So ``√F <= r + √(r² + m)``, with m the larger end value, ``r = n J (g₁ − g₀)² / (8 √2)``, J at its largest.

    Args:
        lost, gained: counts of answers.
        samples: test samples, 1 or more.
        confidence: in (0.5, 1).

    Returns:
        The bound, in [(lost − gained) / samples, 1].

    Raises:
        DataError, GoalError: see ``check_counts``.
    """
    check_counts(lost, gained, samples, confidence)
    if lost == samples:
        return 1.0
    point, bound = (lost - gained) / samples, float(_order(lost, gained, samples, confidence))
    tail = _tail(lost, gained, samples, confidence)
    for power in range(_GRIDS):
        grid = _grid(tail, _shares(tail, bound, _CELLS << power))
        bound = _solve(grid, point, bound)
        if np.max(_cells(grid, bound)[1]) >= ndtr(ndtri(tail.level) - _LOOSE):
            break
    return bound


def _order(lost: ArrayLike, gained: ArrayLike, samples: int, confidence: float) -> Floats:
    """Square-and-add bound of the drop from Clopper-Pearson limits, by which ``exact`` orders the outcomes.

    With ``u = U(b) − b/n`` and ``v = c/n − L(c)`` it is ``(b − c)/n + √(u² + v² + 2 ρ u v)``, where −ρ is the estimated
    correlation of the two shares, ``ρ² = b c / ((n − b) (n − c))``. Source: Zou and Donner 2008, Stat. Med. 27,
    1693-1702. It rises with b: ρ rises, and one more lost answer lowers u, and so the root, by 1/n at most.
    """
    lost, gained = np.asarray(lost, dtype=np.float64), np.asarray(gained, dtype=np.float64)
    above = upper_share(lost, samples, confidence) - lost / samples
    below = gained / samples - lower_share(gained, samples, confidence)
    return _square_and_add((lost, above), (gained, below), samples)


def _square_and_add(lost: tuple[Floats, Floats], gained: tuple[Floats, Floats], samples: int) -> Floats:
    """The formula of ``_order``, each count coming with its share's distance to the limit."""
    (b, u), (c, v) = lost, gained
    correlation = np.sqrt(b * c / np.maximum((samples - b) * (samples - c), 1.0))
    return (b - c) / samples + np.sqrt(u**2 + v**2 + 2.0 * correlation * u * v)


@dataclass(frozen=True, slots=True)
class _Tail:
    """The set A of ``exact``, by columns of outcomes with the same count of gained answers.

    Attributes:
        samples: n.
        level: the allowed probability, α − γ.
        window: W, the interval that g is confined to.
        gained: the columns' counts c, shape (columns,); no others are likely for g in W.
        most_lost: the largest b with (b, c) in A, −1 where there is none, shape (columns,).
    """

    samples: int
    level: float
    window: tuple[float, float]
    gained: Floats
    most_lost: Floats


def _tail(lost: int, gained: int, samples: int, confidence: float) -> _Tail:
    spent = _WINDOW_SHARE * (1.0 - confidence)
    first = float(lower_share(gained, samples, 1.0 - spent / 2))
    last = float(upper_share(gained, samples, 1.0 - spent / 2))
    reach, low, high = -float(ndtri(spent)), samples * first, samples * last
    smallest = max(0, math.floor(low - reach * math.sqrt(low)) - 1)
    largest = min(samples, math.ceil(high + reach * math.sqrt(high) + reach**2))
    bound = float(_order(lost, gained, samples, confidence))
    return _Tail(
        samples=samples,
        level=1.0 - confidence - spent,
        window=(first, last),
        gained=np.arange(smallest, largest + 1.0),
        most_lost=_most_lost(bound, largest, samples, confidence)[smallest:],
    )


def _most_lost(bound: float, most_gained: int, samples: int, confidence: float) -> Floats:
    """For c = 0 … most_gained the largest b with (b, c) in A: ordered up to ``bound``, closed under more gained."""
    gained = np.arange(most_gained + 1.0)
    bound += 1e-12  # so that rounding can't leave out the observed outcome
    lowest, highest = np.full(gained.size, -1), np.floor(gained + samples * bound)  # as the order is >= (b − c) / n
    highest = np.maximum(np.minimum(highest, samples - gained), -1.0).astype(np.intp)
    above = upper_share(np.arange(highest.max() + 1), samples, confidence)
    below = gained / samples - lower_share(gained, samples, confidence)
    while np.any(lowest < highest):
        middle = (lowest + highest + 1) // 2
        lost = np.maximum(middle, 0).astype(np.float64)
        distance = above[middle] - lost / samples
        within = _square_and_add((lost, distance), (gained, below), samples) <= bound
        lowest, highest = np.where(within, middle, lowest), np.where(within, highest, middle - 1)
    return np.maximum.accumulate(lowest).astype(np.float64)


def _at_most(count: Floats, samples: Floats, share: Floats) -> Floats:
    """P(Binomial(samples, share) <= count), broadcast; 0 below no success, 1 from ``samples`` on."""
    inside = (count >= 0) & (count < samples)
    value = betaincc(np.where(inside, count + 1.0, 1.0), np.where(inside, samples - count, 1.0), share)
    return np.where(inside, value, np.where(count < 0, 0.0, 1.0))


@dataclass(frozen=True, slots=True)
class _Grid:
    """The window cut into cells, and how likely each column of the tail is at their ends.

    Attributes:
        tail: the set A.
        shares: values of g from one end of the window to the other, ascending, shape (cells + 1,).
        likely: P(c | g), shape (cells + 1, columns).
        outside: P(c in no column | g), counted as if in A, shape (cells + 1,).
    """

    tail: _Tail
    shares: Floats
    likely: Floats
    outside: Floats

    def probability(self, lost_shares: Floats, rows: NDArray[np.intp]) -> Floats:
        """P(A | l, g) for g = shares[rows] and l of the same shape; where l + g > 1, for l = 1 − g."""
        given = np.minimum(lost_shares / np.maximum(1.0 - self.shares[rows], 1e-300), 1.0)
        within = _at_most(self.tail.most_lost, self.tail.samples - self.tail.gained, given[:, None])
        return np.einsum("rc,rc->r", self.likely[rows], within) + self.outside[rows]


def _grid(tail: _Tail, shares: Floats) -> _Grid:
    edges = np.append(tail.gained[0] - 1.0, tail.gained)
    up_to = _at_most(edges, np.asarray(float(tail.samples)), shares[:, None])
    return _Grid(tail, shares, likely=np.diff(up_to, axis=1), outside=up_to[:, 0] + 1.0 - up_to[:, -1])


def _shares(tail: _Tail, drop: float, cells: int) -> Floats:
    """Values of g over the window in steps of about equal information, shape (cells + 1,).

    On the line l = drop + g the information about g is n (1/g + 1/l + 4/s), with s = 1 − l − g; its three parts are
    even in √g, √l and √s. The line is followed beyond its ends at l = 0 and s = 0, as ``drop`` is only a guess.
    """
    first, last = tail.window
    roots = np.linspace(-1.0, 1.0, 16 * cells)
    dense = np.concatenate([end + roots * np.abs(roots) for end in (0.0, -drop, (1.0 - drop) / 2.0)])
    dense = np.unique(np.clip(np.append(dense, tail.window), first, last))
    lost, same = drop + dense, 1.0 - drop - 2.0 * dense
    way = np.sqrt(dense) + np.sign(lost) * np.sqrt(np.abs(lost)) - np.sign(same) * np.sqrt(np.abs(same))
    inner = np.interp(np.linspace(way[0], way[-1], cells + 1), way, dense)[1:-1]
    return np.concatenate([[first], inner, [last]])


def _cells(grid: _Grid, drop: float) -> tuple[Floats, Floats]:
    """For every cell, shape (cells,), an upper and a lower bound of the largest P(A | drop + g, g); see ``exact``."""
    rows, low, high = np.arange(grid.shares.size), grid.shares[:-1], grid.shares[1:]
    at_grid = grid.probability(np.maximum(drop + grid.shares, 0.0), rows)
    ends = np.maximum(at_grid[1:], at_grid[:-1])
    least_lost, least_same = np.maximum(drop + low, 0.0), np.maximum(1.0 - drop - 2.0 * high, 0.0)
    with np.errstate(divide="ignore"):
        information = grid.tail.samples * (1.0 / least_lost + 1.0 / low + 4.0 / least_same)
    root = information * (high - low) ** 2 / (8.0 * math.sqrt(2.0))
    upper = (root + np.sqrt(root**2 + ends)) ** 2
    coarse = np.flatnonzero(root > _COARSE * math.sqrt(grid.tail.level))
    upper[coarse] = np.minimum(upper[coarse], grid.probability(least_lost[coarse], coarse + 1))
    possible = (drop + high >= 0.0) & (drop + 2.0 * low <= 1.0)
    inside = (drop + low >= 0.0) & (drop + 2.0 * high <= 1.0)
    return np.where(possible, upper, 0.0), np.where(inside, ends, 0.0)


def _solve(grid: _Grid, point: float, start: float) -> float:
    """A drop, nearly the least, at which every cell is allowed: secant steps, kept inside a bracket.

    In standard normal units the probability is almost linear in the drop, so three or four steps do.
    """
    allowed = float(ndtri(grid.tail.level))
    low, high, drop = point, 1.0, start
    slope = allowed / (start - point)
    last: tuple[float, float] | None = None
    for _ in range(_STEPS):
        excess = float(ndtri(min(float(np.max(_cells(grid, drop)[0])), 1.0 - 1e-16))) - allowed
        if excess > 0.0:
            low = drop
        else:
            high = drop
        if -_CLOSE <= excess <= 0.0 or high - low <= _CLOSE * _CLOSE * (start - point):
            break
        if last is not None and last[0] != drop:
            slope = min((excess - last[1]) / (drop - last[0]), 0.1 * slope)
        last = drop, excess
        step = drop - (excess + 0.5 * _CLOSE) / slope
        drop = step if low < step < high else 0.5 * (low + high)
    return high
