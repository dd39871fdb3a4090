"""Metrics of errors: how far numbers lie from what they should be. Less is better."""

from __future__ import annotations

import math

import numpy as np
import torch

from featherweight.contracts import DataError
from featherweight.tasks.metrics.metric import Floats, SampleMetric, SetMetric, Weigh


def absolute_error(outputs: np.ndarray, labels: np.ndarray) -> Floats:
    """The absolute error, averaged over each sample's outputs, (n,); infinity where one isn't finite.

    (n, 1) and (n,) count as the same shape, either way round.

    Raises:
        DataError: shapes that don't fit.
    """
    return _averaged(np.abs(_errors(outputs, labels)))


def squared_error(outputs: np.ndarray, labels: np.ndarray) -> Floats:
    """The squared error, averaged over each sample's outputs, (n,); otherwise as :func:`absolute_error`."""
    return _averaged(np.square(_errors(outputs, labels)))


def _errors(outputs: np.ndarray, labels: np.ndarray) -> Floats:
    """``outputs − labels``, (n, numbers of a sample), in float64."""
    got = f"labels {labels.shape} for outputs {outputs.shape}"
    if outputs.ndim == 0 or len(labels) != len(outputs) or labels.size != outputs.size or labels.size == 0:
        raise DataError("Regression wants labels of the outputs' shape.", got, "give one number per output and sample")
    if labels.shape != outputs.shape and labels.size != len(labels):
        raise DataError("Regression wants labels of the outputs' shape.", got, "bring their axes into one order")
    rows = len(outputs)
    return outputs.reshape(rows, -1).astype(np.float64) - labels.reshape(rows, -1)


def _averaged(errors: Floats) -> Floats:
    error = errors.mean(axis=1)
    return np.where(np.isfinite(error), error, np.inf)


def _root(outputs: np.ndarray, labels: np.ndarray) -> Weigh:
    errors = squared_error(outputs, labels)
    if not np.isfinite(errors).all():
        got = f"{int((~np.isfinite(errors)).sum())} samples with NaN or infinite errors"
        raise DataError("The mean of squares wants finite errors.", got, "find the samples whose outputs aren't finite")
    squares = torch.from_numpy(errors)
    return lambda weights: torch.sqrt(weights @ squares / weights.sum(1))


def _root_largest(outputs: np.ndarray, labels: np.ndarray) -> float:
    """From the best to the worst sample seen; errors themselves know no limit."""
    squares = squared_error(outputs, labels)
    root = math.sqrt(squares.mean())
    return float(np.ptp(squares)) / (2.0 * root) if root > 0.0 else 0.0


_REGRESSION = ("regression",)
MEAN_ABSOLUTE_ERROR = SampleMetric(
    name="mean absolute error", higher_is_better=False, tasks=_REGRESSION, scores=absolute_error
)
MEAN_SQUARED_ERROR = SampleMetric(
    name="mean squared error", higher_is_better=False, tasks=_REGRESSION, scores=squared_error
)
ROOT_MEAN_SQUARED_ERROR = SetMetric(
    name="root mean squared error",
    higher_is_better=False,
    tasks=_REGRESSION,
    weigh=_root,
    decisive=lambda outputs, labels: squared_error(outputs, labels)[:, None],
    largest=_root_largest,
)
