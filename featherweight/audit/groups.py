"""What every class or group of the test samples loses, with bounds that hold for all of them together.

Looking at k groups gives chance k occasions, so each bound is made at ``1 − α/k`` (Bonferroni): the probability that
any of them is off is α at most, however the groups hang together. A group's size is taken as given.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from featherweight.audit.bounds import Bound, shares_bound
from featherweight.audit.certificate import MOST_SAMPLES, samples_needed, smallest_count
from featherweight.audit.measure import Measured, Pair, measured, sample_scores
from featherweight.audit.statement import Words, rounded_up
from featherweight.contracts import Goal, GroupProof
from featherweight.tasks.metrics import Metric

_SHOWN = 3  # groups that are named in the certificate's sentence


def group_proofs(
    metric: Metric, pair: Pair, targets: np.ndarray, groups: np.ndarray, goal: Goal
) -> tuple[GroupProof, ...]:
    """A proof for every group, the one that loses most first.

    Args:
        metric: a mean over samples.
        pair: outputs of the original and of the artefact, (n, …) each.
        targets: (n, …).
        groups: the group's name of every sample, (n,) text.
        goal: its ``max_group_drop`` is what each may lose; None asks for the bounds alone.
    """
    names, members = np.unique(groups, return_inverse=True)
    limit = goal.max_drop if goal.max_group_drop is None else goal.max_group_drop
    each = replace(goal, max_drop=limit, max_group_drop=None, confidence=1.0 - (1.0 - goal.confidence) / len(names))
    words = Words.of(metric, limit)
    proofs = []
    for place, name in enumerate(names.tolist()):
        rows = np.flatnonzero(members == place)
        part = (pair[0][rows], pair[1][rows])
        proofs.append(_proof(name, metric, part, targets[rows], each, words))
    proofs = [replace(one, metric=metric.name, points=metric.points) for one in proofs]
    if goal.max_group_drop is None:
        proofs = [replace(one, holds=True, samples_needed=None, statement=_plain(one, words)) for one in proofs]
    return tuple(sorted(proofs, key=lambda one: (-one.drop, one.group)))


def _proof(name: str, metric: Metric, pair: Pair, targets: np.ndarray, goal: Goal, words: Words) -> GroupProof:
    if len(targets) < 2:
        return _alone(name, metric, pair, targets, goal)
    found = measured(metric, pair, targets, goal, answers=shares_bound)
    bound = found.bound
    needed = None if bound.upper <= found.limit else _needed(bound, found.limit)
    return GroupProof(
        group=name,
        samples=bound.samples,
        original=found.original,
        artefact=found.artefact,
        drop=bound.drop,
        drop_bound=bound.upper,
        holds=bound.upper <= found.limit,
        statement=_statement(found, words, needed),
        samples_needed=needed,
    )


def _alone(name: str, metric: Metric, pair: Pair, targets: np.ndarray, goal: Goal) -> GroupProof:
    """A group of one sample: figures, and no claim."""
    before, after = (float(sample_scores(metric, outputs, targets).mean()) for outputs in pair)
    needed = _needed(Bound("shares", 1, 0.0, 1.0, goal.confidence, 0, 0), goal.max_drop)
    text = f"One sample supports no claim; about {rounded_up(needed or 2):,} would, if no answer is lost."
    return GroupProof(name, 1, before, after, metric.sign * (before - after), None, False, text, needed)


def _needed(bound: Bound, limit: float) -> int | None:
    """Samples of a group that would do at its rates; None where more don't help."""
    if bound.lost is None or bound.gained is None:
        return samples_needed(bound, limit)
    lost, gained = bound.lost / bound.samples, bound.gained / bound.samples

    def holds(samples: int) -> bool:
        return shares_bound(lost * samples, gained * samples, samples, bound.confidence)[0] <= limit

    return smallest_count(holds, bound.samples) if bound.drop < limit and holds(MOST_SAMPLES) else None


def _statement(found: Measured, words: Words, needed: int | None) -> str:
    """What a group loses at most under a goal, or why the goal can't be shown."""
    bound, told = found.bound, _at_most(found.bound.upper, words)
    if bound.upper <= found.limit:
        return f"{told}."
    if needed is None:
        return f"{words.changes(bound.drop).capitalize()} {words.near(bound.drop)} itself: more samples would not help."
    enough = f"about {rounded_up(needed):,} would do at these rates"
    return f"{told}: too few samples for the goal of {words.goal(found.limit)}; {enough}."


def _plain(one: GroupProof, words: Words) -> str:
    """What a group loses at most, where there is no goal for groups."""
    return "One sample supports no claim." if one.drop_bound is None else f"{_at_most(one.drop_bound, words)}."


def _at_most(upper: float, words: Words) -> str:
    most = "most" if upper >= 0.0 else "least"
    return f"{words.changes(upper).capitalize()} at {most} {words.above(upper)}"


def groups_statement(proofs: Sequence[GroupProof], goal: Goal, metric: Metric) -> str:
    """One sentence about all groups under a goal for each; empty where there is no such goal."""
    if goal.max_group_drop is None:
        return ""
    unit = Words.of(metric, goal.max_group_drop).goal(goal.max_group_drop)
    unit = f"{100.0 * goal.max_group_drop:.10g} %" if goal.relative else unit
    failed = [one for one in proofs if not one.holds]
    if not failed:
        return f"None of {len(proofs)} groups loses more than {unit}, for all of them at once."
    shown = ", ".join(
        f"{one.group} ({one.samples:,} sample{'s' if one.samples > 1 else ''})" for one in failed[:_SHOWN]
    )
    more = f" and {len(failed) - _SHOWN} more" if len(failed) > _SHOWN else ""
    needs = [one.samples_needed for one in failed]
    if any(need is None for need in needs):
        help_ = "for some the loss itself is too large"
    else:
        help_ = f"groups of about {rounded_up(max(need for need in needs if need is not None)):,} samples would do"
    return (
        f"The goal of {unit} at most for every group can't be shown for {len(failed)} of {len(proofs)}: "
        f"{shown}{more}; {help_}."
    )
