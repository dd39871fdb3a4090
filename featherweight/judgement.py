"""Which attempt to certify: what validation data promise about the test."""

from __future__ import annotations

import math
from collections.abc import Sequence

from featherweight.audit.bounds import answers_bound
from featherweight.contracts import Attempt, Goal
from featherweight.stages import Made

_SURE = 1.28  # standard deviations: nine test splits of ten lose no more than is reckoned with
_FORECASTS_ERROR = 0.3  # of a forecast's net loss, as a share of the answers that it sees lost


def projected_bound(attempt: Attempt, test_samples: int) -> float:
    """The drop's bound that the test split will show with good probability, from what validation data showed.

    For 0/1 metrics the net share of lost answers is estimated twice: counted, with half an answer more, which chance
    blurs by the root of the samples; and forecast, which is sharp, but off by some share of what it sees lost. Their
    mean under these two errors is what to expect; nine times in ten the test split loses no more than is reckoned with
    here. For other metrics the bound's margin is scaled by the root of the sizes.
    """
    check = attempt.check
    if check.lost is None or check.gained is None:
        return check.drop + (check.drop_bound - check.drop) * math.sqrt(check.samples / test_samples)
    lost, gained = (check.lost + 0.5) / check.samples, check.gained / check.samples
    blur = (lost + gained) / check.samples
    off = (_FORECASTS_ERROR * attempt.expected_lost) ** 2 + (0.5 / check.samples) ** 2
    trust = blur / (blur + off)  # in the forecast
    changed = _between(lost + gained, attempt.expected_lost + attempt.expected_gained, trust)
    net = _between(lost - gained, attempt.expected_lost - attempt.expected_gained, trust)
    net += _SURE * math.sqrt(blur * off / (blur + off) + changed / test_samples)
    lost_then = min(math.ceil((changed + net) / 2 * test_samples), test_samples)
    gained_then = max(0, min(math.floor((changed - net) / 2 * test_samples), test_samples - lost_then))
    return answers_bound(max(lost_then, math.ceil(net * test_samples), 0), gained_then, test_samples, check.confidence)[
        0
    ]


def _between(one: float, other: float, share: float) -> float:
    return (1 - share) * one + share * other


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
