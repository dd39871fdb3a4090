"""Calibration inputs without data: what batch normalisations remember of the samples that a network was trained on.

Each keeps the mean ``μ`` and the deviation ``σ`` of what it received in training. Inputs that make it receive the same
again stand in for the samples:

    min_x  Σ_layers ‖μ̃(x) − μ‖² + ‖σ̃(x) − σ‖²

by Adam on the inputs (ZeroQ, Cai et al. 2020, arXiv:2001.00281, equation 1). No pixel of any sample is needed, and none
comes back: means and deviations say nothing of single ones. A network without such memory gets noise, and a warning.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save
from torch import nn

from featherweight.contracts import DataError
from featherweight.files import write_atomically
from featherweight.network.capture import Network
from featherweight.network.modules import copied
from featherweight.progress import track
from featherweight.tasks.data import Split

STEPS = 300
_BATCH = 32
_RATE = 0.1
_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


@dataclass(frozen=True, slots=True)
class Synthesis:
    """Made-up calibration inputs.

    Attributes:
        split: the inputs, unlabelled.
        loss: ``Σ ‖μ̃ − μ‖² + ‖σ̃ − σ‖²`` of noise and of what came of it, means over batches; (0, 0) where nothing was
            there to match.
        warning: why they should not be relied upon; empty where there is no reason.
    """

    split: Split
    loss: tuple[float, float]
    warning: str = ""

    @property
    def source(self) -> str:
        """Where the samples come from, for reports."""
        if self.warning:
            return f"plain noise, no data: {self.warning.partition(':')[0]}"
        return "synthesized from batch-norm statistics, no data"


def synthesize(network: Network, count: int, seed: int = 0, *, steps: int = STEPS) -> Synthesis:
    """Inputs that a network's batch normalisations take for those of its training.

    Args:
        network: as captured, before its batch normalisations are folded.
        count: how many inputs.
        seed: same seed, same inputs.
        steps: of Adam, for each batch of 32.

    Raises:
        DataError: no input is asked for, or the network takes whole numbers, which no gradient moves.
    """
    if count < 1:
        raise DataError("Synthesis makes at least one input.", f"count = {count}", "ask for 64 to 256")
    if not all(example.is_floating_point() for example in network.example):
        kinds = ", ".join(str(example.dtype) for example in network.example)
        raise DataError(
            "Inputs can only be synthesized where they are real numbers.", f"inputs of {kinds}", "give samples"
        )
    generator = torch.Generator().manual_seed(seed)
    shapes = [(count, *example.shape[1:]) for example in network.example]
    noise = [torch.randn(shape, generator=generator, dtype=torch.float32) for shape in shapes]
    module = copied(network.module).requires_grad_(False)
    if any(parameter.dtype in (torch.float16, torch.bfloat16) for parameter in module.parameters()):
        module = module.float()  # half precision is too coarse to descend in
    if not _norms(module):
        split = _split(noise, network)
        return Synthesis(split, (0.0, 0.0), "the network has no batch normalisation to learn from: this is plain noise")
    kinds = {parameter.dtype for parameter in module.parameters()}
    wide = torch.float64 if torch.float64 in kinds else torch.float32
    starts = list(zip(*(part.to(network.example[0].device, wide).split(_BATCH) for part in noise), strict=True))
    made: list[list[torch.Tensor]] = []
    before, after = 0.0, 0.0
    for batch in starts:
        inputs, first, last = _descended(module, list(batch), steps)
        made.append(inputs)
        before, after = before + first / len(starts), after + last / len(starts)
    split = _split([torch.cat(parts) for parts in zip(*made, strict=True)], network)
    return Synthesis(split, (before, after))


def save_synthesis(made: Synthesis, folder: Path) -> None:
    """Write ``samples.safetensors`` with the inputs and ``synthesis.json`` with the rest."""
    inputs = made.split.take(range(len(made.split))).inputs
    tensors = {f"input-{position:03d}": x.contiguous() for position, x in enumerate(inputs)}
    write_atomically(folder / "samples.safetensors", save(tensors))
    record = {"loss": made.loss, "warning": made.warning}
    write_atomically(folder / "synthesis.json", json.dumps(record, indent=1) + "\n")


def load_synthesis(folder: Path) -> Synthesis:
    """Read back what :func:`save_synthesis` wrote."""
    tensors = load_file(folder / "samples.safetensors")
    record = json.loads((folder / "synthesis.json").read_text())
    before, after = record["loss"]
    return Synthesis(
        Split.of((tuple(tensors[name] for name in sorted(tensors)), None)), (before, after), record["warning"]
    )


def _split(inputs: list[torch.Tensor], network: Network) -> Split:
    given = tuple(x.to(example.dtype).cpu() for x, example in zip(inputs, network.example, strict=True))
    return Split.of((given, None))


def _norms(module: nn.Module) -> list[Any]:
    """The batch normalisations that remember anything."""
    return [child for child in module.modules() if isinstance(child, _NORMS) and child.running_mean is not None]


def _descended(module: nn.Module, batch: list[torch.Tensor], steps: int) -> tuple[list[torch.Tensor], float, float]:
    """The best inputs on the way down, the loss at the start and theirs."""
    inputs = [x.clone().requires_grad_() for x in batch]
    optimizer = torch.optim.Adam(inputs, lr=_RATE)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, max(steps, 1))
    first, best, kept = 0.0, torch.inf, [x.detach().clone() for x in inputs]
    with torch.enable_grad(), _watched(module) as losses:
        for step in track(range(steps + 1), "synthesizing calibration inputs"):
            losses.clear()
            module(*inputs)
            loss = torch.stack(losses).sum()
            value = float(loss.detach())
            first = value if step == 0 else first
            if value < best:
                best, kept = value, [x.detach().clone() for x in inputs]
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    return kept, first, best


@contextmanager
def _watched(module: nn.Module) -> Iterator[list[torch.Tensor]]:
    """Collects every normalisation's mismatch while the module runs."""
    losses: list[torch.Tensor] = []

    def note(norm: Any, args: tuple[torch.Tensor, ...]) -> None:
        x = args[0]
        over = [axis for axis in range(x.ndim) if axis != 1]
        deviation = (x.var(over, unbiased=False) + norm.eps).sqrt()
        wanted = (norm.running_var + norm.eps).sqrt()
        losses.append((x.mean(over) - norm.running_mean).square().sum() + (deviation - wanted).square().sum())

    handles = [norm.register_forward_pre_hook(note) for norm in _norms(module)]
    try:
        yield losses
    finally:
        for handle in handles:
            handle.remove()
