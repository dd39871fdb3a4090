"""Coupled units on the table: how many groups of channels stay, what that saves where, and what it costs the network.

For every count the groups are chosen, the consumers refit in closed form, and the error of their outputs summed. For a
few counts a unit the network is run with these groups silenced and these consumers in place; the other counts follow
on the curve through the measured ones.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from featherweight.contracts import Capability, Cost, Keep, Refusal, Steps, Table
from featherweight.methods.pruning import Grounds, Prunable, Pruning, removals_for
from featherweight.methods.pruning.structured import ranked
from featherweight.network.capture import Network
from featherweight.network.channels import ChannelUnit, Coupling
from featherweight.network.surgery import parameters_gone, silence
from featherweight.numerics.elimination import compensated
from featherweight.numerics.gram import output_error
from featherweight.observation.readers import readers_of
from featherweight.observation.suffix import anchor_samples
from featherweight.planning.calibration import divergence_curve, spread_anchors
from featherweight.planning.rates import DESCRIPTION
from featherweight.progress import track
from featherweight.tasks.task import Task

ANCHORS = 3
_BROKEN = 1e9


@dataclass(frozen=True)
class Cutting:
    """One count of a unit: what goes, and what that does.

    Attributes:
        keep: groups that stay.
        removals: groups that go.
        weights: name of a consumer's weight → the weight after its refit, zero where columns went.
        error: of the consumers' outputs.
    """

    keep: int
    removals: tuple[int, ...]
    weights: Mapping[str, torch.Tensor]
    error: float


def independent_units(coupling: Coupling) -> list[ChannelUnit]:
    """Units that share no slice of a parameter, the first of every clash: whole heads and head widths are such."""
    chosen: list[ChannelUnit] = []
    for unit in coupling.units:
        if not any(unit.overlaps(other) for other in chosen):
            chosen.append(unit)
    return chosen


def cuttings(
    network: Network, unit: ChannelUnit, grounds: Grounds, pruning: Pruning, counts: Sequence[int]
) -> list[Cutting]:
    """What every count of kept groups does, from the evidence alone."""
    ranking, _ = ranked(network, unit, pruning.criterion, grounds)
    readers = readers_of(network, unit, grounds.evidence)
    found = []
    for keep in counts:
        gone = removals_for(unit, ranking, keep)
        weights, error = {}, 0.0
        for name, reader in readers.items():
            columns = reader.columns[list(gone)].flatten()
            fitted = compensated(reader.weight, reader.covariance, columns[columns >= 0])
            error += output_error((fitted - reader.weight).unsqueeze(0), reader.covariance.unsqueeze(0))
            weights[name] = fitted
        if not readers:  # no closed form here: the criterion's own measure orders the counts, anchors give it a meaning
            error = float(ranking.errors[unit.groups - keep])
        found.append(Cutting(keep, gone, weights, error))
    return found


@dataclass(frozen=True)
class Yardstick:
    """Measures what a cutting does to the network's outputs."""

    network: Network
    coupling: Coupling
    inputs: tuple[torch.Tensor, ...]
    reference: np.ndarray
    task: Task

    def measure(self, unit: ChannelUnit, cutting: Cutting) -> float:
        """The divergence with these groups silenced and the consumers refit."""
        weights = {}
        for name, fitted in cutting.weights.items():
            state = self.network.layer(name).weight
            owner = self.network.module.get_parameter(state)
            weights[state] = fitted.reshape(owner.shape).to(owner.dtype)
        masked = silence(self.network.graph, self.coupling, {unit.name: cutting.removals}, weights)
        with torch.no_grad():
            outputs = masked(*self.inputs)
        outputs = outputs[0] if isinstance(outputs, tuple) else outputs
        return float(np.clip(self.task.divergence(self.reference, outputs.float().numpy()), 0.0, _BROKEN))


def with_keeps(
    table: Table,
    network: Network,
    prunable: Prunable,
    grounds: Grounds,
    task: Task,
    capability: Capability,
) -> Table:
    """The table with the choices of every coupled unit.

    Args:
        table: of the layers.
        network: the dense network.
        prunable: its coupled channels, and how to choose among them.
        grounds: calibration samples and what was seen on them.
        task: its divergence says how far outputs moved.
        capability: of the target.
    """
    coupling, pruning, priced = prunable.coupling, prunable.pruning, tuple(table.options)
    rate = rate_elsewhere(table.fixed)
    if grounds.split is None:
        raise TypeError("pricing coupled channels runs the network on samples: grounds without a split won't do")
    count = anchor_samples(network.cost, len(grounds.split))
    inputs, reference = grounds.split.take(range(count)).inputs, grounds.evidence.outputs[:count].numpy()
    yardstick = Yardstick(network, coupling, inputs, reference, task)
    keeps: dict[str, tuple[Keep, ...]] = {}
    refusals = [*table.refusals, *coupling.refusals]
    for unit in track(independent_units(coupling), "pricing coupled channels"):
        counts = pruning.options(unit, capability)
        if not counts:
            reason = f"its {unit.groups} groups can't be fewer at the multiple that the target asks for"
            refusals.append(Refusal(unit.name, "pruning", reason))
            continue
        found = cuttings(network, unit, grounds, pruning, counts)
        # The best refit of fewer channels can't be better, whatever rounding says of errors near zero.
        errors = np.maximum.accumulate([cutting.error for cutting in found]).tolist()
        anchors = spread_anchors(errors, ANCHORS)
        measured = [yardstick.measure(unit, found[anchor]) for anchor in anchors]
        curve = divergence_curve([errors[anchor] for anchor in anchors], measured, errors)
        row = [keep_of(network, unit, 0, (), priced, rate=rate)]
        for cut, error, divergence in zip(found, errors, curve, strict=True):
            told, steps = (error, float(divergence)), (pruning.step(cut.keep),)
            row.append(keep_of(network, unit, len(cut.removals), steps, priced, told, rate=rate))
        keeps[unit.name] = tuple(row)
    return replace(table, keeps=keeps, refusals=tuple(refusals))


def keep_of(
    network: Network,
    unit: ChannelUnit,
    gone: int,
    steps: Steps,
    priced: Sequence[str],
    told: tuple[float, float] = (0.0, 0.0),
    *,
    rate: float = 0.0,
) -> Keep:
    """What losing some groups of a unit takes from which layer, and saves elsewhere.

    Args:
        network: the dense network.
        unit: one of its coupled units.
        gone: how many groups go.
        steps: the pruning step; empty where all stay.
        priced: the layers of the table.
        told: predicted error and divergence.
        rate: bytes in a package for each byte that is saved elsewhere, see :func:`rate_elsewhere`.
    """
    weights = {network.layer(name).weight: name for name in priced}
    rows: dict[str, int] = {}
    columns: dict[str, int] = {}
    for piece in unit.slices:
        if piece.state in weights:
            side, layer = (rows, columns)[piece.axis], weights[piece.state]
            side[layer] = side.get(layer, 0) + gone * piece.indices.shape[1]
    shapes = {
        name: tuple(parameter.shape)
        for name, parameter in network.module.named_parameters()
        if name.rpartition(".")[0] not in priced
    }
    lost = parameters_gone(unit, gone, shapes)
    parameters = sum(lost.values())
    # A call's multiplications are its weight's entries times its positions, and those stay.
    macs = sum(
        layer.cost.macs * lost[layer.weight] // math.prod(layer.weight_shape)
        for layer in network.layers
        if layer.weight in lost
    )
    size = 4 * parameters
    return Keep(unit.name, steps, rows, columns, Cost(size, macs, parameters, rate * size), *told)


def rate_elsewhere(fixed: Cost) -> float:
    """Bytes in a package for each byte of the parameters that belong to no layer of the table, between 0 and 1.

    Args:
        fixed: the table's; beside those parameters, which are float32, there is the file's description. Where nobody
            asked for packages there are none in it, and the rate is 0.
    """
    held = 4 * fixed.parameters
    packed = fixed.package_bytes - DESCRIPTION * (fixed.size_bytes - held)
    return min(max(packed / held, 0.0), 1.0) if held else 0.0
