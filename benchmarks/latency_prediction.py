"""How well the table's milliseconds and peak memory predict those of whole files.

For random plans – channels gone, every layer on float, static int8 or dynamic int8 kernels, some factorised – the
table's prediction stands against the file's own, timed in turns with the original. Weights don't matter to either, so
networks are stand-ins: the right shapes and kernels, no answers.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import _data
import numpy as np
import torch
from torch import nn

from featherweight.contracts import Choice, Cost, Keep, Option, Step, Table
from featherweight.methods import METHODS, Pruning
from featherweight.methods.apply import neutral_subject
from featherweight.methods.pruning import Prunable
from featherweight.methods.seam import apply_steps, chains, cost_form, widths_of
from featherweight.network import capture, fold_batch_norm
from featherweight.network.capture import Layer, Network
from featherweight.network.channels import ChannelUnit
from featherweight.network.grids import Compressed
from featherweight.planning.latency.latencies import FOLDER_VARIABLE, Clock, Latencies, cached_latencies
from featherweight.planning.latency.pricing import network_name, with_latency
from featherweight.planning.latency.standin import stand_in
from featherweight.planning.latency.timing import timed_beside
from featherweight.planning.memory import Liveness
from featherweight.planning.units import independent_units, keep_of
from featherweight.planning.widths import narrowed
from featherweight.targets import Target, target_by_name

PLANS = 15
_STATIC = (Step("quantization", {"weights": "int8", "activations": "int8", "rounding": "nearest"}),)
_DYNAMIC = (Step("quantization", {"weights": "int8", "activations": "dynamic", "rounding": "nearest"}),)


def bare_table(network: Network, target: Target, prunable: Prunable) -> Table:
    """Kernels and widths alone: errors are all 0, since nothing is chosen by them."""
    options = {}
    for layer in network.layers:
        module = network.module.get_submodule(layer.name)
        options[layer.name] = tuple(_options(layer, module, target))
    kept = sum((row[0].cost for row in options.values()), Cost(0, 0, 0))
    widths = {layer.name: widths_of(layer) for layer in network.layers}
    units = independent_units(prunable.coupling)
    keeps = {unit.name: _keeps(network, unit, prunable, target, tuple(options)) for unit in units}
    return Table(options, (), network.cost - kept, widths, keeps)


def _options(layer: Layer, module: nn.Module, target: Target) -> list[Option]:
    subject = neutral_subject(layer, module, target.capability)
    lowrank = [method for method in METHODS if method.name == "lowrank"]
    ranks = [steps for found in chains(subject, lowrank) if isinstance(found, tuple) for steps in [found[0]] if steps]
    wanted = [(), _STATIC, *([_DYNAMIC] if layer.kind in target.capability.dynamic_kinds else [])]
    wanted += [(*steps, *rest) for steps in ranks[:: max(1, len(ranks) // 4)] for rest in ((), _STATIC)]
    found = []
    for steps in wanted:
        form = cost_form(layer, apply_steps(subject, steps, METHODS), target.capability)
        found.append(Option(layer.name, steps, form.at(*widths_of(layer)), 0.0, 0.0, form))
    return found


def _keeps(
    network: Network, unit: ChannelUnit, prunable: Prunable, target: Target, priced: Sequence[str]
) -> tuple[Keep, ...]:
    counts = prunable.pruning.options(unit, target.capability)
    some = (keep_of(network, unit, unit.groups - n, (prunable.pruning.step(n),), priced) for n in counts)
    return (keep_of(network, unit, 0, (), priced), *some)


def random_choices(table: Table, count: int) -> list[Choice]:
    """Plans between the gentlest and the harshest: uniform and mixed kernels, none to all units narrower."""
    generator = np.random.default_rng(0)
    found = []
    for number in range(count):
        share = number / (count - 1)
        keeps = {
            unit: row[int(generator.integers(len(row)))] if generator.random() < share else row[0]
            for unit, row in table.keeps.items()
        }
        narrow = narrowed(table, keeps)
        uniform = int(generator.integers(3)) if number % 2 else None
        layers = {}
        for name, row in narrow.options.items():
            plain = [at for at, option in enumerate(row) if not any(one.method == "lowrank" for one in option.steps)]
            whole = row[0].cost == table.options[name][0].cost
            among = range(len(row)) if whole and generator.random() < 0.3 else plain
            at = plain[min(uniform, len(plain) - 1)] if uniform is not None else among[generator.integers(len(among))]
            layers[name] = row[at]
        found.append(Choice(layers, keeps))
    return found


def studied(
    name: str, module: nn.Module, example: torch.Tensor, target: Target, latencies: Latencies
) -> dict[str, object]:
    """Predicted against measured for one network."""
    network = fold_batch_norm(capture(module, example))
    prunable = Prunable.of(network, Pruning())
    start = time.perf_counter()
    bare = bare_table(network, target, prunable)
    bare_s, start = time.perf_counter() - start, time.perf_counter()
    table, conversions = with_latency(bare, network, target, METHODS, latencies, prunable.coupling)
    seconds = time.perf_counter() - start
    liveness = Liveness(network, target, table, METHODS, prunable.coupling)
    choices = random_choices(table, PLANS)
    predicted = [
        table.fixed.milliseconds + choice.cost.milliseconds + conversions.milliseconds(choice) for choice in choices
    ]
    memory = [liveness.peak_bytes(choice) for choice in choices]
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder) / f"{number}{target.suffix}" for number in range(len(choices))]
        for choice, path in zip(choices, paths, strict=True):
            target.lower(stand_in(network, choice, target, METHODS, prunable.coupling), path)
        original = Path(folder) / f"original{target.suffix}"
        target.lower(Compressed(network), original)
        now, *shares = timed_beside(original, paths, target, threads=1)
        peaks = [target.peak_memory(path) for path in paths]
    kept = {unit: row[0] for unit, row in table.keeps.items()}
    untouched = Choice({layer: row[0] for layer, row in table.options.items()}, kept)
    before = latencies.networks[network_name(network, untouched)]  # what it took when the table was filled
    measured = [share * before for share in shares]
    off = [a / b - 1 for a, b in zip(predicted, measured, strict=True)]
    plans = [
        {"predicted_ms": a, "measured_ms": b, "predicted_bytes": c, "measured_bytes": d}
        for a, b, c, d in zip(predicted, measured, memory, peaks, strict=True)
    ]
    print(name, target.name, "median off", f"{np.median(np.abs(off)):.1%}", "worst", f"{max(map(abs, off)):.1%}")
    for plan in plans:
        print({key: round(float(value), 4) for key, value in plan.items()}, flush=True)
    return {
        "network": name,
        "target": target.name,
        "kernels": len(latencies.kernels),
        "seconds_for_latencies": seconds,
        "seconds_for_bare_table": bare_s,
        "original_ms": [before, now],
        "fixed_ms": table.fixed.milliseconds,
        "ms_per_converted_element": conversions.ms_per_element,
        "median_off": float(np.median(np.abs(off))),
        "worst_off": float(np.max(np.abs(off))),
        "worst_memory_off": max(abs(c / d - 1) for c, d in zip(memory, peaks, strict=True)),
        "plans": plans,
    }


def main(wanted: Sequence[str]) -> None:
    """Study ResNet-20 and MobileNetV2 on every target, or on those that are named."""
    results = []
    for name in wanted or ("litert", "onnxruntime"):
        target = target_by_name(name)
        latencies = cached_latencies(target) if FOLDER_VARIABLE in os.environ else Latencies(Clock.here(target))
        results.append(studied("ResNet-20", _data.cifar_resnet(20), torch.randn(2, 3, 32, 32), target, latencies))
        results.append(studied("MobileNetV2", _data.mobilenet_v2(), torch.randn(2, 3, 224, 224), target, latencies))
    (_data.RESULTS / "latency_prediction.json").write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
