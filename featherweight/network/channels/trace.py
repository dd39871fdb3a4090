"""The state of one analysis pass, and the few moves that every rule is made of.

A rule gets the :class:`Trace` and the :class:`Call`, and answers with the labels of the call's results. It must account
for every labelled axis of every input: move its labels, join them with others, or freeze them.

Where a labelled axis is split into several (heads and head width; conv groups and the channels inside them), only one
of the parts can go on carrying labels. A pass is either ``"inner"`` (the last part carries: the k-th channel of every
group goes together) or ``"outer"`` (the part before it carries: whole groups go). Both passes' results are used.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import Any, Literal

import numpy as np
from torch import fx

from featherweight.network.labels import FIXED, Atoms, Axis, Labels, Value

Mode = Literal["inner", "outer"]
Side = Literal["input", "output"]
Result = Value | list[Value]


@dataclass(frozen=True, slots=True, eq=False)
class Port:
    """Labels that enter or leave a weighted call along its channel axis."""

    node: str
    parameter: str
    side: Side
    labels: Labels


@dataclass(frozen=True, slots=True, eq=False)
class Site:
    """A place where a split axis could have gone on in several ways.

    Attributes:
        labels: what the chosen part carries.
        choices: in how many ways.
    """

    labels: Labels
    choices: int


@dataclass(frozen=True, slots=True, eq=False)
class Call:
    """One ATen call with its arguments by name.

    Attributes:
        node: in the graph.
        arguments: tensors as values, symbolic sizes as their stand-in integers.
        sizes: of every tensor result.
    """

    node: fx.Node
    arguments: Mapping[str, Any]
    sizes: tuple[tuple[int, ...], ...]

    def __getitem__(self, name: str) -> Any:
        return self.arguments[name]

    @property
    def out(self) -> tuple[int, ...]:
        """Sizes of the only, or first, result."""
        return self.sizes[0]

    def dim(self, value: Value, name: str = "dim") -> int:
        """The argument ``name`` as a non-negative dimension of ``value``."""
        return self.arguments[name] % max(value.ndim, 1)

    def state(self, name: str, depth: int = 8) -> str:
        """The state behind a tensor argument (the first present one of a list), as :func:`state_name` finds it."""
        schema = self.node.target._schema.arguments  # type: ignore[union-attr]  # an ATen overload
        position = next(number for number, argument in enumerate(schema) if argument.name == name)
        given = self.node.args[position] if position < len(self.node.args) else self.node.kwargs.get(name)
        if isinstance(given, (list, tuple)):
            given = next((item for item in given if item is not None), None)
        return state_name(given, depth)

    @property
    def where(self) -> str:
        """The operation and the user's source line."""
        return describe_origin(self.node)


def describe_origin(node: fx.Node) -> str:
    """``aten.view (model.py:11: return y.view(b, 2, 4))``: what a person needs to find the place."""
    name = str(node.target).rpartition(".")[0] if "." in str(node.target) else str(node.target)
    frames = re.findall(r'File "([^"]+)", line (\d+), in [^\n]*(?:\n\s*([^\n]*))?', node.meta.get("stack_trace") or "")
    own = [frame for frame in frames if "/torch/" not in frame[0].replace("\\", "/")]
    if not own:
        return name
    path, line, code = own[-1]
    return f"{name} ({PurePath(path).name}:{line}: {code})" if code else f"{name} ({PurePath(path).name}:{line})"


@dataclass(eq=False)
class Trace:
    """Everything one pass knows so far.

    Attributes:
        mode: which part of a split axis carries the labels.
        choices: for split sites (node names), which candidate to take instead of the first.
        live: nodes that the outputs depend on.
        square: linear calls whose rows are to be tied to their columns, see :func:`analyse`.
        constant: the numbers behind a graph attribute, for index tensors.
        atoms: the disjoint sets.
        values: node name → labels of its result.
        ports: channel axes of weighted calls.
        sites: split sites met.
        statistics: (labels, operation) where a normalisation or a reduction mixes these channels.
        indexers: (state name, labels) of index tensors that point into a labelled axis.
    """

    mode: Mode
    choices: Mapping[str, int]
    live: Set[str]
    square: Set[str]
    constant: Callable[[str], np.ndarray]
    atoms: Atoms = field(default_factory=Atoms)
    values: dict[str, Any] = field(default_factory=dict)
    ports: list[Port] = field(default_factory=list)
    sites: dict[str, Site] = field(default_factory=dict)
    statistics: list[tuple[Labels, str]] = field(default_factory=list)
    indexers: list[tuple[str, Labels]] = field(default_factory=list)

    def fresh(self, size: int) -> Axis:
        """An axis of new atoms."""
        return Axis(self.atoms.fresh(size))

    def freeze(self, call: Call, axis: Axis | None, why: str) -> None:
        """Nothing of this axis may be removed."""
        if axis is not None:
            self.atoms.freeze(axis.labels, f"{call.where} {why}")

    def freeze_value(self, call: Call, value: Value, why: str) -> None:
        """Nothing of this tensor may be removed."""
        for axis in value.axes:
            self.freeze(call, axis, why)

    def spread(self, call: Call, axis: Axis | None) -> None:
        """An axis of one index that is broadcast over many can't lose it."""
        self.freeze(call, axis, "spreads its only index over others")

    def join(self, call: Call, *axes: Axis | None) -> Axis | None:
        """Axes whose i-th indices meet: index by index they live and die together."""
        labelled = [axis for axis in axes if axis is not None]
        if len(labelled) < len(axes) or not all(map(_same_pattern(labelled), labelled)):
            if len(labelled) < len(axes) or not all(axis.material() for axis in labelled):
                for axis in labelled:
                    self.freeze(call, axis, "ties it to values that can't be removed")
                return None
            labelled = [Axis(axis.full()) for axis in labelled]
        first = labelled[0]
        for other in labelled[1:]:
            first = Axis(self.join_labels(call, first.labels, other.labels), first.outer, first.inner)
        return first

    def join_labels(self, call: Call, first: Labels, second: Labels) -> Labels:
        """Unite label by label; what meets ``FIXED`` is frozen."""
        free = (first != FIXED) & (second != FIXED)
        self.atoms.unite(first[free], second[free])
        lone = np.where(first == FIXED, second, first)
        if not free.all():
            self.atoms.freeze(lone[~free], f"{call.where} ties it to values that can't be removed")
        return lone

    def merge(self, call: Call, grid: Labels) -> Labels:
        """Unite every row of a (n, m) grid into one label; (n,)."""
        free = grid != FIXED
        lead = np.take_along_axis(grid, free.argmax(axis=1)[:, None], axis=1)
        self.atoms.unite(np.broadcast_to(lead, grid.shape)[free], grid[free])
        mixed = ~free.all(axis=1)
        if mixed.any():
            self.atoms.freeze(lead[mixed, 0], f"{call.where} ties it to values that can't be removed")
        return lead[:, 0]

    def split(self, call: Call, axis: Axis, sizes: Sequence[int]) -> tuple[int, Labels]:
        """Split labels over a grid of ``sizes``: which part goes on carrying labels, and the labels it carries.

        A part along which nothing else varies is taken without uniting anything; otherwise the mode decides.
        """
        grid = self.atoms.find(axis.labels).reshape(tuple(sizes))
        parts = [part for part, size in enumerate(sizes) if size > 1] or [0]
        rows = {part: np.moveaxis(grid, part, 0).reshape(sizes[part], -1) for part in parts}
        for part in parts:
            if (rows[part] == rows[part][:, :1]).all():
                return part, rows[part][:, 0]
        order = parts[::-1] if self.mode == "inner" else [*parts[:-1][::-1], parts[-1]]
        name = f"{call.node.name}/{sum(site.startswith(call.node.name + '/') for site in self.sites)}"
        part = order[self.choices.get(name, 0) % len(order)]
        labels = self.merge(call, rows[part])
        self.sites[name] = Site(labels, len(order))
        return part, labels

    def tie_sections(self, call: Call, axis: Axis, count: int) -> Labels | None:
        """Cut an axis into ``count`` equal sections whose k-th indices go together; None (frozen) where it can't be."""
        if not axis.material() or axis.size % count:
            self.freeze(call, axis, f"cuts it into {count} sections of unequal length")
            return None
        return self.merge(call, axis.full().reshape(count, -1).T)

    def port(self, call: Call, weight: str, side: Side, axis: Axis | None) -> None:
        """Note the channel axis of a weighted call; what isn't computed from a parameter is no weight."""
        name = call.state(weight)
        if name and axis is not None and axis.material():
            self.ports.append(Port(call.node.name, name, side, axis.full()))

    def statistic(self, call: Call, *axes: Axis | None) -> None:
        """Note that the call computes a statistic over these axes, so that it changes when they shrink."""
        if call.node.name in self.live:
            self.statistics += [(axis.labels, call.where) for axis in axes if axis is not None]


def state_name(node: object, depth: int = 8) -> str:
    """The state that a tensor comes from, through at most ``depth`` operations on state alone; else empty."""
    if not isinstance(node, fx.Node):
        return ""
    if node.op == "get_attr":
        return str(node.target)
    if node.op != "call_function" or depth == 0:
        return ""
    first = ""
    for source in node.all_input_nodes:
        name = state_name(source, depth - 1)
        if not name:
            return ""
        first = first or name
    return first


def _same_pattern(axes: Sequence[Axis]) -> Callable[[Axis], bool]:
    def same(axis: Axis) -> bool:
        first = axes[0]
        return (axis.outer, len(axis.labels), axis.inner) == (first.outer, len(first.labels), first.inner)

    return same


def material_labels(axis: Axis | None, size: int) -> Labels:
    """One label for every index; ``FIXED`` throughout where the axis carries none."""
    return np.full(size, FIXED, dtype=np.int64) if axis is None else axis.full()


Rule = Callable[[Trace, Call], Result]
Rules = Mapping[str, Rule]
