"""Verify: two callables and data; how the artefact was made can't be seen from here."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from featherweight.audit.certificate import certify
from featherweight.audit.churn import churn_of
from featherweight.audit.groups import group_proofs, groups_statement
from featherweight.contracts import Certificate, Churn, DataError, Goal, Parity
from featherweight.progress import track
from featherweight.tasks.data import Split
from featherweight.tasks.metrics import Metric, OwnMetric, SampleMetric
from featherweight.tasks.metrics.answers import answers_of
from featherweight.tasks.task import Task

Outputs = Callable[[tuple[np.ndarray, ...]], np.ndarray]
_BATCH = 64


def outputs_of(model: Outputs, split: Split, what: str = "running") -> np.ndarray:
    """A model's outputs on a split, (n, …), batch by batch, with progress shown."""
    count = -(-len(split) // _BATCH)
    rows = [model(tuple(x.numpy() for x in batch.inputs)) for batch in track(split.batches(_BATCH), what, total=count)]
    return np.concatenate(rows)


def labels_of(split: Split, reference: np.ndarray, task: Task) -> np.ndarray:
    """The split's labels; the original's own answers where there are none."""
    return task.answers(reference) if split.labels is None else np.asarray(split.labels)


def compare(
    reference: np.ndarray,
    outputs: np.ndarray,
    split: Split,
    task: Task,
    goal: Goal,
    class_names: tuple[str, ...] = (),
) -> Certificate:
    """The certificate from the outputs of the original and of the artefact on one split.

    Groups are the split's own; without any, the classes of a task with one label per sample.

    Args:
        reference, outputs: of the original and of the artefact, (n, …).
        split: the samples.
        task: its metric is certified.
        goal: the drop that is allowed, of all samples and of each group, and how sure to be.
        class_names: of the classes by their numbers, where they are known.

    Raises:
        DataError: the metric can't be had from these outputs and labels, or a goal for groups without groups.
    """
    metric, pair = task.metric, (reference, outputs)
    if metric.needs_labels and split.labels is None:
        got = "samples without labels"
        raise DataError(f"The metric {metric.name} needs labels.", got, "add labels, or choose another metric")
    labels = labels_of(split, reference, task)
    if isinstance(metric, OwnMetric):
        metric.check_direction(reference, labels)
    made = certify(metric, pair, labels, goal)
    groups = _groups_of(split, labels, task, class_names)
    if groups is None and goal.max_group_drop is not None:
        got = f"samples without groups, and the task {task.name}, which has no classes"
        raise DataError("A limit for every group needs groups.", got, "give the splits as (x, y, groups)")
    by_sample = metric if _is_mean(metric, reference, labels) else task.by_sample
    proofs = () if groups is None else group_proofs(by_sample, pair, labels, groups, goal)
    return replace(
        made,
        holds=made.holds and all(one.holds for one in proofs),
        statement=" ".join(filter(None, (made.statement, groups_statement(proofs, goal, by_sample)))),
        churn=_churn(pair, labels, task),
        groups=proofs,
    )


def _groups_of(split: Split, labels: np.ndarray, task: Task, class_names: tuple[str, ...]) -> np.ndarray | None:
    """The group's name of every sample, (n,); None where there are neither groups nor classes."""
    if split.groups is not None:
        return split.groups
    if not task.binary or labels.ndim != 1:
        return None
    numbers, places = np.unique(labels, return_inverse=True)
    names = [class_names[number] if number < len(class_names) else f"class {number}" for number in numbers.tolist()]
    return np.array(names)[places]


def _is_mean(metric: Metric, reference: np.ndarray, labels: np.ndarray) -> bool:
    """Whether a metric is a mean over samples, so that it can be taken of each group alone."""
    if isinstance(metric, OwnMetric):
        return metric.scores_or_value(reference, labels).ndim == 1
    return isinstance(metric, SampleMetric)


def _churn(pair: tuple[np.ndarray, np.ndarray], labels: np.ndarray, task: Task) -> Churn | None:
    """How many answers changed, of a task whose outputs stand for answers that are right or wrong."""
    if not task.binary:
        return None
    before, after = (answers_of(outputs) for outputs in pair)
    return churn_of(before, after, labels)


def verify(
    original: Outputs,
    artefact: Outputs,
    split: Split,
    task: Task,
    goal: Goal,
    class_names: tuple[str, ...] = (),
) -> Certificate:
    """Run both on data that no earlier stage saw, and say what that proves.

    Args:
        original, artefact: callables on batches (arrays, batch first), each in its own runtime.
        split: test samples.
        task: scores the outputs.
        goal: the drop that is allowed, and how sure to be.
        class_names: of the classes by their numbers, where they are known.
    """
    reference = outputs_of(original, split, "running the original on test data")
    outputs = outputs_of(artefact, split, "running the artefact on test data")
    return compare(reference, outputs, split, task, goal, class_names)


def parity(expected: np.ndarray, found: np.ndarray, task: Task) -> Parity:
    """How well an artefact's outputs agree with those of the network that it was lowered from, (n, …) each.

    Raises:
        DataError: the network's outputs aren't finite.
    """
    rows = task.answers(expected) == task.answers(np.nan_to_num(found))
    difference = np.abs(expected.astype(np.float64) - found.astype(np.float64))
    return Parity(
        samples=len(expected),
        largest=float(difference.max()),
        mean=float(difference.mean()),
        spread=float(expected.std()),
        same_answers=float(np.mean(rows.reshape(len(rows), -1).all(1))),
    )
