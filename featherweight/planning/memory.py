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
from dataclasses import dataclass

import numpy as np
import torch
from torch import fx

from featherweight.contracts import Choice, Table, describe
from featherweight.methods import Method
from featherweight.network.capture import Layer, Network
from featherweight.network.channels import Coupling
from featherweight.network.geometry import Geometry
from featherweight.planning.activations import Activations, Flags, Numbers, Reals, sizes_of
from featherweight.planning.latency.kernels import Kernels, kernels_in
from featherweight.planning.latency.standin import groups_gone
from featherweight.targets.placement import values_read
from featherweight.targets.seam import Target

_SLOTS, _CONVERT = 4, 3
_REAL_BYTES, _INTEGER_BYTES = 4, 1
_aten = torch.ops.aten
_PADS = frozenset({_aten.pad.default, _aten.constant_pad_nd.default})


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
        self._target, self._coupling = target, coupling
        self._activations = Activations(network, target, coupling)
        self._values, self._made = self._activations.values, self._activations.made
        self._at = {node.name: at for at, node in enumerate(self._values.operators) if node is not None}
        self._layers = {layer.name: layer for layer in network.layers}
        self._pads = [one for layer in network.layers for one in self._pad_before(layer)] if target.pads_apart else []
        kernels = kernels_in(table, network, target.capability, methods)
        self._kernels: dict[tuple[str, str], Kernels] = {
            (name, describe(option.steps)): one
            for name, row in kernels.items()
            for option, one in zip(table.options[name], row, strict=True)
        }

    def peak_bytes(self, choice: Choice) -> int:
        """The largest sum of bytes of live values over all operators, for one sample."""
        kernels = {name: self._kernels[name, describe(option.steps)] for name, option in choice.layers.items()}
        integer = frozenset(name for name, row in kernels.items() if row[0].family.arithmetic == "int8")
        inner = {
            self._at[self._layers[name].node]: self._inside(self._layers[name], row) for name, row in kernels.items()
        }
        gone = groups_gone(choice.keeps, self._coupling) if self._coupling is not None else {}
        elements, (gridded, computes) = self._activations.elements(gone), self._activations.types(integer)
        read = self._without_pads(elements, computes)
        return self._swept((elements, read), gridded, computes, {at: row for at, row in inner.items() if row})

    def _without_pads(self, elements: Reals, computes: Flags) -> Numbers:
        """The readers where real kernels pad by themselves, as a pad before them asks: it then has no elements."""
        folded = [one for one in self._pads if not computes[one[2]]]
        elements[[pad for pad, _, _ in folded]] = 0.0
        return np.array([*self._values.readers, *((source, reader) for _, source, reader in folded)], dtype=np.int64)

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
        if any(map(any, layer.geometry.padding)) or pairs != same_padding(layer.geometry, sizes_of(source)[2:]):
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
