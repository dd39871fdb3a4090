"""LeNet-300-100 and LeNet-5 on MNIST as packages, compressed without training, beside Deep Compression.

Trained here, from a fixed seed, on 55,000 images; 4,000 of them, without labels, are what compression sees. Four ways,
each with one knob that moves all layers together: coarse grids whose levels are chosen on error and bits together; and
zeros, what stays refit, and on a coarse grid, on three bits, or on eight shared values. The other 5,000 training images
say what a setting costs; for every loss that is allowed the smallest package within it is made, and that alone: packed,
unpacked again, and run in LiteRT on the 10,000 test images. Bytes are those of the whole package: graph, names,
headers, biases and checksums counted.

Deep Compression (Han et al. 2016, arXiv:1510.00149, table 1) trains while it prunes and shares: 27 KB at 1.58 % for
LeNet-300-100, 44 KB at 0.74 % for LeNet-5, from 1.64 % and 0.80 %.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from _data import RESULTS
from package_codec import mnist
from torch import nn
from torch.nn import functional

from featherweight.contracts import Plan, Step, Steps
from featherweight.methods import METHODS
from featherweight.methods.apply import apply
from featherweight.network import Network, capture
from featherweight.network.grids import Compressed
from featherweight.network.modules import weight_of
from featherweight.network.surgery import Slim
from featherweight.packaging import estimate_bits, pack, unpack
from featherweight.recovery import recover
from featherweight.targets import target_by_name
from featherweight.tasks import Split

TARGET = target_by_name("litert")
TRAINED, CALIBRATION = 55_000, 4_000
ALLOWED = (0.0, 0.1, 0.25, 0.5, 1.0)  # points lost on the validation images
PUBLISHED = {
    "LeNet-300-100": {"bytes": 27_000, "error_percent": 1.58, "from_percent": 1.64},
    "LeNet-5": {"bytes": 44_000, "error_percent": 0.74, "from_percent": 0.80},
}


def _step(value: float) -> Step:
    return Step("entropy", {"step": value, "activations": "float32"})


def _zeros(share: float) -> Steps:
    return (Step("sparsity", {"zeros": round(share, 4)}),) if share > 0 else ()


_THREE_BITS = Step("quantization", {"weights": "int8", "bits": 3, "activations": "float32"})
_SHARED = Step("sharing", {"values": 8})
# A way takes its knob, scaled for the layer: the step in root mean squares, or the share of weights that stay.
WAYS: Mapping[str, tuple[Callable[[float], Steps], tuple[float, ...]]] = {
    "coarse grid": (lambda knob: (_step(knob),), (2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0)),
    "zeros > coarse grid": (lambda knob: (*_zeros(1 - knob), _step(0.8)), (0.15, 0.1, 0.07, 0.05)),
    "zeros > 3 bits": (lambda knob: (*_zeros(1 - knob), _THREE_BITS), (0.15, 0.1, 0.07, 0.05)),
    "zeros > 8 values": (lambda knob: (*_zeros(1 - knob), _SHARED), (0.15, 0.1, 0.07, 0.05)),
}


class LeNet300(nn.Module):
    """784 → 300 → 100 → 10."""

    def __init__(self) -> None:
        super().__init__()
        self.fc1, self.fc2, self.fc3 = nn.Linear(784, 300), nn.Linear(300, 100), nn.Linear(100, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(n, 1, 28, 28) → (n, 10)."""
        return self.fc3(functional.relu(self.fc2(functional.relu(self.fc1(x.flatten(1))))))


class LeNet5(nn.Module):
    """Caffe's variant, which Deep Compression took: 431,080 parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(1, 20, 5), nn.Conv2d(20, 50, 5)
        self.fc1, self.fc2 = nn.Linear(800, 500), nn.Linear(500, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(n, 1, 28, 28) → (n, 10)."""
        x = functional.max_pool2d(functional.relu(self.conv1(x)), 2)
        x = functional.max_pool2d(functional.relu(self.conv2(x)), 2)
        return self.fc2(functional.relu(self.fc1(x.flatten(1))))


@dataclass(frozen=True)
class Problem:
    """An architecture, its training, and how much of the knob each layer gets.

    Attributes:
        make: the network.
        epochs: of training.
        coarseness: by layer: what multiplies a step.
        density: by layer: what multiplies the share of weights that stay; 1 and more leaves all.
    """

    make: Callable[[], nn.Module]
    epochs: int
    coarseness: tuple[float, ...]
    density: tuple[float, ...]


PROBLEMS = {
    "LeNet-300-100": Problem(LeNet300, 10, (1.0, 0.55, 0.25), (1.0, 2.0, 10.0)),
    "LeNet-5": Problem(LeNet5, 4, (0.25, 0.6, 1.0, 0.25), (10.0, 3.0, 1.0, 5.0)),
}


@dataclass(frozen=True)
class Candidate:
    """One setting: what it makes, and what that costs on validation images.

    Attributes:
        way, knob: of the setting.
        estimated: bytes of the weights, from the coder's own estimate, and of biases and scales as they are.
        error: on validation images, in percent.
        compressed: ready to be lowered.
    """

    way: str
    knob: float
    estimated: float
    error: float
    compressed: Compressed


def trained(make: Callable[[], nn.Module], epochs: int, images: torch.Tensor, labels: torch.Tensor) -> nn.Module:
    """By stochastic gradient descent with momentum under one cycle of the learning rate."""
    torch.manual_seed(0)
    network, batch = make(), 128
    steps = epochs * (len(images) // batch)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9, weight_decay=5e-4)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.1, total_steps=steps)
    for _ in range(epochs):
        for rows in torch.randperm(len(images))[: steps // epochs * batch].reshape(-1, batch):
            optimizer.zero_grad()
            functional.cross_entropy(network(images[rows]), labels[rows]).backward()
            optimizer.step()
            schedule.step()
    return network.eval()


def error_of(run: Callable[[torch.Tensor], np.ndarray], images: torch.Tensor, labels: torch.Tensor) -> float:
    """Wrong answers in percent."""
    answers = np.concatenate([run(images[i : i + 500]).argmax(1) for i in range(0, len(images), 500)])
    return round(100 * float((answers != labels.numpy()).mean()), 2)


def _module(module: nn.Module) -> Callable[[torch.Tensor], np.ndarray]:
    return lambda x: module(x).detach().numpy()


def _file(path: Path) -> Callable[[torch.Tensor], np.ndarray]:
    run = TARGET.load(path)
    return lambda x: run((x.numpy(),))


def _estimated_bytes(network: Network) -> float:
    """Every row's distinct values as levels around zero: grids and shared values alike."""
    total = 0.0
    for layer in network.layers:
        weight = weight_of(network.module.get_submodule(layer.name)).detach().flatten(1)
        smallest = torch.where(weight == 0, torch.inf, weight.abs()).amin(1, keepdim=True)
        levels = torch.round(weight / torch.where(torch.isinf(smallest), 1.0, smallest))
        values, index = torch.unique(weight, return_inverse=True)
        if len(values) <= 64:  # shared by the whole layer
            levels = index - int((values == 0).nonzero()[0]) if bool((values == 0).any()) else index
        total += estimate_bits(levels.to(torch.int32).numpy()) / 8 + 4 * 2 * len(weight)
    return total


def candidates(
    problem: Problem, network: Network, split: Split, score: Callable[[nn.Module], float]
) -> list[Candidate]:
    """All ways at all their knobs."""
    found = []
    names = [layer.name for layer in network.layers]
    for way, (steps, knobs) in WAYS.items():
        shares = problem.coarseness if way == "coarse grid" else problem.density
        for knob in knobs:
            choices = {name: steps(knob * share) for name, share in zip(names, shares, strict=True)}
            plan = Plan("", TARGET.capability.target, choices)
            built = apply(network, plan, split, TARGET.capability, METHODS)
            compressed = recover(Slim.whole(network), built, split, TARGET)
            estimated, error = _estimated_bytes(compressed.network), score(compressed.network.module)
            print(f"  {way:20} {knob:5} {estimated:9,.0f} bytes estimated {error:6.2f} %", flush=True)
            found.append(Candidate(way, knob, estimated, error, compressed))
    return found


def chosen(found: Sequence[Candidate], dense: float) -> Iterator[tuple[float, Candidate]]:
    """For every loss that is allowed the smallest candidate within it."""
    for loss in ALLOWED:
        within = [one for one in found if one.error <= dense + loss]
        if within:
            yield loss, min(within, key=lambda one: one.estimated)


def shipped(compressed: Compressed, folder: Path) -> tuple[int, Path]:
    """Lowered, packed and unpacked: the package's bytes and the file that came out of it."""
    made, package, back = folder / "made.tflite", folder / "network.fwp", folder / "back.tflite"
    TARGET.lower(compressed, made)
    size = pack(made, package)
    unpack(package, back)
    if back.read_bytes() != made.read_bytes():
        raise SystemExit("the package gave other bytes")
    return size, back


def row_of(name: str, folder: Path) -> dict[str, Any]:
    """One network: the dense figures and the curve."""
    problem, start = PROBLEMS[name], time.process_time()
    images, labels = mnist("train")
    images, (test, answers) = images.view(-1, 1, 28, 28), mnist("t10k")
    test = test.view(-1, 1, 28, 28)
    module = trained(problem.make, problem.epochs, images[:TRAINED], labels[:TRAINED])
    network, split = capture(module, (images[:2],)), Split.of(images[:CALIBRATION])

    def score(one: nn.Module) -> float:
        return error_of(_module(one), images[TRAINED:], labels[TRAINED:])

    dense = score(module)
    print(f"{name}: dense, {dense} % on validation images, {time.process_time() - start:.0f} s", flush=True)
    found = candidates(problem, network, split, score)
    points = []
    for loss, one in chosen(found, dense):
        size, back = shipped(one.compressed, folder)
        point: dict[str, Any] = {"allowed_points": loss, "way": one.way, "knob": one.knob, "package_bytes": size}
        point |= {"validation_error_percent": one.error, "test_error_percent": error_of(_file(back), test, answers)}
        points.append(point)
        print(json.dumps(point), flush=True)
    weights = sum(parameter.numel() for parameter in module.parameters())
    row = {"network": name, "parameters": weights, "float_bytes": 4 * weights, "dense_validation_error_percent": dense}
    row |= {"dense_test_error_percent": error_of(_module(module), test, answers), "points": points}
    row |= {"deep_compression": PUBLISHED[name], "processor_seconds": round(time.process_time() - start)}
    row["sweep"] = [
        {"way": c.way, "knob": c.knob, "estimated_bytes": round(c.estimated), "validation_error_percent": c.error}
        for c in found
    ]
    return row


def main() -> None:
    """Run both, or the networks that are named, and write ``results/lenet_packages.json``."""
    path = RESULTS / "lenet_packages.json"
    results: dict[str, dict[str, Any]] = (
        {row["network"]: row for row in json.loads(path.read_text())} if path.exists() else {}
    )
    with tempfile.TemporaryDirectory() as folder:
        for name in sys.argv[1:] or PROBLEMS:
            results[name] = row_of(name, Path(folder))
            RESULTS.mkdir(exist_ok=True)
            path.write_text(json.dumps([results[one] for one in PROBLEMS if one in results], indent=1) + "\n")


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
