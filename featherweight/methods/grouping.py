"""Grouping: a convolution whose output channels each read a part of the input channels only.

Channels are sorted into sets that belong together, and the weights within are refit exactly
(:mod:`featherweight.numerics.blockdiagonal`). The sets cut across the order in which the neighbours keep their
channels, so channels are gathered before and put back behind: an index for each, and a pass over memory that takes as
long as some 50 multiplications a value (LiteRT on x86, 128 channels at 14 by 14, four sets: 1×1 0.037 ms against
0.030 ms dense, 3×3 0.126 against 0.394 ms). So it is offered where it saves clearly more than that, and where the
target lists kernels for grouped convolutions.
"""

from __future__ import annotations

import torch
from torch import nn

from featherweight.contracts import PlanError, Refusal
from featherweight.methods.seam import Settings, Subject, effective_weight, leaves
from featherweight.network.encodings import chain_of
from featherweight.network.grouped import PermutedConvolution
from featherweight.network.modules import weight_of
from featherweight.numerics.blockdiagonal import fit_block_diagonal

_GROUPS = (2, 4, 8)
_MACS_PER_MOVE = 64


class Grouping:
    """The family of grouped convolutions; its one setting is ``groups``."""

    name = "grouping"
    follows: frozenset[str] = frozenset()

    def options(self, subject: Subject) -> tuple[list[Settings], list[Refusal]]:
        """2, 4 and 8 sets, where they divide the channels evenly and save more than gathering takes."""
        name, step = subject.layer.name, subject.capability.channel_multiple
        reason, remedy = _obstacle(subject), ""
        if not reason and f"grouped_{subject.layer.kind}" not in subject.capability.layer_kinds.get("float32", ()):
            reason = (
                f"{subject.capability.target} lists no kernel for grouped convolutions: each set would run by itself"
            )
            remedy = f"a target that runs them lists grouped_{subject.layer.kind}"
        if not reason:
            outputs, inputs = subject.layer.weight_shape[:2]
            even = [n for n in _GROUPS if outputs % (n * step) == 0 and inputs % (n * step) == 0]
            worth = [n for n in even if _saved(subject, n) > _MACS_PER_MOVE * (outputs + inputs)]
            if worth:
                return [{"groups": groups} for groups in worth], []
            reason = f"{inputs} and {outputs} channels don't divide into sets of a multiple of {step}"
            if even:
                reason = "gathering its channels takes longer than smaller sets save"
        return [], [Refusal(name, self.name, reason, remedy)]

    def apply(self, subject: Subject, settings: Settings) -> nn.Module:
        """One module that gathers, convolves in groups and puts back.

        Raises:
            PlanError: groups that don't divide the channels, or a layer that can't be grouped.
        """
        given, reason = settings.get("groups"), _obstacle(subject)
        groups = given if type(given) is int and set(settings) == {"groups"} else 0
        if reason or groups < 2 or any(side % groups for side in subject.layer.weight_shape[:2]):
            raise PlanError(
                "Grouping takes a number of groups, its one setting, that divides input and output channels.",
                f"{dict(settings)} for {subject.layer.name!r} {reason}".rstrip(),
                "{groups: 2}, or leave the layer out of the plan",
            )
        old = leaves(subject.module)[0]
        outputs, _, *kernel = subject.layer.weight_shape
        taps = kernel[0] * kernel[1]
        fit = fit_block_diagonal(effective_weight(subject)[0], subject.covariance[0], groups, kernel=taps)
        blocks = fit.blocks.reshape(outputs, -1, *kernel).to(weight_of(old).dtype)
        if not isinstance(old, nn.Conv2d):
            raise TypeError(f"a {subject.layer.kind} layer that is no Conv2d")
        return PermutedConvolution(old, blocks, fit.inputs, fit.outputs).eval()


def _obstacle(subject: Subject) -> str:
    old = leaves(subject.module)[0]
    if subject.layer.kind != "conv2d" or not isinstance(old, nn.Conv2d):
        return f"a {subject.layer.kind} layer has no channels to gather"
    if subject.layer.groups > 1:
        return "a grouped convolution has its groups already"
    if old.padding_mode != "zeros":
        return f"padding by {old.padding_mode} runs before the gather"
    return "its weight is encoded already" if chain_of(old) else ""


def _saved(subject: Subject, groups: int) -> float:
    """Multiplications that a position saves."""
    weight: torch.Tensor = subject.weight
    return weight.numel() * (1 - 1 / groups)
