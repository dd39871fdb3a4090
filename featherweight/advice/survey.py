"""The survey: the original on a target, and the same with int8 wherever there is a kernel, both measured.

That one trial is what the runtime really makes of integers: how large the file gets, how long it takes, which
operations fall back to reals. Its weights are rounded to the nearest level and its activations lie on any grid, so it
says nothing of answers, and nobody asks it for any.
"""

from __future__ import annotations

import re
import tempfile
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from featherweight.contracts import Artefact, Capability, LoweringError
from featherweight.network.capture import Layer, Network, capture
from featherweight.network.channels import Coupling, analyse
from featherweight.network.encodings import AffineEncoding, encode
from featherweight.network.folding import fold_batch_norm
from featherweight.network.grids import Compressed
from featherweight.network.modules import copied, replace_module, weight_of
from featherweight.network.surgery import confirm
from featherweight.numerics.affine import symmetric_grid
from featherweight.planning.latency.timing import with_any_grids
from featherweight.targets import Target

Kind = Literal["helps", "does not help", "blocks"]
KINDS: tuple[Kind, ...] = ("helps", "blocks", "does not help")
WEIGHTED = re.compile(r"conv|fully_connected|gemm|matmul", re.IGNORECASE)
_RUNS = 50
_PROFILE_RUNS = 20
_NAMED = 3


@dataclass(frozen=True, slots=True)
class Advice:
    """One piece of advice.

    Attributes:
        kind: whether following it helps, whether it is about something that wouldn't help, or about something that
            stands in the way.
        subject: the layers, operations or family that it is about.
        finding: what was found.
        reason: why that matters, or doesn't.
        remedy: what to do about it; empty where nothing needs doing.
        size_bytes, milliseconds, macs: what could be saved at most where it helps, else what is concerned; 0 where it
            isn't about that.
        share: the largest of the three as a share of the original's.
    """

    kind: Kind
    subject: str
    finding: str
    reason: str
    remedy: str = ""
    size_bytes: float = 0.0
    milliseconds: float = 0.0
    macs: float = 0.0
    share: float = 0.0


@dataclass(frozen=True)
class Measured:
    """A network's file in its runtime.

    Attributes:
        network: that the file was lowered from.
        size_bytes: of the file.
        milliseconds: for one sample, the median.
        operators: (operator, milliseconds) in execution order, each timed alone.
        types: operator with the type that it computes in ("CONV_2D int8") → how often.
    """

    network: Network
    size_bytes: int
    milliseconds: float
    operators: tuple[tuple[str, float], ...]
    types: Mapping[str, int]

    def by_operator(self) -> list[tuple[str, int, float]]:
        """(operator, how often, milliseconds of all together), the slowest first."""
        times: dict[str, list[float]] = defaultdict(list)
        for name, milliseconds in self.operators:
            times[name].append(milliseconds)
        rows = [(name, len(each), sum(each)) for name, each in times.items()]
        return sorted(rows, key=lambda row: -row[2])

    def matching(self, pattern: re.Pattern[str]) -> list[tuple[str, int, float]]:
        """The same for operators whose name a pattern finds."""
        return [row for row in self.by_operator() if pattern.search(row[0])]

    @property
    def scale(self) -> float:
        """Milliseconds in the whole file for one that an operator takes alone: calls cost more from outside."""
        return self.milliseconds / max(sum(time for _, time in self.operators), 1e-12)


@dataclass(frozen=True)
class Survey:
    """What is known of a network on a target.

    Attributes:
        target: lowered, ran and timed both files.
        original: the network with batch normalisation folded.
        integer: the trial on int8, or None where there is none.
        obstacle: why there is none.
        coupling: which channels are tied, and which can't go.
    """

    target: Target
    original: Measured
    integer: Measured | None
    obstacle: str
    coupling: Coupling

    @property
    def network(self) -> Network:
        """The original, folded."""
        return self.original.network

    @property
    def capability(self) -> Capability:
        """The target's capability data."""
        return self.target.capability

    def advice(
        self,
        kind: Kind,
        subject: str,
        told: tuple[str, str, str],
        *,
        size_bytes: float = 0.0,
        milliseconds: float = 0.0,
        macs: float = 0.0,
    ) -> Advice:
        """A piece of advice with its share of the original; ``told`` is finding, reason and remedy."""
        shares = (
            size_bytes / max(self.original.size_bytes, 1),
            milliseconds / max(self.original.milliseconds, 1e-12),
            macs / max(self.network.cost.macs, 1),
        )
        return Advice(kind, subject, *told, size_bytes, milliseconds, macs, max(shares))


def survey(captured: Network, target: Target) -> Survey:
    """Lower, run and time a network on a target, as it is and on int8.

    Args:
        captured: the network.
        target: where it will run.

    Raises:
        LoweringError: the target can't hold the original.
    """
    network = fold_batch_norm(captured)
    coupling = confirm(network, analyse(network.graph))
    with tempfile.TemporaryDirectory() as folder:
        path, trial_path = (Path(folder) / f"{name}{target.suffix}" for name in ("original", "integer"))
        files = [(network, path, target.lower(Compressed(network), path))]
        trial, obstacle = _trial(network, target, trial_path)
        if trial is not None:
            files.append((trial[0], trial_path, trial[1]))
        timings = target.benchmark([file for _, file, _ in files], runs=_RUNS, threads=1)
        found = [
            Measured(
                network=own,
                size_bytes=artefact.size_bytes,
                milliseconds=timing.median_ms,
                operators=tuple(target.profile(file, runs=_PROFILE_RUNS)),
                types=artefact.operators,
            )
            for (own, file, artefact), timing in zip(files, timings, strict=True)
        ]
    return Survey(target, found[0], found[1] if len(found) > 1 else None, obstacle, coupling)


def _trial(network: Network, target: Target, path: Path) -> tuple[tuple[Network, Artefact] | None, str]:
    """The network on int8 as a file, or why there is none."""
    layers = integer_layers(network, target.capability)
    if not layers:
        kinds = ", ".join(sorted({layer.kind for layer in network.layers})) or "no weighted layer"
        return None, f"{target.name} has no int8 kernel for any of its layers ({kinds})"
    trial = with_any_grids(_on_integers(network, layers), target)
    try:
        return (trial.network, target.lower(trial, path)), ""
    except LoweringError as error:
        return None, error.got


def integer_layers(network: Network, capability: Capability) -> list[Layer]:
    """The layers that can be put on int8 and for which the target has a kernel."""
    kinds = capability.layer_kinds.get("int8", frozenset())
    return [layer for layer in network.layers if layer.replaceable and layer.kind in kinds]


def _on_integers(network: Network, layers: Sequence[Layer]) -> Network:
    module = copied(network.module)
    for layer in layers:
        owner = module.get_submodule(layer.name)
        grid = symmetric_grid(weight_of(owner).flatten(1).abs().amax(1))
        replace_module(module, layer.name, encode(owner, AffineEncoding(grid, 0, integer=True)))
    return capture(module, network.example)


def names(subjects: Iterable[str]) -> str:
    """A few names, and how many there are beside them."""
    found = list(dict.fromkeys(subjects))
    rest = f" and {len(found) - _NAMED} more" if len(found) > _NAMED else ""
    return ", ".join(found[:_NAMED]) + rest


def counted(count: int, what: str) -> str:
    """``1 layer``, ``2 layers``."""
    return f"{count} {what}{'' if count == 1 else 's'}"
