"""The way through: from a network, data and a goal to a proven file.

capture ─► observe ─► options ─► allocate ─► apply ─► recover ─► lower ─► verify ─► report
                                     ▲                                      │
                                     └────────── corrected errors ──────────┘
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from torch import nn

from featherweight import stages
from featherweight.contracts import Attempt, Certificate, Goal, Plan, PlanError, Story, Table
from featherweight.files import write_atomically
from featherweight.judgement import best_attempt, promises
from featherweight.methods import FAMILIES, Method, Pruning
from featherweight.network import capture, fold_batch_norm
from featherweight.observation.evidence import Evidence
from featherweight.planning import Trial, allocate, cheapest, gentlest, next_budget, starting_budget
from featherweight.planning.plans import plan_of, plan_text
from featherweight.report import write_report
from featherweight.runs import Run
from featherweight.stages import Job, Made, Reference
from featherweight.story import identity_of, story_of
from featherweight.targets import Target
from featherweight.tasks.data import Data
from featherweight.tasks.task import Task
from featherweight.tasks.validation import example_of, validate

MOST_ATTEMPTS = 6
CALIBRATION_SAMPLES = 512


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


def prepare(
    model: nn.Module,
    data: Data,
    goal: Goal,
    target: Target,
    task: Task,
    families: Sequence[Pruning | Method] = FAMILIES,
    seed: int = 0,
) -> Job:
    """Capture the model, check the data, fold batch normalisation, and set calibration samples apart.

    A data-free job has none yet: the run synthesizes them.
    """
    captured = capture(model, example_of(data))
    validate(data, captured.output_shape[0] if captured.output_shape else None, task)
    network = fold_batch_norm(captured)
    drawn = np.random.default_rng(seed).permutation(len(data.train))[:CALIBRATION_SAMPLES]
    calibration = data.train.subset(np.sort(drawn))
    pruning = next((family for family in families if isinstance(family, Pruning)), None)
    methods = tuple(family for family in families if not isinstance(family, Pruning))
    return Job(captured, network, data, calibration, task, goal, target, methods, seed, pruning)


def first_plan(run: Run, job: Job) -> tuple[Plan, Table, Reference, Evidence]:
    """Observe, build the table, and choose once: what `featherweight plan` prints."""
    original = stages.reference(run, job)
    seen = stages.evidence(run, job)
    table = stages.table(run, job, seen, original)
    start = starting_budget(seen.outputs.numpy(), job.task, job.goal.max_drop)
    plan = _choose(job, table, start)[0]
    _keep_edits(run.folder, plan)
    return plan, table, original, seen


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


def _choose(job: Job, table: Table, budget: float) -> tuple[Plan, bool]:
    """The plan under a budget, and whether nothing cheaper is left; limits that can't be met get the nearest plan."""
    choice = allocate(table, job.goal, budget) or gentlest(table, job.goal)
    least = cheapest(table, job.goal)
    chosen = least if choice is None else choice
    return plan_of(job.captured.fingerprint(), job.target.name, chosen), chosen == least


def correct(run: Run, job: Job, table: Table, seen: Evidence, original: Reference) -> list[tuple[Attempt, Made]]:
    """Plan, make, measure on validation data, and plan again until the goal is met as cheaply as it can be."""
    start = starting_budget(seen.outputs.numpy(), job.task, job.goal.max_drop)
    trials: list[Trial] = []
    tried: dict[str, tuple[Attempt, Made]] = {}
    while len(trials) < MOST_ATTEMPTS and (budget := next_budget(trials, start)) is not None:
        chosen, exhausted = _choose(job, table, budget)
        name = str(chosen.choices)
        if name not in tried:
            tried[name] = stages.attempt(run, job, len(tried) + 1, chosen, original)
        record = tried[name][0]
        passed = promises(record, job.goal, len(job.data.test))
        trials.append(Trial(budget, record.predicted_divergence, record.measured_divergence, passed, exhausted))
    return list(tried.values())


def run_job(job: Job, out: Path) -> Outcome:
    """Plan, make, correct, certify and report, in the run's folder; a run that was stopped continues there."""
    run = Run(out, identity_of(job))
    with run.held():
        job = stages.calibrated(run, job)
        _, table, original, seen = first_plan(run, job)
        attempts = correct(run, job, table, seen, original)
        _, file = best_attempt(attempts, job.goal, len(job.data.test))
        return finish(run, job, table, original, [record for record, _ in attempts], file)


def finish(run: Run, job: Job, table: Table, original: Reference, attempts: Sequence[Attempt], file: Made) -> Outcome:
    """Certify on test data, time, and report."""
    chosen = file.plan
    certificate = stages.certificate(run, job, original, file)
    clock = stages.clocked(run, job, original, file)
    story = story_of(job, table, chosen, (original, file), certificate, clock, tuple(attempts))
    report, card = write_report(story, run.folder)
    kept = {}
    for name, path in (("artefact", file.path), ("original", original.path)):
        kept[name] = run.folder / path.name
        write_atomically(kept[name], path.read_bytes())
    write_atomically(run.folder / "plan.yaml", (file.folder / "plan.yaml").read_bytes())
    return Outcome(
        story.met, story.verdict, certificate, chosen, story, kept["artefact"], kept["original"], report, card
    )
