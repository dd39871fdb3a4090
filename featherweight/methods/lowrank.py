"""Low rank: one layer as two or three thinner ones, the best for the data that it sees.

Four shapes, each from :mod:`featherweight.numerics.factorisation`:

- a pair: (r, d) then (n, r) for a linear layer, the same convolution with r outputs and then one of size 1 for a
  convolution (whitened SVD; Zhang et al. 2015, arXiv:1505.06798). ``{"rank": r}``;
- spatial: k×1 then 1×k. ``{"kind": "spatial", "rank": r}``;
- Tucker-2: 1×1, k×k, 1×1. ``{"kind": "tucker2", "rank_in": p, "rank_out": q}``.

The parts share the old geometry between them so that each border is padded once: what they compute together is exactly
one convolution. It pays where the parts together take well below the multiplications of the one: every part is one more
pass over memory.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from featherweight.contracts import PlanError, Refusal
from featherweight.methods.seam import Settings, Subject, effective_weight, leaves
from featherweight.network.modules import bias_of, set_bias, set_weight, weight_of
from featherweight.numerics.factorisation import (
    spatial_factors,
    tucker_factors,
    whitened_factors,
    whitened_spectrum,
)

_PAYS_BELOW = 0.7
_MOST_RANKS = 8
_MOST_CHAINS = 4
_CONVOLUTIONS: Mapping[str, type[nn.Module]] = {"conv1d": nn.Conv1d, "conv2d": nn.Conv2d, "conv3d": nn.Conv3d}
_SETTINGS: Mapping[str, frozenset[str]] = {
    "pair": frozenset({"rank"}),
    "spatial": frozenset({"kind", "rank"}),
    "tucker2": frozenset({"kind", "rank_in", "rank_out"}),
}
KINDS = tuple(_SETTINGS)


class LowRank:
    """The low-rank family.

    Args:
        kinds: the shapes that are offered; a plan may ask for any.
    """

    name = "lowrank"
    follows: frozenset[str] = frozenset()

    def __init__(self, kinds: tuple[str, ...] = ("pair",)) -> None:
        self.kinds = kinds

    def options(self, subject: Subject) -> tuple[list[Settings], list[Refusal]]:
        """Ranks that are multiples of what the target asks for, below where the parts cost about as much as the one."""
        reason = _obstacle(subject)
        if reason:
            return [], [Refusal(subject.layer.name, self.name, reason)]
        found: list[Settings] = []
        if "pair" in self.kinds:
            found += [{"rank": rank} for rank in _ranks(subject, _MOST_RANKS)]
        if not _no_kernel(subject):
            if "spatial" in self.kinds:
                found += [{"kind": "spatial", "rank": rank} for rank in _spatial_ranks(subject)]
            if "tucker2" in self.kinds:
                found += [
                    {"kind": "tucker2", "rank_in": inner, "rank_out": outer} for inner, outer in _tucker_ranks(subject)
                ]
        if not found:
            _, outputs, width = subject.weight.shape
            step = subject.capability.channel_multiple
            reason = f"{outputs} by {width} is too small: two layers of rank {step} would cost more than the one"
            return [], [Refusal(subject.layer.name, self.name, reason)]
        return found, []

    def apply(self, subject: Subject, settings: Settings) -> nn.Module:
        """Two or three modules in a row.

        Raises:
            PlanError: ranks that the layer doesn't have, an unknown kind, or a layer that can't be factorised.
        """
        kind = str(settings.get("kind", "pair"))
        reason = _obstacle(subject) or (_no_kernel(subject) if kind != "pair" else "")
        if kind not in _SETTINGS or set(settings) - {"kind"} != _SETTINGS[kind] - {"kind"}:
            raise PlanError(
                "Low rank takes a rank; kind=spatial a rank too, kind=tucker2 a rank_in and a rank_out.",
                f"{dict(settings)} for {subject.layer.name!r}",
                "write {rank: 8}, or leave the layer out of the plan",
            )
        ranks = [settings[key] for key in ("rank", "rank_in", "rank_out") if key in settings]
        most = _most(subject, kind, ranks) if not reason else [0] * len(ranks)
        if reason or any(type(r) is not int or not 1 <= r <= top for r, top in zip(ranks, most, strict=True)):
            raise PlanError(
                "A rank must be a whole number between 1 and the smaller side of what it cuts.",
                f"{dict(settings)} for {subject.layer.name!r} {reason}".rstrip(),
                f"ranks up to {', '.join(map(str, most))}, or leave the layer out of the plan",
            )
        return _built(subject, kind, [int(rank) for rank in ranks])


def _obstacle(subject: Subject) -> str:
    if subject.layer.kind != "linear" and subject.layer.kind not in _CONVOLUTIONS:
        return f"a {subject.layer.kind} layer has no large matrix to factorise"
    if subject.layer.groups > 1:
        return "a grouped convolution is already a sum of small blocks"
    return ""


def _no_kernel(subject: Subject) -> str:
    """Why a layer has no k×k kernel to take apart; empty where it has."""
    kernel = subject.layer.weight_shape[2:]
    if len(kernel) != 2 or min(kernel) < 2:
        return "has no k×k kernel to take apart"
    return ""


def _ranks(subject: Subject, count: int) -> list[int]:
    _, outputs, width = subject.weight.shape
    return _spaced(_PAYS_BELOW * outputs * width / (outputs + width), subject.capability.channel_multiple, count)


def _spatial_ranks(subject: Subject) -> list[int]:
    """Below where both passes take as many multiplications: the first runs at all the columns that stride skips."""
    outputs, inputs, height, width = subject.layer.weight_shape
    strides = subject.layer.geometry.stride if subject.layer.geometry else (1, 1)
    for_one = inputs * height * strides[1] + outputs * width
    highest = min(_PAYS_BELOW * subject.weight.numel() / for_one, float(min(outputs * width, inputs * height)))
    return _spaced(highest, subject.capability.channel_multiple, _MOST_CHAINS)


def _tucker_ranks(subject: Subject) -> list[tuple[int, int]]:
    """The same share of input and output channels, as far as it pays."""
    outputs, inputs, height, width = subject.layer.weight_shape
    strides = subject.layer.geometry.stride if subject.layer.geometry else (1, 1)
    step, skipped = subject.capability.channel_multiple, strides[0] * strides[1]
    found: list[tuple[int, int]] = []
    for share in (0.125, 0.25, 0.375, 0.5):
        inner, outer = (max(1, round(share * side / step)) * step for side in (inputs, outputs))
        macs = inner * inputs * skipped + inner * outer * height * width + outer * outputs
        if inner < inputs and outer < outputs and macs < _PAYS_BELOW * subject.weight.numel():
            found.append((inner, outer))
    return sorted(set(found))


def _spaced(highest: float, step: int, count: int) -> list[int]:
    """Multiples of a step up to the highest, evenly spaced on a logarithmic scale."""
    most = int(highest) // step
    if most < 1:
        return []
    multiples = torch.logspace(0, torch.log2(torch.tensor(float(most))).item(), min(count, most), base=2.0)
    return sorted({int(multiple + 0.5) * step for multiple in multiples.tolist()})


def _most(subject: Subject, kind: str, ranks: Sequence[Any]) -> list[int]:
    if kind == "pair":
        return [min(subject.weight.shape[1:])]
    outputs, inputs, height, width = subject.layer.weight_shape
    if kind == "spatial":
        return [min(outputs * width, inputs * height)]
    inner = ranks[0] if type(ranks[0]) is int else inputs
    return [inputs, min(outputs, max(inner, 1) * height * width)]


def _built(subject: Subject, kind: str, ranks: Sequence[int]) -> nn.Sequential:
    old, weight, covariance = leaves(subject.module)[0], effective_weight(subject)[0], subject.covariance[0]
    if kind == "pair":
        first, second = whitened_factors(weight, whitened_spectrum(weight, covariance), ranks[0])
        return _pair(old, subject, second, first)
    kernel = weight.view(subject.layer.weight_shape)
    if kind == "spatial":
        spatial = spatial_factors(kernel, covariance, ranks[0])
        return _chain(old, [spatial.first, spatial.second])
    tucker = tucker_factors(kernel, covariance, ranks[0], ranks[1])
    return _chain(old, [tucker.first[:, :, None, None], tucker.core, tucker.last[:, :, None, None]])


def _pair(old: nn.Module, subject: Subject, first: torch.Tensor, second: torch.Tensor) -> nn.Sequential:
    """(r, d) and (n, r) as modules, with the old module's geometry on the first and its bias on the second."""
    rank, outputs = len(first), len(second)
    if isinstance(old, nn.Linear):
        inner: nn.Module = nn.Linear(old.in_features, rank, bias=False)
        outer: nn.Module = nn.Linear(rank, outputs)
    else:
        kind = _CONVOLUTIONS[subject.layer.kind]
        keep = ("kernel_size", "stride", "padding", "dilation", "padding_mode")
        geometry = {name: getattr(old, name) for name in keep}
        inner = kind(old.in_channels, rank, bias=False, **geometry)
        outer = kind(rank, outputs, 1)
    return _filled(old, [inner, outer], [first, second])


def _chain(old: Any, kernels: Sequence[torch.Tensor]) -> nn.Sequential:
    """Two-dimensional convolutions in a row, each with the old geometry along the axes that it reaches over."""
    parts: list[nn.Module] = []
    for position, kernel in enumerate(kernels):
        outputs, inputs, *sizes = kernel.shape
        reaches = [size > 1 for size in sizes]
        geometry = {
            "stride": _along(reaches, old.stride, 1),
            "padding": old.padding if isinstance(old.padding, str) else _along(reaches, old.padding, 0),
            "dilation": _along(reaches, old.dilation, 1),
        }
        last = position == len(kernels) - 1
        parts.append(
            nn.Conv2d(inputs, outputs, (sizes[0], sizes[1]), bias=last, padding_mode=old.padding_mode, **geometry)
        )
    return _filled(old, parts, kernels)


def _along(reaches: Sequence[bool], values: Any, otherwise: int) -> tuple[int, ...]:
    """A setting's values where a part reaches over the axis, and the neutral one elsewhere."""
    return tuple(value if reach else otherwise for reach, value in zip(reaches, values, strict=True))


def _filled(old: nn.Module, parts: Sequence[nn.Module], weights: Sequence[torch.Tensor]) -> nn.Sequential:
    """Modules in a row, given their weights and the old bias, in the old type."""
    chain = nn.Sequential(*parts).to(weight_of(old))
    for part, weight in zip(parts, weights, strict=True):
        set_weight(part, weight)
    bias = bias_of(old)
    set_bias(parts[-1], torch.zeros(len(weights[-1])) if bias is None else bias)
    return chain.requires_grad_(False).eval()
