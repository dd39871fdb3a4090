"""Bounds on what one figure of a whole set loses: F1, AUC, mAP, perplexity, a user's own.

Notation: ``q`` the quality (the metric, negated where less is better), ``D = q(original) − q(artefact)`` the drop, and
``w`` (r, n) weights of the samples. A figure doesn't change when all weights are multiplied with one number, so its
slopes have ``Σ w ∂D/∂w = 0``, and its standard error at weights w is ``√(Σ w (∂D/∂w)²)`` (the infinitesimal jackknife:
Efron 1982, The Jackknife, the Bootstrap and Other Resampling Plans, chapter 6).

The bound is percentile-t (Hall 1988): ``D − t s``, with t the ``α`` quantile of ``(D* − D) / s*`` over replicates, each
with its own standard error, all from one differentiation. BCa and percentiles covered less where we tried them, and
resampling the influences at w = 1 does so for AUC; it costs least, so it is done where many samples carry the drop.
What the bound as it stands covers is in ``benchmarks/results/certificate_coverage.json``.

What matters for coverage isn't the number of samples but how many carry the drop: ``m = (Σ u²)² / Σ u⁴`` of the
influences u. Where few do, as they are rare or rarely change, the margin is widened by ``1 + 1/m``, and all is made at
``1 − 0.8 α``; ``benchmarks/certificate_coverage.py`` measures what that gives.
"""

from __future__ import annotations

import math

import numpy as np
import torch

from featherweight.audit.bounds import FEWEST_DIFFERING, Bound, Rare, bootstrap, differing, drop_bound, worst_case
from featherweight.audit.exact import Floats
from featherweight.contracts import DataError
from featherweight.progress import track
from featherweight.tasks.metrics import OwnMetric, SetMetric
from featherweight.tasks.metrics.metric import Weigh

FEWEST_MEMBERS = 30  # of a class, or as many classes of fewer
MANY_CARRYING = 200  # from here on the influences at w = 1 do
FEWEST_SAMPLES = 100  # of a figure of the whole set; with fewer, coverage is a matter of luck
MOST_DELETIONS = 200  # parts of the set that are left out in turn where a user's function is asked
RESAMPLES = 999
_CHUNK = 1 << 19  # weights held at once, 4 MiB
_SPENT = 0.8  # of the error probability, see above


def set_bound(
    metric: SetMetric, pair: tuple[np.ndarray, np.ndarray], targets: np.ndarray, confidence: float
) -> tuple[float, float, Bound]:
    """The metric of both, and an upper bound on the drop.

    Where fewer than ``FEWEST_DIFFERING`` samples differ in what the metric rests on, resampling says nothing about
    those that could: then ``worst_case`` reckons with what each of them costs, and with the most that one can for those
    not seen.

    Args:
        metric: one figure of a set.
        pair: outputs of the original and of the artefact, (n, …) each.
        targets: (n, …).
        confidence: of the bound.

    Raises:
        DataError: fewer than ``FEWEST_SAMPLES`` samples, or nothing to measure.
    """
    samples = len(targets)
    _check_samples(metric.name, samples)
    _check_sizes(metric, targets)
    old, new = (metric.weigh(outputs, targets) for outputs in pair)

    def worse(weights: torch.Tensor) -> torch.Tensor:
        return metric.sign * (old(weights) - new(weights))

    levels = [influences(figure, samples)[0] for figure in (old, new)]
    drop, influence = influences(worse, samples)
    parts = [metric.decisive(outputs, targets) for outputs in pair]
    moved = np.flatnonzero((parts[0] != parts[1]).any(axis=1))
    changed = moved.size
    if min(changed, differing(influence)) >= FEWEST_DIFFERING:
        upper = studentized(worse, samples, tightened(confidence))
        bound = Bound("bootstrap", samples, drop, _capped(upper, metric), confidence)
    else:
        largest = metric.largest(pair[0], targets)
        told = changed < FEWEST_DIFFERING
        losses = _losses(metric, pair, targets, moved) if told else np.full(changed, largest)
        rare = Rare(changed, changed, largest, float(influence.std()), tuple(losses.tolist()), whole=True)
        upper = max(drop, worst_case(losses, largest, samples, confidence))
        bound = Bound("worst-case", samples, drop, _capped(upper, metric), confidence, rare=rare)
    return levels[0], levels[1], bound


def _losses(metric: SetMetric, pair: tuple[np.ndarray, np.ndarray], targets: np.ndarray, moved: np.ndarray) -> Floats:
    """What each of a few samples takes from a figure of the set, times n, (moved,), never negative.

    The figure with the artefact's outputs for one sample alone, and with the original's for it alone: where changes are
    rare the drop is the sum of such steps but for what they do together, so the larger of both is taken, and all are
    enlarged where their sum falls short of the drop.
    """
    old, new = pair

    def quality(outputs: np.ndarray) -> float:
        return metric.sign * float(metric.value(outputs, targets)[0])

    before, after, samples = quality(old), quality(new), len(targets)
    found = np.zeros(moved.size)
    for place, sample in enumerate(moved):
        one, rest = old.copy(), new.copy()
        one[sample], rest[sample] = new[sample], old[sample]
        found[place] = samples * max(before - quality(one), quality(rest) - after, 0.0)
    drop, total = samples * (before - after), float(found.sum())
    if drop <= total:
        return found
    return found * (drop / total) if total > 0.0 else np.full(moved.size, drop)


def set_lower(metric: SetMetric, outputs: np.ndarray, targets: np.ndarray, confidence: float) -> float:
    """A lower confidence bound on the metric of one network."""
    figure, samples = metric.weigh(outputs, targets), len(targets)
    value, influence = influences(figure, samples)
    if differing(influence) < FEWEST_DIFFERING:
        largest = metric.largest(outputs, targets)
        return value - worst_case(np.full(differing(influence), largest), largest, samples, confidence)
    return -studentized(lambda weights: -figure(weights), samples, tightened(confidence))


def own_bound(
    metric: OwnMetric, pair: tuple[np.ndarray, np.ndarray], targets: np.ndarray, confidence: float
) -> tuple[float, float, Bound]:
    """As :func:`set_bound` for a user's figure of a set, from what changes when parts of the set are left out.

    The set is cut into ``MOST_DELETIONS`` parts at most; ``m D − (m − 1) D₋ᵢ`` with part i left out, a jackknife's
    pseudo-value, stands for ``D + u_i`` (Tukey 1958).
    """
    _check_samples(metric.name, len(targets))
    old, new = (metric.sign * pseudo_values(metric, outputs, targets) for outputs in pair)
    sure = tightened(confidence)
    found = drop_bound(old, new, sure)
    before, after = (metric.value(outputs, targets) for outputs in pair)
    drop = metric.sign * (before - after)
    # The mean of pseudo-values is D but for a bias of order 1/n, which the bound moves along with.
    upper = drop + found.upper - found.drop
    return before, after, Bound(_as_resampled(found.method), len(targets), drop, upper, confidence, rare=found.rare)


def own_lower(metric: OwnMetric, outputs: np.ndarray, targets: np.ndarray, confidence: float) -> float:
    """A lower confidence bound on a user's figure of one network."""
    values = pseudo_values(metric, outputs, targets)
    found = drop_bound(np.zeros(len(values)), values, tightened(confidence))
    return metric.value(outputs, targets) - (found.upper - found.drop)


def studentized(figure: Weigh, samples: int, confidence: float, resamples: int | None = None, seed: int = 0) -> float:
    """Percentile-t bootstrap bound from above on a figure of a set, never below the figure itself.

    Args:
        figure: of weights (r, n), see ``SetMetric.weigh``.
        samples: n.
        confidence: of the bound.
        resamples: how many; left out, as many as suit the confidence.
        seed: of the resampling; the same seed gives the same bound.

    Raises:
        DataError: there is nothing to measure.
    """
    value, influence = influences(figure, samples)
    squares = np.square(influence)
    deviation, carrying = math.sqrt(squares.sum()) / samples, squares.sum() ** 2 / np.square(squares).sum()
    if carrying >= MANY_CARRYING:
        return bootstrap(value + influence, confidence, seed)
    count = resamples or max(RESAMPLES, math.ceil(10.0 / (1.0 - confidence)))
    rank = max(1, math.floor((count + 1) * (1.0 - confidence) + 1e-9))
    random, at_once = np.random.default_rng(seed), max(1, _CHUNK // samples)
    ratios = []
    for first in range(0, count, at_once):
        rows = min(at_once, count - first)
        ratios.append(_ratios(figure, value, _replicates(rows, samples, random)))
    quantile = float(np.sort(np.concatenate(ratios))[rank - 1])
    return value + max(0.0, -quantile) * deviation * (1.0 + 1.0 / float(carrying))


def _replicates(rows: int, samples: int, random: np.random.Generator) -> torch.Tensor:
    """How often each sample is drawn in ``samples`` draws, (rows, samples) float64."""
    drawn = random.integers(0, samples, (rows, samples)) + samples * np.arange(rows)[:, None]
    counts = np.bincount(drawn.ravel(), minlength=rows * samples).reshape(rows, samples)
    return torch.from_numpy(counts.astype(np.float64))


def _ratios(figure: Weigh, value: float, weights: torch.Tensor) -> Floats:
    """``(D* − D) / s*`` of every replicate, (r,); −∞ where a replicate has nothing to measure or doesn't vary."""
    values, slopes = _sloped(figure, weights)
    deviations = (weights * slopes.square()).sum(1).sqrt()
    sound = (deviations > 0) & values.isfinite() & deviations.isfinite()
    ratios = torch.where(sound, (values - value) / torch.where(sound, deviations, 1.0), -math.inf)
    return ratios.numpy()


def influences(figure: Weigh, samples: int) -> tuple[float, Floats]:
    """A figure at equal weights, and ``n ∂/∂w_i`` of it, (n,).

    Raises:
        DataError: there is nothing to measure.
    """
    values, slopes = _sloped(figure, torch.ones(1, samples, dtype=torch.float64))
    if not (math.isfinite(values.item()) and bool(slopes.isfinite().all())):
        got = f"{values.item()} of {samples} samples"
        raise DataError("A metric must be a finite number that changes smoothly.", got, "look at outputs and labels")
    return values.item(), samples * slopes[0].numpy()


def _sloped(figure: Weigh, weights: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """A figure (r,) and its slopes (r, n)."""
    weights = weights.clone().requires_grad_()
    with torch.enable_grad():
        values = figure(weights)
        (slopes,) = torch.autograd.grad(values.sum(), weights)
    return values.detach(), slopes


def pseudo_values(metric: OwnMetric, outputs: np.ndarray, targets: np.ndarray) -> Floats:
    """The jackknife's pseudo-values of a user's figure, (parts,); parts are drawn at random, always the same."""
    samples = len(targets)
    parts = np.array_split(np.random.default_rng(0).permutation(samples), min(samples, MOST_DELETIONS))
    whole, count = metric.value(outputs, targets), len(parts)
    left = np.ones(samples, dtype=bool)
    found = np.empty(count)
    for place, part in enumerate(track(parts, f"asking {metric.name}")):
        left[part] = False
        found[place] = count * whole - (count - 1) * metric.value(outputs[left], targets[left])
        left[part] = True
    return found


def _check_sizes(metric: SetMetric, targets: np.ndarray) -> None:
    """Refuses a mean over parts of which too many rest on too few samples: ``k² / Σ 1/size`` says how many count."""
    sizes = metric.sizes(targets)
    carrying = len(sizes) ** 2 / float((1.0 / sizes).sum()) if len(sizes) else 0.0
    if carrying < FEWEST_MEMBERS:
        raise DataError(
            f"A claim about {metric.name} needs enough samples of every class.",
            f"classes of {int(sizes.min(initial=len(targets)))} to {int(sizes.max(initial=0))} samples, worth "
            f"{carrying:.0f}; {FEWEST_MEMBERS} at least would do",
            "hold back more samples of the rare classes, or choose accuracy",
        )


def tightened(confidence: float) -> float:
    """The confidence that resampled bounds are made at, so that they hold at ``confidence``."""
    return 1.0 - _SPENT * (1.0 - confidence)


def _capped(upper: float, metric: SetMetric) -> float:
    """A share can't lose more than all."""
    return min(upper, 1.0) if metric.points else upper


def _as_resampled(method: str) -> str:
    """Pseudo-values that happen to be 0 and 1 are no answers."""
    return "worst-case" if method == "worst-case" else "bootstrap"


def _check_samples(name: str, samples: int) -> None:
    if samples < FEWEST_SAMPLES:
        raise DataError(
            f"A claim about {name}, a figure of the whole set, needs {FEWEST_SAMPLES} samples.",
            f"{samples} samples, too few to tell how much such a figure varies",
            "hold back more samples, or choose a metric that is a mean over samples, like accuracy",
        )
