"""What a task means: data in splits, scores, divergence. A new task is one file here and one line in ``TASKS``."""

from __future__ import annotations

from featherweight.contracts import UsageError
from featherweight.tasks.classification import CLASSIFICATION
from featherweight.tasks.data import Batch, Data, Split
from featherweight.tasks.images import read_image_folder
from featherweight.tasks.metrics import METRICS, Metric, metric_by_name, own_metric
from featherweight.tasks.multilabel import MULTI_LABEL
from featherweight.tasks.regression import REGRESSION
from featherweight.tasks.source import load_data
from featherweight.tasks.task import Task
from featherweight.tasks.validation import example_of, validate

TASKS: tuple[Task, ...] = (CLASSIFICATION, REGRESSION, MULTI_LABEL)


def task_by_name(name: str) -> Task:
    """The task of that name.

    Raises:
        UsageError: there is none.
    """
    for task in TASKS:
        if task.name == name:
            return task
    known = ", ".join(task.name for task in TASKS)
    raise UsageError(f"The task must be one of: {known}.", repr(name), f"--task {TASKS[0].name}")


__all__ = [
    "CLASSIFICATION",
    "METRICS",
    "MULTI_LABEL",
    "REGRESSION",
    "TASKS",
    "Batch",
    "Data",
    "Metric",
    "Split",
    "Task",
    "example_of",
    "load_data",
    "metric_by_name",
    "own_metric",
    "read_image_folder",
    "task_by_name",
    "validate",
]
