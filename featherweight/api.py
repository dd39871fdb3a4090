"""The public way in, for Python and for the command line: the same words in both."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from torch import nn

from featherweight import stages
from featherweight.advice import Advised
from featherweight.advice import advise as advise_on
from featherweight.audit.verify import outputs_of
from featherweight.audit.verify import verify as certify_callables
from featherweight.contracts import Certificate, DataError, Goal, Plan, PlanError, UsageError
from featherweight.datafree import Quantized, noise
from featherweight.datafree import quantize as quantize_without_data
from featherweight.files import write_atomically
from featherweight.frontends import load_model
from featherweight.methods.apply import check_steps
from featherweight.methods.pruning import pruning_of
from featherweight.network import Network, capture
from featherweight.pipeline import Outcome, finish, first_plan, prepare, run_job
from featherweight.planning.plans import plan_text, read_plan
from featherweight.planning.rules.rule import Rules, goal_of
from featherweight.planning.rules.rulebook import read_rules
from featherweight.preparation import calibrated
from featherweight.recalibration import Recalibration
from featherweight.recalibration import recalibrate as fit_anew
from featherweight.runs import Run
from featherweight.stages import Job
from featherweight.story import identity_of
from featherweight.targets import Target, target_by_name
from featherweight.tasks import Data, Split, Task, example_of, task_by_name, validate
from featherweight.tasks import load_data as read_data

__all__ = [
    "Advised",
    "Inspection",
    "Outcome",
    "Quantized",
    "Rules",
    "advise",
    "apply",
    "compress",
    "inspect",
    "load_data",
    "load_model",
    "plan",
    "quantize",
    "read_plan",
    "read_rules",
    "recalibrate",
    "verify",
]


def load_data(source: str, image_size: str | None = None) -> Data:
    """Read data.

    Args:
        source: ``file.py:function``, ``package.module:function``, or a folder of images by class.
        image_size: "H,W" to resize images of a folder, or None.

    Raises:
        DataError: it can't be read.
        UsageError: the image size isn't two numbers.
    """
    size = None
    if image_size is not None:
        found = re.fullmatch(r"\s*0*([1-9][0-9]{0,4})\s*[x,]\s*0*([1-9][0-9]{0,4})\s*", image_size)
        if found is None:
            raise UsageError("An image size is height and width.", repr(image_size), "write it like 224,224")
        size = (int(found[1]), int(found[2]))
    return read_data(source, size=size)


@dataclass(frozen=True)
class Inspection:
    """A network's layers, costs and refusals, for people and for programs."""

    network: Network

    def record(self) -> dict[str, Any]:
        """Plain JSON."""
        network = self.network
        layers = [
            {"name": la.name, "kind": la.kind, "input": la.input_shape, "output": la.output_shape,
             "parameters": la.cost.parameters, "macs": la.cost.macs, "activation_bytes": la.activation_bytes,
             "replaceable": la.replaceable}
            for la in network.layers
        ]  # fmt: skip
        return {
            "cost": {name: getattr(network.cost, name) for name in ("size_bytes", "macs", "parameters")},
            "peak_activation_bytes": network.peak_activation_bytes,
            "layers": layers,
            "refusals": [asdict(refusal) for refusal in network.refusals],
        }

    def text(self) -> str:
        """A table."""
        network = self.network
        lines = [f"{'layer':36} {'kind':18} {'output':>16} {'parameters':>12} {'MACs':>14} {'activation B':>13}"]
        for la in network.layers:
            shape = "x".join(map(str, la.output_shape))
            lines.append(
                f"{la.name:36} {la.kind:18} {shape:>16} {la.cost.parameters:12,} "
                f"{la.cost.macs:14,} {la.activation_bytes:13,}"
            )
        total = network.cost
        lines.append(
            f"{'the whole network':36} {'':18} {'':>16} {total.parameters:12,} {total.macs:14,} "
            f"{network.peak_activation_bytes:13,} at the peak"
        )
        lines += [f"{r.subject}: can't be changed: {r.reason}. {r.remedy}".rstrip() for r in network.refusals]
        return "\n".join(lines)


def inspect(model: nn.Module, data: object) -> Inspection:
    """Capture a model on the data's first samples and tell its layers, costs and refusals."""
    ready = data if isinstance(data, Data) else Data.of(data)
    return Inspection(capture(model, example_of(ready)))


def advise(
    model: nn.Module,
    target: str | Target = "litert",
    data: object | None = None,
    *,
    shape: Sequence[int] | Sequence[Sequence[int]] | None = None,
) -> Advised:
    """Say what would help a model on a target and what would not, each with its reason, before anything is spent.

    The original and a trial on int8 are made and timed in the target's runtime; no sample is looked at for its values.

    Args:
        model: the trained network; it is not changed.
        target: where it will run.
        data: gives the form of the inputs; or
        shape: of one sample, batch left out, as for :func:`quantize`.

    Raises:
        FeatherweightError: see :mod:`featherweight.contracts`.
    """
    if (data is None) == (shape is None):
        raise UsageError(
            "The form of the inputs comes from data or from a shape.",
            "neither" if data is None else "both",
            "--data DATA, or --shape 3,32,32",
        )
    runtime = target_by_name(target) if isinstance(target, str) else target
    if shape is None:
        example = example_of(data if isinstance(data, Data) else Data.of(data))
    else:
        example = noise(model, _shapes(shape), 0)
    return advise_on(capture(model, example), runtime)


def _shapes(shape: Sequence[int] | Sequence[Sequence[int]]) -> list[Sequence[int]]:
    """One shape or several, as several."""
    several = [one for one in shape if not isinstance(one, int)]
    return several or [shape]  # type: ignore[list-item]


def _check_seed(seed: int) -> None:
    if not isinstance(seed, int) or not 0 <= seed < 2**63:
        raise UsageError("A seed is a whole number from 0 to 2⁶³ - 1.", repr(seed), "--seed 0")


def _job(
    model: nn.Module, data: object, goal: Goal | Rules | None, target: str | Target, task: str | Task, seed: int
) -> Job:
    _check_seed(seed)
    rules = goal if isinstance(goal, Rules) else Rules()
    wanted = goal_of(rules) if goal is None or isinstance(goal, Rules) else goal
    ready = target_by_name(target) if isinstance(target, str) else target
    kind = task_by_name(task) if isinstance(task, str) else task
    samples = data if isinstance(data, Data) else Data.of(data)
    return replace(prepare(model, samples, wanted, ready, kind, seed=seed), rules=rules)


def compress(
    model: nn.Module,
    data: object,
    goal: Goal | Rules | None = None,
    target: str | Target = "litert",
    *,
    task: str | Task = "classification",
    out: str | Path = "featherweight-run",
    seed: int = 0,
) -> Outcome:
    """The main job: make a model as small as the goal allows for a target, and prove it.

    Args:
        model: the trained network; it is not changed.
        data: a :class:`Data`, or ``{"train": (x, y), "validation": ..., "test": ...}``; labels may be missing.
            Without ``"train"`` calibration uses no data: its samples are synthesized from batch-norm statistics.
        goal: what to minimise, under which limits, how sure to be; None: the smallest file that loses at most 1 point,
            95 % sure. :class:`Rules` hold a goal, and say besides what may be done where.
        target: where it will run; see ``featherweight targets``.
        task: what the outputs mean: "classification" or "regression".
        out: the run's folder; a run that was stopped continues there.
        seed: of every random choice.

    Raises:
        FeatherweightError: see :mod:`featherweight.contracts`. An unmet goal is not an error: see ``Outcome.met``.
    """
    return run_job(_job(model, data, goal, target, task, seed), Path(out))


def plan(
    model: nn.Module,
    data: object,
    goal: Goal | Rules | None = None,
    target: str | Target = "litert",
    *,
    task: str | Task = "classification",
    out: str | Path = "featherweight-run",
    seed: int = 0,
) -> tuple[Plan, Path]:
    """Plan and stop; the plan is written to ``out/plan.yaml``. Arguments as for :func:`compress`.

    Raises:
        PlanError: the folder holds a plan that was edited or certified: it is not overwritten.
    """
    job, path = _job(model, data, goal, target, task, seed), Path(out) / "plan.yaml"
    run = Run(Path(out), identity_of(job))
    with run.held():
        chosen = first_plan(run, calibrated(run, job))[0]
        first = {made.read_bytes() for made in Path(out).glob("stages/3-plan-*/plan.yaml")}
        if (path.parent / "card.json").exists():  # even a first plan, once it was certified
            first = {plan_text(chosen).encode()}
        if path.exists() and path.read_bytes() not in first:
            raise PlanError(
                "A certified plan is not overwritten by a first one.",
                f"{path} is the plan of the artefact beside it",
                "read it there, or plan into another folder",
            )
        write_atomically(path, plan_text(chosen))
    return chosen, path


def apply(
    model: nn.Module,
    data: object,
    chosen: Plan,
    goal: Goal | Rules | None = None,
    *,
    task: str | Task = "classification",
    out: str | Path = "featherweight-run",
    seed: int = 0,
) -> Outcome:
    """Make a plan's file, certify it on test data, and report; nothing is searched. Arguments as for :func:`compress`.

    Raises:
        PlanError: the plan was made for another network, or asks for what can't be done there.
    """
    job = _job(model, data, goal, chosen.target, task, seed)
    if chosen.network != job.captured.fingerprint():
        raise PlanError(
            "A plan belongs to the network that it was made for.",
            "this plan was made for another network, or for other weights",
            "plan again for this one",
        )
    check_steps(job.network, chosen, job.capability, job.methods)
    if job.prunable is not None:
        pruning_of(chosen, job.prunable.coupling)
    run = Run(Path(out), {**identity_of(job), "plan": plan_text(chosen)})
    with run.held():
        planner = first_plan(run, calibrated(run, job))[1]
        record, file = stages.attempt(run, planner.job, 1, chosen, planner.original)
        return finish(run, planner, [record], file)


def verify(
    original: str | Path,
    artefact: str | Path,
    data: object,
    goal: Goal | None = None,
    target: str | Target = "litert",
    *,
    task: str | Task = "classification",
) -> Certificate:
    """The certificate of two files that are there already, from the data's test split.

    Raises:
        LoweringError: a file isn't one of the target's.
        DataError: the data can't support the claim, or aren't what the files take.
    """
    runtime = target_by_name(target) if isinstance(target, str) else target
    kind = task_by_name(task) if isinstance(task, str) else task
    ready = data if isinstance(data, Data) else Data.of(data)
    before, after = (runtime.load(Path(path)) for path in (original, artefact))
    outputs = outputs_of(before, Split.of((example_of(ready), None)))
    validate(ready, outputs.shape[1] if outputs.ndim > 1 else None, kind)
    return certify_callables(before, after, ready.test, kind, goal or Goal(), ready.class_names)


def recalibrate(
    run: str | Path,
    model: nn.Module,
    samples: object,
    *,
    task: str | Task = "classification",
    out: str | Path = "featherweight-recalibrated",
) -> Recalibration:
    """Fit the activation ranges of a run's artefact to a new environment, from unlabelled samples.

    Args:
        run: the folder of the finished run.
        model: the original model of that run.
        samples: a :class:`Data`, whose training split is taken, or what ``Split.of`` takes: an array of inputs.
        task: what the outputs mean.
        out: where the new artefact goes.

    Raises:
        FeatherweightError: the run, the model or the samples don't fit together.
    """
    kind = task_by_name(task) if isinstance(task, str) else task
    if isinstance(samples, Data) and samples.data_free:
        raise DataError(
            "Recalibration fits to samples of the new environment.", "data without a training split", "give train"
        )
    split = samples.train if isinstance(samples, Data) else Split.of(samples)  # type: ignore[arg-type]
    return fit_anew(Path(run), model, split, kind, Path(out))


def quantize(
    model: nn.Module,
    shape: Sequence[int] | Sequence[Sequence[int]],
    target: str | Target = "litert",
    *,
    task: str | Task = "classification",
    out: str | Path = "featherweight-quantized",
    seed: int = 0,
) -> Quantized:
    """int8 without any data, from a network and the shape of its input; nothing about accuracy is proven.

    Args:
        model: the trained network; it is not changed.
        shape: of one sample, batch left out: ``(3, 32, 32)``; a sequence of shapes for several inputs.
        target: where it will run.
        task: what the outputs mean.
        out: gets the files, ``plan.yaml`` and ``quantized.json``; a run that was stopped continues there.
        seed: of every random choice.

    Raises:
        FeatherweightError: see :mod:`featherweight.contracts`.
    """
    _check_seed(seed)
    runtime = target_by_name(target) if isinstance(target, str) else target
    kind = task_by_name(task) if isinstance(task, str) else task
    return quantize_without_data(model, _shapes(shape), runtime, kind, Path(out), seed)
