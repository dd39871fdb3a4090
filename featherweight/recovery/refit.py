"""Refit: every layer of a smaller network fitted, in execution order, to what the dense network puts out there.

For a network whose channels were removed. Both graphs hold the same calls under the same names; the dense one runs
first and leaves sampled rows of every layer's output; the smaller one follows, and each of its layers is solved for
those rows from the inputs that the smaller prefix really gives. Where a layer's output is added to a shortcut, the
target is what the sum lacks, so that an error that came down the shortcut is repaired too.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import fx

from featherweight.network.capture import Layer, Network, capture
from featherweight.network.modules import copied, set_bias, set_weight, weight_of
from featherweight.numerics.gram import covariance_of, refit
from featherweight.observation.evidence import OBSERVED_KINDS
from featherweight.observation.rows import input_rows, output_rows, sample_positions, weight_rows
from featherweight.tasks.data import Split

_ROWS_PER_LAYER = 24_576
_SUMS = (torch.ops.aten.add.Tensor, torch.ops.aten.add_.Tensor)

Kept = Mapping[str, torch.Tensor]


def shortcut_of(node: fx.Node) -> fx.Node | None:
    """The other side of the sum that a layer's output goes into and nowhere else; None where there is none."""
    users = list(node.users)
    if len(users) != 1 or users[0].target not in _SUMS or len(users[0].all_input_nodes) != 2:
        return None
    (other,) = [source for source in users[0].all_input_nodes if source is not node] or [None]
    return other


def _refittable(layer: Layer) -> bool:
    whole = layer.groups == 1 or layer.kind.startswith("depthwise")
    return layer.replaceable and layer.kind in OBSERVED_KINDS and whole


class _Dense(fx.Interpreter):
    """Runs the dense graph and keeps sampled rows of every layer's output and of the shortcut it is added to."""

    def __init__(self, network: Network, seed: int) -> None:
        super().__init__(network.graph)
        self.layers = {layer.node: layer for layer in network.layers if _refittable(layer)}
        self.shortcuts: dict[fx.Node, str] = {}
        self.nodes = {node.name: node for node in network.graph.graph.nodes}
        self.generator = torch.Generator().manual_seed(seed)
        self.positions: dict[str, torch.Tensor] = {}
        self.outputs: dict[str, torch.Tensor] = {}
        self.added: dict[str, torch.Tensor] = {}

    def run_node(self, n: fx.Node) -> object:
        result = super().run_node(n)
        layer = self.layers.get(n.name)
        if layer is not None and isinstance(result, torch.Tensor):
            at = sample_positions(layer, len(result), -(-_ROWS_PER_LAYER // len(result)), self.generator)
            self.positions[n.name] = at
            self.outputs[n.name] = output_rows(layer, result, at)
            other = shortcut_of(n)
            value = self.env.get(other) if other is not None else None
            if isinstance(value, torch.Tensor) and value.shape == result.shape:
                self.added[n.name] = output_rows(layer, value, at)
        return result


@dataclass
class _Moments:
    mean: torch.Tensor
    covariance: torch.Tensor
    cross: torch.Tensor
    centre: torch.Tensor


def _moments(rows: torch.Tensor, targets: torch.Tensor) -> _Moments:
    count = rows.shape[1]
    mean, centre = rows.double().mean(1), targets.double().mean(1)
    covariance = covariance_of((rows.transpose(1, 2) @ rows).double() / count, mean)
    cross = (targets.transpose(1, 2) @ rows).double() / count - centre.unsqueeze(2) * mean.unsqueeze(1)
    return _Moments(mean, covariance, cross, centre)


@dataclass
class _Smaller(fx.Interpreter):
    """Runs the smaller graph and refits its layers as it meets them."""

    network: Network
    dense: _Dense
    kept: Kept
    damping: float
    fresh: dict[str, tuple[torch.Tensor, torch.Tensor]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        super().__init__(self.network.graph)
        self.layers = {layer.node: layer for layer in self.network.layers if _refittable(layer)}

    def run_node(self, n: fx.Node) -> object:
        layer = self.layers.get(n.name)
        if layer is None or n.name not in self.dense.outputs:
            return super().run_node(n)
        args, kwargs = self.fetch_args_kwargs_from_env(n)
        at = self.dense.positions[n.name]
        targets = self._select(layer, self.dense.outputs[n.name])
        added = self._lacking(layer, n, at)
        moments = _moments(input_rows(layer, args[0], at), targets if added is None else targets + added)
        weight = self.network.module.get_parameter(layer.weight).detach()
        fitted = refit(weight_rows(layer, weight), moments.covariance, moments.cross, self.damping)
        bias = moments.centre - (fitted @ moments.mean.unsqueeze(-1)).squeeze(-1)
        self.fresh[layer.name] = (fitted.reshape(weight.shape).to(weight.dtype), bias.flatten().to(weight.dtype))
        return self.call_function(n.target, (args[0], *self.fresh[layer.name], *args[3:]), kwargs)

    def _select(self, layer: Layer, rows: torch.Tensor) -> torch.Tensor:
        """The rows of the dense output that belong to kept channels."""
        kept = self.kept.get(layer.name)
        if kept is None:
            return rows
        return rows[kept] if layer.kind.startswith("depthwise") else rows[:, :, kept]

    def _lacking(self, layer: Layer, n: fx.Node, at: torch.Tensor) -> torch.Tensor | None:
        """What the shortcut of the smaller network lacks against the dense one's, where it is known already."""
        other = shortcut_of(n)
        value = self.env.get(other) if other is not None else None
        if n.name not in self.dense.added or not isinstance(value, torch.Tensor):
            return None
        here = output_rows(layer, value, at)
        there = self._select(layer, self.dense.added[n.name])
        return there - here if there.shape == here.shape else None


def refit_network(
    dense: Network, smaller: Network, kept: Kept, split: Split, *, damping: float = 3e-3, seed: int = 0
) -> Network:
    """Fit every layer of the smaller network to the dense one's outputs, in execution order.

    Args:
        dense: the network before channels were removed.
        smaller: after; its graph holds the same calls.
        kept: layer → output channels that stayed, as positions in the dense layer; layers that kept all may be missing.
        split: calibration samples, all held at once.
        damping: pull towards the smaller network's own weights, relative to the inputs' mean second moment.
        seed: of the sampled positions.
    """
    inputs = split.take(range(len(split))).inputs
    teacher = _Dense(dense, seed)
    with torch.no_grad():
        teacher.run(*inputs)
        student = _Smaller(smaller, teacher, kept, damping)
        student.run(*inputs)
    module = copied(smaller.module)
    for name, (weight, bias) in student.fresh.items():
        owner = module.get_submodule(name)
        set_weight(owner, weight)
        set_bias(owner, bias)
        if weight_of(owner).shape != weight.shape:
            raise ValueError(f"{name}: {tuple(weight.shape)} against {tuple(weight_of(owner).shape)}")
    return capture(module, smaller.example)
