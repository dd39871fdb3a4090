"""The exact bound: coverage by enumeration, sharpness against brute force, and its properties."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from featherweight.audit.bounds import tango
from featherweight.audit.exact import exact, lower_share, upper_share
from featherweight.contracts import DataError, GoalError

LADDER = (0.6, 0.8, 0.9, 0.95, 0.99, 0.999)


@st.composite
def outcomes(draw: st.DrawFn) -> tuple[int, int, int]:
    """Lost, gained, samples; at most half of the answers discordant, and one more of each kind still fits."""
    samples = draw(st.integers(4, 3000))
    lost = draw(st.integers(0, min(samples // 2, 25) - 1))
    return lost, draw(st.integers(0, min(samples // 2 - lost - 1, 25))), samples


def trinomial(lost: float, gained: float, samples: int) -> np.ndarray:
    """Probability of every outcome, shape (samples + 1, samples + 1), by b lost and c gained."""
    chances = np.zeros((samples + 1, samples + 1))
    for b in range(samples + 1):
        for c in range(samples + 1 - b):
            ways = math.comb(samples, b) * math.comb(samples - b, c)
            chances[b, c] = ways * lost**b * gained**c * max(1.0 - lost - gained, 0.0) ** (samples - b - c)
    return chances


@pytest.mark.parametrize("confidence", [0.8, 0.95, 0.99])
@pytest.mark.parametrize("samples", [1, 2, 17, 360])
def test_shares_agree_with_scipys_clopper_pearson(samples: int, confidence: float) -> None:
    for count in {0, 1, samples // 3, samples - 1, samples}:
        above = stats.binomtest(count, samples, alternative="less").proportion_ci(confidence)
        below = stats.binomtest(count, samples, alternative="greater").proportion_ci(confidence)
        assert float(upper_share(count, samples, confidence)) == pytest.approx(above.high, abs=1e-9)
        assert float(lower_share(count, samples, confidence)) == pytest.approx(below.low, abs=1e-9)


@pytest.mark.parametrize(("samples", "confidence"), [(2, 0.95), (5, 0.8), (9, 0.95), (9, 0.6), (12, 0.99)])
def test_coverage_is_at_least_the_confidence_everywhere(samples: int, confidence: float) -> None:
    bounds = np.full((samples + 1, samples + 1), 1.0)
    for b in range(samples + 1):
        for c in range(samples + 1 - b):
            bounds[b, c] = exact(b, c, samples, confidence)
    # Coverage is lowest where the drop has just passed an outcome's bound.
    drops = np.unique(np.concatenate([np.linspace(-1.0, 1.0, 21), bounds.ravel() + 1e-9]))
    for drop in drops[drops <= 1.0]:
        for gained in np.linspace(max(0.0, -drop), (1.0 - drop) / 2.0, 12):
            chances = trinomial(max(drop + gained, 0.0), gained, samples)
            assert chances[bounds >= drop - 1e-12].sum() >= confidence - 1e-9


def brute_force(lost: int, gained: int, samples: int, confidence: float) -> float:
    """The bound from its definition: enumeration, a fine grid of g, halving in the drop. No cells, no tails."""
    alpha = 1.0 - confidence
    counts = np.arange(samples + 1)
    upper = np.append(stats.beta.ppf(confidence, counts[:-1] + 1, samples - counts[:-1]), 1.0) - counts / samples
    lower = counts / samples - np.append(0.0, stats.beta.ppf(alpha, counts[1:], samples - counts[1:] + 1))
    b, c = counts[:, None], counts[None]
    odds = b * c / np.maximum((samples - b) * (samples - c), 1)
    order = (b - c) / samples + np.sqrt(upper[:, None] ** 2 + lower**2 + 2.0 * np.sqrt(odds) * upper[:, None] * lower)
    among = np.where(b + c <= samples, order, np.inf) <= order[lost, gained] + 1e-12
    fewer_lost = np.flip(np.maximum.accumulate(np.flip(among, 0), 0), 0)
    among = np.maximum.accumulate(fewer_lost, 1) & (b + c <= samples)
    spent = alpha / 1000.0
    first = stats.beta.ppf(spent / 2, gained, samples - gained + 1) if gained else 0.0
    last = stats.beta.ppf(1.0 - spent / 2, gained + 1, samples - gained)

    def highest(share: float) -> float:
        low, high = -share, 1.0 - 2.0 * share
        if trinomial(0.0, share, samples)[among].sum() <= alpha - spent or high < low:
            return -1.0
        for _ in range(30):
            drop = (low + high) / 2.0
            passes = trinomial(drop + share, share, samples)[among].sum() > alpha - spent
            low, high = (drop, high) if passes else (low, drop)
        return low

    return max(highest(share) for share in np.linspace(first, min(last, 1.0), 150))


@pytest.mark.parametrize(
    ("lost", "gained", "confidence"), [(0, 0, 0.95), (1, 0, 0.9), (1, 1, 0.95), (0, 2, 0.95), (3, 1, 0.99), (2, 3, 0.8)]
)
def test_it_is_the_bound_that_its_definition_says(lost: int, gained: int, confidence: float) -> None:
    samples = 12
    expected = brute_force(lost, gained, samples, confidence)
    margin = expected - (lost - gained) / samples
    found = exact(lost, gained, samples, confidence)
    assert found >= expected - 1e-6
    assert found <= expected + 0.02 * margin


@pytest.mark.parametrize("samples", [20, 797, 50_000])
@pytest.mark.parametrize("lost", [0, 1, 2, 10])
def test_without_gained_answers_it_is_clopper_pearsons(lost: int, samples: int) -> None:
    assert exact(lost, 0, samples, 0.95) == pytest.approx(float(upper_share(lost, samples, 0.95)), rel=3e-3)


@pytest.mark.parametrize(("lost", "gained"), [(5, 2), (20, 20), (60, 30), (300, 250)])
def test_with_gained_answers_it_is_about_as_sharp_as_tangos(lost: int, gained: int) -> None:
    point = (lost - gained) / 10_000
    ratio = (exact(lost, gained, 10_000, 0.95) - point) / (float(tango(lost, gained, 10_000, 0.95)) - point)
    assert 0.95 < ratio < 1.01


@settings(max_examples=12)
@given(outcomes(), st.sampled_from(LADDER))
def test_it_lies_between_the_estimate_and_one(outcome: tuple[int, int, int], confidence: float) -> None:
    lost, gained, samples = outcome
    assert (lost - gained) / samples <= exact(*outcome, confidence) <= 1.0


@settings(max_examples=12)
@given(outcomes(), st.sampled_from(LADDER))
def test_it_rises_with_lost_and_falls_with_gained_answers(outcome: tuple[int, int, int], confidence: float) -> None:
    lost, gained, samples = outcome
    bound = exact(lost, gained, samples, confidence)
    assert exact(lost + 1, gained, samples, confidence) > bound
    assert exact(lost, gained + 1, samples, confidence) < bound


@settings(max_examples=12)
@given(outcomes(), st.integers(0, len(LADDER) - 2))
def test_it_rises_with_the_confidence(outcome: tuple[int, int, int], place: int) -> None:
    assert exact(*outcome, LADDER[place]) < exact(*outcome, LADDER[place + 1])


@settings(max_examples=12)
@given(st.integers(0, 20), st.integers(0, 20), st.integers(90, 900))
def test_more_unchanged_samples_lower_it(lost: int, fewer: int, samples: int) -> None:
    gained = max(0, lost - fewer)
    assert exact(lost, gained, 2 * samples, 0.95) < exact(lost, gained, samples, 0.95)


def test_the_ends_of_the_range() -> None:
    assert exact(1, 0, 1, 0.95) == 1.0
    assert exact(50, 0, 50, 0.95) == 1.0
    assert -1.0 <= exact(0, 50, 50, 0.95) < -0.85
    assert exact(0, 1, 1, 0.95) <= 1.0
    assert 0.9 < exact(0, 0, 1, 0.95) <= 1.0
    assert exact(25, 25, 50, 0.95) < 0.3


def test_many_discordant_answers_are_no_obstacle() -> None:
    assert exact(2_500, 2_400, 50_000, 0.95) == pytest.approx(float(tango(2_500, 2_400, 50_000, 0.95)), rel=0.01)


@pytest.mark.parametrize(("lost", "gained", "samples"), [(-1, 0, 10), (0, -1, 10), (6, 5, 10), (0, 0, 0)])
def test_counts_that_split_nothing_are_refused(lost: int, gained: int, samples: int) -> None:
    with pytest.raises(DataError, match="together at most the samples"):
        exact(lost, gained, samples, 0.95)


@pytest.mark.parametrize("confidence", [0.5, 1.0, 95.0, math.nan])
def test_confidences_that_mean_nothing_are_refused(confidence: float) -> None:
    with pytest.raises(GoalError, match="between 50 % and 100 %"):
        exact(0, 0, 10, confidence)
