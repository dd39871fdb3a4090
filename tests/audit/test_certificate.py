"""The certificate: every field, its sentence, and how many samples would do."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest

from featherweight.audit import certificate as made
from featherweight.audit.bounds import answers_bound, bootstrap, drop_bound, shares_bound
from featherweight.audit.certificate import expected_upper, samples_needed, smallest_provable_drop
from featherweight.audit.measure import measured
from featherweight.contracts import Certificate, DataError, Goal
from featherweight.tasks.metrics import METRICS, SampleMetric


def certify(original, artefact, goal: Goal, name: str) -> Certificate:
    """A certificate from scores: outputs that are their own scores."""
    metric = SampleMetric(name=name, points=name == "accuracy", scores=lambda outputs, targets: outputs)
    return made.certify(metric, (original, artefact), original, goal)


def answers(samples: int, lost: int, gained: int) -> tuple[np.ndarray, np.ndarray]:
    """0/1 scores of an original that is right on nine samples in ten or so, and of an artefact."""
    original = np.zeros(samples)
    original[gained : gained + max(lost, round(0.9 * samples) - gained)] = 1.0
    artefact = original.copy()
    artefact[:gained], artefact[gained : gained + lost] = 1.0, 0.0
    return original, artefact


def certified(samples: int, lost: int, gained: int, limit: float = 0.01, confidence: float = 0.95) -> Certificate:
    return certify(*answers(samples, lost, gained), Goal(max_drop=limit, confidence=confidence), "accuracy")


def test_a_goal_that_holds() -> None:
    original, artefact = answers(797, 2, 0)
    certificate = certify(original, artefact, Goal(), "accuracy")
    assert certificate.metric == "accuracy"
    assert certificate.samples == 797
    assert certificate.original == original.mean()
    assert certificate.artefact == artefact.mean()
    assert certificate.drop == pytest.approx(2 / 797)
    assert (certificate.drop_bound, certificate.bound_method) == answers_bound(2, 0, 797, 0.95)
    assert certificate.confidence == 0.95
    assert (certificate.lost, certificate.gained) == (2, 0)
    assert certificate.holds
    assert certificate.samples_needed is not None
    assert certificate.samples_needed <= 797
    assert certificate.statement == (
        "With 95 % confidence the artefact loses at most 0.79 points of accuracy against the original "
        "(797 test samples: 2 answers lost, 0 gained); the goal of 1.00 points holds."
    )


def test_a_test_set_that_is_too_small() -> None:
    certificate = certified(360, 1, 0)
    assert not certificate.holds
    assert certificate.samples_needed is not None
    assert 360 < certificate.samples_needed < 720
    assert certificate.statement == (
        "The goal of 1.00 points can't be shown, because the test set is too small for the claim: the artefact loses "
        "0.28 points of accuracy against the original (360 test samples: 1 answer lost, 0 gained), but so few samples "
        f"leave 1.32 points of accuracy possible at 95 % confidence; about {certificate.samples_needed} test samples "
        "would do at these rates."
    )


@pytest.mark.parametrize(("lost", "gained"), [(14, 2), (12, 4)])
def test_a_drop_that_is_too_large(lost: int, gained: int) -> None:
    certificate = certified(800, lost, gained)
    assert not certificate.holds
    assert certificate.samples_needed is None
    assert "does not hold, because the drop itself is too large" in certificate.statement
    assert certificate.statement.endswith("so more test samples would not help.")


def test_an_artefact_that_is_better() -> None:
    certificate = certified(2_000, 0, 40)
    assert certificate.drop < certificate.drop_bound < 0.0
    assert certificate.holds
    assert "With 95 % confidence the artefact gains at least 1.5" in certificate.statement
    assert "0 answers lost, 40 gained" in certificate.statement


def test_that_nothing_at_all_is_lost_cannot_be_shown() -> None:
    certificate = certified(500, 0, 0, limit=0.0)
    assert not certificate.holds
    assert certificate.samples_needed is None
    assert "no finite test shows that nothing at all is lost" in certificate.statement


def test_a_claim_that_no_test_set_could_support() -> None:
    certificate = certified(100_000, 1_000, 0, limit=0.0100001)
    assert certificate.bound_method == "tango"
    assert certificate.samples_needed is None
    assert "no practical number of test samples would do" in certificate.statement


def test_large_numbers_are_rounded_up_in_the_sentence_only() -> None:
    certificate = certified(10_000, 1_200, 1_110)
    assert certificate.samples_needed is not None
    step = 10 ** (len(str(certificate.samples_needed)) - 3)
    shown = math.ceil(certificate.samples_needed / step) * step
    assert f"about {shown:,} test samples would do" in certificate.statement


@settings(max_examples=8)
@given(st.integers(50, 1_500), st.integers(0, 4), st.sampled_from([0.005, 0.01, 0.0125, 0.02]))
def test_the_rounded_bound_and_the_goal_never_contradict_the_verdict(samples: int, lost: int, limit: float) -> None:
    certificate = certified(samples, lost, 0, limit)
    points = [float(word) for word in certificate.statement.replace("(", " ").split() if "." in word[:-1]]
    goal = 100.0 * limit
    shown = points[0] if certificate.holds else max(points)
    assert shown >= 100.0 * certificate.drop_bound - 1e-5 or not certificate.holds
    assert (shown <= goal + 1e-9) == certificate.holds or certificate.drop >= limit


def test_scores_that_are_no_answers() -> None:
    random = np.random.default_rng(0)
    original = random.uniform(0.5, 0.9, 400)
    artefact = original - random.normal(0.002, 0.02, 400)
    certificate = certify(original, artefact, Goal(max_drop=0.01), "dice")
    assert certificate.bound_method == "bootstrap"
    assert certificate.drop_bound == bootstrap(original - artefact, 0.95)
    assert (certificate.lost, certificate.gained) == (None, None)
    shown = math.ceil(1e4 * certificate.drop_bound) / 1e4
    assert certificate.statement == (
        f"With 95 % confidence the artefact loses at most {shown:.4f} of dice against the original "
        "(400 test samples, paired bootstrap); the goal of 0.0100 holds."
    )
    fewer = certify(original, artefact, Goal(max_drop=0.003), "dice")
    assert fewer.samples_needed is not None
    margin = fewer.drop_bound - fewer.drop
    assert fewer.samples_needed == pytest.approx(400 * (margin / (0.003 - fewer.drop)) ** 2, rel=2e-3)


def test_scores_of_which_few_differ() -> None:
    original = np.linspace(0.4, 0.9, 300)
    artefact = original.copy()
    artefact[5:8] -= 0.1
    certificate = certify(original, artefact, Goal(max_drop=0.01), "dice")
    assert certificate.bound_method == "worst-case"
    assert not certificate.holds
    assert certificate.samples_needed is not None
    assert certificate.samples_needed > 300
    assert "(300 test samples, of which 3 score lower)" in certificate.statement


@pytest.mark.parametrize(("samples", "confidence"), [(100, 0.9), (299, 0.95), (10_000, 0.99)])
def test_what_a_test_set_could_prove_at_best(samples: int, confidence: float) -> None:
    expected = 1.0 - (1.0 - confidence) ** (1.0 / samples)
    assert smallest_provable_drop(samples, confidence) == pytest.approx(expected, rel=5e-3)
    assert smallest_provable_drop(samples, confidence) >= expected


def test_with_nothing_lost_the_rule_of_three_says_how_many() -> None:
    bound = drop_bound(*answers(100, 0, 0), 0.95)
    assert samples_needed(bound, 0.01) == pytest.approx(math.log(0.05) / math.log(0.99), rel=0.01)
    assert samples_needed(bound, 0.001) == pytest.approx(math.log(0.05) / math.log(0.999), rel=0.01)


@pytest.mark.parametrize(("samples", "lost", "gained"), [(360, 1, 0), (1_000, 9, 3), (5_000, 40, 45), (797, 0, 0)])
def test_the_needed_samples_just_do(samples: int, lost: int, gained: int) -> None:
    bound = drop_bound(*answers(samples, lost, gained), 0.95)
    needed = samples_needed(bound, 0.01)
    assert needed is not None
    assert expected_upper(bound, needed) <= 0.01 < expected_upper(bound, needed - 1 - needed // 400)
    assert (needed <= samples) == (bound.upper <= 0.01)


def test_the_needed_samples_fall_with_the_limit_and_rise_with_the_confidence() -> None:
    scores = answers(800, 3, 1)
    by_limit = [samples_needed(drop_bound(*scores, 0.95), limit) for limit in (0.002, 0.008, 0.01, 0.03)]
    assert by_limit[0] is None
    counts = [count for count in by_limit if count is not None]
    assert len(counts) == 3
    assert counts == sorted(set(counts), reverse=True)
    by_confidence = [samples_needed(drop_bound(*scores, sure), 0.01) for sure in (0.8, 0.95, 0.99)]
    certain = [count for count in by_confidence if count is not None]
    assert len(certain) == 3
    assert certain == sorted(set(certain))


def test_the_expected_bound_falls_evenly_from_the_bound_that_was_seen() -> None:
    bound = drop_bound(*answers(400, 3, 1), 0.95)
    assert expected_upper(bound, 400) == pytest.approx(bound.upper, rel=1e-9)
    assert expected_upper(bound, 800) == pytest.approx(answers_bound(6, 2, 800, 0.95)[0], rel=1e-9)
    path = [expected_upper(bound, samples) for samples in range(400, 900, 60)]
    assert path == sorted(path, reverse=True)


@pytest.mark.parametrize(
    ("original", "artefact"), [([1.0, 0.0], [1.0]), ([], []), ([1.0], [1.0]), ([math.nan, 1.0], [1.0, 1.0])]
)
def test_scores_that_support_nothing_are_refused(original: list, artefact: list) -> None:
    with pytest.raises(DataError):
        certify(np.array(original), np.array(artefact), Goal(), "accuracy")


def test_what_was_tested_stands_there_word_for_word() -> None:
    assert certified(797, 2, 0).tested == (
        "Tested on 797 samples that no earlier stage saw, as if drawn at random from where the artefact will be used: "
        "that original − artefact in accuracy is at most 1.00 points. By a one-sided paired exact bound, the opposite "
        "was rejected at 5 % error probability."
    )
    assert "could not be rejected at 5 %" in certified(360, 1, 0).tested


def test_the_smallest_provable_drop_is_that_of_the_test_set() -> None:
    certificate = certified(797, 2, 0)
    assert certificate.smallest_provable == smallest_provable_drop(797, 0.95)
    assert smallest_provable_drop(797, 0.95) < certificate.drop_bound


def test_where_less_is_better_a_rise_is_the_drop() -> None:
    random = np.random.default_rng(0)
    labels = random.normal(size=400)
    before, after = labels + 0.10 * random.normal(size=400), labels + 0.11 * random.normal(size=400)
    certificate = made.certify(METRICS["mae"], (before, after), labels, Goal(max_drop=0.05))
    assert certificate.original == pytest.approx(np.abs(before - labels).mean())
    assert certificate.drop == pytest.approx(certificate.artefact - certificate.original)
    assert not certificate.higher_is_better
    assert certificate.statement.startswith("With 95 % confidence the artefact adds at most 0.0")
    assert "of mean absolute error against the original" in certificate.statement


def relative(samples: int, lost: int, share: float) -> Certificate:
    return certify(*answers(samples, lost, 0), Goal(max_drop=share, relative=True), "accuracy")


def test_a_relative_goal_is_a_share_of_what_the_original_has_at_least() -> None:
    certificate = relative(1000, 2, 0.01)
    limit, level = certificate.limit, 0.9
    assert limit is not None
    assert 0.01 * 0.87 < limit < 0.01 * level
    # Each of both bounds takes a part of the error probability.
    assert certificate.drop_bound == pytest.approx(answers_bound(2, 0, 1000, 1 - 0.9 * 0.05)[0])
    least = 0.01 * binomtest(900, 1000).proportion_ci(0.99, "exact").low
    assert limit == math.floor(1e5 * least) / 1e5
    assert certificate.holds == (certificate.drop_bound <= limit)
    assert "goal of 1 % of the original's accuracy" in certificate.statement
    assert "at most 1 % of the original's" in certificate.tested


def test_a_relative_goal_is_harder_where_the_original_is_weak() -> None:
    lost = np.zeros(1000)
    weak, strong = lost.copy(), lost.copy()
    weak[:300], strong[:950] = 1.0, 1.0
    held = [certify(one, one, Goal(max_drop=0.005, relative=True), "accuracy") for one in (weak, strong)]
    assert [one.holds for one in held] == [False, True]
    assert held[0].drop_bound == held[1].drop_bound


def test_the_ratio_of_a_relative_goal_is_covered() -> None:
    """Artefacts that lose exactly what is allowed are let through one time in twenty at most."""
    random, allowed, through = np.random.default_rng(2), 0.05, 0
    level = 0.6
    for _ in range(600):
        original = random.random(300) < level
        artefact = original & (random.random(300) >= allowed)
        metric = SampleMetric(name="accuracy", scores=lambda outputs, targets: outputs.astype(float))
        goal = Goal(max_drop=allowed, relative=True)
        found = measured(metric, (original, artefact), original, goal, answers=shares_bound)
        through += found.bound.upper <= found.limit
    assert through / 600 <= 0.05
