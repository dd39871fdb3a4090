"""One-sided upper confidence bounds on a paired drop, ``original − artefact``, and which one is used when.

Scores are per sample, higher is better. For 0/1 scores everything depends on how many answers were lost (right →
wrong) and gained (wrong → right); for other scores the differences are resampled.

What was found at 95 % nominal, for 50 to 10,000 samples, drops of 0 to 5 points, 0 to 3 points of gained answers and
accuracies of 0.6 to 0.999 (coverage summed over the trinomial, for Newcombe's drawn; the margin is the bound's mean
distance from the observed drop; ``benchmarks/certificate_coverage.py`` measures them)::

    rule                                     lowest coverage    margin
    Clopper-Pearson on the lost share             95.0 %         1.56
    newcombe                                      86.1 %         1.00
    tango                                         93.2 %         0.97
    exact                                         95.0 %         1.00
    default: exact, tango beyond 500 discordant   94.9 %         1.00

Newcombe's fails where an accuracy is near 1, Tango's where few answers are lost and none gained; with gained answers
the exact bound is as sharp as either. The default's lowest is at about 540 lost answers, just beyond the exact ones.

For scores that aren't 0/1 the bootstrap covers 94 to 96 % for normal and exponential differences, and 92 % for 80
lognormal ones: rare large losses are the hard case for every method that assumes nothing about them.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import ndtri

from featherweight.audit.exact import Floats, check_counts, exact, lower_share, upper_share
from featherweight.contracts import DataError

MOST_EXACT = 500  # discordant answers up to which the default bound is exact; beyond, Tango's is within 0.3 % and quick
FEWEST_DIFFERING = 20  # differences that must vary before resampling them tells anything
RESAMPLES = 9_999
_MOST_RESAMPLES = 99_999  # enough for a confidence of 99.998 %
_MANY_SAMPLES = 20_000  # from here on a fifth of the resamples: the bootstrap's own error is the smaller one
_CHUNK = 1 << 21  # resampled values held at once, 16 MiB
_HALVINGS = 60
_ROUNDING = 1e-9  # relative to the largest difference
_GAINS_SHARE = 0.1  # of the error probability, spent on the share of gained answers by ``shares_bound``

AnswersRule = Callable[[int, int, int, float], tuple[float, str]]


@dataclass(frozen=True, slots=True)
class Rare:
    """What is known where too few samples differ to resample them.

    Attributes:
        lowered: samples that score lower.
        differing: samples whose difference isn't the most common one.
        largest: the largest possible loss of one sample.
        deviation: standard deviation of the differences.
        losses: of the samples that score lower, each its own.
        whole: whether the metric is a figure of the whole set; then any changed sample counts as lowered.
    """

    lowered: int
    differing: int
    largest: float
    deviation: float
    losses: tuple[float, ...]
    whole: bool = False


@dataclass(frozen=True, slots=True)
class Bound:
    """An upper confidence bound on a drop, with what it was made of.

    Attributes:
        method: "exact", "tango", "shares", "bootstrap" or "worst-case".
        samples: paired samples.
        drop: the mean of ``original − artefact``.
        upper: with probability ``confidence`` the true drop lies at or below this.
        confidence: of the bound.
        lost, gained: answers that turned wrong and that turned right; None where scores aren't 0/1.
        rare: what "worst-case" rests on; None for the others.
    """

    method: str
    samples: int
    drop: float
    upper: float
    confidence: float
    lost: int | None = None
    gained: int | None = None
    rare: Rare | None = None


def tango(lost: ArrayLike, gained: ArrayLike, samples: int, confidence: float) -> Floats:
    """Tango's score bound on the drop, elementwise: the drop at which the score test just rejects.

    With q the most likely share of gained answers under a drop δ, the larger root of
    ``2n q² + ((2n − b + c) δ − b − c) q − c δ (1 − δ) = 0``, it is the δ with
    ``(b − c − nδ) / √(n (2q + δ (1 − δ))) = −z``. Source: Tango 1998, Stat. Med. 17, 891-908, the score interval. Found
    by halving between the estimate and 1. Counts may be fractions (used for planning only).

    Raises:
        DataError, GoalError: see ``check_counts``.
    """
    check_counts(lost, gained, samples, confidence)
    lost, gained = np.asarray(lost, dtype=np.float64), np.asarray(gained, dtype=np.float64)
    z, n = float(ndtri(confidence)), float(samples)
    low, high = np.broadcast_arrays((lost - gained) / n, np.ones(np.broadcast_shapes(lost.shape, gained.shape)))
    for _ in range(_HALVINGS):
        drop = 0.5 * (low + high)
        linear = (2.0 * n - lost + gained) * drop - lost - gained
        likeliest = (np.sqrt(linear**2 + 8.0 * n * gained * drop * (1.0 - drop)) - linear) / (4.0 * n)
        deviation = np.sqrt(n * np.maximum(2.0 * likeliest + drop * (1.0 - drop), 0.0))
        kept = lost - gained - n * drop > -z * deviation
        low, high = np.where(kept, drop, low), np.where(kept, high, drop)
    return high


def newcombe(
    both_right: ArrayLike, lost: ArrayLike, gained: ArrayLike, both_wrong: ArrayLike, confidence: float
) -> Floats:
    """Newcombe's square-and-add bound on the drop, elementwise: method 10 of Newcombe 1998, Stat. Med. 17, 2635-2650.

    ``drop + √(u² − 2 φ u v + v²)`` with u the distance from the original's accuracy up to its Wilson limit, v that
    from the artefact's accuracy down to its own, and φ their correlation with a continuity correction (0 where an
    accuracy is 0 or 1).

    Raises:
        DataError, GoalError: see ``check_counts``.
    """
    e, f, g, h = (np.asarray(count, dtype=np.float64) for count in (both_right, lost, gained, both_wrong))
    n = e + f + g + h
    check_counts(f, g, n, confidence)
    check_counts(e, h, n, confidence)
    original, artefact = (e + f) / n, (e + g) / n
    up = _wilson(original, n, float(ndtri(confidence))) - original
    down = artefact - _wilson(artefact, n, -float(ndtri(confidence)))
    margins = (e + f) * (g + h) * (e + g) * (f + h)
    association = e * h - f * g
    association = np.where(association > 0.0, np.maximum(association - n / 2.0, 0.0), association)
    correlation = np.where(margins > 0.0, association / np.sqrt(np.where(margins > 0.0, margins, 1.0)), 0.0)
    return (f - g) / n + np.sqrt(np.maximum(up**2 - 2.0 * correlation * up * down + down**2, 0.0))


def _wilson(share: Floats, n: Floats, z: float) -> Floats:
    """Wilson's score limit of a share (1927), the upper one for z > 0, the lower one for z < 0."""
    return (share + z * z / (2.0 * n) + z * np.sqrt(share * (1.0 - share) / n + (z / (2.0 * n)) ** 2)) / (
        1.0 + z * z / n
    )


def answers_bound(lost: int, gained: int, samples: int, confidence: float) -> tuple[float, str]:
    """The default bound for 0/1 scores, and its name: exact up to ``MOST_EXACT`` discordant answers, Tango beyond."""
    if lost + gained <= MOST_EXACT:
        return exact(lost, gained, samples, confidence), "exact"
    return float(tango(lost, gained, samples, confidence)), "tango"


def shares_bound(lost: float, gained: float, samples: int, confidence: float) -> tuple[float, str]:
    """A bound for 0/1 scores in closed form, and its name: for many groups, where ``exact`` would take minutes.

    ``U(lost) − L(gained)`` with Clopper-Pearson's limits at ``1 − 0.9 α`` and ``1 − 0.1 α``: either is off with
    probability α at most, so it covers like ``exact``; without gained answers it is nearly as sharp.

    Raises:
        DataError, GoalError: see ``check_counts``.
    """
    check_counts(lost, gained, samples, confidence)
    error = 1.0 - confidence
    most = upper_share(lost, samples, 1.0 - (1.0 - _GAINS_SHARE) * error)
    return float(most - lower_share(gained, samples, 1.0 - _GAINS_SHARE * error)), "shares"


def resamples_for(samples: int, confidence: float) -> int:
    """How many resamples suit: ten beyond the bound at least, and fewer where samples are many."""
    usual = RESAMPLES if samples < _MANY_SAMPLES else RESAMPLES // 5
    return min(max(usual, math.ceil(10.0 / (1.0 - confidence) - 1e-6)), _MOST_RESAMPLES)


def bootstrap(differences: ArrayLike, confidence: float, seed: int = 0, resamples: int | None = None) -> float:
    """Percentile-t bootstrap bound on the mean of ``differences``; right to second order for skewed ones too.

    ``mean − t s/√n``, with t the ``1 − confidence`` quantile of ``(mean* − mean) / (s*/√n)`` over resamples. Source:
    Hall 1988, Ann. Stat. 16, 927-953, section 1 (STUD). Never below the mean. Memory stays within a few arrays of
    2 million values, or of the samples' number where that is larger.

    Args:
        differences: ``original − artefact`` for each sample, shape (samples,).
        confidence: in (0.5, 0.9999].
        seed: of the resampling; the same seed gives the same bound.
        resamples: how many; left out, as many as suit the samples.

    Raises:
        DataError: fewer than ``FEWEST_DIFFERING`` differences vary, or the confidence is too high for the resamples.
    """
    values = np.asarray(differences, dtype=np.float64)
    check_counts(0, 0, values.size, confidence)
    resamples = resamples or resamples_for(values.size, confidence)
    rank = math.floor((resamples + 1) * (1.0 - confidence) + 1e-9)
    if differing(values) < FEWEST_DIFFERING or rank < 2:
        raise DataError(
            f"A bootstrap needs {FEWEST_DIFFERING} differences that vary, and resamples beyond its confidence.",
            f"{differing(values)} that vary among {values.size}, confidence {confidence}",
            "use more test samples, or a lower confidence",
        )
    mean, centred = float(values.mean()), values - values.mean()
    spread = float(np.sqrt(np.mean(centred**2)))
    ratios = np.sort(_ratios(centred, resamples, np.random.default_rng(seed)))
    return mean + spread * max(0.0, -float(ratios[rank - 1]))


def _ratios(centred: Floats, resamples: int, random: np.random.Generator) -> Floats:
    """Mean over standard deviation of every resample, shape (resamples,); −inf where it doesn't vary."""
    at_once = max(1, _CHUNK // centred.size)
    ratios = np.full(resamples, -np.inf)
    for first in range(0, resamples, at_once):
        rows = min(at_once, resamples - first)
        drawn = centred[random.integers(0, centred.size, (rows, centred.size), dtype=np.int32)]
        means = drawn.mean(axis=1)
        spreads = np.sqrt(np.maximum(np.einsum("rs,rs->r", drawn, drawn) / centred.size - means**2, 0.0))
        np.divide(means, spreads, out=ratios[first : first + rows], where=spreads > 0.0)
    return ratios


def differing(differences: Floats) -> int:
    """How many differences aren't the most common one; what differs by rounding only is the same."""
    steps = np.rint(differences / max(_ROUNDING * float(np.abs(differences).max()), 1e-300))
    return int(differences.size - np.unique(steps, return_counts=True)[1].max())


def worst_case(losses: ArrayLike, largest: float, samples: int, confidence: float, times: float = 1.0) -> float:
    """Bound on the mean drop where too few samples differ to resample them: Stringer's, from auditing.

    A sample that wasn't seen may lose the ``largest`` amount, those that were have told theirs. The mean loss is the
    integral over x of the share of samples that lose more than x; each such share is bounded by ``upper_share``, here
    U. With losses ``x₁ >= x₂ >= …`` that makes ``U(0) largest + Σ (U(j) − U(j − 1)) xⱼ``. Gains count nothing.

    It is never above ``U(losses) largest``, which holds for certain, and is that where all lose the most. That it
    covers else is proven for many samples only (Pap and van Zuijlen 1996, Stat. Neerl. 50, 367-389). In 2,000 studies
    each of 100 and 300 scores, with 0.5 to 5 of the largest losses expected, it covered 96.1 % at least, of F1, AUC and
    mAP 99.5 %, at 95 % nominal. Sources: Stringer 1963, Proc. Bus. Econ. Stat. Sect. ASA, 405-411; Bickel 1992, Int.
    Stat. Rev. 60, 197-209.

    Args:
        losses: of the samples that score lower, (lowered,), positive.
        largest: what one sample can lose.
        samples: how many there are.
        confidence: of the bound.
        times: how often each loss is there, a fraction where a larger test is planned.
    """
    seen = np.clip(-np.sort(-np.asarray(losses, dtype=np.float64).ravel()), 0.0, largest)
    shares = upper_share(times * np.arange(seen.size + 1), samples, confidence)
    return float(shares[0] * largest + np.diff(shares) @ seen)


def drop_bound(
    original_scores: ArrayLike, artefact_scores: ArrayLike, confidence: float, answers: AnswersRule = answers_bound
) -> Bound:
    """Upper confidence bound on ``mean(original_scores) − mean(artefact_scores)`` by the default method.

    0/1 scores: ``answers``. Others: ``bootstrap``, or ``worst_case`` where fewer than ``FEWEST_DIFFERING``
    differences vary; the largest loss is then 1 if all scores lie in [0, 1], else the whole range of scores seen.

    Args:
        original_scores, artefact_scores: scores of the same samples in the same order, shape (samples,).
        confidence: in (0.5, 1).
        answers: the bound for 0/1 scores.

    Raises:
        DataError: scores of other shapes, of different lengths, of fewer than two samples, or not finite.
        GoalError: a confidence outside (0.5, 1).
    """
    original, artefact = paired(original_scores, artefact_scores)
    differences = original - artefact
    drop, samples = float(differences.mean()), differences.size
    both = np.concatenate([original, artefact])
    if np.all((both == 0.0) | (both == 1.0)):
        lost, gained = int(np.sum(differences > 0.0)), int(np.sum(differences < 0.0))
        upper, method = answers(lost, gained, samples, confidence)
        return Bound(method, samples, (lost - gained) / samples, upper, confidence, lost=lost, gained=gained)
    if differing(differences) >= FEWEST_DIFFERING:
        return Bound("bootstrap", samples, drop, bootstrap(differences, confidence), confidence)
    losses = differences[differences > 0.0]
    rare = Rare(
        lowered=losses.size,
        differing=differing(differences),
        largest=1.0 if both.min() >= 0.0 and both.max() <= 1.0 else float(both.max() - both.min()),
        deviation=float(differences.std()),
        losses=tuple(losses.tolist()),
    )
    upper = worst_case(losses, rare.largest, samples, confidence)
    return Bound("worst-case", samples, drop, upper, confidence, rare=rare)


def paired(original_scores: ArrayLike, artefact_scores: ArrayLike) -> tuple[Floats, Floats]:
    """The scores as float64, shape (samples,), or a DataError that says why they can't be paired."""
    original, artefact = np.asarray(original_scores), np.asarray(artefact_scores)
    rule = "Both networks give one finite number for each of the same test samples, two samples or more."
    got = f"scores of shape {original.shape} and {artefact.shape}, types {original.dtype} and {artefact.dtype}"
    if original.shape != artefact.shape or original.ndim != 1:
        raise DataError(rule, got, "score the same samples, in the same order, with both networks")
    if original.dtype.kind not in "biuf" or artefact.dtype.kind not in "biuf":
        raise DataError(rule, got, "give real numbers or booleans")
    if original.size < 2:
        raise DataError(rule, got, "hold back more test samples; a 1-point drop needs about 300")
    broken = int(np.sum(~np.isfinite(original)) + np.sum(~np.isfinite(artefact)))
    if broken:
        raise DataError(
            rule, f"{broken} scores that are NaN or infinite", "find the samples whose outputs aren't finite"
        )
    return original.astype(np.float64), artefact.astype(np.float64)
