"""The way through: from a network, data and a goal to a proven file.

capture ─► observe ─► options ─► allocate ─► apply ─► recover ─► lower ─► verify ─► report
                                     ▲                                      │
                                     └────────── corrected errors ──────────┘
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType

from torch import nn

from featherweight import stages
from featherweight.contracts import (
    Attempt,
    Certificate,
    Choice,
    Cost,
    Goal,
    Knobs,
    Plan,
    PlanError,
    Quantity,
    Story,
    Table,
)
from featherweight.files import write_atomically
from featherweight.judgement import best_attempt, promises, within
from featherweight.methods import FOR_PACKAGES, METHODS, Method, Pruning
from featherweight.network import Network, capture, fold_batch_norm
from featherweight.network.checks import check_precision
from featherweight.observation.evidence import Evidence
from featherweight.planning import (
    Peak,
    Trial,
    allocate,
    cheapest,
    check_reach,
    gentlest,
    next_budget,
    starting_budget,
    tightened,
)
from featherweight.planning.latency.conversions import Conversions
from featherweight.planning.latency.latencies import cached_latencies
from featherweight.planning.latency.pricing import with_latency
from featherweight.planning.memory import Liveness
from featherweight.planning.plans import plan_of, plan_text
from featherweight.planning.rules.pins import with_pins
from featherweight.planning.rules.restriction import restricted, untouched_layers
from featherweight.preparation import calibrated, smoothed
from featherweight.report import write_report
from featherweight.runs import Run
from featherweight.search import check_search, search
from featherweight.stages import Job, Made, Reference
from featherweight.story import identity_of, story_of
from featherweight.targets import Target
from featherweight.tasks.data import Data
from featherweight.tasks.task import Task
from featherweight.tasks.validation import example_of, validate

MOST_ATTEMPTS = 8
_PACKAGE = "artefact.fwp"
FEWEST_CALIBRATION, MOST_CALIBRATION = 512, 2048
_CALIBRATION_BYTES = 1 << 29  # of live activations, all samples together
_CALIBRATION_MACS = 1 << 37  # of one pass


@dataclass(frozen=True)
class Outcome:
    """What a run hands back.

    Attributes:
        met: whether the goal holds, certified on test data.
        verdict: the outcome in one sentence.
        certificate, plan: of the artefact.
        story: everything the report tells.
        artefact, original: the files for the target.
        report, card: the page and the model card.
        package: the artefact packed for download; ``featherweight unpack`` gives it back byte for byte.
    """

    met: bool
    verdict: str
    certificate: Certificate
    plan: Plan
    story: Story
    artefact: Path
    original: Path
    report: Path
    card: Path
    package: Path


def prepare(
    model: nn.Module,
    data: Data,
    goal: Goal,
    target: Target,
    task: Task,
    families: Sequence[Pruning | Method] | None = None,
    seed: int = 0,
) -> Job:
    """Capture the model, check the data, fold batch normalisation, and set calibration samples apart.

    A data-free job has none yet: the run synthesizes them. Without families all are tried that the goal has a use for.
    """
    if families is None:
        families = (Pruning(), *(FOR_PACKAGES if "package" in goal.quantities else METHODS))
    captured = capture(model, example_of(data))
    check_precision(captured.module, captured.example, target.name)
    validate(data, captured.output_shape[0] if captured.output_shape else None, task)
    network = fold_batch_norm(captured)
    calibration = stages.drawn(data.train, calibration_samples(network), seed)
    pruning = next((family for family in families if isinstance(family, Pruning)), None)
    methods = tuple(family for family in families if not isinstance(family, Pruning))
    return Job(captured, network, data, calibration, task, goal, target, methods, seed, pruning)


def calibration_samples(network: Network) -> int:
    """How many samples to calibrate on: as many as memory and time allow, between two bounds.

    ResNet-20 on coarse grids, 83 kB in a package: divergence 0.0195 with 1,000 images, 0.0172 with 2,000.
    """
    room = min(
        _CALIBRATION_BYTES // max(network.peak_activation_bytes, 1), _CALIBRATION_MACS // max(network.cost.macs, 1)
    )
    return min(max(room, FEWEST_CALIBRATION), MOST_CALIBRATION)


@dataclass(frozen=True)
class Planner:
    """What every plan of a run is chosen from.

    Attributes:
        job: with what the rules leave untouched.
        original: in the target's runtime.
        seen: of the calibration samples.
        table: all options.
        allowed: those that the rules leave.
        start: the first budget of divergence.
        knobs: how plans are carried out.
        conversions: what mixing types takes in a choice, where the goal speaks of latency.
    """

    job: Job
    original: Reference
    seen: Evidence
    table: Table
    allowed: Table
    start: float
    knobs: Knobs = field(default_factory=Knobs)
    conversions: Conversions | None = None

    @functools.cached_property
    def _cheapest(self) -> Choice:
        """How far the table reaches, whatever that costs the network."""
        return cheapest(self.allowed, self.job.goal, self.peak)

    @functools.cached_property
    def peak(self) -> Peak | None:
        """Peak bytes of a choice, where the goal speaks of memory."""
        job = self.job
        if "memory" not in job.goal.quantities:
            return None
        coupling = job.prunable.coupling if job.prunable else None
        return Liveness(job.network, job.target, self.table, job.methods, coupling).peak_bytes

    def _beside(self, choice: Choice) -> Cost:
        """What a choice's file costs beside its options."""
        mixing = self.conversions.milliseconds(choice) if self.conversions else 0.0
        return self.table.fixed + Cost(0, 0, 0, milliseconds=mixing)

    def choose(self, budget: float, shares: Mapping[Quantity, float] = MappingProxyType({})) -> tuple[Plan, bool]:
        """The plan under a budget, and whether nothing cheaper is left; unmet limits get the gentlest plan.

        Args:
            budget: of divergence.
            shares: of the goal's limits that the table's figures may take, where files came out dearer than promised.
        """
        limits = self.job.goal.limits
        goal = self.job.goal.with_limits({quantity: limits[quantity] * share for quantity, share in shares.items()})
        choice = allocate(self.allowed, goal, budget, self.peak) or gentlest(self.allowed, goal, self.peak)
        chosen = self._cheapest if choice is None else choice
        plan = plan_of(self.job.captured.fingerprint(), self.job.target.name, chosen, self._beside(chosen))
        return replace(plan, knobs=self.knobs), chosen == self._cheapest


def planner_of(run: Run, job: Job) -> Planner:
    """Smooth and observe the network, and build the table.

    Raises:
        PlanError: rules that don't fit the network.
        OutOfReachError: no plan can meet the goal's limits.
    """
    original = stages.reference(run, job)
    job = smoothed(run, job)
    seen = stages.evidence(run, job)
    table = stages.table(run, job, seen, original)
    table = with_pins(table, job.network, job.rules, seen, job.capability, job.methods)
    conversions = None
    if "latency" in job.goal.quantities:
        coupling = job.prunable.coupling if job.prunable else None
        latencies = cached_latencies(job.target)
        table, conversions = with_latency(table, job.network, job.target, job.methods, latencies, coupling)
    job = replace(job, untouched=untouched_layers(table, job.network, job.rules))
    allowed = restricted(table, job.network, job.rules)
    start = starting_budget(seen.outputs.numpy(), job.task, job.goal.max_drop)
    planner = Planner(job, original, seen, table, allowed, start, conversions=conversions)
    check_reach(allowed, job.goal, planner.peak)
    return planner


def first_plan(run: Run, job: Job) -> tuple[Plan, Planner]:
    """Prepare and choose once: what `featherweight plan` prints.

    Raises:
        PlanError: somebody edited the folder's plan.
    """
    planner = planner_of(run, job)
    plan = planner.choose(planner.start)[0]
    _keep_edits(run.folder, plan)
    return stages.first_plan(run, job.goal, plan), planner


def _keep_edits(folder: Path, first: Plan) -> None:
    """Stop before a plan is overwritten that no stage of the run made."""
    path = folder / "plan.yaml"
    own = {plan_text(first).encode(), *(made.read_bytes() for made in (folder / "stages").glob("*/plan.yaml"))}
    if path.exists() and path.read_bytes() not in own:
        raise PlanError(
            "A plan that somebody edited is not overwritten.",
            f"{path} is none that this run made",
            "apply it with `featherweight apply` and another --out, or move it away",
        )


def correct(run: Run, planner: Planner) -> list[tuple[Attempt, Made]]:
    """Plan, make, measure on validation data, and plan again until the goal is met as cheaply as it can be.

    A file that exceeds a limit which the table had kept is no answer: the limit is tightened by as much for all plans
    that follow, and the same budget is tried again.
    """
    job, trials = planner.job, list[Trial]()
    tried: dict[str, tuple[Attempt, Made]] = {}
    shares: Mapping[Quantity, float] = {}
    while len(trials) < MOST_ATTEMPTS and (budget := next_budget(trials, planner.start)) is not None:
        chosen, exhausted = planner.choose(budget, shares)
        name = str(chosen.choices)
        if name not in tried:
            tried[name] = stages.attempt(run, job, len(tried) + 1, chosen, planner.original)
            tighter = tightened(shares, tried[name][0], job.goal)
            if tighter != shares and len(tried) < MOST_ATTEMPTS:
                shares = tighter
                continue
        record = tried[name][0]
        passed = promises(record, job.goal, len(job.data.test))
        trials.append(Trial(budget, record.predicted_divergence, record.measured_divergence, passed, exhausted))
    return list(tried.values())


def searched(run: Run, planner: Planner, attempts: list[tuple[Attempt, Made]]) -> tuple[list[Attempt], Made]:
    """The attempts with those of the search over the global knobs, where the rules want one, and what to certify.

    The search turns the knobs of the best attempt. What it finds takes that one's place if it diverges less and keeps
    the goal where that one does; then the correction loop goes on with these knobs.
    """
    job, size = planner.job, len(planner.job.data.test)
    best = best_attempt(attempts, job.goal, size)
    trials = search(run, job, best[1].plan, planner.original) if job.rules.search else []
    found = min(trials, key=lambda one: one[0].measured_divergence, default=best)
    tried, rivals = [*attempts, *trials], attempts
    kept = [promises(record, job.goal, size) and within(record, job.goal) for record, _ in (found, best)]
    if found[0].measured_divergence < best[0].measured_divergence and kept[0] >= kept[1]:
        more = correct(run, replace(planner, knobs=found[1].plan.knobs))
        tried += more
        rivals = [found, *(one for one in attempts if one is not best), *more]
    once: dict[str, Attempt] = {}
    for record, _ in tried:
        once.setdefault(plan_text(record.plan), record)
    records = [replace(record, number=number) for number, record in enumerate(once.values(), 1)]
    return records, best_attempt(rivals, job.goal, size)[1]


def run_job(job: Job, out: Path) -> Outcome:
    """Plan, make, correct, certify and report, in the run's folder; a run that was stopped continues there."""
    run = Run(out, identity_of(job))
    with run.held():
        if job.rules.search:
            check_search(run.folder, job.rules)
        _, planner = first_plan(run, calibrated(run, job))
        attempts, file = searched(run, planner, correct(run, planner))
        return finish(run, planner, attempts, file)


def _packed(run: Run, one: Reference | Made) -> Path:
    return stages.packed(run, one.path, one.artefact.sha256)


def finish(run: Run, planner: Planner, attempts: Sequence[Attempt], file: Made) -> Outcome:
    """Certify on test data, time, pack and report."""
    job, original, chosen = planner.job, planner.original, file.plan
    certificate = stages.certificate(run, job, original, file)
    clock = stages.clocked(run, job, original, file)
    packages = _packed(run, original), _packed(run, file)
    story = story_of(job, planner.table, chosen, (original, file, packages), certificate, clock, tuple(attempts))
    report, card = write_report(story, run.folder)
    for name, path in (
        (file.path.name, file.path),
        (original.path.name, original.path),
        (_PACKAGE, packages[1]),
        ("plan.yaml", file.folder / "plan.yaml"),
    ):
        write_atomically(run.folder / name, path.read_bytes())
    top = run.folder
    return Outcome(
        story.met, story.verdict, certificate, chosen, story, top / file.path.name, top / original.path.name, report,
        card, top / _PACKAGE,
    )  # fmt: skip
