"""Observe: one streamed pass over unlabelled samples, kept as second moments.

For every layer the Gram matrix ``E[x xᵀ]`` and the mean of the rows that its weight multiplies, the range of its
input, and the original network's outputs. That is all that closed-form compression needs; no labels, no gradients.

Memory: the Gram matrices (8 bytes · g · d² each), the live activations of one batch, and one layer's rows. The batch
is chosen, and the widest layers are left out with a :class:`Refusal`, so that the sum stays below the bound.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors.torch import load_file, save

from featherweight.contracts import DataError, Refusal
from featherweight.files import write_atomically
from featherweight.network.capture import Layer, Network
from featherweight.numerics.affine import AffineGrid, fit_asymmetric, rounding_noise
from featherweight.numerics.gram import covariance_of
from featherweight.observation.inputs import InputWatch
from featherweight.observation.rows import input_rows, sample_positions
from featherweight.progress import track
from featherweight.tasks.data import Split

DEFAULT_MEMORY_BYTES = 2 << 30
ROWS_PER_LAYER = 16_384
VALUES_PER_TENSOR = 16_384
OBSERVED_KINDS = ("linear", "conv1d", "conv2d", "conv3d", "depthwise_conv1d", "depthwise_conv2d", "depthwise_conv3d")


@dataclass(frozen=True, slots=True)
class ValueRange:
    """What a tensor's values were: true extremes, and a fair sample."""

    low: float
    high: float
    sample: torch.Tensor


@dataclass(frozen=True, slots=True)
class LayerEvidence:
    """Second moments of one layer's rows.

    Attributes:
        gram: ``E[x xᵀ]``, (g, d, d), float64.
        mean: ``E[x]``, (g, d), float64.
        rows: how many rows were seen.
        input_grid: the int8 grid with the least squared error for the input's values.
        input_noise: that error, the mean square.
    """

    gram: torch.Tensor
    mean: torch.Tensor
    rows: int
    input_grid: AffineGrid
    input_noise: float

    @property
    def covariance(self) -> torch.Tensor:
        """``E[x xᵀ] − E[x] E[x]ᵀ``, (g, d, d), float64."""
        return covariance_of(self.gram, self.mean)


@dataclass(frozen=True)
class Evidence:
    """What one pass over calibration samples saw.

    Attributes:
        layers: by layer name.
        outputs: the original network's outputs on the calibration samples, (n, …), float32.
        samples: how many samples were seen.
        refusals: layers without a Gram matrix, with the reason.
    """

    layers: Mapping[str, LayerEvidence]
    outputs: torch.Tensor
    samples: int
    refusals: tuple[Refusal, ...] = ()


@dataclass
class _Moments:
    """Running sums of one layer; becomes a :class:`LayerEvidence`."""

    gram: torch.Tensor
    total: torch.Tensor
    rows: int = 0
    values: list[torch.Tensor] = field(default_factory=list)
    low: float = torch.inf
    high: float = -torch.inf

    def add(self, rows: torch.Tensor) -> None:
        self.gram += (rows.transpose(1, 2) @ rows).double()
        self.total += rows.double().sum(1)
        self.rows += rows.shape[1]

    def settle(self) -> LayerEvidence:
        sample = torch.cat(self.values)
        grid = fit_asymmetric(sample, self.low, self.high)
        gram, mean = self.gram / self.rows, self.total / self.rows
        return LayerEvidence(gram, mean, self.rows, grid, rounding_noise(sample, grid))


def _row_width(layer: Layer) -> int:
    width = 1
    for size in layer.weight_shape[1:]:
        width *= size
    return width


def gram_bytes(layer: Layer) -> int:
    """Bytes of a layer's Gram matrix in float64."""
    return 8 * layer.groups * _row_width(layer) ** 2


def _within(layers: tuple[Layer, ...], memory_bytes: int) -> tuple[list[Layer], list[Refusal]]:
    """The layers whose Gram matrices fit into half the bound, narrow ones first, and refusals for the rest."""
    kept: list[Layer] = []
    refusals: list[Refusal] = []
    used = 0
    for layer in sorted(layers, key=gram_bytes):
        if layer.kind not in OBSERVED_KINDS or not layer.replaceable:
            continue
        if used + gram_bytes(layer) > memory_bytes // 2:
            reason = f"its Gram matrix takes {gram_bytes(layer) >> 20} MiB, beyond the memory bound"
            refusals.append(Refusal(layer.name, "observe", reason, "raise memory_bytes"))
            continue
        used += gram_bytes(layer)
        kept.append(layer)
    return kept, refusals


def batch_size(network: Network, layers: list[Layer], positions: Mapping[str, int], memory_bytes: int) -> int:
    """The largest batch, at most 64, that keeps Gram matrices, live activations and rows below the bound."""
    grams = sum(map(gram_bytes, layers))
    widest = max((positions[la.name] * _row_width(la) * la.groups * 8 for la in layers), default=0)
    for_one = 3 * network.peak_activation_bytes + widest
    return max(1, min(64, (memory_bytes - grams) // (2 * max(for_one, 1))))


class _Observer(InputWatch):
    def __init__(self, network: Network, layers: list[Layer], positions: Mapping[str, int], seed: int) -> None:
        super().__init__(network, layers, seed)
        self.positions = positions
        self.values_per_sample = 1
        self.moments: dict[str, _Moments] = {}

    def see(self, layer: Layer, x: torch.Tensor) -> None:
        at = sample_positions(layer, len(x), self.positions[layer.name], self.generator)
        rows = input_rows(layer, x, at)
        if layer.name not in self.moments:
            groups, _, width = rows.shape
            zeros = torch.zeros(groups, width, width, dtype=torch.float64, device=x.device)
            self.moments[layer.name] = _Moments(zeros, zeros[:, 0].clone())
        moments = self.moments[layer.name]
        moments.add(rows)
        moments.values.append(sample_values(x, self.values_per_sample * len(x), self.generator))
        moments.low = min(moments.low, float(x.min()))
        moments.high = max(moments.high, float(x.max()))


def values_per_sample(samples: int) -> int:
    """How many values of a tensor to keep from each sample, so that a fixed number stays in the end."""
    return -(-VALUES_PER_TENSOR // samples)


def sample_values(x: torch.Tensor, count: int, generator: torch.Generator) -> torch.Tensor:
    """A fair sample, with replacement, of a tensor's values: (count,)."""
    return x.flatten()[torch.randint(x.numel(), (count,), generator=generator).to(x.device)]


def batches(split: Split, size: int, what: str) -> Iterator[tuple[torch.Tensor, ...]]:
    """The inputs of a split, batch by batch, with progress shown."""
    count = -(-len(split) // size)
    for batch in track(split.batches(size), what, total=count):
        yield batch.inputs


def observe(
    network: Network,
    split: Split,
    *,
    rows_per_layer: int = ROWS_PER_LAYER,
    memory_bytes: int = DEFAULT_MEMORY_BYTES,
    seed: int = 0,
) -> Evidence:
    """One pass over unlabelled samples.

    Args:
        network: the dense network.
        split: calibration samples; 256 to 1,024 do. Labels are not looked at.
        rows_per_layer: rows to sample for every layer, spread over all samples.
        memory_bytes: bound on what the pass holds beside the network and the outputs it hands back.
        seed: of the sampled positions.

    Raises:
        DataError: there is no sample, or the network's outputs on them aren't finite.
    """
    if len(split) == 0:
        raise DataError("Calibration needs samples.", "an empty split", "hand over at least one sample, better 256")
    layers, refusals = _within(network.layers, memory_bytes)
    for_each = -(-rows_per_layer // len(split))
    positions = {layer.name: min(layer.positions, for_each) for layer in layers}
    observer = _Observer(network, layers, positions, seed)
    observer.values_per_sample = values_per_sample(len(split))
    answers = torch.empty(len(split), *network.output_shape)
    filled = 0
    with torch.no_grad():
        for inputs in batches(split, batch_size(network, layers, positions, memory_bytes), "observing"):
            outputs = observer.run(*inputs).float()
            _check_outputs(outputs)
            answers[filled : filled + len(outputs)] = outputs
            filled += len(outputs)
    settled = {layer.name: observer.moments[layer.name].settle() for layer in layers}
    return Evidence(settled, answers, len(split), tuple(refusals))


def _check_outputs(outputs: torch.Tensor) -> None:
    if not bool(torch.isfinite(outputs).all()):
        raise DataError(
            "The network's outputs on the calibration samples must be finite.",
            "NaN or infinity",
            "check the samples' scale against what the network was trained on",
        )


def save_evidence(evidence: Evidence, folder: Path) -> None:
    """Write the evidence: ``evidence.safetensors`` for tensors, ``evidence.json`` for the rest."""
    tensors = {"outputs": evidence.outputs.contiguous()}
    for name, layer in evidence.layers.items():
        tensors[f"{name}/gram"] = layer.gram.contiguous()
        tensors[f"{name}/mean"] = layer.mean.contiguous()
    write_atomically(folder / "evidence.safetensors", save(tensors))
    layers = {
        name: [layer.rows, *layer.input_grid.describe(), layer.input_noise] for name, layer in evidence.layers.items()
    }
    refusals = [[r.subject, r.action, r.reason, r.remedy] for r in evidence.refusals]
    record = {"samples": evidence.samples, "layers": layers, "refusals": refusals}
    write_atomically(folder / "evidence.json", json.dumps(record, indent=1) + "\n")


def load_evidence(folder: Path) -> Evidence:
    """Read back what :func:`save_evidence` wrote."""
    tensors = load_file(folder / "evidence.safetensors")
    record = json.loads((folder / "evidence.json").read_text())
    layers = {
        name: LayerEvidence(
            tensors[f"{name}/gram"], tensors[f"{name}/mean"], rows, AffineGrid.from_description(grid), noise
        )
        for name, (rows, *grid, noise) in record["layers"].items()
    }
    refusals = tuple(Refusal(*row) for row in record["refusals"])
    return Evidence(layers, tensors["outputs"], record["samples"], refusals)
