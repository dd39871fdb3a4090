"""Draws docs/concepts/quantization.svg: few bits on the demo's network, without labels and without training, and grids.

Run it from the repository's root: ``python docs/concepts/quantization_picture.py``. It trains the demo's network first.
Left: all weights on fewer and fewer bits; 300 digits without labels are looked at, and how far the outputs move is
measured on the demo's 800 test digits. Right: what grids make of a number, and what the misprint makes of it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import nn

from featherweight.contracts import Plan, Scalar, Step
from featherweight.demo import digits, train
from featherweight.files import write_atomically
from featherweight.methods import METHODS
from featherweight.methods.apply import apply, assemble
from featherweight.methods.seam import apply_steps, subject_of
from featherweight.network import Network, capture, fold_batch_norm
from featherweight.network.modules import copied, set_weight, weight_of
from featherweight.numerics.affine import asymmetric_grid, symmetric_grid
from featherweight.observation import Evidence, observe
from featherweight.targets import target_by_name
from featherweight.tasks import Batch, Split

BITS = (8, 6, 5, 4, 3, 2)
DECADES = 5
COLOURS = ("#0b6e4f", "#3a86c8", "#c08a2b", "#7a5ea8", "#b5483a")
CAPABILITY = target_by_name("litert").capability

Line = list[tuple[float, float]]


def moved(network: Network, module: nn.Module, test: Batch) -> float:
    """Mean squared difference of the outputs, as a share of their variance."""
    with torch.no_grad():
        before, after = network.module(*test.inputs), module(*test.inputs)
    return float((after - before).square().mean() / before.var())


def steps_of(**settings: Scalar) -> tuple[Step, ...]:
    """Weights alone."""
    return (Step("quantization", {"weights": "int8", "activations": "float32", **settings}),)


def alone(network: Network, evidence: Evidence, **settings: Scalar) -> nn.Module:
    """Every layer by itself, under the dense network's inputs."""
    built = {}
    for layer in network.layers:
        seen, module = evidence.layers[layer.name], network.module.get_submodule(layer.name)
        subject = subject_of(layer, module, seen.covariance, seen.mean, 0.0, CAPABILITY)
        built[layer.name] = apply_steps(subject, steps_of(**settings), METHODS)
    return assemble(network, built).module


def walked(network: Network, calibration: Split, **settings: Scalar) -> nn.Module:
    """Every layer refit first to what the dense network put out there."""
    choices = {layer.name: steps_of(**settings) for layer in network.layers}
    return apply(network, Plan("", CAPABILITY.target, choices), calibration, CAPABILITY, METHODS).module


def unclipped(network: Network, bits: int) -> nn.Module:
    """To nearest, on grids that reach to the largest weight."""
    module = copied(network.module)
    for layer in network.layers:
        own = module.get_submodule(layer.name)
        rows = weight_of(own).flatten(1)
        set_weight(own, symmetric_grid(rows.abs().amax(1), bits).round(rows, axis=0))
    return module


def errors(network: Network, calibration: Split, test: Batch) -> dict[str, Line]:
    """How far the outputs move, on a logarithmic scale, against 8 − bits, for every way of rounding."""
    evidence = observe(network, calibration)
    lines: dict[str, Line] = {}

    def add(name: str, bits: int, module: nn.Module) -> None:
        lines.setdefault(name, []).append((8.0 - bits, height(moved(network, module, test))))

    for bits in BITS:
        add("gptq in the walk, zero points", bits, walked(network, calibration, bits=bits, symmetric=False))
        add("gptq in the walk", bits, walked(network, calibration, bits=bits))
        add("gptq, layer by layer", bits, alone(network, evidence, bits=bits))
        add("nearest, clipped", bits, alone(network, evidence, bits=bits, rounding="nearest"))
        add("nearest, not clipped", bits, unclipped(network, bits))
    return lines


def height(share: float) -> float:
    """A hundred-thousandth lies at 0, the whole at 1."""
    return 1 + math.log10(share) / DECADES


def stairs() -> dict[str, Line]:
    """What 3 bits make of numbers between −0.5 and 1, scaled to the panel."""
    x = torch.linspace(-0.5, 1.0, 301, dtype=torch.float64)
    delta = 1.5 / 7
    made = {
        "asymmetric: round(w/Δ) + z": asymmetric_grid(x.min(), x.max(), 3).round(x),
        "symmetric: round(w/Δ)": symmetric_grid(x.max(), 3).round(x),
        "the number itself": x,
        "misprint: round(w·Δ + Δ/2)·Δ": torch.round(x * delta + delta / 2) * delta,
    }
    return {
        name: [(a, (b + 0.5) / 1.5) for a, b in zip(x.tolist(), y.tolist(), strict=True)] for name, y in made.items()
    }


def panel(
    left: int, title: str, lines: Mapping[str, Line], across: Mapping[float, str], up: Mapping[float, str]
) -> str:
    """One drawing with its legend; ``across`` and ``up`` name places on its axes, heights lie in 0 … 1."""
    low, high = min(across), max(across)

    def place(x: float, y: float) -> tuple[float, float]:
        return left + 330 * (x - low) / (high - low), 230 - 200 * y

    parts = [f'<text x="{left}" y="18" font-weight="bold">{title}</text>']
    for at, name in up.items():
        _, y = place(low, at)
        parts.append(f'<line x1="{left}" x2="{left + 330}" y1="{y:.1f}" y2="{y:.1f}" stroke="#ddd"/>')
        parts.append(f'<text x="{left - 6}" y="{y + 4:.1f}" text-anchor="end">{name}</text>')
    parts += [
        f'<text x="{place(at, 0)[0]:.1f}" y="246" text-anchor="middle">{name}</text>' for at, name in across.items()
    ]
    for rank, (name, line) in enumerate(lines.items()):
        points = " ".join("{:.1f},{:.1f}".format(*place(*point)) for point in line)
        colour, y = COLOURS[rank], 262 + 18 * rank
        parts.append(f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="2"/>')
        parts.append(f'<rect x="{left}" y="{y}" width="16" height="4" fill="{colour}"/>')
        parts.append(f'<text x="{left + 24}" y="{y + 6}">{name}</text>')
    return "".join(parts)


def main() -> None:
    """Train, round in every way, draw."""
    torch.set_num_threads(1)
    data = digits()
    test = data.test.take(range(len(data.test)))
    calibration = Split.of(data.train.take(range(300)).inputs[0])  # without labels
    network = fold_batch_norm(capture(train(data), test.inputs[0][:2]))
    shares = {height(10.0**-power): f"{10.0 ** (2 - power):g}%" for power in range(DECADES + 1)}
    widths = {8.0 - bits: f"{bits} bits" for bits in BITS}
    heights = {(value + 0.5) / 1.5: f"{value:g}" for value in (-0.5, 0.0, 0.5, 1.0)}
    panels = (
        panel(
            60, "How far the outputs move, all weights on few bits", errors(network, calibration, test), widths, shares
        ),
        panel(456, "Three bits", stairs(), {value: f"{value:g}" for value in (-0.5, 0.0, 0.5, 1.0)}, heights),
    )
    drawn = (
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 800 356" font-family="sans-serif" font-size="11">'
        f'<rect width="100%" height="100%" fill="white"/>{"".join(panels)}</svg>\n'
    )
    write_atomically(Path(__file__).with_name("quantization.svg"), drawn)


if __name__ == "__main__":
    main()
