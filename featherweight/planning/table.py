"""The table: all options of all families for every layer, with cost and predicted divergence.

Errors come from the evidence in closed form. What an error at one layer means for the network's answers is measured
with a few options of the layer put in place alone; the others follow on the curve through them
(:mod:`featherweight.planning.calibration`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import nn

from featherweight.contracts import Capability, Cost, CostForm, Option, Refusal, Steps, Table
from featherweight.methods.seam import (
    Method,
    Subject,
    apply_steps,
    chains,
    cost_form,
    leaves,
    predicted_error,
    subject_of,
    widths_of,
)
from featherweight.network.capture import Layer, Network
from featherweight.network.encodings import is_integer
from featherweight.numerics.affine import AffineGrid
from featherweight.numerics.gram import shrunk
from featherweight.observation.evidence import Evidence
from featherweight.observation.suffix import Suffix, anchor_samples
from featherweight.planning.calibration import divergence_curve, spread_anchors
from featherweight.planning.rates import with_rate
from featherweight.progress import track
from featherweight.tasks.data import Split
from featherweight.tasks.task import Task

ANCHORS = 4
_BROKEN = 1e9


@dataclass(frozen=True)
class _Row:
    """One layer's options before their errors mean anything to the network.

    Attributes:
        layer, subject: what they are of.
        entries: steps, cost and predicted error.
        seen: the errors on the samples that the covariance was seen on.
    """

    layer: Layer
    subject: Subject
    entries: list[tuple[Steps, CostForm, float]]
    seen: list[float]


def _row(
    subject: Subject, covariance: torch.Tensor, methods: Sequence[Method], *, rated: bool
) -> tuple[_Row, list[Refusal]]:
    layer, capability = subject.layer, subject.capability
    entries: list[tuple[Steps, CostForm, float]] = []
    refusals: list[Refusal] = []
    errors: list[float] = []
    for found in chains(subject, methods):
        if isinstance(found, Refusal):
            refusals.append(found)
            continue
        steps, state = found
        form = cost_form(layer, state.module, capability)
        if rated:
            form = with_rate(form, layer, state.module, capability)
        error = predicted_error(state) if steps else 0.0
        entries.append((steps, form, error))
        same = not steps or covariance is subject.covariance
        errors.append(error if same else predicted_error(replace(state, covariance=covariance)))
    return _Row(layer, subject, entries, errors), refusals


class _Rounded(nn.Module):
    def __init__(self, grid: AffineGrid) -> None:
        super().__init__()
        self.grid = grid

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.grid.round(x)


class _Sensitivity:
    """Measures what an error at one layer does to the network's outputs; cheapest with layers in execution order."""

    def __init__(self, network: Network, evidence: Evidence, split: Split, task: Task) -> None:
        count = anchor_samples(network.cost, len(split))
        self.suffix = Suffix(network.graph, split.take(range(count)).inputs)
        self.reference = evidence.outputs[:count].numpy()
        self.task = task

    def measure(self, layer: Layer, replacement: nn.Module, grid: AffineGrid) -> float:
        """The divergence with one layer replaced; an integer kernel's input is rounded to its grid."""
        integer = is_integer(leaves(replacement)[0])
        module = nn.Sequential(_Rounded(grid), replacement) if integer else replacement
        outputs = self.suffix.outputs(layer.node, module).float().numpy()
        return float(np.clip(self.task.divergence(self.reference, outputs), 0.0, _BROKEN))


def build_table(
    network: Network,
    evidence: Evidence,
    split: Split,
    task: Task,
    capability: Capability,
    methods: Sequence[Method],
    *,
    whole: Cost,
) -> Table:
    """Every option of every layer.

    Args:
        network: the dense network.
        evidence: from :func:`featherweight.observation.observe` on ``split``.
        split: the calibration samples that the evidence was made from.
        task: its divergence says how far outputs moved.
        capability: of the target.
        methods: the catalogue.
        whole: of the artefact in which every layer is kept: what no option accounts for is the fixed cost. Options say
            what they take in a package where it does.
    """
    options: dict[str, tuple[Option, ...]] = {}
    refusals: list[Refusal] = [*network.refusals, *evidence.refusals]
    sensitivity = _Sensitivity(network, evidence, split, task)
    kept = Cost(0, 0, 0)
    for layer in track(network.layers, "building the table"):
        seen = evidence.layers.get(layer.name)
        if seen is None:
            if layer.replaceable and not any(refusal.subject == layer.name for refusal in refusals):
                reason = f"no method handles a {layer.kind} layer yet"
                refusals.append(Refusal(layer.name, "options", reason))
            continue
        module = network.module.get_submodule(layer.name)
        covariance = seen.covariance
        likely = shrunk(covariance, seen.rows)
        subject = subject_of(layer, module, likely, seen.mean, seen.input_noise, capability)
        row, refused = _row(subject, covariance, methods, rated=whole.package_bytes > 0)
        refusals += refused
        options[layer.name] = _calibrated(row, sensitivity, methods, seen.input_grid)
        kept += _kept(row, module, capability) if whole.package_bytes else options[layer.name][0].cost
    widths = {layer.name: widths_of(layer) for layer in network.layers if layer.name in options}
    return Table(options, tuple(refusals), whole - kept, widths)


def _kept(row: _Row, module: nn.Module, capability: Capability) -> Cost:
    """Of a layer in the file of the original: its reals as they are coded there, before any refit."""
    form = with_rate(row.entries[0][1], row.layer, module, capability, kept=True)
    return form.at(*widths_of(row.layer))


def _calibrated(
    row: _Row, sensitivity: _Sensitivity, methods: Sequence[Method], grid: AffineGrid
) -> tuple[Option, ...]:
    name = row.layer.name
    errors = [error for _, _, error in row.entries]
    anchors = spread_anchors(errors, ANCHORS)
    built = [apply_steps(row.subject, row.entries[anchor][0], methods) for anchor in anchors]
    measured = [sensitivity.measure(row.layer, module, grid) for module in built]
    # Measured on samples that the covariance was seen on: so errors are those on them.
    curve = divergence_curve([row.seen[anchor] for anchor in anchors], measured, errors)
    return tuple(
        Option(name, steps, form.at(*widths_of(row.layer)), error, float(divergence), form)
        for (steps, form, error), divergence in zip(row.entries, curve, strict=True)
    )
