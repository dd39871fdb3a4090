"""The search over the few global knobs: what a plan is calibrated on, how weights are refit and rounded.

The plan stays; what turns is how it is carried out. Every trial is a file in the target's runtime, and what counts is
how far its outputs diverge from the original's on validation data: no label is looked at. Trials are proposed by a
tree-structured Parzen estimator (Bergstra et al. 2011, "Algorithms for hyper-parameter optimization", NeurIPS), the
defaults first.

Only finished trials are kept, each in one transaction, and a proposal depends on those before it and on the seed alone:
a search that was interrupted goes on as if nothing had happened. A trial whose plan can't be made into a file that runs
is finished, too: it is kept with its reason, as pruned, so that the estimator keeps away from such knobs.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import sqlite3
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from featherweight.contracts import (
    Attempt,
    DataError,
    FeatherweightError,
    Knobs,
    LoweringError,
    ModelError,
    Plan,
    PlanError,
    RunError,
    Scalar,
    UsageError,
)
from featherweight.numerics.ranges import RANGE_SEARCHES
from featherweight.planning.plans import plan_text
from featherweight.planning.rules.rule import Rules
from featherweight.progress import track
from featherweight.runs import Run, key_of
from featherweight.stages import Job, Made, Reference, attempt, pool_of

FILE = "search.db"
_SIZES = (128, 256, 512, 1024)
_DRAWS = 4
_DAMPINGS = (1e-5, 1e-1)
_RANDOM_TRIALS = 5  # before the estimator has seen enough to propose
_TABLES = frozenset({"version_info", "studies", "trials"})
_FAILURES: Mapping[str, type[FeatherweightError]] = {
    kind.__name__: kind for kind in (LoweringError, PlanError, ModelError, DataError)
}
"""What can be a trial's own fault; a folder that can't be written or a missing runtime is no trial's."""

_FAILURE = "failure"  # the attribute of a failed trial: kind, rule, what came, what to try


@dataclass(frozen=True)
class _Space:
    """Knobs that make a difference to a plan, each with its values; of a pair, a range of reals on a log scale.

    Attributes:
        choices: knob → values.
        ranges: knob → lowest and highest.
        pool: how many samples there are to calibrate on.
    """

    choices: Mapping[str, Sequence[Scalar]]
    ranges: Mapping[str, tuple[float, float]]
    pool: int

    @classmethod
    def of(cls, plan: Plan, pool: int) -> _Space:
        steps = [step for steps in plan.choices.values() for step in steps]
        if not steps:
            return cls({}, {}, pool)
        choices: dict[str, Sequence[Scalar]] = {"refit": (True, False)}
        ranges = {"damping": _DAMPINGS}
        if pool > _SIZES[0]:
            choices["samples"] = [0, *(size for size in _SIZES if size < pool)]
            choices["draw"] = range(_DRAWS)
        if any(step.settings.get("activations") == "int8" for step in steps):
            choices["ranges"] = list(RANGE_SEARCHES)
        if any(step.method == "quantization" and step.settings.get("weights") == "int8" for step in steps):
            choices["largest_first"] = (True, False)
            ranges["rounding_damping"] = _DAMPINGS
        return cls(choices, ranges, pool)

    @property
    def defaults(self) -> dict[str, Scalar]:
        return {name: getattr(Knobs(), name) for name in (*self.choices, *self.ranges)}

    @property
    def distributions(self) -> dict[str, Any]:
        made = importlib.import_module("optuna.distributions")
        return {
            **{name: made.CategoricalDistribution(list(values)) for name, values in self.choices.items()},
            **{name: made.FloatDistribution(*ends, log=True) for name, ends in self.ranges.items()},
        }

    def knobs(self, values: Mapping[str, Any]) -> Knobs:
        """The knobs; of all the samples there is only one draw, and without a refit no damping of it."""
        knobs = Knobs(**values)
        if knobs.samples >= self.pool:
            knobs = replace(knobs, samples=Knobs().samples, draw=0)
        return knobs if knobs.refit else replace(knobs, damping=Knobs().damping)


def check_search(folder: Path, rules: Rules) -> None:
    """What a search needs is there: said before anything else is spent.

    Raises:
        UsageError: optuna isn't installed.
        RunError: the database can't be used.
    """
    if importlib.util.find_spec("optuna") is None:
        raise UsageError(
            "The search over the global knobs needs its extra.",
            "the package optuna isn't installed",
            'pip install -e ".[search]"',
        )
    with _Database(folder, rules.storage).opened():
        pass


def search(run: Run, job: Job, plan: Plan, original: Reference) -> list[tuple[Attempt, Made]]:
    """The trials of a plan with other knobs, the defaults first; none where no knob makes a difference.

    A trial that fails is told on standard error and left out.

    Args:
        run: its folder holds the database, and every trial's file.
        job: its rules say how many trials there are; those that are finished count, failed ones too.
        plan: what is carried out.
        original: what outputs are compared with.

    Raises:
        RunError: the database can't be used.
        LoweringError, PlanError, ModelError, DataError: every trial failed; the first one's reason.
    """
    space = _Space.of(plan, len(pool_of(job)))
    if not space.defaults:
        return []
    key = key_of({"run": run.key, "plan": plan_text(plan), "untouched": sorted(job.untouched), "space": repr(space)})
    found: list[tuple[Attempt, Made]] = []
    failures: list[FeatherweightError] = []
    with _Database(run.folder, job.rules.storage).opened() as database:
        finished = database.finished(key, space)
        for number in track(range(job.rules.search), "searching the global knobs"):
            kept = finished[number] if number < len(finished) else None
            values = _proposed(finished, space, key) if kept is None else kept.params
            tried = replace(plan, knobs=space.knobs(values))
            outcome = _failure_of(kept) or _tried(run, job, number + 1, tried, original)
            if isinstance(outcome, FeatherweightError):
                failures.append(outcome)
                _tell(number + 1, tried.knobs, outcome)
            else:
                found.append(outcome)
            if kept is None:
                result = outcome if isinstance(outcome, FeatherweightError) else outcome[0].measured_divergence
                finished.append(database.keep(key, space, values, result))
    if failures and not found:
        raise failures[0]
    return found


def _tried(
    run: Run, job: Job, number: int, plan: Plan, original: Reference
) -> tuple[Attempt, Made] | FeatherweightError:
    """A trial, or why there is none: what a plan with other knobs can't be made into is no reason to stop."""
    try:
        return attempt(run, job, number, plan, original)
    except tuple(_FAILURES.values()) as error:
        return error
    except RuntimeError as error:  # a runtime or a decomposition (torch's LinAlgError) that gives up on these numbers
        line = next(iter(str(error).splitlines()), "") or type(error).__name__
        failure = LoweringError("A trial must become a file that runs.", line, "other knobs, or report the fault")
        failure.__cause__ = error
        return failure


def _failure_of(trial: Any) -> FeatherweightError | None:
    """Why a trial failed, as it was kept; None of one that didn't, or that isn't there yet.

    Raises:
        ValueError: it failed without a reason.
    """
    if trial is None or trial.value is not None:
        return None
    told = trial.user_attrs.get(_FAILURE)
    if not isinstance(told, list) or len(told) != 4 or not all(isinstance(part, str) for part in told):
        raise ValueError("a trial that failed without a reason")
    return _FAILURES.get(told[0], LoweringError)(*told[1:])


def _tell(number: int, knobs: Knobs, failure: FeatherweightError) -> None:
    """Say on standard error that a trial is left out, and why."""
    got = " ".join(failure.got.split())
    sys.stderr.write(f"featherweight: trial {number} of the search ({knobs}) is left out: {failure.rule} got: {got}\n")


def _proposed(finished: Sequence[Any], space: _Space, key: str) -> dict[str, Any]:
    """The values of the next trial, given those before it."""
    if not finished:
        return space.defaults
    optuna = importlib.import_module("optuna")
    # A sampler of its own for every trial: where a search goes on, no generator's state is lost.
    seed = int(key_of({"study": key, "number": len(finished)})[:8], 16)
    sampler = optuna.samplers.TPESampler(seed=seed, n_startup_trials=_RANDOM_TRIALS)
    with _quiet():
        study = optuna.create_study(sampler=sampler)
        study.add_trials(finished)
        return dict(study.ask(space.distributions).params)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Optuna tells of every study and trial; a person sees our progress instead."""
    logging = importlib.import_module("optuna.logging")
    before = logging.get_verbosity()
    logging.set_verbosity(logging.ERROR)
    try:
        yield
    finally:
        logging.set_verbosity(before)


class _Database:
    """Finished trials, in SQLite beside the run or wherever a URL points.

    Args:
        folder: of the run.
        url: of another database; empty for the run's own.
    """

    def __init__(self, folder: Path, url: str) -> None:
        self._path, self._url = folder / FILE, url
        self._storage: Any = None

    @contextlib.contextmanager
    def opened(self) -> Iterator[_Database]:
        """Open while the block runs."""
        with self._told():
            self._storage = self._connected()
        try:
            yield self
        finally:
            self._storage.remove_session()
            self._storage.engine.dispose()

    def finished(self, key: str, space: _Space) -> list[Any]:
        """The finished trials of a study, in order; those that failed are pruned ones."""
        state = importlib.import_module("optuna").trial.TrialState
        with self._told(), _quiet():
            trials = list(self._study(key).get_trials(states=(state.COMPLETE, state.PRUNED)))
            if any(trial.distributions != space.distributions for trial in trials):
                raise ValueError("a trial that turns other knobs")
            for trial in trials:
                _failure_of(trial)
        return trials

    def keep(self, key: str, space: _Space, values: Mapping[str, Any], result: float | FeatherweightError) -> Any:
        """Write a finished trial, its divergence or why it failed, whole or not at all."""
        optuna = importlib.import_module("optuna")
        made: dict[str, Any] = {"params": dict(values), "distributions": space.distributions}
        if isinstance(result, FeatherweightError):
            kind = type(result).__name__
            made["state"] = optuna.trial.TrialState.PRUNED
            made["user_attrs"] = {_FAILURE: [kind, result.rule, result.got, result.remedy]}
        else:
            made["value"] = float(result)
        with self._told(), _quiet():
            trial = optuna.trial.create_trial(**made)
            self._study(key).add_trial(trial)
        return trial

    def _study(self, key: str) -> Any:
        optuna = importlib.import_module("optuna")
        return optuna.create_study(storage=self._storage, study_name=f"featherweight-{key[:32]}", load_if_exists=True)

    def _connected(self) -> Any:
        storages = importlib.import_module("optuna.storages")
        if self._url:
            return storages.RDBStorage(self._url)
        if self._path.exists():
            self._check_own()
        # The path goes around the URL, where some characters have a meaning.
        options = {"creator": lambda: sqlite3.connect(self._path, check_same_thread=False)}
        return storages.RDBStorage(f"sqlite:///{FILE}", engine_kwargs=options)

    def _check_own(self) -> None:
        """Nothing is written into somebody else's database."""
        with contextlib.closing(sqlite3.connect(self._path)) as connection:
            names = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        if names and not names & _TABLES:
            raise ValueError(f"tables of another program ({min(names)})")

    @contextlib.contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # drivers, SQLAlchemy, Alembic and Optuna raise dozens of kinds
            what = "the database that --storage names" if self._url else str(self._path)
            line = next(iter(str(error).splitlines()), "") or type(error).__name__
            raise RunError(
                "A search keeps its trials in a database of its own.",
                f"{what}: {line}",
                "check the URL and its driver" if self._url else "move the file away; finished attempts are kept apart",
            ) from error
