"""A weight whose entries share a few values."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import nn

from featherweight.numerics.codebook import nearest


class CodebookEncoding(nn.Module):
    """A weight of which every entry is one of a codebook's values.

    Args:
        codebook: (k,) values, rising, finite.
    """

    type_name: ClassVar[str | None] = None
    codebook: torch.Tensor

    def __init__(self, codebook: torch.Tensor) -> None:
        super().__init__()
        self.register_buffer("codebook", codebook.detach().clone().sort().values)

    def forward(self, weight: torch.Tensor) -> torch.Tensor:
        """The nearest value of the codebook for every entry; of two equally near ones the lower."""
        return nearest(weight, self.codebook)
