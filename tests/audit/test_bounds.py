"""Tango's and Newcombe's bounds against published figures and independent inversion, the bootstrap, and the choice."""

from __future__ import annotations

import math
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import optimize, stats

from featherweight.audit.bounds import (
    FEWEST_DIFFERING,
    MOST_EXACT,
    answers_bound,
    bootstrap,
    drop_bound,
    newcombe,
    tango,
    worst_case,
)
from featherweight.audit.exact import exact, upper_share
from featherweight.contracts import DataError, GoalError

# Paired tables (both, first only, second only, neither) with the 95 % intervals of the R package contingencytables,
# made for Fagerland, Lydersen and Laake, Statistical Analysis of Contingency Tables, 2017, chapter 8.
CAVO_2012 = (59, 6, 16, 80)
CONFIDENCES = st.sampled_from([0.6, 0.8, 0.9, 0.95, 0.99, 0.999])


@st.composite
def tables(draw: st.DrawFn) -> tuple[int, int, int, int]:
    """Both right, lost, gained, both wrong."""
    counts = [draw(st.integers(0, 400)) for _ in range(4)]
    return counts[0], counts[1], counts[2], counts[3] + (sum(counts) == 0)


def score_test_inverted(lost: int, gained: int, samples: int, confidence: float) -> float:
    """Tango's bound with the likelihood maximised and the score test inverted numerically, without his formulas."""
    same = samples - lost - gained

    def statistic(drop: float) -> float:
        def loss(share: float) -> float:
            shares = np.array([share + drop, share, 1.0 - 2.0 * share - drop])
            return -float(np.sum(np.array([lost, gained, same]) * np.log(np.maximum(shares, 1e-300))))

        ends = (max(0.0, -drop) + 1e-12, (1.0 - drop) / 2.0 - 1e-12)
        share = optimize.minimize_scalar(loss, bounds=ends, method="bounded", options={"xatol": 1e-13}).x
        variance = (2.0 * share + drop - drop**2) / samples
        return float(((lost - gained) / samples - drop) / math.sqrt(variance) + stats.norm.ppf(confidence))

    point = (lost - gained) / samples
    return float(optimize.brentq(statistic, point + 1e-9, 1.0 - 1e-6, xtol=1e-12))


def test_tangos_published_interval() -> None:
    _, first, second, _ = CAVO_2012
    assert float(tango(first, second, 161, 0.975)) == pytest.approx(-0.0054, abs=5e-5)
    assert -float(tango(second, first, 161, 0.975)) == pytest.approx(-0.1240, abs=5e-5)


def test_newcombes_published_interval() -> None:
    both, first, second, neither = CAVO_2012
    assert float(newcombe(both, first, second, neither, 0.975)) == pytest.approx(-0.0046, abs=5e-5)
    assert -float(newcombe(both, second, first, neither, 0.975)) == pytest.approx(-0.1186, abs=5e-5)


@pytest.mark.parametrize("confidence", [0.8, 0.95, 0.99])
@pytest.mark.parametrize(
    ("lost", "gained", "samples"), [(2, 1, 30), (10, 3, 200), (3, 10, 200), (0, 4, 50), (7, 0, 797), (300, 250, 5_000)]
)
def test_tangos_bound_inverts_the_score_test(lost: int, gained: int, samples: int, confidence: float) -> None:
    expected = score_test_inverted(lost, gained, samples, confidence)
    assert float(tango(lost, gained, samples, confidence)) == pytest.approx(expected, abs=2e-7)


def test_without_discordant_answers_tangos_bound_has_a_closed_form() -> None:
    square = stats.norm.ppf(0.95) ** 2
    assert float(tango(0, 0, 100, 0.95)) == pytest.approx(square / (100 + square), abs=1e-12)


@given(tables(), CONFIDENCES)
def test_both_lie_between_the_estimate_and_one(table: tuple[int, int, int, int], confidence: float) -> None:
    _, lost, gained, _ = table
    point = (lost - gained) / sum(table)
    assert point <= float(tango(lost, gained, sum(table), confidence)) <= 1.0
    assert point <= float(newcombe(*table, confidence)) <= 1.0 + 1e-12


@given(tables(), CONFIDENCES)
def test_tangos_rises_with_lost_falls_with_gained(table: tuple[int, int, int, int], confidence: float) -> None:
    _, lost, gained, _ = table
    samples = sum(table) + 1
    bound = float(tango(lost, gained, samples, confidence))
    assert float(tango(lost + 1, gained, samples, confidence)) >= bound - 1e-12
    assert float(tango(lost, gained + 1, samples, confidence)) <= bound + 1e-12


@given(tables(), st.floats(0.51, 0.99), st.floats(1e-4, 0.009))
def test_both_rise_with_the_confidence(table: tuple[int, int, int, int], confidence: float, more: float) -> None:
    _, lost, gained, _ = table
    assert tango(lost, gained, sum(table), confidence) <= tango(lost, gained, sum(table), confidence + more)
    assert newcombe(*table, confidence) <= newcombe(*table, confidence + more) + 1e-12


def test_they_work_elementwise_and_at_every_corner() -> None:
    lost, gained, right = np.meshgrid(np.arange(7), np.arange(7), np.arange(7), indexing="ij")
    fits = lost + gained + right <= 6
    lost, gained, right = lost[fits], gained[fits], right[fits]
    with np.errstate(all="raise"):
        by_tango = tango(lost, gained, 6, 0.95)
        by_newcombe = newcombe(right, lost, gained, 6 - lost - gained - right, 0.95)
    for bounds in (by_tango, by_newcombe):
        assert bounds.shape == lost.shape
        assert np.all((bounds >= (lost - gained) / 6) & (bounds <= 1.0 + 1e-12))
    assert float(tango(3, 1, 6, 0.95)) == by_tango[(lost == 3) & (gained == 1)][0]


def test_the_default_is_exact_until_it_would_be_slow() -> None:
    assert answers_bound(2, 0, 797, 0.95) == (exact(2, 0, 797, 0.95), "exact")
    assert answers_bound(MOST_EXACT, 0, 10_000, 0.95)[1] == "exact"
    bound, method = answers_bound(MOST_EXACT, 1, 10_000, 0.95)
    assert (bound, method) == (float(tango(MOST_EXACT, 1, 10_000, 0.95)), "tango")
    assert bound == pytest.approx(exact(MOST_EXACT, 1, 10_000, 0.95), rel=0.003)


@pytest.mark.parametrize("confidence", [0.8, 0.95, 0.99])
def test_for_normal_differences_the_bootstrap_is_the_t_bound(confidence: float) -> None:
    random = np.random.default_rng(3)
    for samples in (40, 400):
        values = random.normal(0.01, 0.05, samples)
        margin = stats.t.ppf(confidence, samples - 1) * stats.sem(values)
        assert bootstrap(values, confidence) - values.mean() == pytest.approx(margin, rel=0.12)


def test_for_losses_with_a_long_tail_the_bootstrap_goes_beyond_the_t_bound() -> None:
    values = np.random.default_rng(0).exponential(size=60) ** 2
    t_bound = values.mean() + stats.t.ppf(0.95, 59) * stats.sem(values)
    assert bootstrap(values, 0.95) > t_bound
    assert bootstrap(-values, 0.95) < -values.mean() + stats.t.ppf(0.95, 59) * stats.sem(values)


@settings(max_examples=20)
@given(st.floats(-3.0, 3.0), st.floats(0.01, 100.0), st.integers(0, 5))
def test_the_bootstrap_moves_and_stretches_with_the_differences(shift: float, scale: float, seed: int) -> None:
    values = np.random.default_rng(1).normal(size=50)
    expected = shift + scale * bootstrap(values, 0.95, seed, resamples=199)
    assert bootstrap(shift + scale * values, 0.95, seed, resamples=199) == pytest.approx(expected, abs=1e-6 * scale)


def test_the_bootstrap_repeats_and_never_falls_below_the_mean() -> None:
    values = np.random.default_rng(2).lognormal(size=80)
    assert bootstrap(values, 0.95, seed=4) == bootstrap(values, 0.95, seed=4)
    assert bootstrap(values, 0.95, seed=4) != bootstrap(values, 0.95, seed=5)
    assert bootstrap(values, 0.51) >= values.mean()
    assert bootstrap(values, 0.9) < bootstrap(values, 0.99)


def test_the_bootstrap_keeps_its_memory_bound() -> None:
    values = np.random.default_rng(0).normal(size=100_000)
    tracemalloc.start()
    bootstrap(values, 0.95, resamples=199)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 100 * 2**20  # 199 resamples at once would take more than 150 MiB


def test_the_bootstrap_refuses_what_it_cannot_see() -> None:
    few = np.zeros(1_000)
    few[: FEWEST_DIFFERING - 1] = 0.5
    with pytest.raises(DataError, match="differences that vary"):
        bootstrap(few, 0.95)
    with pytest.raises(DataError, match="resamples beyond its confidence"):
        bootstrap(np.random.default_rng(0).normal(size=100), 0.99999)


@pytest.mark.parametrize("kind", [np.float32, np.float64, np.int64, np.bool_])
def test_answers_of_any_type_are_counted(kind: type) -> None:
    original = np.array([1, 1, 1, 1, 0, 0, 1, 1, 1, 0])
    artefact = np.array([1, 0, 0, 1, 1, 0, 1, 1, 1, 0])
    bound = drop_bound(original.astype(kind), artefact.astype(kind), 0.95)
    assert (bound.method, bound.samples, bound.lost, bound.gained) == ("exact", 10, 2, 1)
    assert bound.drop == pytest.approx(0.1)
    assert bound.upper == exact(2, 1, 10, 0.95)


def test_other_scores_are_resampled() -> None:
    random = np.random.default_rng(0)
    original = random.uniform(0.5, 0.9, 200)
    artefact = original - random.normal(0.01, 0.02, 200)
    bound = drop_bound(original, artefact, 0.95)
    assert (bound.method, bound.lost, bound.gained, bound.rare) == ("bootstrap", None, None, None)
    assert bound.drop == pytest.approx(np.mean(original - artefact))
    assert bound.upper == bootstrap(original - artefact, 0.95)


@pytest.mark.parametrize(("stretch", "largest"), [(1.0, 1.0), (10.0, 6.0)])
def test_where_few_samples_differ_the_worst_case_is_assumed(stretch: float, largest: float) -> None:
    original = np.linspace(0.4, 0.9, 300) * stretch
    artefact = original.copy()
    artefact[[0, 5, 8]] -= 0.1 * stretch
    bound = drop_bound(original, artefact, 0.95)
    assert bound.method == "worst-case"
    assert bound.rare is not None
    assert (bound.rare.lowered, bound.rare.differing) == (3, 3)
    assert bound.rare.largest == pytest.approx(largest)
    assert bound.upper == pytest.approx(worst_case([0.1 * stretch] * 3, bound.rare.largest, 300, 0.95))
    unseen, seen = (float(share) for share in upper_share([0, 3], 300, 0.95))
    assert bound.upper == pytest.approx(unseen * largest + (seen - unseen) * 0.1 * stretch)


@given(st.lists(st.floats(0.0, 1.0), max_size=19), st.integers(20, 500), st.floats(0.1, 50.0), st.floats(0.6, 0.999))
def test_the_worst_case_adds_up_the_shares_that_lose_more_than_each_amount(
    parts: list[float], samples: int, largest: float, confidence: float
) -> None:
    """Against the integral of Clopper-Pearson's bounds over amounts, summed on a fine grid."""
    losses = largest * np.array(parts)
    found = worst_case(losses, largest, samples, confidence)
    amounts = (np.arange(20_000) + 0.5) / 20_000 * largest
    more = (losses[None] > amounts[:, None]).sum(1)
    assert found == pytest.approx(float(upper_share(more, samples, confidence).mean()) * largest, rel=1e-3)
    assert losses.sum() / samples <= found <= float(upper_share(len(parts), samples, confidence)) * largest * (1 + 1e-9)
    # Losses of all or nothing are counts; in another order, or with more of them, nothing else comes.
    assert worst_case(np.full(len(parts), largest), largest, samples, confidence) == pytest.approx(
        float(upper_share(len(parts), samples, confidence)) * largest
    )
    assert worst_case(losses[::-1], largest, samples, confidence) == pytest.approx(found)
    assert worst_case([*losses, 0.0], largest, samples, confidence) == pytest.approx(found)


def test_the_worst_case_covers_where_great_losses_are_rare() -> None:
    """2,000 studies of 300 samples a case: small losses here and there, the largest with odds near the bound's edge."""
    random, samples = np.random.default_rng(0), 300
    for small, often, rate in ((0.05, 0.02, 2.9), (0.05, 0.02, 3.1), (0.5, 0.01, 3.1), (0.9, 0.01, 5.0)):
        held = 0
        for _ in range(2_000):
            losses = np.where(random.random(samples) < often, random.uniform(0.0, small, samples), 0.0)
            losses[random.random(samples) < rate / samples] = 1.0
            held += worst_case(losses[losses > 0], 1.0, samples, 0.95) >= often * small / 2 + rate / samples
        assert held >= 0.945 * 2_000, (small, often, rate, held)


def test_equal_scores_prove_little_and_constant_losses_count_in_full() -> None:
    scores = np.linspace(0.1, 0.9, 100)
    assert drop_bound(scores, scores, 0.95).upper == pytest.approx(1.0 - 0.05 ** (1 / 100))
    constant = drop_bound(scores, scores - 0.05, 0.95)  # equal but for rounding
    unseen = 1.0 - 0.05 ** (1 / 100)
    assert (constant.method, constant.upper) == ("worst-case", pytest.approx(unseen + (1.0 - unseen) * 0.05))


@pytest.mark.parametrize(
    ("original", "artefact", "says"),
    [
        ([1.0, 0.0, 1.0], [1.0, 0.0], "the same samples"),
        ([], [], "hold back"),
        ([1.0], [1.0], "hold back"),
        ([[1.0, 0.0]], [[1.0, 0.0]], "the same samples"),
        ([0.5, math.nan, 1.0], [0.5, 0.5, 1.0], "1 scores that are NaN"),
        ([0.5, 0.5, 1.0], [math.inf, -math.inf, 1.0], "2 scores that are NaN"),
        (["1", "0"], ["1", "0"], "real numbers"),
        ([1j, 0], [1.0, 0.0], "real numbers"),
    ],
)
def test_scores_that_cannot_be_paired_are_refused(original: list, artefact: list, says: str) -> None:
    with pytest.raises(DataError, match=says) as refusal:
        drop_bound(original, artefact, 0.95)
    assert refusal.value.rule.startswith("Both networks give one finite number")


@pytest.mark.parametrize("table", [(-1, 2, 0, 9), (5, 2, 0, -1), (5, -1, 0, 6), (0, 0, 0, 0)])
def test_counts_that_are_no_table_are_refused(table: tuple[int, int, int, int]) -> None:
    with pytest.raises(DataError):
        newcombe(*table, 0.95)


def test_confidences_that_mean_nothing_are_refused() -> None:
    for confidence in (0.5, 1.0):
        with pytest.raises(GoalError):
            tango(0, 0, 10, confidence)
        with pytest.raises(GoalError):
            newcombe(5, 0, 0, 5, confidence)
        with pytest.raises(GoalError):
            drop_bound(np.zeros(5), np.zeros(5), confidence)
