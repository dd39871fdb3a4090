"""Peak memory of activations, predicted for a choice: lifetimes over the captured graph at the widths and types chosen.

The same figure as :meth:`featherweight.targets.seam.Target.peak_memory` measures on a file: the largest sum of bytes of
live values over all operators, one sample. What doesn't depend on the choice is worked out once, so that a choice takes
a millisecond.

Time runs in slots, four for every operator: three while it computes, of which a chain of kernels uses one each, and one
in which its result is put on a grid or taken off one. Values that only get another shape share bytes; activations that
kernels compute along with what stands before them have none of their own.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import fx, nn

from featherweight.contracts import Choice, Table, describe
from featherweight.methods import Method
from featherweight.network.capture import Layer, Network
from featherweight.network.channels import Coupling
from featherweight.network.encodings import AffineEncoding, encode
from featherweight.network.geometry import Geometry
from featherweight.numerics.affine import AffineGrid
from featherweight.planning.latency.kernels import Kernels, kernels_in
from featherweight.planning.latency.standin import groups_gone
from featherweight.targets.placement import last_of_fused, values_read
from featherweight.targets.seam import Target

_SLOTS, _CONVERT = 4, 3
_REAL_BYTES, _INTEGER_BYTES = 4, 1
_aten = torch.ops.aten
_SHARING = frozenset(
    {
        _aten.flatten.using_ints, _aten.view.default, _aten.reshape.default, _aten.squeeze.dim, _aten.squeeze.dims,
        _aten.unsqueeze.default, _aten.contiguous.default, _aten.clone.default, _aten.dropout.default,
        _aten.alias.default, _aten.detach.default, _aten._unsafe_view.default,
    }
)  # fmt: skip
_PADS = frozenset({_aten.pad.default, _aten.constant_pad_nd.default})
_FUSING = frozenset({_aten.add.Tensor, _aten.add_.Tensor, _aten.sub.Tensor, _aten.mul.Tensor, _aten.mul_.Tensor})

Numbers = NDArray[np.int64]
Reals = NDArray[np.float64]
Flags = NDArray[np.bool_]


@dataclass
class _Values:
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
    def of(cls, network: Network) -> _Values:
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
        self.elements.append(math.prod(_sizes(node)) / batch)
        self.nodes.append([node])


def _sizes(node: fx.Node) -> list[int]:
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
    def of(cls, values: _Values, coupling: Coupling | None) -> _Narrowing:
        """Read off the labels that the analysis left on every axis."""
        units = () if coupling is None else coupling.units
        owners = [np.full(len(one.roots), -1) for one in (coupling.partitions if coupling else ())]
        for number, unit in enumerate(units):
            owners[unit.partition][unit.atoms] = number
        value, share = [], []
        for at, nodes in enumerate(values.nodes):
            for dim, size in enumerate(_sizes(nodes[0])):
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


@dataclass(frozen=True, slots=True)
class _Inner:
    """A value inside a layer's replacement: its elements, for each element of another value where one is named."""

    elements: float
    like: int | None
    integer: bool


class Liveness:
    """Predicts the peak bytes of live activations of a network's choices.

    Args:
        network: the dense network.
        target: says where grids stand, and whether it pads apart.
        table: of the network.
        methods: the catalogue that the table was made from.
        coupling: the network's coupled channels, where the table has keeps.
    """

    def __init__(
        self,
        network: Network,
        target: Target,
        table: Table,
        methods: Sequence[Method],
        coupling: Coupling | None = None,
    ) -> None:
        self._network, self._target, self._coupling = network, target, coupling
        self._values = _Values.of(network)
        self._narrowing = _Narrowing.of(self._values, coupling)
        self._made, self._elements = np.array(self._values.made), np.array(self._values.elements)
        self._read = self._values.readers
        self._at = {node.name: at for at, node in enumerate(self._values.operators) if node is not None}
        self._layers = {layer.name: layer for layer in network.layers}
        self._pads = [one for layer in network.layers for one in self._pad_before(layer)] if target.pads_apart else []
        kernels = kernels_in(table, network, target.capability, methods)
        self._kernels: dict[tuple[str, str], Kernels] = {
            (name, describe(option.steps)): one
            for name, row in kernels.items()
            for option, one in zip(table.options[name], row, strict=True)
        }
        self._types: dict[frozenset[str], tuple[Flags, Flags]] = {}
        self._marks = _Marks()

    def peak_bytes(self, choice: Choice) -> int:
        """The largest sum of bytes of live values over all operators, for one sample."""
        kernels = {name: self._kernels[name, describe(option.steps)] for name, option in choice.layers.items()}
        integer = frozenset(name for name, row in kernels.items() if row[0].family.arithmetic == "int8")
        if integer not in self._types:
            self._types[integer] = self._typed(integer)
        inner = {
            self._at[self._layers[name].node]: self._inside(self._layers[name], row) for name, row in kernels.items()
        }
        gone = groups_gone(choice.keeps, self._coupling) if self._coupling is not None else {}
        elements = self._narrowing.left(self._elements, gone)
        read = self._without_pads(elements, self._types[integer][1])
        return self._swept((elements, read), *self._types[integer], {at: row for at, row in inner.items() if row})

    def _without_pads(self, elements: Reals, computes: Flags) -> Numbers:
        """The readers where real kernels pad by themselves, as a pad before them asks: it then has no elements."""
        folded = [one for one in self._pads if not computes[one[2]]]
        elements[[pad for pad, _, _ in folded]] = 0.0
        return np.array([*self._read, *((source, reader) for _, source, reader in folded)], dtype=np.int64)

    def _inside(self, layer: Layer, kernels: Kernels) -> tuple[_Inner, ...]:
        """What lies between a layer's input and its output: two values at most."""
        family = kernels[0].family
        integer = family.arithmetic == "int8"
        node = self._values.operators[self._at[layer.node]]
        if node is None:
            raise TypeError(f"{layer.node} is no operator")
        source, result = self._values.place[values_read(node)[0]], self._values.place[node]
        if family.gathered:  # channels in the order of their sets, before and behind
            return _Inner(1.0, source, integer), _Inner(1.0, result, integer)
        if len(kernels) == 1:
            share = padded_share(layer) if self._target.pads_apart else 1.0
            return (_Inner(share, source, integer),) if share > 1 else ()
        pairs = itertools.pairwise(kernels)
        return tuple(
            _Inner(
                after.columns * math.prod(after.family.sizes),
                None,
                {before.family.arithmetic, after.family.arithmetic} == {"int8"},
            )
            for before, after in pairs
        )

    def _typed(self, integer: frozenset[str]) -> tuple[Flags, Flags]:
        """Which values lie on grids, and which operators compute on integers."""
        self._marks.wanted = integer
        nodes = set(self._target.place(replace(self._network, module=self._marks)).nodes)
        gridded = np.array([any(node.name in nodes for node in one) for one in self._values.nodes])
        layers = {layer.node: layer.name for layer in self._network.layers}
        computes = np.zeros(len(self._values.operators) + 1, dtype=bool)
        for at, node in enumerate(self._values.operators):
            if node is None:
                continue
            if node.name in layers:
                computes[at] = layers[node.name] in integer
                continue
            reads = [self._values.place[one] for one in values_read(node) if one in self._values.place]
            computes[at] = bool(gridded[self._values.place[node]] and gridded[reads].all())
        return gridded, computes

    def _pad_before(self, layer: Layer) -> list[tuple[int, int, int]]:
        """(padded value, value, operator) where a layer alone reads a pad by what "same" would mean to it."""
        at = self._at[layer.node]
        node = self._values.operators[at]
        pad = values_read(node)[0] if node is not None and layer.geometry is not None else None
        if pad is None or layer.geometry is None or pad.target not in _PADS or len(pad.users) > 1:
            return []
        source, ends, *rest = pad.args
        pairs = tuple((ends[n], ends[n + 1]) for n in range(0, len(ends), 2))[::-1] if isinstance(ends, list) else ()
        if not isinstance(source, fx.Node) or any(one not in ("constant", None, 0, 0.0) for one in rest):
            return []
        if any(map(any, layer.geometry.padding)) or pairs != same_padding(layer.geometry, _sizes(source)[2:]):
            return []
        return [(self._values.place[pad], self._values.place[source], at)]

    def _swept(
        self,
        values: tuple[Reals, Numbers],
        gridded: Flags,
        computes: Flags,
        inner: Mapping[int, tuple[_Inner, ...]],
    ) -> int:
        """The peak, from values' elements and readers, what lies on grids and computes there, and what lies inside."""
        elements, read = values
        count = len(self._values.operators) + 1
        held = np.zeros(count, dtype=np.int64)  # values inside an operator
        held[list(inner)] = [len(row) for row in inner.values()]
        value, reader = read.reshape(-1, 2).T
        until = _SLOTS * reader + np.where(held[reader] > 0, 0, _CONVERT - 1)
        last = {}
        for integer in (False, True):
            some = computes[reader] == integer
            last[integer] = np.full(len(self._made), -1)
            np.maximum.at(last[integer], value[some], until[some])
        start, convert = _SLOTS * self._made + held[self._made], _SLOTS * self._made + _CONVERT
        written = convert - 1
        made_integer = gridded & computes[self._made]
        # A value on a grid that a real operator makes, or reads, is there twice while it is put on it or taken off it.
        twice = np.where(last[False] >= 0, convert, -1)
        real_end = np.where(gridded, np.where(made_integer, last[False], np.maximum(last[False], convert)), -1)
        real_end = np.where(gridded, real_end, np.maximum(written, np.maximum(last[False], last[True])))
        integer_end = np.where(made_integer, np.maximum(np.maximum(written, twice), last[True]), -1)
        integer_end = np.where(gridded & ~made_integer, np.maximum(convert, last[True]), integer_end)
        live = np.zeros(_SLOTS * count + 1)
        _add(live, np.where(made_integer, convert, start), real_end, elements * _REAL_BYTES)
        _add(live, np.where(made_integer, start, convert), integer_end, elements * _INTEGER_BYTES)
        for at, row in inner.items():
            for number, one in enumerate(row):
                size = one.elements * (1.0 if one.like is None else elements[one.like])
                own = np.array([size * (_INTEGER_BYTES if one.integer else _REAL_BYTES)])
                first = np.array([_SLOTS * at + number])
                _add(live, first, first + 1, own)
        return round(float(np.cumsum(live).max()))


def _add(live: Reals, start: Numbers, end: Numbers, size: Reals) -> None:
    """Note among changes what is live from ``start`` to ``end``, both included; nothing where it ends before."""
    lives = end >= start
    np.add.at(live, start[lives], size[lives])
    np.subtract.at(live, end[lives] + 1, size[lives])


def padded_share(layer: Layer) -> float:
    """How large a layer's padded input is, for one of its input; 1 where its padding is what "same" means."""
    geometry = layer.geometry
    if geometry is None or not any(map(any, geometry.padding)):
        return 1.0
    sizes = layer.input_shape[1:]
    padded = [size + sum(padding) for size, padding in zip(sizes, geometry.padding, strict=True)]
    same = geometry.padding == same_padding(geometry, sizes)
    return 1.0 if same else math.prod(padded) / math.prod(sizes)


def same_padding(geometry: Geometry, sizes: Sequence[int]) -> tuple[tuple[int, int], ...]:
    """As little as gives every stride a position, the odd one behind: what kernels do by themselves."""
    found = []
    for size, kernel, stride, dilation in zip(sizes, geometry.kernel, geometry.stride, geometry.dilation, strict=True):
        total = max(0, (-(-size // stride) - 1) * stride + (kernel - 1) * dilation + 1 - size)
        found.append((total // 2, total - total // 2))
    return tuple(found)
