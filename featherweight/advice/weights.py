"""What the weights alone tell, without any data: zeros, dead and duplicate channels, low rank, where the bytes are."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from featherweight.advice.survey import Advice, Survey, names
from featherweight.network.capture import Layer
from featherweight.network.modules import bias_of, weight_of
from featherweight.observation.rows import weight_rows

DEAD = 1e-6  # of the layer's largest weight
SAME = 1e-4  # distance of directions
ENERGY = 0.99
_PAYS_BELOW = 0.7  # of the layer's own bytes, as for the low-rank family's options
_SPARSE = 0.3
_DOMINATES = 0.3
_BLOCK = 512
_DIRECTIONS = 32


def _layers(survey: Survey) -> Iterator[tuple[Layer, torch.Tensor]]:
    """Layers with a map of rows, each weight once: (layer, weight (g, n, d))."""
    seen = set[str]()
    for layer in survey.network.layers:
        if layer.kind == "embedding" or "transpose" in layer.kind or layer.weight in seen:
            continue
        seen.add(layer.weight)
        weight = weight_of(survey.network.module.get_submodule(layer.name))
        yield layer, weight_rows(layer, weight).float()


def zeros(survey: Survey) -> Iterator[Advice]:
    """Weights that are zero already: the runtime stores and multiplies them like any others."""
    state = survey.network.module.state_dict()
    counts = {
        layer.name: (int((state[layer.weight] == 0).sum()), state[layer.weight].numel())
        for layer in survey.network.layers
        if layer.weight in state
    }
    sparse = {name: zero for name, (zero, all_) in counts.items() if zero >= _SPARSE * all_}
    if not sparse:
        return
    total = sum(sparse.values())
    told = (
        f"{total:,} weights are zero already",
        f"{survey.target.name} has no sparse type of weights ({', '.join(survey.capability.weight_types)}): it stores "
        "zeros and multiplies with them; a package codes them away",
        "whole channels of zeros can go by pruning; else minimise the package",
    )
    yield survey.advice("does not help", names(sparse), told, size_bytes=4 * total)


def dead_rows(weight: torch.Tensor) -> torch.Tensor:
    """Rows that are as good as zero beside the largest weight: (g, n, d) → (g · n,) bool."""
    largest = weight.abs().amax()
    return weight.abs().amax(-1).flatten() <= DEAD * largest


def duplicate_rows(weight: torch.Tensor, bias: torch.Tensor | None) -> int:
    """How many rows are a positive multiple of an earlier one, bias included; dead rows don't count.

    Args:
        weight: (g, n, d); rows of different groups read different inputs and are no duplicates.
        bias: (g · n,), or None.
    """
    groups, count, _ = weight.shape
    shift = torch.zeros(groups * count) if bias is None else bias.float()
    whole = torch.cat([weight, shift.view(groups, count, 1)], 2).double()
    alive = ~dead_rows(weight).view(groups, count)
    return sum(_repeated(rows[live]) for rows, live in zip(whole, alive, strict=True))


def _repeated(rows: torch.Tensor) -> int:
    """Rows (n, d) that point where an earlier one points: candidates by projection, confirmed in full."""
    if len(rows) < 2:
        return 0
    rows = rows / rows.norm(dim=1, keepdim=True)
    generator = torch.Generator().manual_seed(0)
    directions = torch.randn(rows.shape[1], _DIRECTIONS, generator=generator, dtype=rows.dtype) / _DIRECTIONS**0.5
    short = rows @ directions
    repeated = 0
    for start in range(0, len(rows), _BLOCK):
        near = torch.cdist(short[start : start + _BLOCK], short[: start + _BLOCK]) < 10 * SAME
        later, earlier = near.tril(start - 1).nonzero(as_tuple=True)
        same = (rows[start + later] - rows[earlier]).norm(dim=1) < SAME
        repeated += len(later[same].unique())
    return repeated


def redundant_channels(survey: Survey) -> Iterator[Advice]:
    """Output channels that compute nothing, or what another one computes, in layers that may have fewer."""
    free = {piece.state for unit in survey.coupling.units for piece in unit.slices if piece.axis == 0}
    for layer, weight in _layers(survey):
        if layer.weight not in free:
            continue
        rows = weight.shape[0] * weight.shape[1]
        dead = int(dead_rows(weight).sum())
        bias = bias_of(survey.network.module.get_submodule(layer.name))
        double = duplicate_rows(weight, bias)
        for count, what, reason in (
            (dead, "dead", "their weights are zero: what they put out doesn't depend on the input"),
            (
                double,
                "duplicates",
                "each is a multiple of another one's weights and bias: they carry nothing of their own",
            ),
        ):
            if count:
                told = (
                    f"{count} of {rows} output channels are {what}",
                    reason,
                    "pruning takes them away next to free of error",
                )
                part = count / rows
                yield survey.advice(
                    "helps", layer.name, told, size_bytes=layer.cost.size_bytes * part, macs=layer.cost.macs * part
                )


def effective_rank(matrix: torch.Tensor, energy: float = ENERGY) -> int:
    """The least rank that holds this share of the squared singular values of (n, d)."""
    small = matrix.double() if matrix.shape[0] <= matrix.shape[1] else matrix.double().T
    values = torch.linalg.eigvalsh(small @ small.T).clamp(min=0.0).flip(0)
    held = values.cumsum(0)
    return int((held < energy * held[-1]).sum()) + 1 if float(held[-1]) > 0 else 0


def low_rank(survey: Survey) -> Iterator[Advice]:
    """Layers that two thinner ones could stand in for, by their weights alone."""
    for layer, weight in _layers(survey):
        groups, rows, width = weight.shape
        if groups > 1 or min(rows, width) < 2:
            continue
        rank = effective_rank(weight[0])
        share = rank * (rows + width) / (rows * width)
        if share > _PAYS_BELOW:
            continue
        told = (
            f"rank {rank} of {min(rows, width)} holds {ENERGY:.0%} of its weights' energy",
            f"a pair of that rank takes {share:.0%} of its bytes and multiplications; what it costs, inputs decide",
            "low rank is on the table where it pays; data price it",
        )
        saved = 1 - share
        yield survey.advice(
            "helps", layer.name, told, size_bytes=layer.cost.size_bytes * saved, macs=layer.cost.macs * saved
        )


def dominating(survey: Survey) -> Iterator[Advice]:
    """A layer that holds much of the file."""
    network, capability = survey.network, survey.capability
    for layer in {layer.weight: layer for layer in network.layers}.values():
        part = layer.cost.size_bytes / max(survey.original.size_bytes, 1)
        if part < _DOMINATES or len(network.layers) < 2:
            continue
        types = [kind for kind in ("int8", "float16") if layer.kind in capability.layer_kinds.get(kind, frozenset())]
        able = bool(types) and layer.replaceable
        left = {"int8": 0.25, "float16": 0.5}[types[0]] if able else 1.0
        told = (
            f"holds {part:.0%} of the file and {layer.cost.macs / max(network.cost.macs, 1):.0%} of the MACs",
            f"as {types[0]} it takes {left:.0%} of its bytes" if able else "the target has no smaller type for it",
            "begin here: what other layers save counts little" if able else "a smaller table or layer in the model",
        )
        yield survey.advice(
            "helps" if able else "blocks",
            layer.name,
            told,
            size_bytes=layer.cost.size_bytes * (1 - left if able else 1),
        )
