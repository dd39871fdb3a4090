"""Tables of kernels and widths alone, and a target whose times are a known function."""

from __future__ import annotations

import functools
import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import fx, nn

from featherweight.contracts import Artefact, Choice, Cost, Option, Step, Steps, Table, Timing
from featherweight.methods import METHODS, Pruning
from featherweight.methods.apply import neutral_subject
from featherweight.methods.pruning import Prunable
from featherweight.methods.seam import apply_steps, cost_form, widths_of
from featherweight.network import Network, capture
from featherweight.network.grids import Compressed
from featherweight.planning.latency.kernels import Kernel, kernels_of
from featherweight.planning.units import independent_units, keep_of
from featherweight.planning.widths import narrowed
from featherweight.targets.litert import LiteRT
from featherweight.targets.placement import FUSED, integer_layers, values_read

STATIC: Steps = (Step("quantization", {"weights": "int8", "activations": "int8"}),)
DYNAMIC: Steps = (Step("quantization", {"weights": "int8", "activations": "dynamic"}),)
RANK: Steps = (Step("lowrank", {"rank": 8}),)
OFFERED: tuple[Steps, ...] = (
    (),
    STATIC,
    (Step("quantization", {"weights": "int8", "activations": "int8", "bits": 3}),),
    DYNAMIC,
)


class Small(nn.Module):
    """A residual block between a strided start and a linear end."""

    def __init__(self) -> None:
        super().__init__()
        self.start, self.depth = nn.Conv2d(3, 32, 3, stride=2, padding=1), nn.Conv2d(32, 32, 3, padding=1, groups=32)
        self.inner, self.outer = nn.Conv2d(32, 64, 1), nn.Conv2d(64, 32, 3, padding=1)
        self.end = nn.Linear(32, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.depth(torch.relu(self.start(x))))
        x = torch.relu(x + self.outer(torch.relu(self.inner(x))))
        return self.end(x.mean((2, 3)))


@functools.cache
def small() -> tuple[Network, Prunable]:
    """Small, captured and tried once: nobody changes it."""
    torch.manual_seed(0)
    network = capture(Small(), torch.randn(2, 3, 16, 16))
    return network, Prunable.of(network, Pruning())


def bare_table(
    network: Network, prunable: Prunable, ranked: Sequence[str] = (), offered: Sequence[Steps] = OFFERED
) -> Table:
    """What is offered for every layer, and a low rank for those that are named; keeps of every unit."""
    capability, options = LiteRT.capability, {}
    for layer in network.layers:
        subject = neutral_subject(layer, network.module.get_submodule(layer.name), capability)
        row = []
        for steps in (*offered, *((RANK, (*RANK, *STATIC)) if layer.name in ranked else ())):
            form = cost_form(layer, apply_steps(subject, steps, METHODS), capability)
            row.append(Option(layer.name, steps, form.at(*widths_of(layer)), 0.0, 0.0, form))
        options[layer.name] = tuple(row)
    kept = sum((row[0].cost for row in options.values()), Cost(0, 0, 0))
    widths = {layer.name: widths_of(layer) for layer in network.layers}
    keeps = {
        unit.name: _keeps(network, unit, prunable, tuple(options)) for unit in independent_units(prunable.coupling)
    }
    return Table(options, (), network.cost - kept, widths, keeps)


def _keeps(network, unit, prunable, priced):
    counts = prunable.pruning.options(unit, LiteRT.capability)
    some = [keep_of(network, unit, unit.groups - n, (prunable.pruning.step(n),), priced) for n in counts]
    return (keep_of(network, unit, 0, (), priced), *some)


def chosen(table: Table, steps: dict[str, Steps], keeps: dict[str, int] | None = None) -> Choice:
    """The choice of these steps, by layer ("" for all others), and of these keeps, by position in their row."""
    held = {unit: row[(keeps or {}).get(unit, 0)] for unit, row in table.keeps.items()}
    layers = {}
    for name, row in narrowed(table, held).options.items():
        wanted = steps.get(name, steps.get("", ()))
        layers[name] = next(option for option in row if option.steps == wanted)
    return Choice(layers, held)


def converted(compressed: Compressed) -> float:
    """Elements of one sample that are put on a grid or taken off one, counted on a network as it ships."""
    network, grids = compressed.network, compressed.grids
    integer, layers = {one.node for one in integer_layers(network)}, {one.node for one in network.layers}

    def on_integers(node: fx.Node) -> bool:
        if node.target in FUSED and node.args[0].name not in grids:  # along with what stands before it
            return on_integers(node.args[0])
        return node.name in integer if node.name in layers else all(one.name in grids for one in values_read(node))

    count = 0
    for node in network.graph.graph.nodes:
        if node.name in grids:
            real = node.op == "placeholder" or not on_integers(node)
            back = any(user.op == "output" or not on_integers(user) for user in node.users)
            count += (real + back) * node.meta["val"][0].numel()
    return float(count)


class KnownTarget(LiteRT):
    """Writes down what a network runs on; a kernel's time is a function of it, a network's 1.5 · their sum + 0.25.

    Args:
        ms: of a kernel.
        tells: how often a file is profiled before the machine fails; None for ever.
        spreads: whether it runs every layer as two operators.
        price: milliseconds that a network takes on top for every element that changes its type.
    """

    def __init__(
        self, ms: Callable[[Kernel], float], tells: int | None = None, spreads: bool = False, price: float = 0.0
    ) -> None:
        self.ms, self.tells, self.spreads, self.price = ms, tells, spreads, price
        self.lowered = self.timed = 0

    def lower(self, compressed: Compressed, path: Path) -> Artefact:
        network = compressed.network
        rows = [
            self.ms(kernel)
            for layer in network.layers
            for kernel in kernels_of(layer, network.module.get_submodule(layer.name))
        ]
        path.write_text(json.dumps({"kernels": rows, "beside": 0.25 + self.price * converted(compressed)}))
        self.lowered += 1
        return Artefact("known", path.name, 0, "", (), (), {})

    def profile(self, path: Path, *, runs: int = 30) -> list[tuple[str, float]]:
        if self.tells is not None and self.timed >= self.tells:
            raise KeyboardInterrupt
        self.timed += 1
        rows = [("MEAN", 0.5)] if not self.spreads else []
        for ms in json.loads(path.read_text())["kernels"]:
            rows += [("CONV_2D", ms / 2 + 0.1), ("CONV_SUM", ms / 2)] if self.spreads else [("CONV_2D", ms + 0.1)]
        return rows

    def benchmark(self, paths: Sequence[Path], *, runs: int = 100, threads: int = 1) -> list[Timing]:
        told = [json.loads(path.read_text()) for path in paths]
        times = [1.5 * sum(one["kernels"]) + one["beside"] for one in told]
        return [Timing(ms, ms, runs, threads) for ms in times]

    def runtime(self) -> str:
        return "known 1"


def linear_ms(kernel: Kernel) -> float:
    """By multiplications, columns and a constant; nothing for the small kernel that measures the call."""
    if (kernel.rows, kernel.columns, kernel.family.kernel) == (8, 8, ()):
        return 0.0
    speed = {"float32": 4e-6, "int8": 1e-6, "dynamic": 1.5e-6}[kernel.family.arithmetic]
    work = math.prod(kernel.family.sizes) * math.prod(kernel.family.kernel or (1,))
    return speed * kernel.rows * kernel.columns * work + 1e-4 * kernel.columns + 2e-3
