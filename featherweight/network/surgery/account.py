"""The account: how many groups a unit still has after surgery, and how many parameters go with some of them."""

from __future__ import annotations

import math
from collections.abc import Mapping

from torch import nn

from featherweight.network.channels.units import ChannelUnit


def reached(unit: ChannelUnit, original: nn.Module, smaller: nn.Module) -> int:
    """How many groups of a unit the smaller module still has, counted on its parameters and buffers.

    Args:
        unit: of the original's coupling.
        original, smaller: before and after the surgery.
    """
    before, after = original.state_dict(), smaller.state_dict()
    counts = {
        unit.groups - (before[piece.state].shape[piece.axis] - after[piece.state].shape[piece.axis]) // width
        for piece, width in ((piece, piece.indices.shape[1]) for piece in unit.slices)
        if piece.state in before and piece.state in after
    }
    return min(counts, default=unit.groups)


def parameters_gone(unit: ChannelUnit, groups: int, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, int]:
    """Parameter → how many of its values go with some groups of a unit alone; exact where several of its axes shrink.

    Args:
        unit: of a coupling.
        groups: how many go.
        shapes: parameter → its shape; what is missing there isn't counted.
    """
    lost: dict[str, list[int]] = {}
    for piece in unit.slices:
        if piece.state in shapes:
            sizes = lost.setdefault(piece.state, [0] * len(shapes[piece.state]))
            sizes[piece.axis] += groups * piece.indices.shape[1]
    return {
        state: math.prod(shapes[state])
        - math.prod(size - less for size, less in zip(shapes[state], sizes, strict=True))
        for state, sizes in lost.items()
    }
