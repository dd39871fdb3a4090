"""What evidence and the table cost: ResNet-20 on CIFAR-10, MobileNetV2 at 224, and chains of 10 to 80 equal layers.

Both networks once more with the options and rates of a goal that counts packages.

Every row runs in a process of its own, so that its peak memory is its own. Arguments choose rows by name; without any,
all run. Seconds are wall time, with the machine's load beside them, since other work on it lengthens them; those of
keeps include finding the coupled channels. Peak memory includes what was there at the start: data, network, libraries.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import resource
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import torch
from _data import RESULTS, cifar10, cifar_resnet, imagenet_sample, mobilenet_v2
from torch import nn

from featherweight.methods import FOR_PACKAGES, METHODS, Pruning
from featherweight.methods.pruning import Grounds, Prunable
from featherweight.network import Network, capture, fold_batch_norm
from featherweight.observation import observe
from featherweight.observation.suffix import anchor_samples
from featherweight.planning import build_table
from featherweight.planning.units import with_keeps
from featherweight.targets import target_by_name
from featherweight.tasks import CLASSIFICATION, Split

CALIBRATION = 512
DEPTHS = (10, 20, 40, 80)
_CHANNELS, _SIZE = 32, 16
_CAPABILITY = target_by_name("litert").capability


@dataclass(frozen=True)
class Problem:
    """A network and its calibration samples; coupled channels are priced too where wanted, and bytes in a package."""

    network: Network
    calibration: Split
    keeps: bool = True
    packages: bool = False


def resnet20() -> Problem:
    """The trained ResNet-20."""
    calibration = cifar10().train.first(CALIBRATION)
    return Problem(fold_batch_norm(capture(cifar_resnet(20), calibration.take(range(2)).inputs)), calibration)


def mobilenet() -> Problem:
    """The trained MobileNetV2 at 224 by 224."""
    images = imagenet_sample()[0][:CALIBRATION].clone()
    return Problem(fold_batch_norm(capture(mobilenet_v2(), images[:2])), Split.of(images))


class _Chain(nn.Module):
    """Equal convolutions in a row, with orthogonal weights, so that signals neither die nor grow."""

    def __init__(self, depth: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Conv2d(_CHANNELS, _CHANNELS, 3, padding=1) for _ in range(depth))
        for weight in (one for one in self.parameters() if one.ndim > 1):
            nn.init.orthogonal_(weight, gain=3.0)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(n, c, s, s) → (n, c)."""
        for layer in self.layers:
            x = torch.relu(layer(x))
            x = x / (x.std((1, 2, 3), keepdim=True) + 1e-3)
        return x.mean((2, 3))


def chain(depth: int) -> Problem:
    """A chain on noise."""
    torch.manual_seed(depth)
    images = torch.randn(CALIBRATION, _CHANNELS, _SIZE, _SIZE)
    return Problem(capture(_Chain(depth).eval(), images[:2]), Split.of(images), keeps=False)


PROBLEMS: Mapping[str, Callable[[], Problem]] = {
    "ResNet-20": resnet20,
    "ResNet-20 with packages": lambda: replace(resnet20(), packages=True),
    "MobileNetV2": mobilenet,
    "MobileNetV2 with packages": lambda: replace(mobilenet(), packages=True),
    **{f"chain of {depth}": (lambda depth=depth: chain(depth)) for depth in DEPTHS},
}


def _measure(name: str) -> dict[str, object]:
    problem = PROBLEMS[name]()
    network, samples = problem.network, problem.calibration
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    times, busy = [time.perf_counter()], time.process_time()
    evidence = observe(network, samples)
    times.append(time.perf_counter())
    methods = FOR_PACKAGES if problem.packages else METHODS
    # What the whole file takes in a package adds to no option: that it is counted is what matters here.
    whole = replace(network.cost, package_bytes=float(network.cost.size_bytes) if problem.packages else 0.0)
    table = build_table(network, evidence, samples, CLASSIFICATION, _CAPABILITY, methods, whole=whole)
    times.append(time.perf_counter())
    seen, built, layers = times[1] - times[0], times[2] - times[1], len(network.layers)
    row: dict[str, object] = {
        "network": name,
        "layers": layers,
        "gigamacs": round(network.cost.macs / 1e9, 3),
        "calibration_samples": len(samples),
        "anchor_samples": anchor_samples(network.cost, len(samples)),
        "options": sum(map(len, table.options.values())),
        "evidence_seconds": round(seen, 1),
        "table_seconds": round(built, 1),
        "seconds": round(seen + built, 1),
        "seconds_per_layer": round((seen + built) / layers, 3),
        "cpu_seconds_per_layer": round((time.process_time() - busy) / layers, 3),
    }
    if problem.keeps:
        start = time.perf_counter()
        prunable = Prunable.of(network, Pruning())
        table = with_keeps(table, network, prunable, Grounds(evidence, samples), CLASSIFICATION, _CAPABILITY)
        row |= {"units": len(table.keeps), "keeps_seconds": round(time.perf_counter() - start, 1)}
    row["start_mib"] = before // 1024
    row["peak_mib"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    row["threads"], row["load"] = torch.get_num_threads(), round(os.getloadavg()[0], 1)
    return row


def main() -> None:
    """Measure, and keep the rows measured before for what isn't measured now."""
    path = RESULTS / "table_cost.json"
    for name in sys.argv[1:] or PROBLEMS:
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            row = pool.apply(_measure, (name,))
        print(row, flush=True)
        rows = {one["network"]: one for one in json.loads(path.read_text())} if path.exists() else {}
        rows[name] = row
        ordered = [rows[one] for one in PROBLEMS if one in rows]
        path.write_text(json.dumps(ordered, indent=1) + "\n")


if __name__ == "__main__":
    main()
