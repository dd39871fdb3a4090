"""A weight with zeros that stay zeros."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import nn


class MaskEncoding(nn.Module):
    """A weight of which some entries are held at zero.

    Args:
        mask: of the weight's shape; True where the weight is free.
    """

    type_name: ClassVar[str | None] = None
    mask: torch.Tensor

    def __init__(self, mask: torch.Tensor) -> None:
        super().__init__()
        self.register_buffer("mask", mask.detach().clone().bool())

    def forward(self, weight: torch.Tensor) -> torch.Tensor:
        """The weight, zero where it is masked."""
        return weight * self.mask
