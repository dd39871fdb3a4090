"""A weight stored as float16."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import nn


class HalfEncoding(nn.Module):
    """A weight stored as float16 and computed with as float32."""

    type_name: ClassVar[str | None] = "float16"

    def forward(self, weight: torch.Tensor) -> torch.Tensor:
        """The weight rounded to float16, in its own type."""
        return weight.half().to(weight.dtype)
