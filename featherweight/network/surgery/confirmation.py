"""Confirming: which units the user's forward can really spare, found by trying."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from torch import fx, nn

from featherweight.contracts import FeatherweightError, Refusal
from featherweight.network.capture import Network
from featherweight.network.channels.analysis import analyse
from featherweight.network.channels.trace import describe_origin
from featherweight.network.channels.units import ChannelUnit, Coupling, Cut, Removals
from featherweight.network.surgery.attributes import in_own_forward
from featherweight.network.surgery.literals import changes
from featherweight.network.surgery.removal import operate
from featherweight.network.surgery.trial import Subject, finite, generic_subject, real_subject, run


def confirm(network: Network, coupling: Coupling) -> Coupling:
    """The coupling without units whose channels forward can't spare, each of these with its refusal.

    Where that fails for attention that takes its inner width from the width of its input (``C // num_heads``), the two
    are tied and tried again.

    Args:
        network: the captured network.
        coupling: of its graph, from ``analyse``.
    """
    subject = generic_subject(network)
    if not finite(run(subject.module, subject.example)):
        subject = real_subject(network)
    confirmed = _tried(subject, coupling)
    lost = {unit.name for unit in coupling.units} - {unit.name for unit in confirmed.units}
    square = {producer.node for unit in coupling.units if unit.name in lost for producer in unit.producers}
    if not square:
        return confirmed
    tied = _tried(subject, analyse(network.graph, square))
    return max(confirmed, tied, key=_reach)


def _reach(coupling: Coupling) -> int:
    """How many slices of parameters can go at all."""
    slices = {(piece.state, piece.axis): 0 for unit in coupling.units for piece in unit.slices}
    for unit in coupling.units:
        for piece in unit.slices:
            slices[piece.state, piece.axis] = max(slices[piece.state, piece.axis], piece.indices.size)
    return sum(slices.values())


def _tried(subject: Subject, coupling: Coupling) -> Coupling:
    """Try the units.

    A unit whose removal changes sizes that the user's own forward wrote down is tried by itself, with one group and
    with half of them; of units that change the same lines (the blocks of a transformer) the first stands for all. What
    passes is then tried together, and one by one where that fails.
    """
    nodes = list(subject.graph.graph.nodes)
    lines = {unit.name: _written_lines(subject.module, coupling, unit, nodes) for unit in coupling.units}
    first = {written: name for name, written in reversed(lines.items()) if written}
    failures = {name: _alone(subject, coupling, coupling.unit(name)) for name in first.values()}
    verdicts = {unit.name: failures.get(first.get(lines[unit.name], "")) for unit in coupling.units}
    passed = [unit for unit in coupling.units if verdicts[unit.name] is None]
    together = {unit.name: range(unit.groups // 2) for unit in passed}
    if _failure(subject, coupling, together) is not None:
        verdicts |= {unit.name: _alone(subject, coupling, unit) for unit in passed}
    refusals = [
        Refusal(name, "remove channels", failure.got, failure.remedy)
        for name, failure in verdicts.items()
        if failure is not None
    ]
    units = tuple(unit for unit in coupling.units if verdicts[unit.name] is None)
    return replace(coupling, units=units, refusals=(*coupling.refusals, *refusals))


def _written_lines(
    module: nn.Module, coupling: Coupling, unit: ChannelUnit, nodes: Sequence[fx.Node]
) -> frozenset[str]:
    """The source lines of user's modules that wrote down a size which this unit changes."""
    cut = Cut(coupling, {unit.name: [unit.groups - 1]})
    own = (node for node in nodes if any(True for _ in changes(cut, node)) and in_own_forward(module, node))
    return frozenset(f"{describe_origin(node)} {unit.name.endswith(':groups')}" for node in own)


def _alone(subject: Subject, coupling: Coupling, unit: ChannelUnit) -> FeatherweightError | None:
    single = _failure(subject, coupling, {unit.name: [unit.groups - 1]})
    return single or _failure(subject, coupling, {unit.name: range(unit.groups // 2)})


def _failure(subject: Subject, coupling: Coupling, removals: Removals) -> FeatherweightError | None:
    try:
        operate(subject, subject, coupling, removals)
    except FeatherweightError as error:
        return error
    return None
