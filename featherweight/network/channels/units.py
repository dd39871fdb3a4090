"""From labels to units: what can be removed, one group at a time, and where it sits."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from featherweight.contracts import PlanError, Refusal
from featherweight.network.channels.trace import Trace
from featherweight.network.labels import Axis, Labels, Value

Removals = Mapping[str, Sequence[int]]
"""Unit name → the groups to remove: plain integers, so that a plan can carry them."""

Mask = NDArray[np.bool_]


@dataclass(frozen=True, slots=True, eq=False)
class Slice:
    """What a unit's groups take away from one axis of one parameter or buffer.

    Attributes:
        state: its name in the module's state.
        axis: along which.
        indices: (groups, count), row ``g`` goes with group ``g``.
    """

    state: str
    axis: int
    indices: NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class LayerChannels:
    """What a unit's groups are to one weighted call.

    Attributes:
        layer: path of the module that owns the weight.
        node: the call in the graph.
        weight: the weight's name in the module's state.
        channels: (groups, count), positions on the call's input or output channel axis.
    """

    layer: str
    node: str
    weight: str
    channels: NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class ChannelUnit:
    """Channels that are tied together, in groups of which each can be removed by itself.

    Attributes:
        name: of the first layer that produces them; ``:groups`` marks whole heads or convolution groups.
        groups: how many there are.
        slices: what goes from the state.
        producers: calls that lose output channels (a depthwise convolution is one, too).
        consumers: calls that lose input columns.
        statistics: operations that normalise or reduce over these channels; where there are any, what remains is
            normalised over the kept channels, and the result differs from zeroing.
        partition: which of the coupling's partitions its atoms belong to.
        atoms: (groups,), the representative atoms.
    """

    name: str
    groups: int
    slices: tuple[Slice, ...]
    producers: tuple[LayerChannels, ...]
    consumers: tuple[LayerChannels, ...]
    statistics: tuple[str, ...]
    partition: int
    atoms: Labels

    def overlaps(self, other: ChannelUnit) -> bool:
        """Whether both would take some of the same channels away: whole heads and the width of heads do."""
        own = {(piece.state, piece.axis): piece.indices for piece in self.slices}
        return any(
            bool(np.isin(piece.indices, own[piece.state, piece.axis]).any())
            for piece in other.slices
            if (piece.state, piece.axis) in own
        )

    @property
    def exact(self) -> bool:
        """Whether removing equals zeroing in the original network."""
        return not self.statistics


@dataclass(frozen=True, slots=True, eq=False)
class Partition:
    """The labels of one pass, settled.

    Attributes:
        values: node name → labels of its result (a list for calls with several results).
        roots: (atoms,), the representative of every atom.
        indexers: (state name, labels it points into) of index tensors.
    """

    values: Mapping[str, object]
    roots: Labels
    indexers: tuple[tuple[str, Labels], ...]

    def axis(self, node: str, dim: int, result: int = 0) -> Axis | None:
        """The labels along one axis of a node's only result, or of one of several."""
        value = self.values.get(node)
        if isinstance(value, list):
            value = value[result]
        return value.axes[dim] if isinstance(value, Value) and value.ndim else None


@dataclass(frozen=True, slots=True, eq=False)
class Coupling:
    """What a network's channels are tied to.

    Attributes:
        units: what can be removed.
        refusals: layers whose channels, or some of them, can't go, with the reason.
        partitions: the labels behind the units.
        states: name of a parameter or buffer → its node in the graph.
    """

    units: tuple[ChannelUnit, ...]
    refusals: tuple[Refusal, ...]
    partitions: tuple[Partition, ...]
    states: Mapping[str, str]

    def unit(self, name: str) -> ChannelUnit:
        """The unit of that name.

        Raises:
            PlanError: there is none.
        """
        for unit in self.units:
            if unit.name == name:
                return unit
        reasons = [refusal.reason for refusal in self.refusals if refusal.subject == name]
        known = ", ".join(unit.name for unit in self.units[:8])
        raise PlanError(
            "Channels can only be removed from a unit of the network.",
            f"{name!r}" + (f": {reasons[0]}" if reasons else ""),
            f"one of: {known}" if known else "this network has no removable channels",
        )


class Cut:
    """Which indices of which axes stay when some groups go."""

    def __init__(self, coupling: Coupling, removals: Removals) -> None:
        self._coupling = coupling
        self._gone = [np.zeros(len(partition.roots), dtype=bool) for partition in coupling.partitions]
        for name, groups in removals.items():
            unit = coupling.unit(name)
            self._gone[unit.partition][unit.atoms[_checked(unit, groups)]] = True

    def removed(self, partition: int, labels: Labels) -> Mask:
        """Which of these labels go."""
        gone = self._gone[partition]
        if len(gone) == 0:
            return np.zeros(len(labels), dtype=bool)
        roots = self._coupling.partitions[partition].roots
        return (labels >= 0) & gone[roots[np.maximum(labels, 0)]]

    def axes(self, node: str, dim: int, result: int = 0) -> list[Axis | None]:
        """The labels along an axis of a node's only result, or of one of several, in every partition."""
        return [partition.axis(node, dim, result) for partition in self._coupling.partitions]

    def keep(self, node: str, dim: int, size: int) -> Mask | None:
        """Which of the ``size`` indices of an axis of a node's result stay; None where all do."""
        return self.keep_along(self.axes(node, dim), size)

    def keep_along(self, axes: Sequence[Axis | None], size: int) -> Mask | None:
        """The same for an axis given by its labels in every partition."""
        kept: Mask | None = None
        for number, axis in enumerate(axes):
            if axis is None:
                continue
            removed = self.removed(number, axis.labels)
            if removed.any():
                period = ~np.repeat(removed, axis.inner)
                stay = np.tile(period, size // len(period))
                kept = stay if kept is None else kept & stay
        return kept

    def keep_state(self, state: str, axis: int, size: int) -> Mask | None:
        """The same for an axis of a parameter or buffer."""
        return self.keep(self._coupling.states[state], axis, size)


def _checked(unit: ChannelUnit, groups: Sequence[int]) -> NDArray[np.int64]:
    chosen = np.unique(np.asarray(groups, dtype=np.int64))
    if len(chosen) and (chosen[0] < 0 or chosen[-1] >= unit.groups):
        raise PlanError(
            f"Groups of {unit.name} are numbered from 0 to {unit.groups - 1}.",
            f"{int(chosen[0] if chosen[0] < 0 else chosen[-1])}",
            "make the plan anew for this network",
        )
    if len(chosen) >= unit.groups:
        raise PlanError(
            "A unit must keep at least one of its groups.",
            f"all {unit.groups} groups of {unit.name} are to go",
            "keep one, or take the whole layer out of the network",
        )
    return chosen


@dataclass(frozen=True, slots=True, eq=False)
class _Entry:
    """One axis on which atoms can sit: of a state, or of a weighted call."""

    name: str
    axis: int
    node: str
    labels: Labels


def layer_of(state: str) -> str:
    """``fc.parametrizations.weight.original`` → ``fc``; a parameter without an owner stands for itself."""
    plain = state.partition(".parametrizations.")[0]
    if plain != state:
        return plain
    return state.rpartition(".")[0] or state


def units_of(trace: Trace, roots: Labels, states: Mapping[str, str], partition: int) -> Iterator[ChannelUnit]:
    """The removable units of one pass, in execution order of their first producers.

    Atoms whose classes appear on the same axes, equally often, form a unit.
    """
    removable = np.zeros(len(roots), dtype=bool)
    for port in trace.ports:
        if port.side == "output":
            labels = port.labels[~trace.atoms.frozen(port.labels)]
            removable[roots[labels]] = True
    entries = list(_entries(trace, states))
    appearances = _appearances(entries, roots, removable)
    if len(appearances) == 0:
        return
    unit_of_root = _signatures(appearances)
    order = np.lexsort((appearances[:, 2], appearances[:, 0], appearances[:, 1], unit_of_root[appearances[:, 0]]))
    appearances = appearances[order]
    kinds = np.stack([unit_of_root[appearances[:, 0]], appearances[:, 1]], axis=1)
    starts = np.flatnonzero(np.r_[True, (kinds[1:] != kinds[:-1]).any(1)])
    blocks: dict[int, list[tuple[_Entry, NDArray[np.int64]]]] = {}
    for block in np.split(appearances, starts[1:]):
        blocks.setdefault(int(unit_of_root[block[0, 0]]), []).append((entries[block[0, 1]], block))
    mixing = _statistics(trace, roots)
    found = [_unit(trace, parts, mixing, partition) for parts in blocks.values()]
    first = {port.node: number for number, port in reversed(list(enumerate(trace.ports)))}
    yield from sorted(found, key=lambda unit: (first[unit.producers[0].node], int(unit.atoms[0])))


def _entries(trace: Trace, states: Mapping[str, str]) -> Iterator[_Entry]:
    for state, node in states.items():
        value = trace.values.get(node)
        if isinstance(value, Value):
            for axis, labels in enumerate(value.axes):
                if labels is not None:
                    yield _Entry(state, axis, "", labels.full())
    for port in trace.ports:
        yield _Entry(port.parameter, 0 if port.side == "input" else 1, port.node, port.labels)


def _appearances(entries: list[_Entry], roots: Labels, removable: Mask) -> NDArray[np.int64]:
    """(root, entry, index) of every removable index of every entry; (n, 3)."""
    rows = []
    for number, entry in enumerate(entries):
        found = np.where(entry.labels >= 0, roots[np.maximum(entry.labels, 0)], -1)
        index = np.flatnonzero((found >= 0) & removable[np.maximum(found, 0)])
        rows.append(np.stack([found[index], np.full(len(index), number), index], axis=1))
    return np.concatenate(rows) if rows else np.empty((0, 3), dtype=np.int64)


def _signatures(appearances: NDArray[np.int64]) -> NDArray[np.int64]:
    """Root → a number that is equal for roots that appear on the same entries equally often."""
    entries = int(appearances[:, 1].max()) + 1
    pairs, counts = np.unique(appearances[:, 0] * entries + appearances[:, 1], return_counts=True)
    roots, entry = np.divmod(pairs, entries)
    mixed = (entry.astype(np.uint64) << np.uint64(32)) + counts.astype(np.uint64)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB), (31, 1)):
        mixed = (mixed ^ (mixed >> np.uint64(shift))) * np.uint64(factor)  # splitmix64's finaliser
    sums = np.zeros(int(appearances[:, 0].max()) + 1, dtype=np.uint64)
    np.add.at(sums, roots, mixed)
    return np.unique(sums, return_inverse=True)[1].astype(np.int64)


def _statistics(trace: Trace, roots: Labels) -> dict[int, list[str]]:
    mixing: dict[int, list[str]] = {}
    for labels, operation in trace.statistics:
        for root in np.unique(roots[labels[labels >= 0]]):
            mixing.setdefault(int(root), []).append(operation)
    return mixing


def _unit(
    trace: Trace, parts: list[tuple[_Entry, NDArray[np.int64]]], mixing: Mapping[int, list[str]], partition: int
) -> ChannelUnit:
    atoms = np.unique(parts[0][1][:, 0])
    slices, producers, consumers = [], [], []
    for entry, block in parts:
        indices = block[:, 2].reshape(len(atoms), -1)
        if not entry.node:
            slices.append(Slice(entry.name, entry.axis, indices))
            continue
        channels = LayerChannels(layer_of(entry.name), entry.node, entry.name, indices)
        (consumers if entry.axis == 0 else producers).append(channels)
    order = {port.node: number for number, port in enumerate(trace.ports)}
    producers.sort(key=lambda channels: order[channels.node])
    consumers = [item for item in consumers if _loses_columns(item, producers, slices)]
    return ChannelUnit(
        name=producers[0].layer,
        groups=len(atoms),
        slices=tuple(slices),
        producers=tuple(producers),
        consumers=tuple(consumers),
        statistics=tuple(dict.fromkeys(mixing.get(int(atoms[0]), []))),
        partition=partition,
        atoms=atoms,
    )


def _loses_columns(consumer: LayerChannels, producers: Sequence[LayerChannels], slices: Sequence[Slice]) -> bool:
    """Whether a call sums over these channels; a depthwise convolution only passes them on."""
    if all(producer.node != consumer.node for producer in producers):
        return True
    return len({piece.axis for piece in slices if piece.state == consumer.weight}) > 1
