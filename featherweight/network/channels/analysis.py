"""Coupled channels of an ATen graph."""

from __future__ import annotations

from collections.abc import Iterator, Sequence, Set
from dataclasses import replace
from typing import Any

import numpy as np
from torch import fx

from featherweight.contracts import Refusal
from featherweight.network.channels.passes import run_pass, site_choices
from featherweight.network.channels.trace import Mode, Trace
from featherweight.network.channels.units import ChannelUnit, Coupling, Partition, layer_of, units_of

_ROUNDS = 5
_REMEDY = "leave these channels as they are, or rewrite that line so that it doesn't depend on their number"


def analyse(graph: fx.GraphModule, square: Set[str] = frozenset()) -> Coupling:
    """Find out which channels are tied together and which can be removed.

    Two passes carry labels through the graph (see ``trace``); where a pass chose a part of a split axis that turned
    out frozen, it runs again with the next part. Units of the second pass that the first has, too, are dropped.

    Args:
        graph: an exported ATen graph; parameters and buffers are ``get_attr`` nodes.
        square: names of linear calls that must stay as wide as their input (or a multiple), because forward takes both
            widths from one number, like ``x.view(b, n, heads, x.shape[-1] // heads)``: row i goes with column i.
    """
    traces = [_settled(graph, mode, square) for mode in ("inner", "outer")]
    states = {str(node.target): node.name for node in graph.graph.nodes if node.op == "get_attr"}
    partitions, found = [], []
    for number, trace in enumerate(traces):
        roots = trace.atoms.roots()
        indexers = tuple(dict(trace.indexers).items())
        partitions.append(Partition(trace.values, roots, indexers))
        found.append(list(units_of(trace, roots, states, number)))
    units = _named(found[0], _others(found[1], found[0]))
    removable = tuple(unit for unit in units if unit.groups > 1)
    return Coupling(removable, tuple(_refusals(traces, units)), tuple(partitions), states)


def _settled(graph: fx.GraphModule, mode: Mode, square: Set[str]) -> Trace:
    trace = run_pass(graph, mode, {}, square)
    for _ in range(_ROUNDS):
        better = site_choices(trace)
        if better == trace.choices:
            break
        trace = run_pass(graph, mode, better, square)
    return trace


def _key(unit: ChannelUnit) -> tuple[Any, ...]:
    return tuple((piece.state, piece.axis, piece.indices.tobytes()) for piece in unit.slices)


def _others(second: Sequence[ChannelUnit], first: Sequence[ChannelUnit]) -> list[ChannelUnit]:
    known = {_key(unit) for unit in first}
    return [unit for unit in second if _key(unit) not in known and unit.groups > 1]


def _named(first: Sequence[ChannelUnit], second: Sequence[ChannelUnit]) -> list[ChannelUnit]:
    """Unique names: the layer's, then ``:2``, ``:3`` where one layer feeds several units."""
    taken: dict[str, int] = {}
    named = []
    for suffix, units in (("", first), (":groups", second)):
        for unit in units:
            name = unit.name + suffix
            taken[name] = taken.get(name, 0) + 1
            named.append(replace(unit, name=name if taken[name] == 1 else f"{name}:{taken[name]}"))
    return named


def _refusals(traces: Sequence[Trace], units: Sequence[ChannelUnit]) -> Iterator[Refusal]:
    """Channels that no pass could free, layer by layer, with the reason that the first pass met."""
    seen: set[tuple[str, str]] = set()
    for port in traces[0].ports:
        others = [
            other for trace in traces for other in trace.ports if (other.node, other.side) == (port.node, port.side)
        ]
        if port.side != "output" or len(others) != len(traces):
            continue
        frozen = np.logical_and.reduce(
            [trace.atoms.frozen(other.labels) for trace, other in zip(traces, others, strict=True)]
        )
        labels = port.labels[frozen]
        layer = layer_of(port.parameter)
        for reason in dict.fromkeys(traces[0].atoms.reason(int(label)) or "" for label in labels[:1]):
            if (layer, reason) not in seen:
                seen.add((layer, reason))
                text = f"{len(labels)} of {len(frozen)} output channels stay: {reason}"
                yield Refusal(layer, "remove channels", text, _REMEDY)
    for unit in units:
        if unit.groups == 1:
            yield Refusal(unit.name, "remove channels", "all its channels are one group that goes together", _REMEDY)
