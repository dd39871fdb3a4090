"""A run told as plain values: what the report and the card are written from."""

from __future__ import annotations

import importlib.metadata
import platform
from dataclasses import replace
from pathlib import Path

from featherweight.contracts import (
    Attempt,
    Certificate,
    Goal,
    Keep,
    LayerStory,
    Option,
    Plan,
    Quantity,
    Side,
    Story,
    Table,
    UnitStory,
    describe,
)
from featherweight.methods.seam import PRUNING, layer_steps
from featherweight.planning.widths import narrowed
from featherweight.stages import Clocked, Job, Made, Reference
from featherweight.targets.device import device

_PACKAGES = (
    *("featherweight", "torch", "numpy", "scipy", "litert-torch", "ai-edge-litert"),
    *("onnx", "onnxscript", "onnxruntime"),
)


def versions() -> dict[str, str]:
    """Package → version, for those that are installed."""
    found = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def identity_of(job: Job) -> dict[str, object]:
    """What makes a run this run: plain values. Another goal is planned in the same folder, from the same table."""
    return {
        "model": job.captured.fingerprint(),
        "data": job.data.fingerprint(),
        "target": job.target.name,
        "task": job.task.name,
        "metric": [job.task.metric.name, getattr(job.task.metric, "digest", "")],
        "methods": [*([f"pruning {job.pruning.criterion}"] if job.pruning else []), *(m.name for m in job.methods)],
        "seed": job.seed,
        **({"calibration": "synthesized"} if job.data.data_free else {}),
        "versions": versions(),
    }


_EXCESSES: dict[Quantity, str] = {
    "size": "Its file has {0:,.0f} bytes; the goal allows {1:,.0f}.",
    "package": "Its package has {0:,.0f} bytes; the goal allows {1:,.0f}.",
    "macs": "It takes {0:,.0f} MACs; the goal allows {1:,.0f}.",
    "latency": "It takes {0:.3f} ms; the goal allows {1:.3f}.",
    "memory": "Its activations take {0:,.0f} bytes at the peak; the goal allows {1:,.0f}.",
}


def verdict_of(goal: Goal, certificate: Certificate, side: Side) -> tuple[bool, str]:
    """Whether the goal holds with its limits, and the outcome in one sentence."""
    missed = [] if certificate.holds else [certificate.statement]
    reached: dict[Quantity, float] = {
        "size": side.artefact.size_bytes,
        "package": side.package_bytes,
        "macs": side.macs,
        "latency": side.timing.median_ms,
        "memory": side.peak_activation_bytes,
    }
    missed += [
        _EXCESSES[quantity].format(reached[quantity], limit)
        for quantity, limit in goal.limits.items()
        if reached[quantity] > limit
    ]
    if missed:
        return False, "Goal not met; this is the nearest result. " + " ".join(missed)
    return True, "Goal met. " + certificate.statement


def _layers(job: Job, table: Table, plan: Plan) -> tuple[LayerStory, ...]:
    keeps = {unit: _kept(row, plan, unit) for unit, row in table.keeps.items()}
    narrow = narrowed(table, {unit: keep for unit, keep in keeps.items() if keep is not None})
    rows = []
    for layer in job.network.layers:
        options, now = table.options.get(layer.name, ()), narrow.options.get(layer.name, ())
        chosen, keep = _chosen(now, plan, layer.name), keeps.get(layer.name)
        refused = tuple(f"{r.action}: {r.reason}" for r in table.refusals if r.subject == layer.name)
        parts = [one for one in (chosen, keep) if one is not None]
        rows.append(
            LayerStory(
                name=layer.name,
                kind=layer.kind,
                input_shape=layer.input_shape,
                output_shape=layer.output_shape,
                before=options[0].cost if options else layer.cost,
                after=chosen.cost if chosen else layer.cost,
                activation_bytes=layer.activation_bytes,
                chosen=describe(plan.choices.get(layer.name, ())),
                error=sum(one.error for one in parts),
                divergence=sum(one.divergence for one in parts),
                refused=refused,
                options=len(options) + max(0, len(table.keeps.get(layer.name, ())) - 1),
            )
        )
    return tuple(rows)


def _units(table: Table, plan: Plan, made: tuple[UnitStory, ...]) -> tuple[UnitStory, ...]:
    """What was reached, with what the table had promised."""
    told = []
    for unit in made:
        keep = _kept(table.keeps.get(unit.unit, ()), plan, unit.unit)
        told.append(unit if keep is None else replace(unit, error=keep.error, divergence=keep.divergence))
    return tuple(told)


def _chosen(options: tuple[Option, ...], plan: Plan, layer: str) -> Option | None:
    steps = layer_steps(plan.choices.get(layer, ()))
    return next((option for option in options if option.steps == steps), None)


def _kept(keeps: tuple[Keep, ...], plan: Plan, unit: str) -> Keep | None:
    steps = tuple(step for step in plan.choices.get(unit, ()) if step.method == PRUNING)
    return next((keep for keep in keeps if keep.steps == steps), None)


def _preparation(job: Job) -> tuple[str, ...]:
    if not job.smoothing:
        return ()
    count, readers = len(job.smoothing), sum(len(one.site.readers) for one in job.smoothing)
    before, after = (sum(getattr(one, side) for one in job.smoothing) for side in ("before", "after"))
    whose = "a normalisation's" if count == 1 else f"{count:,} normalisations'"
    whom = "the layer that reads" if readers == 1 else f"the {readers:,} layers that read"
    return (
        f"Outliers in {whose} channels were moved into the weights of {whom} them "
        f"(SmoothQuant): on int8, their outputs' squared error is predicted to be {after:.3g} instead of {before:.3g}.",
    )


def story_of(
    job: Job,
    table: Table,
    plan: Plan,
    files: tuple[Reference, Made, tuple[Path, Path]],
    certificate: Certificate,
    clock: Clocked,
    attempts: tuple[Attempt, ...],
) -> Story:
    """Everything that a report tells."""
    original, file, packed = files
    before_packed, after_packed = (path.stat().st_size for path in packed)
    dense, small = job.captured, file.network
    parts, peak = job.target.parts, job.target.peak_memory
    before = Side(
        original.artefact, dense.cost.macs, dense.cost.parameters, peak(original.path), clock.original,
        clock.original_operators, parts(original.path), original.parity, before_packed,
    )  # fmt: skip
    after = Side(
        file.artefact, small.cost.macs, small.cost.parameters, peak(file.path), clock.artefact,
        clock.artefact_operators, parts(file.path), file.parity, after_packed,
    )  # fmt: skip
    met, verdict = verdict_of(job.goal, certificate, after)
    data = job.data
    return Story(
        goal=job.goal,
        plan=plan,
        certificate=certificate,
        met=met,
        verdict=verdict,
        original=before,
        compressed=after,
        layers=_layers(job, table, plan),
        attempts=attempts,
        refusals=table.refusals,
        samples={
            "train": len(data.train),
            "calibration": len(job.calibration),
            "validation": len(data.validation),
            "test": len(data.test),
        },
        hashes={
            "model": dense.fingerprint(),
            "data": data.fingerprint(),
            "original": original.artefact.sha256,
            "artefact": file.artefact.sha256,
        },
        versions=versions(),
        device=device(),
        labelled=data.test.labels is not None,
        units=_units(table, plan, file.units),
        calibration=job.source,
        preparation=_preparation(job),
        table=table,
    )
