"""LiteRT (TensorFlow Lite): ``.tflite`` files for phones, watches and microcontrollers."""

from __future__ import annotations

import importlib.metadata
import importlib.util
from collections.abc import Mapping, Sequence
from pathlib import Path

from featherweight.contracts import Artefact, Capability, Timing
from featherweight.files import write_atomically
from featherweight.network.capture import Network
from featherweight.network.grids import Compressed
from featherweight.targets.litert import flatbuffer, lower, memory, run
from featherweight.targets.litert.capability import CAPABILITY, OPERATORS
from featherweight.targets.placement import Placement, place_grids
from featherweight.targets.seam import Runner


class LiteRT:
    """The LiteRT target; see :class:`featherweight.targets.seam.Target`."""

    name = "litert"
    suffix = ".tflite"
    extra = "litert"
    capability: Capability = CAPABILITY
    pads_apart = True

    def missing(self) -> str | None:
        """The first package that isn't installed."""
        for package in ("litert_torch", "ai_edge_litert"):
            if importlib.util.find_spec(package) is None:
                return package
        return None

    def place(self, network: Network) -> Placement:
        """Which values lie on integer grids."""
        return place_grids(network, OPERATORS)

    def lower(self, compressed: Compressed, path: Path) -> Artefact:
        """Write a ``.tflite`` file; images go in as NHWC."""
        content = lower.convert(compressed)
        lower.check_kernels(compressed, content)
        lower.check_weights(compressed, content)
        write_atomically(path, content)
        return lower.artefact_of(path, content, [lower.is_image(x) for x in compressed.network.example])

    def load(self, path: Path) -> Runner:
        """Run the file on batches."""
        return run.runner(path)

    def benchmark(self, paths: Sequence[Path], *, runs: int = 100, threads: int = 1) -> list[Timing]:
        """Time files side by side."""
        return run.benchmark(paths, runs=runs, threads=threads)

    def profile(self, path: Path, *, runs: int = 30) -> list[tuple[str, float]]:
        """Time the file's operators one by one."""
        return run.profile(path, runs=runs)

    def parts(self, path: Path) -> Mapping[str, int]:
        """Where the file's bytes are."""
        return flatbuffer.bytes_by_part(path.read_bytes())

    def peak_memory(self, path: Path) -> int:
        """Peak bytes of live activations for one sample."""
        return memory.peak_bytes(path.read_bytes())

    def runtime(self) -> str:
        """Name and version of the runtime."""
        return f"ai-edge-litert {importlib.metadata.version('ai-edge-litert')}"
