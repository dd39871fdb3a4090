"""Kernels and whole networks timed in a target's runtime; what is known already isn't timed again.

Many kernels stand side by side in one file, each with an input of its own, and the runtime's own account tells them
apart by their order. One more, so small that nothing but the call itself takes time, is measured with them and taken
off. Where a runtime spreads a layer over several operators, or gathers channels around it, such a kernel gets a file of
its own, and all its operators count.
"""

from __future__ import annotations

import re
import statistics
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import torch
from torch import nn

from featherweight.network.capture import Network, capture
from featherweight.network.grids import Compressed
from featherweight.numerics.affine import AffineGrid
from featherweight.planning.latency.kernels import Family, Kernel, built, input_of
from featherweight.planning.latency.latencies import Latencies
from featherweight.progress import track
from featherweight.targets.seam import Target

_BRANCHES = 24
_PASSES = 3
_RUNS = 20
_WEIGHTED = re.compile("conv|fully_connected|gemm|matmul", re.IGNORECASE)
_NETWORK_RUNS = 100


class _Branches(nn.Module):
    """Kernels side by side; every output is averaged over its positions, and the means make one tensor.

    One value of every mean is added to the next branch's input: no runtime can then run them in another order.
    """

    def __init__(self, kernels: Sequence[Kernel]) -> None:
        super().__init__()
        self.branches = nn.ModuleList(map(built, kernels))

    def forward(self, *inputs: torch.Tensor) -> torch.Tensor:
        """One input for each branch → (batch, all rows)."""
        means: list[torch.Tensor] = []
        for branch, x in zip(self.branches, inputs, strict=True):
            y = branch(x + means[-1][:, :1].reshape(-1, *[1] * (x.ndim - 1)) if means else x)
            channel = y.ndim - 1 if isinstance(branch, nn.Linear) else 1
            over = [axis for axis in range(1, y.ndim) if axis != channel]
            means.append(y.mean(over) if over else y)
        return torch.cat(means, 1)


def with_any_grids(network: Network, target: Target) -> Compressed:
    """A network that nobody asks for answers: every value that the target has on integers lies on one grid."""
    placement = target.place(network)
    grid = AffineGrid(torch.tensor(0.05), torch.tensor(0), -128, 127)
    fixed = {
        node: AffineGrid(torch.tensor(scale), torch.tensor(zero), -128, 127)
        for node, (scale, zero) in placement.fixed.items()
    }
    return Compressed(network, {node: fixed.get(node, grid) for node in placement.nodes})


def time_kernels(kernels: Sequence[Kernel], target: Target, latencies: Latencies) -> None:
    """Measure what the table of latencies lacks; it is saved after every file.

    Raises:
        LoweringError: the target can't hold one of them.
    """
    missing = [kernel for kernel in dict.fromkeys(kernels) if str(kernel) not in latencies.kernels]
    for batch in track(list(_batches(missing)), "measuring kernels"):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            times = _timed(batch, target)
        latencies.kernels.update({str(kernel): ms for kernel, ms in zip(batch, times, strict=True)})
        latencies.save()


def _batches(kernels: Sequence[Kernel]) -> Iterator[tuple[Kernel, ...]]:
    groups: dict[str, list[Kernel]] = {}
    for kernel in kernels:
        if kernel.family.gathered:
            yield (kernel,)
        else:
            groups.setdefault(kernel.family.arithmetic, []).append(kernel)
    for group in groups.values():
        yield from _cut(group)


def _cut(group: Sequence[Kernel]) -> Iterator[tuple[Kernel, ...]]:
    for start in range(0, len(group), _BRANCHES):
        yield tuple(group[start : start + _BRANCHES])


def _timed(batch: Sequence[Kernel], target: Target) -> list[float]:
    smallest = Kernel(Family(batch[0].family.arithmetic, (1,)), 8, 8)
    rows = _profiled((smallest, *batch), target)
    found = [ms for name, ms in rows if _WEIGHTED.search(name)]
    apart = any(kernel.family.gathered for kernel in batch)
    if len(found) == len(batch) + 1 and not apart:
        return [max(ms - found[0], 0.0) for ms in found[1:]]
    call = sum(ms for _, ms in _profiled((smallest,), target))
    return [max(sum(ms for _, ms in _profiled((kernel,), target)) - call, 0.0) for kernel in batch]


def _profiled(kernels: Sequence[Kernel], target: Target) -> list[tuple[str, float]]:
    """(operator, milliseconds) of a file of these kernels; of several passes the least, which others disturb least."""
    inputs = tuple(input_of(kernel, 2) for kernel in kernels)
    compressed = with_any_grids(capture(_Branches(kernels), inputs), target)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"kernels{target.suffix}"
        target.lower(compressed, path)
        passes = [target.profile(path, runs=_RUNS) for _ in range(_PASSES)]
    return [(rows[0][0], min(ms for _, ms in rows)) for rows in zip(*passes, strict=True)]


def time_networks(makers: Mapping[str, Callable[[], Compressed]], target: Target, latencies: Latencies) -> None:
    """Time whole networks that the table of latencies lacks, each in turns with the first.

    In pairs, as a run's report does: among many, every file would find the caches full of the others. What the first
    takes beside each of them says how busy the machine was, and is divided out.

    Args:
        makers: the network's name in the table → what makes it.
        target: lowers and runs them.
        latencies: gets what was measured, and is saved.

    Raises:
        LoweringError: the target can't hold one of them.
    """
    first, *_ = makers
    missing = [name for name in makers if name not in latencies.networks and name != first]
    if not missing and first in latencies.networks:
        return
    with tempfile.TemporaryDirectory() as folder:
        paths = {name: Path(folder) / f"{number}{target.suffix}" for number, name in enumerate([first, *missing])}
        for name, path in track(list(paths.items()), "measuring whole networks"):
            target.lower(makers[name](), path)
        measured = timed_beside(paths[first], [paths[name] for name in missing], target, latencies.clock.threads)
    reference = latencies.networks.setdefault(first, measured[0])
    latencies.networks.update({name: share * reference for name, share in zip(missing, measured[1:], strict=True)})
    latencies.save()


def timed_beside(reference: Path, paths: Sequence[Path], target: Target, threads: int) -> list[float]:
    """Milliseconds of a file, and for every other one how many times as long it takes, timed in pairs."""
    pairs = [target.benchmark([reference, path], runs=_NETWORK_RUNS, threads=threads) for path in paths]
    if not pairs:
        return [target.benchmark([reference], runs=_NETWORK_RUNS, threads=threads)[0].median_ms]
    own = statistics.median(first.median_ms for first, _ in pairs)
    return [own, *(other.median_ms / first.median_ms for first, other in pairs)]
