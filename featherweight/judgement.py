"""Which attempt to certify: what validation data promise about the test."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from scipy.special import pdtr  # scipy.stats has it by a better name, and takes a second to import

from featherweight.audit.bounds import answers_bound
from featherweight.contracts import Attempt, Goal
from featherweight.stages import Made

_SURE = 0.95  # the share of test splits that lose no more than is reckoned with


def projected_bound(attempt: Attempt, test_samples: int) -> float:
    """The drop's bound that the test split will show with good probability, from what validation data showed.

    For 0/1 metrics the rate of lost answers is the worse of what was counted (with half an answer more) and of what was
    forecast, and nineteen times in twenty the test split loses no more than is reckoned with here. For other metrics
    the bound's margin is scaled by the root of the sizes.
    """
    check = attempt.check
    if check.lost is None or check.gained is None:
        return check.drop + (check.drop_bound - check.drop) * math.sqrt(check.samples / test_samples)
    lost_rate = max((check.lost + 0.5) / check.samples, attempt.expected_lost)
    gained_rate = min(check.gained / check.samples, attempt.expected_gained)
    counts = np.arange(test_samples + 1)
    lost = int(np.searchsorted(pdtr(counts, lost_rate * test_samples), _SURE).clip(max=test_samples))
    gained = min(int(gained_rate * test_samples), test_samples - lost)
    return answers_bound(lost, gained, test_samples, check.confidence)[0]


def promises(attempt: Attempt, goal: Goal, test_samples: int) -> bool:
    """Whether validation data promise that the certificate will hold on the test split, in every group too."""
    limit = goal.max_drop if attempt.check.limit is None else attempt.check.limit
    return projected_bound(attempt, test_samples) <= limit and _groups_promise(attempt, goal, test_samples)


def _groups_promise(attempt: Attempt, goal: Goal, test_samples: int) -> bool:
    """Margins of groups shrink with the root of their sizes, which grow with the split's."""
    if goal.max_group_drop is None:
        return True
    shrinking = math.sqrt(attempt.check.samples / test_samples)
    return all(
        group.drop_bound is not None and group.drop + (group.drop_bound - group.drop) * shrinking <= goal.max_group_drop
        for group in attempt.check.groups
    )


def best_attempt(attempts: Sequence[tuple[Attempt, Made]], goal: Goal, test_samples: int) -> tuple[Attempt, Made]:
    """The cheapest attempt that promises to hold; where none does, the one that comes nearest."""
    fitting = [one for one in attempts if promises(one[0], goal, test_samples) and within(one[0], goal)]
    if fitting:
        return min(fitting, key=lambda one: one[0].of(goal.minimize))
    return min(attempts, key=lambda one: (not within(one[0], goal), projected_bound(one[0], test_samples)))


def within(attempt: Attempt, goal: Goal) -> bool:
    """Whether the file keeps the goal's limits, as measured."""
    return all(attempt.of(quantity) <= limit for quantity, limit in goal.limits.items())
