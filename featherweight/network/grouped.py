"""A grouped convolution between permuted channels."""

from __future__ import annotations

from typing import cast

import torch
from torch import nn

from featherweight.network.modules import copied, weight_of


class PermutedConvolution(nn.Module):
    """A two-dimensional convolution in which every output channel reads the input channels of its own set alone.

    Input channels are gathered set by set, a grouped convolution runs, and its outputs are put back into their order.
    Only the blocks are stored, in ``convolution``, which carries their encodings; ``weight`` is what they amount to,
    zeros included.

    Args:
        plain: the convolution whose stride, padding, dilation and bias it takes over; zero padding only.
        blocks: (n, c / G, kh, kw), weights in the order of ``outputs``.
        inputs: (G, c / G) int64, the input channels of every set.
        outputs: (G, n / G) int64, its output channels.
    """

    inputs: torch.Tensor
    outputs: torch.Tensor
    places: torch.Tensor

    def __init__(self, plain: nn.Conv2d, blocks: torch.Tensor, inputs: torch.Tensor, outputs: torch.Tensor) -> None:
        super().__init__()
        self.groups = len(inputs)
        self.stride, self.padding, self.dilation = plain.stride, plain.padding, plain.dilation
        self.convolution = cast("nn.Conv2d", copied(plain))
        self.convolution.groups = self.groups
        self.convolution.weight = nn.Parameter(blocks.detach().clone(), requires_grad=False)
        self.convolution.bias = None
        bias = torch.zeros(len(blocks)) if plain.bias is None else plain.bias.detach().clone()
        self.bias = nn.Parameter(bias.to(blocks.dtype), requires_grad=False)
        self.register_buffer("inputs", inputs.flatten().clone())
        self.register_buffer("outputs", outputs.flatten().clone())
        self.register_buffer("places", outputs.flatten().argsort())

    @property
    def blocks(self) -> torch.Tensor:
        """What is stored, encoded where it carries encodings: (n, c / G, kh, kw), in the order of ``outputs``."""
        return weight_of(self.convolution)

    def columns(self) -> torch.Tensor:
        """The columns of a row of the whole map that every set reads, (G, c / G · kh · kw)."""
        taps = self.blocks[0, 0].numel()
        return (self.inputs.view(self.groups, -1, 1) * taps + torch.arange(taps)).flatten(1)

    @property
    def weight(self) -> torch.Tensor:
        """The whole map in the original order of channels, (n, c, kh, kw)."""
        outputs, width, *kernel = self.blocks.shape
        dense = self.blocks.new_zeros(outputs, width * self.groups, *kernel)
        columns = self.inputs.view(self.groups, 1, width).expand(-1, outputs // self.groups, -1).reshape(outputs, width)
        dense[self.outputs.unsqueeze(1), columns] = self.blocks
        return dense

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(batch, c, h, w) → (batch, n, h', w')."""
        gathered = x.index_select(1, self.inputs)
        bias = self.bias.index_select(0, self.outputs)
        y = self.convolution._conv_forward(gathered, self.convolution.weight, bias)
        return y.index_select(1, self.places)
