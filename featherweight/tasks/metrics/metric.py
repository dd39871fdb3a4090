"""What a metric is: a mean of the samples' scores, or one figure of a whole set, and what a bound needs to know of it.

Notation: ``n`` samples, ``w`` (r, n) weights of the samples in ``r`` replicates. A replicate of a bootstrap is a row of
weights (how often each sample was drawn), so that a metric is worked out for many replicates at once.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Scores = Callable[[np.ndarray, np.ndarray], Floats]
Weigh = Callable[[torch.Tensor], torch.Tensor]


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """What every metric says of itself.

    Attributes:
        name: in reports ("top-5 accuracy").
        higher_is_better: whether more of it is better.
        points: whether it is a share, so that differences are told in points (hundredths) instead of its own unit.
        tasks: names of the tasks whose outputs and labels it takes.
        needs_labels: whether the original's own answers can't stand in where there are no labels.
    """

    name: str
    higher_is_better: bool = True
    points: bool = False
    tasks: tuple[str, ...] = ("classification",)
    needs_labels: bool = False

    @property
    def sign(self) -> float:
        """1 where more is better, else −1: ``sign · value`` is a quality."""
        return 1.0 if self.higher_is_better else -1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleMetric(Metric):
    """The mean of a score for each sample.

    Attributes:
        scores: (outputs (n, …), targets (n, …)) → (n,), in the metric's own direction.
        binary: whether every score is 0 or 1, so that exact bounds on proportions hold.
    """

    scores: Scores
    binary: bool = False

    def value(self, outputs: np.ndarray, targets: np.ndarray, weights: Floats | None = None) -> Floats:
        """The metric of every replicate, (r,); without weights of the set itself, (1,)."""
        scores = self.scores(outputs, targets)
        weights = _whole(len(scores)) if weights is None else weights
        return weights @ scores / weights.sum(axis=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class SetMetric(Metric):
    """One figure of a whole set of samples, smooth in the samples' weights.

    Attributes:
        weigh: (outputs, targets) → a function of weights (r, n) float64 that gives the metric (r,), and can be
            differentiated. It doesn't change when all weights are multiplied with one number, and is NaN where the
            weights leave nothing to measure.
        decisive: (outputs, targets) → (n, k): what of each sample's outputs the metric rests on (its answer, its
            ranks). Two networks that agree in it have the same metric.
        largest: (the original's outputs, targets) → the most that one sample whose decisive part changes can take from
            the metric, times n; where there is no such limit, what lies between the best and the worst sample seen.
        sizes: targets → (k,): how many samples each of the k parts rests on that the figure is a mean of; left out, it
            rests on all alike.
    """

    weigh: Callable[[np.ndarray, np.ndarray], Weigh]
    decisive: Callable[[np.ndarray, np.ndarray], np.ndarray]
    largest: Callable[[np.ndarray, np.ndarray], float]
    sizes: Callable[[np.ndarray], np.ndarray] = lambda targets: np.array([len(targets)])

    def value(self, outputs: np.ndarray, targets: np.ndarray, weights: Floats | None = None) -> Floats:
        """The metric of every replicate, (r,); without weights of the set itself, (1,)."""
        weights = _whole(len(outputs)) if weights is None else np.asarray(weights, dtype=np.float64)
        with torch.no_grad():
            return self.weigh(outputs, targets)(torch.from_numpy(weights)).numpy()


def _whole(samples: int) -> Floats:
    return np.ones((1, samples))
