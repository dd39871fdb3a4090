"""ONNX Runtime: ``.onnx`` files for servers, desktops, browsers and phones."""

from __future__ import annotations

import importlib.metadata
import importlib.util
from collections.abc import Mapping, Sequence
from pathlib import Path

from featherweight.contracts import Artefact, Capability, Timing
from featherweight.files import write_atomically
from featherweight.network.capture import Network
from featherweight.network.grids import Compressed
from featherweight.targets.onnxruntime import describe, lower, memory, run
from featherweight.targets.onnxruntime.capability import CAPABILITY, OPERATORS
from featherweight.targets.onnxruntime.weights import check_weights
from featherweight.targets.placement import Placement, place_grids
from featherweight.targets.seam import Runner


class OnnxRuntime:
    """The ONNX Runtime target; see :class:`featherweight.targets.seam.Target`."""

    name = "onnxruntime"
    suffix = ".onnx"
    extra = "onnxruntime"
    capability: Capability = CAPABILITY
    pads_apart = False

    def missing(self) -> str | None:
        """The first package that isn't installed."""
        for package in ("onnx", "onnxruntime", "onnxscript"):
            if importlib.util.find_spec(package) is None:
                return package
        return None

    def place(self, network: Network) -> Placement:
        """Which values lie on integer grids."""
        return place_grids(network, OPERATORS)

    def lower(self, compressed: Compressed, path: Path) -> Artefact:
        """Write an ``.onnx`` file for batches of any size; images go in as the network takes them, NCHW."""
        content = lower.convert(compressed)
        operators = describe.operators_by_type(run.optimized(content))
        lower.check_kernels(compressed, operators)
        check_weights(run.read_model(content), compressed.network)
        write_atomically(path, content)
        return describe.artefact_of(path, content, operators)

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
        return describe.bytes_by_part(path.read_bytes())

    def peak_memory(self, path: Path) -> int:
        """Peak bytes of live activations for one sample."""
        return memory.peak_bytes(path.read_bytes())

    def runtime(self) -> str:
        """Name and version of the runtime."""
        return f"onnxruntime {importlib.metadata.version('onnxruntime')}"
