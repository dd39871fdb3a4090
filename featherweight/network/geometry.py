"""Where a convolution reads: the numbers that tie output positions to input positions.

Notation: ``k`` spatial axes, kernel sizes ``K_i``, strides ``s_i``, dilations ``d_i``, padding ``p_i`` before and
``q_i`` after. Output position ``o`` reads input positions ``o_i · s_i − p_i + κ_i · d_i`` for ``0 ≤ κ_i < K_i``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx


@dataclass(frozen=True, slots=True)
class Geometry:
    """A convolution's geometry; ``k`` entries in every tuple.

    Attributes:
        kernel, stride, dilation: sizes for every spatial axis.
        padding: (before, after) for every spatial axis.
        groups: channel groups.
        transposed: whether it is a transposed convolution.
    """

    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    dilation: tuple[int, ...]
    padding: tuple[tuple[int, int], ...]
    groups: int = 1
    transposed: bool = False


def _spread(value: Any, count: int) -> tuple[int, ...]:
    values = tuple(value) if isinstance(value, Sequence) else (value,)
    return values * count if len(values) == 1 else values


def _same(kernel: Sequence[int], dilation: Sequence[int]) -> tuple[tuple[int, int], ...]:
    """What ``padding="same"`` means to PyTorch: the odd one goes behind."""
    totals = [d * (k - 1) for k, d in zip(kernel, dilation, strict=True)]
    return tuple((total // 2, total - total // 2) for total in totals)


def geometry_of(node: fx.Node, weight: torch.Tensor) -> Geometry:
    """The geometry of an ATen convolution node.

    Args:
        node: a call of ``aten.conv{1,2,3}d`` or ``aten.conv_transpose{1,2,3}d``.
        weight: its weight, (out, in / groups, *kernel), or (in, out / groups, *kernel) where transposed.
    """
    kernel = tuple(weight.shape[2:])
    count = len(kernel)
    transposed = "transpose" in str(node.target)
    defaults: list[Any] = [None, None, None, 1, 0, 0, 1, 1] if transposed else [None, None, None, 1, 0, 1, 1]
    args: list[Any] = list(node.args) + defaults[len(node.args) :]
    if transposed:
        stride, padding, groups, dilation = args[3], args[4], args[6], args[7]
    else:
        stride, padding, dilation, groups = args[3], args[4], args[5], args[6]
    dilations = _spread(dilation, count)
    if padding == "same":
        pads = _same(kernel, dilations)
    elif padding == "valid":
        pads = ((0, 0),) * count
    else:
        pads = tuple((p, p) for p in _spread(padding, count))
    return Geometry(kernel, _spread(stride, count), dilations, pads, groups, transposed)
