"""A network's activations as numbers: who makes and reads them, their elements at any widths, where they are integers.

Everything that a choice of the table doesn't change is worked out once.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import fx, nn

from featherweight.network.capture import Network
from featherweight.network.channels import Coupling
from featherweight.network.encodings import AffineEncoding, encode
from featherweight.numerics.affine import AffineGrid
from featherweight.targets.placement import last_of_fused, values_read
from featherweight.targets.seam import Target

_aten = torch.ops.aten
_SHARING = frozenset(
    {
        _aten.flatten.using_ints, _aten.view.default, _aten.reshape.default, _aten.squeeze.dim, _aten.squeeze.dims,
        _aten.unsqueeze.default, _aten.contiguous.default, _aten.clone.default, _aten.dropout.default,
        _aten.alias.default, _aten.detach.default, _aten._unsafe_view.default,
    }
)  # fmt: skip
_FUSING = frozenset({_aten.add.Tensor, _aten.add_.Tensor, _aten.sub.Tensor, _aten.mul.Tensor, _aten.mul_.Tensor})

Numbers = NDArray[np.int64]
Reals = NDArray[np.float64]
Flags = NDArray[np.bool_]


@dataclass
class Values:
    """The graph as values and readers, in execution order; filled node by node.

    Attributes:
        place: node → its value's number.
        made: value → the operator that makes it; inputs are made by operator 0.
        elements: value → how many it has for one sample.
        nodes: value → the nodes that are it.
        readers: (value, operator).
        operators: operator → its node; the first is the call itself.
    """

    place: dict[fx.Node, int] = field(default_factory=dict)
    made: list[int] = field(default_factory=list)
    elements: list[float] = field(default_factory=list)
    nodes: list[list[fx.Node]] = field(default_factory=list)
    readers: list[tuple[int, int]] = field(default_factory=list)
    operators: list[fx.Node | None] = field(default_factory=lambda: [None])

    @classmethod
    def of(cls, network: Network) -> Values:
        """Of a captured network."""
        values, batch = cls(), len(network.example[0])
        fusing = {layer.node for layer in network.layers}
        for node in network.graph.graph.nodes:
            reads = [one for one in node.all_input_nodes if one in values.place]
            if node.op == "output":
                values.readers += [(values.place[one], len(values.operators)) for one in reads]
            elif node.op == "placeholder":
                values._add(node, 0, batch)
            elif node.op == "call_function" and reads and isinstance(node.meta.get("val"), torch.Tensor):
                if _shares(node, reads[0], fusing):
                    values.place[node] = values.place[reads[0]]
                    values.nodes[values.place[node]].append(node)
                    continue
                values.readers += [(values.place[one], len(values.operators)) for one in reads]
                values._add(node, len(values.operators), batch)
                values.operators.append(node)
        return values

    def _add(self, node: fx.Node, made: int, batch: int) -> None:
        self.place[node] = len(self.made)
        self.made.append(made)
        self.elements.append(math.prod(sizes_of(node)) / batch)
        self.nodes.append([node])


def sizes_of(node: fx.Node) -> list[int]:
    """Sizes of a node's value for the example's batch."""
    return [int(size.node.hint) if isinstance(size, torch.SymInt) else int(size) for size in node.meta["val"].shape]


def _shares(node: fx.Node, source: fx.Node, fusing: set[str]) -> bool:
    """Whether a node's value takes no bytes of its own."""
    if node.target in _SHARING:
        return True
    fuses = source.name in fusing or source.target in _FUSING
    return fuses and last_of_fused(source) is node


@dataclass(frozen=True)
class _Narrowing:
    """What groups of channels are to the sizes of values.

    Attributes:
        units: names.
        value: (e,), for every axis that can shrink the value that it belongs to.
        share: (e, units), the share of the axis that goes with one group.
    """

    units: tuple[str, ...]
    value: Numbers
    share: Reals

    @classmethod
    def of(cls, values: Values, coupling: Coupling | None) -> _Narrowing:
        """Read off the labels that the analysis left on every axis."""
        units = () if coupling is None else coupling.units
        owners = [np.full(len(one.roots), -1) for one in (coupling.partitions if coupling else ())]
        for number, unit in enumerate(units):
            owners[unit.partition][unit.atoms] = number
        value, share = [], []
        for at, nodes in enumerate(values.nodes):
            for dim, size in enumerate(sizes_of(nodes[0])):
                found = np.zeros(len(units))
                for partition, owner in zip(coupling.partitions if coupling else (), owners, strict=True):
                    axis = partition.axis(nodes[0].name, dim)
                    if axis is not None:
                        labels = axis.labels[axis.labels >= 0]
                        owned = owner[partition.roots[labels]]
                        counts = np.bincount(owned[owned >= 0], minlength=len(units))
                        found += counts * (axis.size / len(axis.labels)) / size
                if found.any():
                    value.append(at)
                    share.append(found / [unit.groups for unit in units])
        names = tuple(unit.name for unit in units)
        return cls(names, np.array(value, dtype=np.int64), np.array(share).reshape(len(value), len(units)))

    def left(self, elements: Reals, gone: Mapping[str, int]) -> Reals:
        """Elements of every value when these groups are gone."""
        lost = np.array([gone.get(name, 0) for name in self.units], dtype=float)
        left = elements.copy()
        np.multiply.at(left, self.value, 1 - self.share @ lost)
        return left


class _Marks(nn.Module):
    """Stands for a network's module before a target that only asks which layers want integer kernels."""

    def __init__(self) -> None:
        super().__init__()
        grid = AffineGrid(torch.ones(1), torch.zeros(1, dtype=torch.int64), -127, 127)
        self.real, self.integer = nn.Linear(1, 1), encode(nn.Linear(1, 1), AffineEncoding(grid, 0, True))
        self.wanted: frozenset[str] = frozenset()

    def get_submodule(self, target: str) -> nn.Module:
        """The layer of that name: an integer one where it is wanted."""
        return self.integer if target in self.wanted else self.real


class Activations:
    """The activations of a network under its choices.

    Args:
        network: the dense network.
        target: says where grids stand.
        coupling: the network's coupled channels; only choices that keep them all can do without.

    Attributes:
        values: the graph as values and readers.
        made: value → the operator that makes it.
    """

    def __init__(self, network: Network, target: Target, coupling: Coupling | None = None) -> None:
        self.values = Values.of(network)
        self.made = np.array(self.values.made)
        self._network, self._target = network, target
        self._elements = np.array(self.values.elements)
        self._narrowing = _Narrowing.of(self.values, coupling)
        self._types: dict[frozenset[str], tuple[Flags, Flags]] = {}
        self._marks = _Marks()

    def elements(self, gone: Mapping[str, int]) -> Reals:
        """Elements of every value of one sample when so many groups of these units are gone."""
        return self._narrowing.left(self._elements, gone)

    def types(self, integer: frozenset[str]) -> tuple[Flags, Flags]:
        """Which values lie on grids, and which operators compute on integers.

        Args:
            integer: the layers that run on integer kernels.
        """
        if integer not in self._types:
            self._types[integer] = self._typed(integer)
        return self._types[integer]

    def _typed(self, integer: frozenset[str]) -> tuple[Flags, Flags]:
        self._marks.wanted = integer
        nodes = set(self._target.place(replace(self._network, module=self._marks)).nodes)
        gridded = np.array([any(node.name in nodes for node in one) for one in self.values.nodes])
        layers = {layer.node: layer.name for layer in self._network.layers}
        computes = np.zeros(len(self.values.operators) + 1, dtype=bool)
        for at, node in enumerate(self.values.operators):
            if node is None:
                continue
            if node.name in layers:
                computes[at] = layers[node.name] in integer
                continue
            reads = [self.values.place[one] for one in values_read(node) if one in self.values.place]
            computes[at] = bool(gridded[self.values.place[node]] and gridded[reads].all())
        return gridded, computes
