"""The correction loop's reasoning on made-up histories, and the first budget."""

from __future__ import annotations

import numpy as np
import pytest

from featherweight.planning.correction import Trial, next_budget, starting_budget
from featherweight.tasks import CLASSIFICATION, REGRESSION


def _trial(budget: float, passed: bool, measured: float | None = None, exhausted: bool = False) -> Trial:
    return Trial(budget, budget, budget if measured is None else measured, passed, exhausted)


def test_it_starts_where_it_is_told() -> None:
    assert next_budget([], 0.25) == 0.25


def test_success_goes_further_until_nothing_cheaper_is_left() -> None:
    assert next_budget([_trial(0.1, True)], 0.1) == pytest.approx(0.4)
    assert next_budget([_trial(0.1, True, exhausted=True)], 0.1) is None


def test_failure_backs_off_by_how_far_the_prediction_was_off() -> None:
    assert next_budget([_trial(1.0, False)], 1.0) == pytest.approx(0.25)
    assert next_budget([_trial(1.0, False, measured=5.0)], 1.0) == pytest.approx(0.05)
    assert next_budget([_trial(1.0, False, measured=1e9)], 1.0) == pytest.approx(1 / 64)


def test_between_success_and_failure_it_closes_in() -> None:
    trials = [_trial(1.0, False), _trial(0.25, True)]
    assert next_budget(trials, 1.0) == pytest.approx(0.5)
    trials.append(_trial(0.5, True))
    trials.append(_trial(0.6, False))
    assert next_budget(trials, 1.0) is None


def test_the_gentlest_plan_that_fails_ends_the_search() -> None:
    assert next_budget([Trial(1e-3, 0.0, 0.1, False, False)], 1e-3) is None


@pytest.mark.parametrize("max_drop", [0.01, 0.05])
def test_noise_of_the_starting_budget_costs_about_the_drop(max_drop: float) -> None:
    outputs = np.random.default_rng(5).standard_normal((4000, 10)) * 3
    budget = starting_budget(outputs, CLASSIFICATION, max_drop)
    noise = np.random.default_rng(1).standard_normal(outputs.shape)
    low, high = 1e-4, 10.0
    for _ in range(40):
        middle = (low * high) ** 0.5
        beyond = CLASSIFICATION.divergence(outputs, outputs + middle * noise) > budget
        low, high = (low, middle) if beyond else (middle, high)
    changed = np.mean((outputs + low * noise).argmax(1) != outputs.argmax(1))
    assert changed == pytest.approx(max_drop, rel=0.35)


def test_a_larger_drop_allows_a_larger_budget_for_every_task() -> None:
    outputs = np.random.default_rng(5).standard_normal((500, 3))
    for task in (CLASSIFICATION, REGRESSION):
        budgets = [starting_budget(outputs, task, drop) for drop in (0.0, 0.01, 0.1)]
        assert budgets == sorted(budgets)
        assert budgets[0] > 0
