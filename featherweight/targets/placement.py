"""Where activations lie on integer grids: read off the graph, the encodings and the target's operator data.

A layer whose weight encoding is ``integer`` needs its input and its output on grids. From there grids spread to the
operations between: forwards through everything that the target computes on integers, and backwards through operations
that only move values, so that as little as possible falls back to real numbers in between. Values of operations that
keep a scale (pooling, reshaping, concatenation) share one grid.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import fx

from featherweight.network.capture import Layer, Network
from featherweight.network.encodings import AffineEncoding, encoding_of

_aten = torch.ops.aten

MOVING = frozenset(
    {
        _aten.max_pool2d.default, _aten.flatten.using_ints, _aten.view.default, _aten.reshape.default,
        _aten.permute.default, _aten.transpose.int, _aten.squeeze.dim, _aten.unsqueeze.default, _aten.pad.default,
        _aten.constant_pad_nd.default, _aten.slice.Tensor, _aten.select.int, _aten.contiguous.default,
        _aten.clone.default, _aten.dropout.default,
    }
)  # fmt: skip
"""Operations that choose or move values: on integers they keep the grid, in every runtime."""

# Activations that a kernel computes together with the layer or addition before it: the grid comes after them.
FUSED = frozenset({_aten.relu.default, _aten.relu_.default, _aten.relu6.default, _aten.hardtanh.default})


@dataclass(frozen=True, slots=True)
class OperatorData:
    """Which ATen operations a target computes on integers.

    Attributes:
        same: input and output share one grid.
        free: input and output each have a grid of their own.
        fixed: the output's grid is given: operation → (scale, zero point).
    """

    same: frozenset[object]
    free: frozenset[object]
    fixed: Mapping[object, tuple[float, int]]


@dataclass(frozen=True, slots=True)
class Placement:
    """Nodes whose values lie on grids.

    Attributes:
        groups: nodes that share one grid; every gridded node is in exactly one group.
        fixed: node → (scale, zero point) where the operation gives its grid.
    """

    groups: tuple[tuple[str, ...], ...]
    fixed: Mapping[str, tuple[float, int]]

    @property
    def nodes(self) -> tuple[str, ...]:
        """All gridded nodes."""
        return tuple(node for group in self.groups for node in group)


def integer_layers(network: Network) -> list[Layer]:
    """The layers that an integer kernel is to run."""
    found = []
    for layer in network.layers:
        encoding = encoding_of(network.module.get_submodule(layer.name))
        if isinstance(encoding, AffineEncoding) and encoding.integer:
            found.append(layer)
    return found


def last_of_fused(node: fx.Node) -> fx.Node:
    """The activation that a kernel computes together with ``node``, which alone reads it; ``node`` where none is."""
    users = list(node.users)
    return users[0] if len(users) == 1 and users[0].target in FUSED and _clips(users[0]) else node


def _clips(node: fx.Node) -> bool:
    """Whether a clipping activation is one that kernels fuse: hardtanh only as ReLU6."""
    return node.target is not _aten.hardtanh.default or tuple(node.args[1:3]) == (0, 6) or node.args[1:3] == (0.0, 6.0)


def values_read(node: fx.Node) -> list[fx.Node]:
    """The inputs of a node that are activations: not parameters, not sizes."""
    return [
        source
        for source in node.all_input_nodes
        if isinstance(source.meta.get("val"), torch.Tensor) and source.op in ("placeholder", "call_function")
    ]


class _Spread:
    """Grids spreading over one graph; ``leader`` is a union-find over nodes that share a grid."""

    def __init__(self, graph: fx.Graph, data: OperatorData) -> None:
        self.nodes = list(graph.nodes)
        self.data = data
        self.leader: dict[fx.Node, fx.Node] = {}

    def place(self, node: fx.Node) -> bool:
        if node in self.leader:
            return False
        self.leader[node] = node
        return True

    def find(self, node: fx.Node) -> fx.Node:
        while self.leader[node] is not node:
            node = self.leader[node]
        return node

    def tie(self, nodes: Iterable[fx.Node]) -> None:
        first, *rest = nodes
        for node in rest:
            self.leader[self.find(node)] = self.find(first)

    def forwards(self) -> bool:
        changed = False
        for node in self.nodes:
            known = node.target in self.data.same or node.target in self.data.free or node.target in self.data.fixed
            values = values_read(node)
            if node.op != "call_function" or not known or not values or (node.target in FUSED and self._covered(node)):
                continue
            real = [a for a in node.args if isinstance(a, (int, float)) and node.target in self.data.free]
            if all(value in self.leader for value in values) and not (real and node.target in _ARITHMETIC):
                changed |= self.place(last_of_fused(node))
        return changed

    def _covered(self, node: fx.Node) -> bool:
        """Whether a fused activation belongs to the operation before it, which places the grid."""
        source = node.all_input_nodes[0]
        return last_of_fused(source) is node and source not in self.leader

    def backwards(self) -> bool:
        changed = False
        for node in reversed(self.nodes):
            if node in self.leader and node.op == "call_function" and node.target in self.data.same:
                for value in values_read(node):
                    changed |= self.place(value)
        return changed


_ARITHMETIC = frozenset({_aten.add.Tensor, _aten.sub.Tensor, _aten.mul.Tensor, _aten.add_.Tensor, _aten.mul_.Tensor})


def place_grids(network: Network, data: OperatorData) -> Placement:
    """Which values of the network lie on integer grids on a target.

    Args:
        network: with encodings on its weights.
        data: the target's operator data.
    """
    spread = _Spread(network.graph.graph, data)
    by_name = {node.name: node for node in spread.nodes}
    for layer in integer_layers(network):
        node = by_name[layer.node]
        spread.place(values_read(node)[0])
        spread.place(last_of_fused(node))
    while spread.forwards() | spread.backwards():
        pass
    for node in spread.nodes:
        if node in spread.leader and node.op == "call_function" and node.target in data.same:
            tied = [value for value in values_read(node) if value in spread.leader]
            if tied:
                spread.tie([node, *tied])
    groups: dict[fx.Node, list[str]] = {}
    for node in spread.nodes:
        if node in spread.leader:
            groups.setdefault(spread.find(node), []).append(node.name)
    fixed = {
        node.name: data.fixed[node.target]
        for node in spread.nodes
        if node in spread.leader and node.op == "call_function" and node.target in data.fixed
    }
    return Placement(tuple(tuple(group) for group in groups.values()), fixed)
