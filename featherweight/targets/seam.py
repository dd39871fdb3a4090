"""What every target offers: capability data, where grids stand, lowering, running, timing."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np

from featherweight.contracts import Artefact, Capability, Timing
from featherweight.network.capture import Network
from featherweight.network.grids import Compressed
from featherweight.targets.placement import Placement

Runner = Callable[[tuple[np.ndarray, ...]], np.ndarray]


class Target(Protocol):
    """A runtime on a device.

    Attributes:
        name: as users write it.
        suffix: of its files, with the dot.
        extra: the extra that installs what it needs ("litert").
        capability: what it can run, as data.
        pads_apart: whether padding other than "same" is an operation of its own, with a padded copy of the input.
    """

    name: str
    suffix: str
    extra: str
    capability: Capability
    pads_apart: bool

    def missing(self) -> str | None:
        """The first package that isn't installed; None where all are."""
        ...

    def place(self, network: Network) -> Placement:
        """Which values of a network with encodings lie on integer grids."""
        ...

    def lower(self, compressed: Compressed, path: Path) -> Artefact:
        """Write the network as a file that the runtime executes.

        Raises:
            LoweringError: the file doesn't hold what the network's encodings ask for.
        """
        ...

    def load(self, path: Path) -> Runner:
        """A callable that runs the file: inputs as the network takes them (batch first, NCHW), real outputs."""
        ...

    def benchmark(self, paths: Sequence[Path], *, runs: int, threads: int) -> list[Timing]:
        """Time several files, interleaved in one run."""
        ...

    def profile(self, path: Path, *, runs: int) -> list[tuple[str, float]]:
        """(operator, milliseconds) of the file's operators in execution order, each timed alone."""
        ...

    def parts(self, path: Path) -> Mapping[str, int]:
        """Where the file's bytes are: a few words → bytes."""
        ...

    def peak_memory(self, path: Path) -> int:
        """Peak bytes of live activations while the file runs one sample: the largest sum over its operators.

        What an operator reads and writes, and what later ones still read, is live while it runs; inputs from the
        start, outputs to the end. A value that only gets another shape shares its bytes. Constants, and what a kernel
        takes for itself, don't count.
        """
        ...

    def runtime(self) -> str:
        """Name and version of what runs the files ("onnxruntime 1.32.0"): times count for it alone."""
        ...
