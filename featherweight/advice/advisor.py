"""All advice on a network for a target, in one list: what helps first, by how much is at stake."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from featherweight.advice import families, runtime, structure, weights
from featherweight.advice.survey import KINDS, Advice, Kind, Survey, survey
from featherweight.network.capture import Network
from featherweight.records import to_json
from featherweight.targets import Target

_CHECKS: tuple[Callable[[Survey], Iterator[Advice]], ...] = (
    families.integers,
    families.halves,
    families.fewer_ranks,
    families.half_channels,
    families.storage_only,
    families.description,
    weights.dominating,
    weights.redundant_channels,
    weights.low_rank,
    weights.zeros,
    runtime.missing_kernels,
    runtime.islands,
    runtime.curves,
    runtime.movements,
    runtime.overhead,
    runtime.shapes,
    structure.unreplaceable,
    structure.unowned,
    structure.frozen_channels,
    structure.unfolded_norms,
)
_TITLES: dict[Kind, str] = {
    "helps": "What helps, and by how much at most",
    "blocks": "What stands in the way",
    "does not help": "What does not help",
}
_MOST_ROWS = 12
_TOP = 5


@dataclass(frozen=True, slots=True)
class Place:
    """Where bytes and milliseconds are: one layer or one kind of operator.

    Attributes:
        name: of the layer or operator.
        size_bytes, macs: of a layer; 0 for an operator.
        milliseconds: measured; 0 where a layer's can't be told.
        share: of the original's bytes for a layer, of its time for an operator.
    """

    name: str
    size_bytes: int
    macs: int
    milliseconds: float
    share: float


@dataclass(frozen=True, slots=True)
class Advised:
    """What came of it.

    Attributes:
        target: its name.
        size_bytes, milliseconds, macs, parameters: of the original, measured in the target's runtime.
        operators: kinds of operators, the slowest first.
        layers: the layers with most bytes.
        advice: what helps, what stands in the way, what does not help; each the largest share first.
    """

    target: str
    size_bytes: int
    milliseconds: float
    macs: int
    parameters: int
    operators: tuple[Place, ...]
    layers: tuple[Place, ...]
    advice: tuple[Advice, ...]

    def record(self) -> dict[str, Any]:
        """Plain JSON."""
        return json.loads(to_json(self))

    def text(self) -> str:
        """For a person."""
        lines = [
            f"on {self.target}: {self.size_bytes:,} bytes, {self.milliseconds:.3g} ms, {self.macs:,} MACs, "
            f"{self.parameters:,} parameters",
            "",
            "Where the milliseconds are",
            *(f"  {one.share:5.1%}  {one.milliseconds:9.3g} ms  {one.name}" for one in self.operators[:_TOP]),
            "",
            "Where the bytes are",
            *(f"  {one.share:5.1%}  {one.size_bytes:12,} B  {one.macs:14,} MACs  {one.name}" for one in self.layers),
        ]
        for kind in KINDS:
            rows = [one for one in self.advice if one.kind == kind]
            if rows:
                lines += ["", _TITLES[kind]]
            for one in rows[:_MOST_ROWS]:
                lines += _paragraph(one)
            if len(rows) > _MOST_ROWS:
                lines.append(f"  and {len(rows) - _MOST_ROWS} more of less weight: --json has all")
        return "\n".join(lines)


def _paragraph(one: Advice) -> list[str]:
    amounts = [
        f"{one.size_bytes:,.0f} bytes" if one.size_bytes else "",
        f"{one.milliseconds:.3g} ms" if one.milliseconds else "",
        f"{one.macs:,.0f} MACs" if one.macs else "",
    ]
    told = ", ".join(filter(None, amounts))
    head = f"  {f'{one.share:.1%}' if one.share else '':>6}  {one.subject}: {one.finding}"
    return [head + (f" ({told})" if told else ""), *(f"          {line}" for line in (one.reason, one.remedy) if line)]


def advise(captured: Network, target: Target) -> Advised:
    """Say what would help a network on a target, and what would not.

    Args:
        captured: the network, batch normalisation not yet folded.
        target: where it will run; the original and a trial on int8 are lowered and timed there.

    Raises:
        LoweringError: the target can't hold the original.
    """
    known = survey(captured, target)
    found = [one for check in _CHECKS for one in check(known)]
    found.sort(key=lambda one: (KINDS.index(one.kind), -one.share))
    original = known.original
    return Advised(
        target=target.name,
        size_bytes=original.size_bytes,
        milliseconds=original.milliseconds,
        macs=captured.cost.macs,
        parameters=captured.cost.parameters,
        operators=_operators(known),
        layers=_layers(known),
        advice=tuple(found),
    )


def _operators(known: Survey) -> tuple[Place, ...]:
    whole = sum(time for _, time in known.original.operators)
    scale = known.original.scale
    return tuple(
        Place(f"{count} × {name}", 0, 0, time * scale, time / max(whole, 1e-12))
        for name, count, time in known.original.by_operator()
    )


def _layers(known: Survey) -> tuple[Place, ...]:
    times, whole = runtime.layer_times(known), known.original.size_bytes
    places = [
        Place(la.name, la.cost.size_bytes, la.cost.macs, times.get(la.name, 0.0), la.cost.size_bytes / max(whole, 1))
        for la in {la.weight: la for la in known.network.layers}.values()
    ]
    return tuple(sorted(places, key=lambda place: -place.size_bytes)[:_TOP])
