"""A weight on an affine grid."""

from __future__ import annotations

from typing import ClassVar

import torch
import torch.ao.quantization.fx._decomposed
from torch import nn

from featherweight.numerics.affine import AffineGrid

_q = torch.ops.quantized_decomposed


class AffineEncoding(nn.Module):
    """A weight on an affine grid, one scale for every slice of ``axis``.

    Args:
        grid: symmetric or asymmetric; its scale has as many entries as the weight has slices along ``axis``.
        axis: the weight's channel axis.
        integer: whether the layer's activations lie on integer grids too, so that an integer kernel can run it.
        dynamic: whether they are put on integers for each inference alone, on a range found there. The graph doesn't
            say so: what comes of it is measured on the file.
        ranges: how the grids of the layer's activations are to be found, by a name of
            :data:`featherweight.numerics.ranges.RANGE_SEARCHES`; empty leaves it to whoever fits them.
    """

    type_name: ClassVar[str | None] = "int8"
    scale: torch.Tensor
    zero_point: torch.Tensor

    def __init__(self, grid: AffineGrid, axis: int, integer: bool, *, dynamic: bool = False, ranges: str = "") -> None:
        super().__init__()
        self.integer, self.dynamic, self.ranges = integer, dynamic, ranges
        self.register_buffer("scale", grid.scale.detach().clone().float())
        self.register_buffer("zero_point", grid.zero_point.detach().clone().to(torch.int64))
        self.lowest, self.highest, self.axis = grid.lowest, grid.highest, axis

    @property
    def grid(self) -> AffineGrid:
        """The grid, with one scale for every slice."""
        return AffineGrid(self.scale, self.zero_point, self.lowest, self.highest)

    def forward(self, weight: torch.Tensor) -> torch.Tensor:
        """The weight rounded to its grid, as real numbers."""
        grid = (self.scale, self.zero_point, self.axis, self.lowest, self.highest, torch.int8)
        if weight.dtype == torch.float32:
            return _q.dequantize_per_channel.default(_q.quantize_per_channel.default(weight, *grid), *grid)
        # The operations know float32 alone; other types only ever simulate.
        return self.grid.round(weight, self.axis)
