"""A metric of the user's own: a function of outputs and targets, for the whole set or for each sample."""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from featherweight.contracts import DataError, FeatherweightError
from featherweight.tasks.metrics.metric import Floats, Metric

Function = Callable[[np.ndarray, np.ndarray], Any]
_SHUFFLES = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnMetric(Metric):
    """A user's function, and nothing taken for granted about it.

    Attributes:
        function: (outputs (n, …), targets (n, …)) → a number for the whole set, or an array (n,) of scores whose mean
            is the metric.
        digest: of the function's source, so that a run knows when it changed.
    """

    function: Function
    digest: str = ""

    def scores_or_value(self, outputs: np.ndarray, targets: np.ndarray) -> Floats:
        """What the function gives: (n,) scores of the samples, or () for the set, float64 and finite.

        Raises:
            DataError: it raises, or gives anything else.
        """
        try:
            given = self.function(outputs, targets)
            found = np.asarray(given.detach().cpu() if hasattr(given, "detach") else given)
        except FeatherweightError:
            raise
        except (Exception, SystemExit) as failure:  # user code
            last = (str(failure).strip().splitlines() or [""])[-1]
            got = f"{type(failure).__name__}: {last}"
            remedy = f"call it from Python with outputs {outputs.shape} and targets {targets.shape}, and mend it there"
            raise DataError(f"The metric {self.name} must return without an error.", got, remedy) from failure
        if found.dtype.kind not in "biuf" or found.shape not in ((), (1,), (len(outputs),)):
            got = f"a {type(given).__name__} of type {found.dtype} and shape {found.shape} for {len(outputs)} samples"
            remedy = "return a float for the set, or an array (samples,)"
            raise DataError(f"The metric {self.name} gives one number, or one for every sample.", got, remedy)
        if not np.isfinite(found).all():
            got = f"{int((~np.isfinite(found)).sum())} of {found.size} numbers that are NaN or infinite"
            remedy = "find out in Python for which samples, and give those a finite score"
            raise DataError(f"The metric {self.name} must be finite.", got, remedy)
        return found.astype(np.float64).reshape(() if found.shape == (1,) and len(outputs) != 1 else found.shape)

    def value(self, outputs: np.ndarray, targets: np.ndarray) -> float:
        """The metric of a set: what the function gives, or the mean of it.

        Raises:
            DataError: see :meth:`scores_or_value`.
        """
        return float(self.scores_or_value(outputs, targets).mean())

    def check_direction(self, outputs: np.ndarray, targets: np.ndarray) -> None:
        """Refuses a metric by which the original's own outputs are worse than the same outputs dealt out anew.

        Args:
            outputs: the original's, (n, …).
            targets: (n, …).

        Raises:
            DataError: it moves the wrong way, never moves, or doesn't give the same twice.
        """
        own, random = self.value(outputs, targets), np.random.default_rng(0)
        if self.value(outputs, targets) != own:
            got = "two answers for the same outputs and targets"
            raise DataError(f"The metric {self.name} must give the same twice.", got, "leave chance out of it")
        shuffled = [self.value(outputs[random.permutation(len(outputs))], targets) for _ in range(_SHUFFLES)]
        usual = float(np.median(shuffled))
        better = "higher" if self.higher_is_better else "lower"
        rule = f"The metric {self.name} must tell good outputs from shuffled ones, {better} being better."
        got = f"{own:.6g} for the original's outputs, {usual:.6g} for the same outputs in another order"
        other = "lower" if self.higher_is_better else "higher"
        if self.sign * usual > self.sign * own:
            raise DataError(rule, got, f"say that {other} is better, or mend the order of outputs and targets in it")
        if len({own, *shuffled}) == 1:
            raise DataError(rule, got, "let it depend on outputs and targets: it never moves")


def own_metric(function: Function, name: str = "", *, higher_is_better: bool | None = None) -> OwnMetric:
    """A metric from a function of outputs and targets.

    Args:
        function: (outputs, targets) → a float, or an array (n,) of scores whose mean is the metric.
        name: in reports; the function's own where it is left out.
        higher_is_better: left out, the function's attribute ``higher_is_better`` says so, and without one it is True.
    """
    declared = getattr(function, "higher_is_better", True) if higher_is_better is None else higher_is_better
    if not isinstance(declared, bool):
        raise DataError("A metric's higher_is_better is True or False.", repr(declared), "set it on the function")
    try:
        source = inspect.getsource(function)
    except (OSError, TypeError):
        source = repr(getattr(function, "__qualname__", function))
    digest = hashlib.sha256(source.encode("utf-8", "backslashreplace")).hexdigest()
    shown = name or getattr(function, "__name__", "own metric")
    return OwnMetric(name=shown, higher_is_better=declared, tasks=(), function=function, digest=digest)
