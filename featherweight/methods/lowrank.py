"""Low rank: one layer as two thinner ones, the best for the data that it sees.

Whitened SVD (DRONE, NeurIPS 2021; SVD-LLM, arXiv:2403.07378): see :mod:`featherweight.numerics.factorisation`. A linear
layer (n, d) becomes (r, d) then (n, r); a convolution becomes the same convolution with r outputs, then one of size 1
(Zhang et al. 2015, arXiv:1505.06798, section 3.1). It pays where ``r (n + d) < n d``, in practice below 0.7 of that.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn

from featherweight.contracts import PlanError, Refusal
from featherweight.methods.seam import Settings, Subject, effective_weight, leaves
from featherweight.network.modules import bias_of, set_bias, set_weight, weight_of
from featherweight.numerics.factorisation import whitened_factors, whitened_spectrum

_PAYS_BELOW = 0.7
_MOST_RANKS = 8
_CONVOLUTIONS: Mapping[str, type[nn.Module]] = {"conv1d": nn.Conv1d, "conv2d": nn.Conv2d, "conv3d": nn.Conv3d}


class LowRank:
    """The low-rank family; its one setting is ``rank``."""

    name = "lowrank"
    follows: frozenset[str] = frozenset()

    def options(self, subject: Subject) -> tuple[list[Settings], list[Refusal]]:
        """Up to eight ranks, multiples of what the target asks for, below where two layers cost as much as one."""
        reason = _obstacle(subject)
        if reason:
            return [], [Refusal(subject.layer.name, self.name, reason)]
        _, outputs, width = subject.weight.shape
        step = subject.capability.channel_multiple
        highest = int(_PAYS_BELOW * outputs * width / (outputs + width)) // step
        if highest < 1:
            reason = f"{outputs} by {width} is too small: two layers of rank {step} would cost more than the one"
            return [], [Refusal(subject.layer.name, self.name, reason)]
        count = min(_MOST_RANKS, highest)
        multiples = torch.logspace(0, torch.log2(torch.tensor(float(highest))).item(), count, base=2.0)
        ranks = sorted({int(multiple + 0.5) * step for multiple in multiples.tolist()})
        return [{"rank": rank} for rank in ranks], []

    def apply(self, subject: Subject, settings: Settings) -> nn.Module:
        """Two modules in a row.

        Raises:
            PlanError: a rank that isn't between 1 and the layer's smaller side, or a layer that can't be factorised.
        """
        rank = settings.get("rank")
        reason = _obstacle(subject)
        most = min(subject.weight.shape[1:])
        if reason or set(settings) != {"rank"} or type(rank) is not int or not 1 <= rank <= most:
            raise PlanError(
                "A rank, the one setting, must be a whole number between 1 and the layer's smaller side.",
                f"{dict(settings)} for {subject.layer.name!r} {reason}".rstrip(),
                f"a rank from 1 to {most}, or leave the layer out of the plan",
            )
        weight = effective_weight(subject)[0]
        first, second = whitened_factors(weight, whitened_spectrum(weight, subject.covariance[0]), rank)
        return _pair(leaves(subject.module)[0], subject, second, first)


def _obstacle(subject: Subject) -> str:
    if subject.layer.kind != "linear" and subject.layer.kind not in _CONVOLUTIONS:
        return f"a {subject.layer.kind} layer has no large matrix to factorise"
    if subject.layer.groups > 1:
        return "a grouped convolution is already a sum of small blocks"
    return ""


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
    pair = nn.Sequential(inner, outer).to(weight_of(old).dtype)
    set_weight(inner, first)
    set_weight(outer, second)
    bias = bias_of(old)
    set_bias(outer, torch.zeros(outputs) if bias is None else bias)
    return pair.requires_grad_(False).eval()
