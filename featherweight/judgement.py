"""Which attempt to certify: what validation data promise about the test."""

from __future__ import annotations

import math
from collections.abc import Sequence

from featherweight.audit.bounds import answers_bound
from featherweight.contracts import Attempt, Certificate, Goal
from featherweight.stages import Made


def projected_bound(check: Certificate, test_samples: int) -> float:
    """The drop's bound to expect on the test split, from rates seen on validation data.

    For 0/1 metrics the counts are scaled to the test split's size, with half a lost answer more than was seen: picking
    the best of several attempts flatters. For other metrics the bound's margin is scaled by the root of the sizes.
    """
    scale = test_samples / check.samples
    if check.lost is None or check.gained is None:
        return check.drop + (check.drop_bound - check.drop) * math.sqrt(1 / scale)
    lost = math.ceil((check.lost + 0.5) * scale)
    gained = math.floor(check.gained * scale)
    return answers_bound(min(lost, test_samples - gained), gained, test_samples, check.confidence)[0]


def promises(check: Certificate, goal: Goal, test_samples: int) -> bool:
    """Whether validation data promise that the certificate will hold on the test split."""
    return projected_bound(check, test_samples) <= goal.max_drop


def best_attempt(attempts: Sequence[tuple[Attempt, Made]], goal: Goal, test_samples: int) -> tuple[Attempt, Made]:
    """The cheapest attempt that promises to hold; where none does, the one that comes nearest."""
    quantity = (lambda one: one[0].size_bytes) if goal.minimize == "size" else (lambda one: one[0].macs)
    fitting = [one for one in attempts if promises(one[0].check, goal, test_samples) and within(one[0], goal)]
    if fitting:
        return min(fitting, key=quantity)
    return min(attempts, key=lambda one: (not within(one[0], goal), projected_bound(one[0].check, test_samples)))


def within(attempt: Attempt, goal: Goal) -> bool:
    """Whether the file keeps the goal's limits on bytes and MACs."""
    return (goal.max_size_bytes is None or attempt.size_bytes <= goal.max_size_bytes) and (
        goal.max_macs is None or attempt.macs <= goal.max_macs
    )
