"""Weights carry their encoding: what is simulated, trained later and lowered are the same values.

An encoding is a parametrization of a module's weight. Its forward writes the encoded values with the very operations
that ``torch.export`` then hands to a target (``quantized_decomposed.quantize_per_channel`` and its inverse, a cast to
half), so that a target sees the encoding in the graph and never hears of the method that chose it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
import torch.ao.quantization.fx._decomposed
from torch import nn
from torch.nn.utils import parametrize

from featherweight.network.modules import set_weight, weight_of
from featherweight.numerics.affine import AffineGrid

_q = torch.ops.quantized_decomposed


class AffineEncoding(nn.Module):
    """A weight on an affine grid, one scale for every slice of ``axis``.

    Args:
        grid: symmetric or asymmetric; its scale has as many entries as the weight has slices along ``axis``.
        axis: the weight's channel axis.
        integer: whether the layer's activations lie on integer grids too, so that an integer kernel can run it.
    """

    type_name = "int8"
    scale: torch.Tensor
    zero_point: torch.Tensor

    def __init__(self, grid: AffineGrid, axis: int, integer: bool) -> None:
        super().__init__()
        self.integer = integer
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

    def describe(self) -> dict[str, Any]:
        """What rebuilds it, beside its buffers: plain JSON."""
        return {
            "type": "affine",
            "lowest": self.lowest,
            "highest": self.highest,
            "axis": self.axis,
            "integer": self.integer,
        }


class HalfEncoding(nn.Module):
    """A weight stored as float16 and computed with as float32."""

    type_name = "float16"

    def forward(self, weight: torch.Tensor) -> torch.Tensor:
        """The weight rounded to float16, in its own type."""
        return weight.half().to(weight.dtype)

    def describe(self) -> dict[str, Any]:
        """What rebuilds it: plain JSON."""
        return {"type": "half"}


def encode(module: nn.Module, encoding: nn.Module) -> nn.Module:
    """Give ``module.weight`` an encoding, in place, and hand the module back.

    What is stored is the rounded weight: a converter that rounds once more, by division where PyTorch multiplies, then
    meets no value that lies between two levels.
    """
    set_weight(module, encoding(weight_of(module)))
    parametrize.register_parametrization(module, "weight", encoding, unsafe=True)
    module.requires_grad_(False)
    return module


def encoding_of(module: nn.Module) -> nn.Module | None:
    """The last encoding of a module's weight; None where the weight is plain."""
    if not parametrize.is_parametrized(module, "weight"):
        return None
    return module.parametrizations["weight"][-1]  # type: ignore[index]


def encodings(module: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Every (module name, encoding) below ``module``, in order."""
    for name, child in module.named_modules():
        found = encoding_of(child)
        if found is not None:
            yield name, found
