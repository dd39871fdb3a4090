"""What validation data promise: judged by simulated studies."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from featherweight.audit.bounds import answers_bound
from featherweight.contracts import Attempt, Goal
from featherweight.judgement import best_attempt, projected_bound, promises, within
from tests.report.stories import story

PLAIN = story().attempts[0]


def _attempt(samples: int, lost: int, gained: int, expected: tuple[float, float]) -> Attempt:
    check = replace(PLAIN.check, samples=samples, lost=lost, gained=gained, drop=(lost - gained) / samples, limit=None)
    return replace(PLAIN, check=check, expected_lost=expected[0], expected_gained=expected[1])


@pytest.mark.parametrize(("lost", "gained"), [(0.003, 0.002), (0.006, 0.005), (0.009, 0.0085), (0.002, 0.0002)])
def test_what_is_promised_nearly_always_holds(lost: float, gained: float) -> None:
    """Whatever the truth, fewer than one promise in six is broken, even if the forecast is off by a fifth."""
    generator, samples, test_samples, limit = np.random.default_rng(0), 4000, 6000, 0.005
    broken = promised = 0
    for _ in range(40):
        counts = generator.multinomial(samples, [lost, gained, 1 - lost - gained])
        off = generator.normal(1.0, 0.2, 2).clip(0.2)
        attempt = _attempt(samples, int(counts[0]), int(counts[1]), (lost * off[0], gained * off[1]))
        if promises(attempt, Goal(max_drop=limit), test_samples):
            promised += 1
            then = generator.multinomial(test_samples, [lost, gained, 1 - lost - gained])
            broken += answers_bound(int(then[0]), int(then[1]), test_samples, 0.95)[0] > limit
    # Of a truth that seldom passes, few are promised; what counts is how often a promise is made and broken.
    assert broken <= max(40 / 12, promised / 8)


def test_many_samples_outweigh_the_forecast_and_few_do_not() -> None:
    few, many = (
        projected_bound(_attempt(n, n // 100, n // 100, (0.02, 0.005)), 6000) - projected_bound(
            _attempt(n, n // 100, n // 100, (0.01, 0.01)), 6000
        )
        for n in (300, 100_000)
    )  # fmt: skip
    assert few > 3 * many >= 0


def test_nothing_lost_in_a_few_hundred_is_no_proof() -> None:
    assert projected_bound(_attempt(300, 0, 0, (0.004, 0.0)), 800) > answers_bound(0, 0, 800, 0.95)[0]
    assert projected_bound(_attempt(300, 0, 0, (0.0, 0.0)), 800) < 0.01


def test_a_relative_goal_is_held_to_its_own_limit() -> None:
    attempt = _attempt(4000, 8, 8, (0.002, 0.002))
    bound = projected_bound(attempt, 6000)
    tight = replace(attempt, check=replace(attempt.check, limit=0.9 * bound))
    assert promises(attempt, Goal(max_drop=1.1 * bound), 6000)
    assert not promises(tight, Goal(max_drop=1.1 * bound, relative=True), 6000)


def test_the_cheapest_in_the_goals_own_quantity_is_taken() -> None:
    one = replace(_attempt(4000, 0, 0, (1e-4, 0.0)), size_bytes=100, package_bytes=90.0, macs=7, milliseconds=2.0)
    two = replace(one, size_bytes=120, package_bytes=50.0, macs=9, milliseconds=1.0)
    pairs = [(one, None), (two, None)]  # the files don't matter
    assert best_attempt(pairs, Goal(), 6000)[0] is one  # type: ignore[arg-type]
    for quantity in ("package", "latency"):
        assert best_attempt(pairs, Goal(minimize=quantity), 6000)[0] is two  # type: ignore[arg-type]
    assert best_attempt(pairs, Goal(minimize="package", max_size_bytes=110), 6000)[0] is one  # type: ignore[arg-type]
    assert not within(two, Goal(max_latency_ms=0.5))
