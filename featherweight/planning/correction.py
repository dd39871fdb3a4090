"""The correction loop's reasoning: how far to let the next plan go, given what earlier plans did.

A budget is a limit on the summed predicted divergence. The first comes from the goal; then the loop brackets the
largest budget whose artefact still meets the goal. What was predicted and what was measured meet here: when a plan
diverged more than the table promised, the next budget shrinks by that factor too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from featherweight.contracts import Attempt, Goal, Quantity
from featherweight.tasks.task import Task

_STEP = 4.0
_LARGEST_STEP = 64.0
_CLOSE_ENOUGH = 1.25
_LITTLE = 1.25  # times a limit
_MARGIN = 0.998


@dataclass(frozen=True, slots=True)
class Trial:
    """One plan that was made and measured.

    Attributes:
        budget: the limit that the plan was allocated under.
        predicted, measured: divergence of the network's outputs.
        passed: whether the artefact promised to meet the goal on validation data.
        exhausted: whether no option of the table is cheaper.
    """

    budget: float
    predicted: float
    measured: float
    passed: bool
    exhausted: bool


def tightened(shares: Mapping[Quantity, float], attempt: Attempt, goal: Goal) -> Mapping[Quantity, float]:
    """Of every limit the share that the table's figures may take, once a file exceeded some by a little.

    Where a file is dearer than promised, the next plan's promise must be lower by as much, and a little more. What
    exceeds a limit by far is no error of prediction: nothing keeps such a limit.

    Args:
        shares: as they were; 1 where a quantity is missing.
        attempt: measured.
        goal: with the limits.

    Returns:
        The same shares where the file kept every limit.
    """
    tighter = dict(shares)
    for quantity, limit in goal.limits.items():
        if limit < attempt.of(quantity) < _LITTLE * limit:
            tighter[quantity] = shares.get(quantity, 1.0) * limit / attempt.of(quantity) * _MARGIN
    return tighter


def next_budget(trials: Sequence[Trial], start: float) -> float | None:
    """The budget to try next; None when the bracket is tight, or nothing cheaper or gentler is left."""
    if not trials:
        return start
    passed = [trial.budget for trial in trials if trial.passed]
    failed = [trial.budget for trial in trials if not trial.passed]
    if not failed:
        last = max(trials, key=lambda trial: trial.budget)
        return None if last.exhausted else last.budget * _STEP
    if not passed:
        gentlest = min(trials, key=lambda trial: trial.budget)
        return None if gentlest.predicted <= 0.0 else _shrunk(gentlest)
    low, high = max(passed), min(failed)
    if high <= low * _CLOSE_ENOUGH:
        return None
    return float(np.sqrt(low * high))


def _shrunk(trial: Trial) -> float:
    """Below what the failed plan predicted, by the step and by how much the prediction was off."""
    off = trial.measured / trial.predicted
    return min(trial.budget, trial.predicted) / float(np.clip(_STEP * off, _STEP, _LARGEST_STEP))


def starting_budget(outputs: np.ndarray, task: Task, max_drop: float, seed: int = 0) -> float:
    """The divergence at which random noise on the network's outputs would cost the goal's drop.

    Needs no labels: the network's own answers stand in. Noise is Gaussian in the outputs' own spread, its size found by
    bisection.

    Args:
        outputs: the original network's, (n, …).
        task: its answers, scores and divergence.
        max_drop: of the goal.
        seed: of the noise.
    """
    noise = np.random.default_rng(seed).standard_normal(outputs.shape) * outputs.std()
    answers = task.answers(outputs)
    perfect = float(np.mean(task.scores(outputs, answers)))
    low, high = 1e-4, 4.0
    for _ in range(30):
        middle = float(np.sqrt(low * high))
        drop = perfect - float(np.mean(task.scores(outputs + middle * noise, answers)))
        low, high = (low, middle) if drop > max_drop else (middle, high)
    return max(float(task.divergence(outputs, outputs + low * noise)), 1e-12)
