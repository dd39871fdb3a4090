"""The stages of a run as they are kept in its folder; what each does stands in its own package."""

from __future__ import annotations

import functools
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import numpy as np
import torch

from featherweight.audit.forecast import forecast
from featherweight.audit.ledger import note_look
from featherweight.audit.verify import compare, labels_of, outputs_of, parity
from featherweight.contracts import (
    Artefact,
    Attempt,
    Capability,
    Certificate,
    Goal,
    Knobs,
    LoweringError,
    Parity,
    Plan,
    Refusal,
    Table,
    Timing,
    UnitStory,
)
from featherweight.files import write_atomically
from featherweight.methods import Method
from featherweight.methods.apply import Refit, apply, rebuild
from featherweight.methods.pruning import Grounds, Prunable, Pruning, accounts_of, prune, read_removals, select
from featherweight.methods.quantization import tuned
from featherweight.methods.seam import PRUNING
from featherweight.network.capture import Network
from featherweight.network.channels import Coupling
from featherweight.network.grids import Compressed, load_grids, load_state, save_compressed, with_grids
from featherweight.network.surgery import Slim
from featherweight.observation.evidence import Evidence, load_evidence, observe, save_evidence
from featherweight.observation.smoothing import Smoothing
from featherweight.packaging import pack
from featherweight.planning.plans import plan_text, read_plan, write_plan
from featherweight.planning.rules.rule import Rules
from featherweight.planning.table import build_table
from featherweight.planning.units import with_keeps
from featherweight.records import from_json, read_record, to_json, write_record
from featherweight.recovery import recover
from featherweight.runs import Run, key_of
from featherweight.targets import Target
from featherweight.tasks.data import Data, Split
from featherweight.tasks.task import Task

_PARITY_SAMPLES = 64
_MADE_UP = Refusal(
    "network", PRUNING, "made-up inputs can't say which channels matter", "give training samples; labels aren't needed"
)
_REAL_TOLERANCE = 1e-3  # mean difference of outputs, in units of their spread
_INTEGER_TOLERANCE = 0.1
_BROKEN = 1e9  # the divergence of an artefact whose outputs aren't numbers; JSON has no infinity


@dataclass(frozen=True)
class Job:
    """What a run works on.

    Attributes:
        captured: the user's network, as captured.
        network: the same with batch normalisation folded, and scale moved as ``smoothing`` says: what is compressed.
        data: the three splits.
        calibration: unlabelled samples, taken from the training split; of a data-free run none until
            :func:`featherweight.preparation.calibrated` gives them.
        task, goal, target, methods: of the run.
        seed: of every random choice.
        pruning: how channels are chosen; None leaves all of them.
        source: where the calibration samples come from, in words.
        rules: what a person wants of the plan.
        untouched: layers that nothing may change, as the rules say once the table is there.
        smoothing: where scale moved into weights, once :func:`featherweight.preparation.smoothed` decided.
    """

    captured: Network
    network: Network
    data: Data
    calibration: Split
    task: Task
    goal: Goal
    target: Target
    methods: Sequence[Method]
    seed: int = 0
    pruning: Pruning | None = None
    source: str = "training samples"
    rules: Rules = field(default_factory=Rules)
    untouched: frozenset[str] = frozenset()
    smoothing: tuple[Smoothing, ...] = ()

    @functools.cached_property
    def prunable(self) -> Prunable | None:
        """The network's coupled channels, analysed and tried; None where none are to go."""
        return None if self.pruning is None else Prunable.of(self.network, self.pruning)

    @property
    def capability(self) -> Capability:
        """The target's capability data."""
        return self.target.capability

    @property
    def moved(self) -> dict[str, object]:
        """What tells the stages of a network whose scale moved from others, as plain values; empty where none did."""
        return {"smoothing": {one.site.producer: one.alpha for one in self.smoothing}} if self.smoothing else {}


@dataclass(frozen=True)
class Reference:
    """The original in the target's runtime.

    Attributes:
        artefact: its description.
        path: its file.
        validation: its outputs on validation data.
        parity: of the file with the captured network.
    """

    artefact: Artefact
    path: Path
    validation: np.ndarray
    parity: Parity


def reference(run: Run, job: Job) -> Reference:
    """Lower the original, run it on validation data, and compare it with the captured network."""

    def make(folder: Path) -> None:
        path = folder / f"original{job.target.suffix}"
        artefact = job.target.lower(Compressed(job.network), path)
        model = job.target.load(path)
        np.save(folder / "validation.npy", outputs_of(model, job.data.validation, "running the original"))
        write_record(artefact, folder / "artefact.json")
        few = job.calibration.first(_PARITY_SAMPLES)
        agreement = parity(_simulated(job.captured.module, few), outputs_of(model, few), job.task)
        write_record(_agreed(agreement, _REAL_TOLERANCE), folder / "parity.json")

    def load(folder: Path) -> Reference:
        return Reference(
            artefact=read_record(Artefact, folder / "artefact.json"),
            path=folder / f"original{job.target.suffix}",
            validation=np.load(folder / "validation.npy", allow_pickle=False),
            parity=read_record(Parity, folder / "parity.json"),
        )

    return run.stage("1-reference", {}, make, load)


def _agreed(agreement: Parity, tolerance: float) -> Parity:
    """The parity, where the file computes what the network computes.

    Raises:
        LoweringError: it doesn't: the conversion is at fault, and nothing that follows would mean anything.
    """
    if not agreement.mean <= tolerance * max(agreement.spread, 1e-6):  # a difference of NaN is none either
        raise LoweringError(
            "A file must compute what the network computes that it was made from.",
            f"outputs differ by {agreement.mean:.3g} on average, against a spread of {agreement.spread:.3g}",
            "keep the layers around unusual operations as they are in the plan, and report the fault",
        )
    return agreement


def _simulated(module: torch.nn.Module, split: Split) -> np.ndarray:
    with torch.no_grad():
        return np.concatenate([module(*batch.inputs).float().numpy() for batch in split.batches(_PARITY_SAMPLES)])


def evidence(run: Run, job: Job) -> Evidence:
    """Observe the calibration samples."""
    return run.stage(
        "2-evidence",
        {"samples": len(job.calibration), "seed": job.seed, **job.moved},
        lambda folder: save_evidence(observe(job.network, job.calibration, seed=job.seed), folder),
        load_evidence,
    )


def table(run: Run, job: Job, seen: Evidence, original: Reference) -> Table:
    """Build the table of options; where the goal counts packages, options say what they take there."""
    rated = "package" in job.goal.quantities

    def make(folder: Path) -> None:
        rate = packed(run, original.path, original.artefact.sha256).stat().st_size if rated else 0
        whole = replace(job.network.cost, size_bytes=original.artefact.size_bytes, package_bytes=float(rate))
        built = build_table(job.network, seen, job.calibration, job.task, job.capability, job.methods, whole=whole)
        if job.data.data_free and job.pruning is None:
            built = replace(built, refusals=(*built.refusals, _MADE_UP))
        if job.prunable is not None:
            built = with_keeps(built, job.network, job.prunable, _grounds(job, seen), job.task, job.capability)
        write_record(built, folder / "table.json")

    names = [method.name for method in job.methods]
    key = {"methods": names, "pruning": job.pruning.criterion if job.pruning else None, "rated": rated, **job.moved}
    return run.stage(
        "3-table-rated" if rated else "3-table", key, make, lambda folder: read_record(Table, folder / "table.json")
    )


def packed(run: Run, path: Path, sha256: str) -> Path:
    """A file packed for download: once a run, whoever asks for it."""

    def make(folder: Path) -> None:
        pack(path, folder / "package.fwp")

    return run.stage(f"7-package-{sha256[:8]}", {"file": sha256}, make, lambda folder: folder / "package.fwp")


def first_plan(run: Run, goal: Goal, plan: Plan) -> Plan:
    """The first plan for a goal, kept, so that a plan that somebody edited can be told from it."""
    return run.stage(
        f"3-plan-{key_of(asdict(goal))[:8]}",
        {"plan": plan_text(plan)},
        lambda folder: write_plan(plan, folder / "plan.yaml"),
        lambda folder: plan,
    )


def _grounds(job: Job, seen: Evidence) -> Grounds:
    return Grounds(seen, job.calibration, job.task, job.captured)


def build(job: Job, plan: Plan, seen: Evidence) -> tuple[Slim, tuple[UnitStory, ...], Compressed]:
    """Apply a plan and recover what can be had back without training.

    Returns:
        What pruning left beside the dense network, its account, and the compressed network.
    """
    slim, told = pruned(job, plan, seen)
    knobs, split = plan.knobs, samples_for(job, plan.knobs)
    how, methods = Refit(job.seed, knobs.damping if knobs.refit else None), tuned(job.methods, knobs)
    applied = apply(slim, plan, split, job.capability, methods, how=how, untouched=job.untouched)
    return slim, told, recover(slim, applied, split, job.target, knobs.ranges, job.untouched)


def samples_for(job: Job, knobs: Knobs) -> Split:
    """The calibration samples that a plan with these knobs is made with."""
    if (knobs.samples, knobs.draw) == (0, 0):
        return job.calibration
    return drawn(pool_of(job), knobs.samples or len(job.calibration), job.seed, knobs.draw)


def pool_of(job: Job) -> Split:
    """What calibration samples are drawn from."""
    return job.calibration if job.data.data_free else job.data.train


def drawn(pool: Split, count: int, seed: int, draw: int = 0) -> Split:
    """Some samples, in their order; draw 0 of fewer samples is a part of draw 0 of more."""
    generator = np.random.default_rng([seed, draw] if draw else seed)
    return pool.subset(np.sort(generator.permutation(len(pool))[:count]))


def pruned(job: Job, plan: Plan, seen: Evidence) -> tuple[Slim, tuple[UnitStory, ...]]:
    """The network without the channels that a plan takes away, and for every unit what was asked and reached."""
    if not any(step.method == PRUNING for steps in plan.choices.values() for step in steps):
        return Slim.whole(job.network), ()
    coupling = _coupling(job)
    selection = select(job.network, coupling, plan, _grounds(job, seen))
    slim = prune(job.network, coupling, selection.removals)
    return slim, accounts_of(coupling, plan, slim, selection.tables)


def _coupling(job: Job) -> Coupling:
    """The network's coupled channels, for a plan that takes some away even where the run itself wouldn't."""
    return (job.prunable or Prunable.of(job.network, Pruning())).coupling


def compressed(run: Run, job: Job, name: str, plan: Plan) -> tuple[Compressed, Path]:
    """Make a plan's network, and keep it as plan, removals, state and grids."""

    def make(folder: Path) -> None:
        write_plan(plan, folder / "plan.yaml")
        slim, told, built = build(job, plan, evidence(run, job))
        write_atomically(folder / "removals.json", json.dumps(slim.removals) + "\n")
        write_atomically(folder / "units.json", to_json(told, tuple[UnitStory, ...]))
        save_compressed(built, folder)

    def load(folder: Path) -> tuple[Compressed, Path]:
        removals = read_removals(folder / "removals.json")
        network = job.network
        if removals:
            network = prune(job.network, _coupling(job), removals).network
        network = rebuild(network, read_plan(folder / "plan.yaml"), load_state(folder), job.capability, job.methods)
        return Compressed(network, load_grids(folder)), folder

    return run.stage(f"{name}-network", _made_from(job, plan), make, load)


def _made_from(job: Job, plan: Plan) -> dict[str, object]:
    untouched = {"untouched": sorted(job.untouched)} if job.untouched else {}
    return {"plan": plan_text(plan), **untouched, **job.moved}


@dataclass(frozen=True)
class Made:
    """A plan made into a file.

    Attributes:
        artefact: its description.
        path: the file.
        parity: with the simulation of the compressed network.
        network: what is inside.
        plan: what made it.
        folder: plan, state and grids.
        units: coupled units that lost channels, asked and reached.
    """

    artefact: Artefact
    path: Path
    parity: Parity
    network: Network
    plan: Plan
    folder: Path
    units: tuple[UnitStory, ...]


def lowered(built: Compressed, target: Target, path: Path, split: Split, task: Task) -> tuple[Artefact, Parity]:
    """Lower a compressed network, and compare the file with its simulation on the first samples.

    Raises:
        LoweringError: they don't agree.
    """
    artefact = target.lower(built, path)
    few = split.first(_PARITY_SAMPLES)
    agreement = parity(_simulated(with_grids(built), few), outputs_of(target.load(path), few), task)
    return artefact, _agreed(agreement, _INTEGER_TOLERANCE)


def made(run: Run, job: Job, name: str, plan: Plan) -> Made:
    """Lower a plan's network, and compare the file with its simulation."""
    built, state = compressed(run, job, name, plan)

    def make(folder: Path) -> None:
        path = folder / f"artefact{job.target.suffix}"
        artefact, agreement = lowered(built, job.target, path, job.calibration, job.task)
        write_record(artefact, folder / "artefact.json")
        write_record(agreement, folder / "parity.json")

    def load(folder: Path) -> Made:
        return Made(
            artefact=read_record(Artefact, folder / "artefact.json"),
            path=folder / f"artefact{job.target.suffix}",
            parity=read_record(Parity, folder / "parity.json"),
            network=built.network,
            plan=plan,
            folder=state,
            units=from_json(tuple[UnitStory, ...], (state / "units.json").read_text()),
        )

    return run.stage(f"{name}-artefact", _made_from(job, plan), make, load)


def attempt(run: Run, job: Job, number: int, plan: Plan, original: Reference) -> tuple[Attempt, Made]:
    """One turn of the correction loop: make the plan's file and measure it on validation data.

    A plan that an earlier goal tried in this folder is not made again.
    """
    name = run.numbered("4-attempt", "network", _made_from(job, plan))
    file = made(run, job, name, plan)

    def make(folder: Path) -> None:
        validation = job.data.validation
        outputs = outputs_of(job.target.load(file.path), validation, f"attempt {number}: checking on validation data")
        check = compare(original.validation, outputs, validation, job.task, job.goal)
        measured = min(float(job.task.divergence(original.validation, outputs)), _BROKEN)
        predicted = float(plan.predicted.get("divergence", 0.0))
        size = file.artefact.size_bytes
        labels = labels_of(validation, original.validation, job.task)
        expected = forecast(original.validation, outputs, labels, job.task, job.seed) if job.task.binary else (0.0, 0.0)
        costs = _measured(run, job, original, file)
        record = Attempt(number, predicted, measured, size, file.network.cost.macs, check, plan, *expected, *costs)
        write_record(record, folder / "attempt.json")

    def load(folder: Path) -> Attempt:
        return replace(read_record(Attempt, folder / "attempt.json"), number=number)

    return run.stage(f"{name}-check", {**_made_from(job, plan), "goal": asdict(job.goal)}, make, load), file


def _measured(run: Run, job: Job, original: Reference, file: Made) -> tuple[float, float, float]:
    """Package bytes, milliseconds and peak bytes of a file, as far as the goal speaks of them; else 0."""
    wanted = job.goal.quantities
    package = packed(run, file.path, file.artefact.sha256).stat().st_size if "package" in wanted else 0
    clock = job.target.benchmark([original.path, file.path], runs=100, threads=1) if "latency" in wanted else []
    peak = job.target.peak_memory(file.path) if "memory" in wanted else 0
    return float(package), clock[1].median_ms if clock else 0.0, float(peak)


def certificate(run: Run, job: Job, original: Reference, file: Made) -> Certificate:
    """Run original and artefact on test data, once; the run's ledger says so before it happens."""

    def make(folder: Path) -> None:
        test = job.data.test
        looks = note_look(run.folder, test.fingerprint("test"), file.artefact.sha256, asdict(job.goal))
        before = outputs_of(job.target.load(original.path), test, "running the original on test data")
        after = outputs_of(job.target.load(file.path), test, "running the artefact on test data")
        np.save(folder / "labels.npy", labels_of(test, before, job.task))
        made = compare(before, after, test, job.task, job.goal, job.data.class_names)
        write_record(replace(made, looks=looks), folder / "certificate.json")

    return run.stage(
        "5-certificate",
        {"artefact": file.artefact.sha256, "goal": asdict(job.goal)},
        make,
        lambda folder: read_record(Certificate, folder / "certificate.json"),
    )


@dataclass(frozen=True)
class Clocked:
    """Milliseconds of both files, and of their operators."""

    original: Timing
    artefact: Timing
    original_operators: tuple[tuple[str, float], ...]
    artefact_operators: tuple[tuple[str, float], ...]


def clocked(run: Run, job: Job, original: Reference, file: Made) -> Clocked:
    """Time both files side by side, and each operator alone."""

    def make(folder: Path) -> None:
        paths = [original.path, file.path]
        before, after = job.target.benchmark(paths, runs=200, threads=1)
        operators = [job.target.profile(path, runs=30) for path in paths]
        write_record(before, folder / "original.json")
        write_record(after, folder / "artefact.json")
        (folder / "operators.json").write_text(json.dumps(operators))

    def load(folder: Path) -> Clocked:
        rows = json.loads((folder / "operators.json").read_text())
        before, after = (tuple((name, ms) for name, ms in row) for row in rows)
        pair = [read_record(Timing, folder / f"{side}.json") for side in ("original", "artefact")]
        return Clocked(pair[0], pair[1], before, after)

    return run.stage("6-timing", {"artefact": file.artefact.sha256}, make, load)
