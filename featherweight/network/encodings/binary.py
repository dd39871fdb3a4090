"""A weight of signs, with one scale for every output channel."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import nn

from featherweight.numerics.binary import on_levels


class BinaryEncoding(nn.Module):
    """A weight of which every entry is minus or plus its channel's scale, or 0 where that is a level too.

    Args:
        scale: (out,), finite, not negative; the weight's first axis is that of its channels.
        zero: whether 0 is a level (ternary) or not (binary).
    """

    type_name: ClassVar[str | None] = None
    scale: torch.Tensor

    def __init__(self, scale: torch.Tensor, zero: bool) -> None:
        super().__init__()
        self.zero = zero
        self.register_buffer("scale", scale.detach().clone())

    def forward(self, weight: torch.Tensor) -> torch.Tensor:
        """The nearest level for every entry, in the weight's type."""
        # a cast would stay in an exported graph even where it changes nothing
        scale = self.scale if self.scale.dtype == weight.dtype else self.scale.to(weight.dtype)
        return on_levels(weight.flatten(1), scale, zero=self.zero).view(weight.shape)
