"""Few bits without labels and without training: ResNet-20 and ResNet-56 on CIFAR-10, MobileNetV2 on photographs.

Every layer, the first, the last and depthwise ones too. W8A8 is static int8, simulated as the target computes it; 4, 3
and 2 bits are weights on one grid for every output channel under float activations. Columns: rounding to nearest; GPTQ
and what belongs to it, layer by layer under the dense network's inputs; the same in the walk that refits every layer
first to what the dense network put out there, from the inputs that the compressed prefix gives. CIFAR-10: 1,000
unlabelled images, all 10,000 test images. Photographs: 250 to calibrate on, 300 others to compare.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from _data import RESULTS, cifar10, cifar_resnet, imagenet_sample, mobilenet_v2
from torch import nn

from featherweight.contracts import Plan, Scalar, Step
from featherweight.methods import METHODS
from featherweight.methods.apply import apply, assemble
from featherweight.methods.seam import apply_steps, subject_of
from featherweight.network import Network, capture, fold_batch_norm
from featherweight.network.grids import with_grids
from featherweight.network.surgery import Slim
from featherweight.observation import Evidence, observe
from featherweight.recovery import recover
from featherweight.targets import target_by_name
from featherweight.tasks import Split

BITS = (4, 3, 2)
ROWS = 24_576
TARGET = target_by_name("litert")


@dataclass(frozen=True)
class Problem:
    """A trained network, images to calibrate on, and others with labels to compare on."""

    name: str
    network: Network
    calibration: Split
    images: torch.Tensor
    labels: np.ndarray

    def accuracy(self, module: Callable[[torch.Tensor], torch.Tensor]) -> float:
        """Share of right answers."""
        with torch.no_grad():
            answers = [module(self.images[i : i + 100]).argmax(1).numpy() for i in range(0, len(self.images), 100)]
        return round(float((np.concatenate(answers) == self.labels).mean()), 4)


def cifar_problem(depth: int, calibration: int = 1000) -> Problem:
    """ResNet-20 or ResNet-56."""
    data = cifar10()
    network = fold_batch_norm(capture(cifar_resnet(depth), data.train.take(range(2)).inputs))
    parts = [split.take(range(len(split))) for split in (data.validation, data.test)]
    labels = np.concatenate([np.asarray(split.labels) for split in (data.validation, data.test)])
    images = torch.cat([part.inputs[0] for part in parts])
    return Problem(f"ResNet-{depth}", network, data.train.first(calibration), images, labels)


def photograph_problem(calibration: int = 250) -> Problem:
    """MobileNetV2."""
    images, labels = imagenet_sample()
    order = np.random.default_rng(0).permutation(len(images))
    network = fold_batch_norm(capture(mobilenet_v2(), images[:2]))
    seen, rest = order[:calibration], order[250:]
    return Problem("MobileNetV2", network, Split.of(images[seen]), images[rest], labels[rest])


def plan_for(network: Network, settings: Mapping[str, Scalar]) -> Plan:
    """The same step for every layer that can be replaced."""
    steps = (Step("quantization", dict(settings)),)
    return Plan("", TARGET.capability.target, {layer.name: steps for layer in network.layers if layer.replaceable})


def alone(network: Network, evidence: Evidence, plan: Plan) -> nn.Module:
    """Every layer rounded by itself, under the dense network's inputs."""
    built = {}
    for name, steps in plan.choices.items():
        seen, module = evidence.layers[name], network.module.get_submodule(name)
        parts = (seen.covariance, seen.mean, 0.0, TARGET.capability)
        built[name] = apply_steps(subject_of(network.layer(name), module, *parts), steps, METHODS)
    return assemble(network, built).module


def few_bits(problem: Problem, evidence: Evidence, bits: int) -> dict[str, object]:
    """One row of the table."""
    settings: dict[str, Scalar] = {"weights": "int8", "bits": bits, "activations": "float32"}
    row: dict[str, object] = {"weights": bits, "activations": "float"}
    for name, more in (("nearest", {"rounding": "nearest"}), ("gptq", {})):
        plan = plan_for(problem.network, {**settings, **more})
        row[name] = problem.accuracy(alone(problem.network, evidence, plan))
    start = time.perf_counter()
    built = sequential(problem, settings)
    row["seconds"] = round(time.perf_counter() - start, 1)
    row["sequential"] = problem.accuracy(built.module)
    if bits == min(BITS):  # where a zero point brings a fourth level for three
        row["sequential, zero points"] = problem.accuracy(sequential(problem, {**settings, "symmetric": False}).module)
    return row


def sequential(problem: Problem, settings: Mapping[str, Scalar]) -> Network:
    """Every layer refit in the walk, then rounded."""
    plan = plan_for(problem.network, settings)
    return apply(problem.network, plan, problem.calibration, TARGET.capability, METHODS)


def eight_bits(problem: Problem) -> dict[str, object]:
    """Static int8, as the target computes it."""
    start = time.perf_counter()
    built = sequential(problem, {"weights": "int8", "activations": "int8"})
    compressed = recover(Slim.whole(problem.network), built, problem.calibration, TARGET)
    seconds = round(time.perf_counter() - start, 1)
    return {
        "weights": 8,
        "activations": "int8",
        "seconds": seconds,
        "sequential": problem.accuracy(with_grids(compressed)),
    }


PROBLEMS: Mapping[str, tuple[Callable[[], Problem], tuple[int, ...]]] = {
    "ResNet-20": (lambda: cifar_problem(20), BITS),
    "ResNet-56": (lambda: cifar_problem(56), BITS),
    "MobileNetV2": (photograph_problem, (4, 3)),
}


def rows_of(problem: Problem, widths: Sequence[int]) -> Iterator[dict[str, object]]:
    """8, then fewer bits."""
    yield eight_bits(problem)
    evidence = observe(problem.network, problem.calibration, rows_per_layer=ROWS)
    for bits in widths:
        yield few_bits(problem, evidence, bits)


def main() -> None:
    """Run all, or the networks that are named, and write ``results/low_bits.json``."""
    path = RESULTS / "low_bits.json"
    results = {row["network"]: row for row in json.loads(path.read_text())} if path.exists() else {}
    for name in sys.argv[1:] or PROBLEMS:
        make, widths = PROBLEMS[name]
        problem = make()
        points: list[dict[str, object]] = []
        results[name] = {"network": name, "accuracy": problem.accuracy(problem.network.module), "points": points}
        for row in rows_of(problem, widths):
            points.append(row)
            print(name, row, flush=True)
            RESULTS.mkdir(exist_ok=True)
            path.write_text(json.dumps([results[one] for one in PROBLEMS if one in results], indent=1) + "\n")


if __name__ == "__main__":
    main()
