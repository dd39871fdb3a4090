"""A forecast of what a test will show, from validation outputs: steers the search, proves nothing.

Counting the answers that changed on a few hundred samples says little: nothing lost in 300 is no surprise at a true
rate of one in 200. But every sample also tells how far its outputs moved. Moving each sample's outputs by the error of
*another* sample, over many exchanges, asks the same question a hundred times as often.
"""

from __future__ import annotations

import numpy as np

from featherweight.tasks.task import Task

_EXCHANGES = 64


def forecast(
    reference: np.ndarray, outputs: np.ndarray, labels: np.ndarray, task: Task, seed: int = 0
) -> tuple[float, float]:
    """Expected shares of answers that turn wrong and that turn right.

    Assumes that a sample's error has little to do with the sample; where hard samples move more it is too hopeful, so
    callers take the worse of this and of what was counted.

    Args:
        reference: the original's outputs, (n, …).
        outputs: the artefact's, same shape.
        labels: of the samples.
        task: a task with 0/1 scores.
        seed: of the exchanges.
    """
    generator = np.random.default_rng(seed)
    errors = np.nan_to_num(outputs - reference, nan=1e9, posinf=1e9, neginf=-1e9)
    before = task.scores(reference, labels) > 0.5
    lost = gained = 0.0
    for _ in range(_EXCHANGES):
        after = task.scores(reference + errors[generator.permutation(len(errors))], labels) > 0.5
        lost += float(np.mean(before & ~after))
        gained += float(np.mean(~before & after))
    return lost / _EXCHANGES, gained / _EXCHANGES
