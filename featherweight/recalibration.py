"""Recalibrate: a quantized artefact for a new environment, from unlabelled samples alone.

Another camera or another microphone gives other values, and the grids of activations were fitted to the old ones. The
weights stay; every grid is fitted anew to what the compressed network meets on the new samples, and a new file is
made. How far it moved is measured with the files themselves, against the original's file, on the same samples.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from torch import nn

from featherweight.audit.verify import outputs_of
from featherweight.contracts import Artefact, DataError, Plan, PlanError, RunError
from featherweight.methods import METHODS, Pruning
from featherweight.methods.apply import rebuild
from featherweight.methods.pruning import Prunable, prune, read_removals
from featherweight.network import Network, capture, fold_batch_norm
from featherweight.network.grids import Compressed, load_grids, load_state, save_compressed
from featherweight.numerics.affine import AffineGrid
from featherweight.planning.plans import read_plan
from featherweight.records import write_record
from featherweight.recovery.biases import fit_biases
from featherweight.recovery.grids import fit_grids
from featherweight.targets import Target, target_by_name
from featherweight.tasks.data import Split
from featherweight.tasks.task import Task


@dataclass(frozen=True, slots=True)
class GridShift:
    """One activation's range before and after.

    Attributes:
        node: the graph node that puts the value out.
        before, after: lowest and highest real value of its grid.
    """

    node: str
    before: tuple[float, float]
    after: tuple[float, float]


@dataclass(frozen=True, slots=True)
class Recalibration:
    """What a new environment changed.

    Attributes:
        artefact: the new file.
        samples: from the new environment.
        shifts: of every grid that moved, the furthest first.
        divergence_before, divergence_after: of the old and the new file's outputs from the original's on them.
        changed_answers: share of these samples that the two files answer differently.
    """

    artefact: Artefact
    samples: int
    shifts: tuple[GridShift, ...]
    divergence_before: float
    divergence_after: float
    changed_answers: float

    def text(self) -> str:
        """What moved, in a few lines."""
        before, after = self.divergence_before, self.divergence_after
        better = "nearer to" if after < before else "no nearer to"
        lines = [
            f"{len(self.shifts)} activation ranges moved on {self.samples:,} samples of the new environment.",
            f"There the new file lies {better} the original: divergence {before:.3g} before, {after:.3g} now.",
            f"Old and new file answer {self.changed_answers:.2%} of the samples differently.",
        ]
        for shift in self.shifts[:5]:
            (a, b), (c, d) = shift.before, shift.after
            lines.append(f"  {shift.node}: {a:.4g} … {b:.4g} became {c:.4g} … {d:.4g}")
        if after >= before:
            lines.append("The old ranges fitted as well: keep the old file.")
        return "\n".join(lines)


def recalibrate(folder: Path, model: nn.Module, samples: Split, task: Task, out: Path) -> Recalibration:
    """Fit the grids of a run's artefact to a new environment, and make the new file.

    Args:
        folder: of the finished run.
        model: the original model that the run started from.
        samples: from the new environment; labels are not looked at.
        task: its divergence and answers say how far the file moved.
        out: where ``artefact``, ``recalibration.json`` and the new state go; another folder than the run's.

    Raises:
        RunError: the folder holds no finished run, or is ``out`` itself.
        PlanError: the run was made for another model, or nothing in it lies on integer grids.
    """
    if out.resolve() == folder.resolve() or folder.resolve() in out.resolve().parents:
        raise RunError(
            "A finished run is not overwritten.", f"--out {out} is the run itself, or lies in it", "name another folder"
        )
    if not len(samples):
        raise DataError("Recalibration needs samples.", "none", "hand over a few hundred from the new environment")
    plan = read_plan(folder / "plan.yaml")
    target = target_by_name(plan.target)
    stage = _stage_of(folder, folder / "plan.yaml")
    network = _rebuilt(model, samples, plan, stage, target)
    before = load_grids(stage)
    if not before:
        raise PlanError(
            "Only activations on integer grids can be recalibrated.",
            f"the plan in {folder} keeps all of them real",
            "nothing depends on the environment there: use the file as it is",
        )
    fitted = fit_biases(fit_grids(network, target.place(network), samples, plan.knobs.ranges))
    out.mkdir(parents=True, exist_ok=True)
    save_compressed(fitted, out)
    path = out / f"artefact{target.suffix}"
    artefact = target.lower(fitted, path)
    files = (folder / f"original{target.suffix}", folder / f"artefact{target.suffix}", path)
    told = _measured(artefact, (before, fitted), [outputs_of(target.load(one), samples) for one in files], task)
    write_record(told, out / "recalibration.json")
    return told


def _stage_of(folder: Path, plan: Path) -> Path:
    """The stage that made the run's artefact: the attempt with the same plan."""
    for made in sorted((folder / "stages").glob("4-attempt-*-network")):
        if (made / "plan.yaml").read_bytes() == plan.read_bytes():
            return made
    raise RunError(
        "The folder must hold a finished run.",
        f"{folder}: no stage made the plan in {plan.name}",
        "name the --out folder of a compress or apply that ended",
    )


def _rebuilt(model: nn.Module, samples: Split, plan: Plan, stage: Path, target: Target) -> Network:
    captured = capture(model, samples.take(range(min(2, len(samples)))).inputs)
    if captured.fingerprint() != plan.network:
        raise PlanError(
            "A run belongs to the model that it was made for.",
            "this run was made for another model, or for other weights",
            "name the model and weights of that run",
        )
    network = fold_batch_norm(captured)
    removals = read_removals(stage / "removals.json")
    if removals:
        network = prune(network, Prunable.of(network, Pruning()).coupling, removals).network
    return rebuild(network, plan, load_state(stage), target.capability, METHODS)


def _measured(
    artefact: Artefact,
    grids: tuple[dict[str, AffineGrid], Compressed],
    outputs: list[np.ndarray],
    task: Task,
) -> Recalibration:
    original, old, new = outputs
    before, after = grids
    pairs = [(node, _range(grid), _range(after.grids[node])) for node, grid in before.items() if node in after.grids]
    moved = [GridShift(*pair) for pair in pairs if pair[1] != pair[2]]
    changed = (task.answers(old) != task.answers(new)).reshape(len(old), -1).any(1)
    return Recalibration(
        artefact=artefact,
        samples=len(old),
        shifts=tuple(sorted(moved, key=_distance, reverse=True)),
        divergence_before=float(task.divergence(original, old)),
        divergence_after=float(task.divergence(original, new)),
        changed_answers=float(changed.mean()),
    )


def _range(grid: AffineGrid) -> tuple[float, float]:
    scale, zero, lowest, highest = grid.describe()
    return scale * (lowest - zero), scale * (highest - zero)


def _distance(shift: GridShift) -> float:
    """How far the ends moved, in units of the old range."""
    (a, b), (c, d) = shift.before, shift.after
    return max(abs(a - c), abs(b - d)) / max(b - a, 1e-30)
