"""The table: all options of all families for every layer, with cost and predicted divergence.

Errors come from the evidence in closed form. What an error at one layer means for the network's answers is measured
once a layer: one anchor option is put in place alone, and the divergence of the network's outputs from the original's
is divided by that option's error. All other options of the layer scale with it (second-order: both are quadratic in a
small perturbation).
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from featherweight.contracts import Capability, Cost, Option, Refusal, Steps, Table
from featherweight.methods.seam import Method, Subject, apply_steps, chains, cost_of, predicted_error, subject_of
from featherweight.network.capture import Layer, Network
from featherweight.network.modules import replace_module
from featherweight.observation.evidence import Evidence
from featherweight.progress import track
from featherweight.tasks.data import Split
from featherweight.tasks.task import Task

ANCHOR_SAMPLES = 128
_SMALLEST = 1e-12
_BROKEN = 1e9


@dataclass(frozen=True)
class _Row:
    """One layer's options before their errors mean anything to the network."""

    layer: Layer
    subject: Subject
    entries: list[tuple[Steps, Cost, float]]


def _row(layer: Layer, subject: Subject, methods: Sequence[Method]) -> tuple[_Row, list[Refusal]]:
    entries: list[tuple[Steps, Cost, float]] = []
    refusals: list[Refusal] = []
    for found in chains(subject, methods):
        if isinstance(found, Refusal):
            refusals.append(found)
            continue
        steps, state = found
        entries.append(
            (steps, cost_of(layer, state.module, subject.capability), predicted_error(state) if steps else 0.0)
        )
    return _Row(layer, subject, entries), refusals


def _anchor(row: _Row) -> tuple[Steps, float] | None:
    """The option whose error lies in the middle: far from rounding noise, near enough to be a small perturbation."""
    ranked = sorted((entry for entry in row.entries if entry[2] > 0.0), key=lambda entry: entry[2])
    if not ranked:
        return None
    steps, _, error = ranked[len(ranked) // 2]
    return steps, error


class _Sensitivity:
    """Measures what an error at one layer does to the network's outputs."""

    def __init__(self, network: Network, evidence: Evidence, split: Split, task: Task) -> None:
        count = min(len(split), ANCHOR_SAMPLES)
        self.module = copy.deepcopy(network.module)
        self.inputs = split.take(range(count)).inputs
        self.reference = evidence.outputs[:count].numpy()
        self.task = task

    def measure(self, name: str, replacement: nn.Module) -> float:
        original = self.module.get_submodule(name)
        replace_module(self.module, name, replacement)
        with torch.no_grad():
            outputs = self.module(*self.inputs).float().numpy()
        replace_module(self.module, name, original)
        return float(np.clip(self.task.divergence(self.reference, outputs), 0.0, _BROKEN))


def build_table(
    network: Network,
    evidence: Evidence,
    split: Split,
    task: Task,
    capability: Capability,
    methods: Sequence[Method],
    *,
    whole_bytes: int,
) -> Table:
    """Every option of every layer.

    Args:
        network: the dense network.
        evidence: from :func:`featherweight.observation.observe` on ``split``.
        split: the calibration samples that the evidence was made from.
        task: its divergence says how far outputs moved.
        capability: of the target.
        methods: the catalogue.
        whole_bytes: of the artefact in which every layer is kept: what no option accounts for is the fixed cost.
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
        subject = subject_of(layer, module, seen.covariance, seen.mean, seen.input_noise, capability)
        row, refused = _row(layer, subject, methods)
        refusals += refused
        options[layer.name] = _calibrated(row, sensitivity, methods)
        kept += cost_of(layer, module, capability)
    whole = network.cost
    fixed = Cost(whole_bytes - kept.size_bytes, whole.macs - kept.macs, whole.parameters - kept.parameters)
    return Table(options, tuple(refusals), fixed)


def _calibrated(row: _Row, sensitivity: _Sensitivity, methods: Sequence[Method]) -> tuple[Option, ...]:
    name = row.layer.name
    anchor = _anchor(row)
    slope = 0.0
    if anchor is not None:
        steps, error = anchor
        slope = max(sensitivity.measure(name, apply_steps(row.subject, steps, methods)), _SMALLEST) / error
    return tuple(Option(name, steps, cost, error, slope * error) for steps, cost, error in row.entries)
