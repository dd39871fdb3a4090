"""How good outputs are: the metrics that a certificate can speak about. A new one is one value and one line."""

from __future__ import annotations

import re

from featherweight.contracts import DataError, UsageError
from featherweight.frontends.source import function_of
from featherweight.spelling import nearest
from featherweight.tasks.metrics.answers import ACCURACY, F1, F1_BINARY, PERPLEXITY, top
from featherweight.tasks.metrics.errors import MEAN_ABSOLUTE_ERROR, MEAN_SQUARED_ERROR, ROOT_MEAN_SQUARED_ERROR
from featherweight.tasks.metrics.metric import Metric, SampleMetric, SetMetric
from featherweight.tasks.metrics.own import OwnMetric, own_metric
from featherweight.tasks.metrics.ranking import AUC, AVERAGE_PRECISION

METRICS: dict[str, Metric] = {
    "accuracy": ACCURACY,
    "f1": F1,
    "f1-binary": F1_BINARY,
    "auc": AUC,
    "map": AVERAGE_PRECISION,
    "perplexity": PERPLEXITY,
    "mae": MEAN_ABSOLUTE_ERROR,
    "mse": MEAN_SQUARED_ERROR,
    "rmse": ROOT_MEAN_SQUARED_ERROR,
}


def metric_by_name(name: str, *, higher_is_better: bool | None = None) -> Metric:
    """The metric behind a word of the command line.

    Args:
        name: one of ``METRICS``, ``top-5`` or another k, or a function of yours of outputs and targets as
            ``file.py:function`` or ``package.module:function``.
        higher_is_better: of a function of yours, where it doesn't say so itself.

    Raises:
        UsageError: there is no such metric, or a direction came with one of ours.
        DataError: there is no such function.
    """
    if ":" in name:
        found = function_of(name, DataError, 2)
        return own_metric(found, name.rpartition(":")[2], higher_is_better=higher_is_better)
    if higher_is_better is not None:
        raise UsageError("Only a metric of your own needs a direction.", name, "leave it out")
    if match := re.fullmatch(r"top-?(\d{1,4})", name.lower()):
        return top(int(match[1]))
    if name.lower() in METRICS:
        return METRICS[name.lower()]
    known = [*METRICS, "top-5"]
    raise UsageError(
        f"The metric must be one of: {', '.join(known)}, or a function of yours.",
        repr(name),
        nearest(name.lower(), known),
    )


__all__ = [
    "ACCURACY",
    "METRICS",
    "Metric",
    "OwnMetric",
    "SampleMetric",
    "SetMetric",
    "metric_by_name",
    "own_metric",
]
