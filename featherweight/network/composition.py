"""What a chain of weighted modules computes together: its one kernel, how often each part is applied, what it reads.

A layer's replacement may be a chain: two linear maps; k×1 then 1×k; 1×1, k×k, 1×1. Along every spatial axis at most
one of its convolutions reaches further than a single position, so kernels multiply without overlap and the product is
exact, borders included. That needs the inner parts to be free of biases, so that zeros of padding stay zeros.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence

import torch
from torch import nn

from featherweight.network.capture import Layer
from featherweight.network.grouped import PermutedConvolution
from featherweight.network.modules import weight_of

_GEOMETRY = ("stride", "dilation")


def composed(parts: Sequence[nn.Module]) -> torch.Tensor:
    """The one weight that a chain of ungrouped modules computes with, (n, c, *kernel), float64."""
    first, *rest = parts
    kernel = weight_of(first).double()
    for part in rest:
        kernel = torch.einsum("nr...,rc...->nc...", weight_of(part).double(), kernel)
    return kernel


def positions(layer: Layer, parts: Sequence[nn.Module]) -> list[int]:
    """How often each part of a layer's replacement is applied to one sample."""
    if layer.geometry is None:
        return [layer.positions] * len(parts)
    sizes: tuple[int, ...] = layer.input_shape[1:]
    for part in parts:
        if getattr(part, "padding_mode", "zeros") != "zeros":  # a step of its own: what the layer reads is padded
            sizes = tuple(size - total for size, total in zip(sizes, _padding(part, len(sizes)), strict=True))
    counts: list[int] = []
    for part in parts:
        sizes = output_sizes(sizes, part)
        counts.append(math.prod(sizes))
    return counts


def output_sizes(sizes: tuple[int, ...], convolution: nn.Module) -> tuple[int, ...]:
    """Spatial sizes behind a convolution, by PyTorch's formula."""
    settings = (_kernel(convolution, len(sizes)), *(_setting(convolution, name, len(sizes)) for name in _GEOMETRY))
    return tuple(
        (size + total - reach * (width - 1) - 1) // step + 1
        for size, total, width, step, reach in zip(sizes, _padding(convolution, len(sizes)), *settings, strict=True)
    )


def _padding(convolution: nn.Module, count: int) -> tuple[int, ...]:
    """Positions that a convolution adds to each axis, before and behind together."""
    padding = getattr(convolution, "padding")  # noqa: B009  (modules are typed as holding tensors)
    if padding == "valid":
        return (0,) * count
    if padding == "same":
        reaches = _setting(convolution, "dilation", count)
        return tuple(reach * (width - 1) for reach, width in zip(reaches, _kernel(convolution, count), strict=True))
    return tuple(2 * pad for pad in _spread(padding, count))


def _kernel(convolution: nn.Module, count: int) -> tuple[int, ...]:
    if isinstance(convolution, PermutedConvolution):
        return tuple(convolution.blocks.shape[2:])
    return _setting(convolution, "kernel_size", count)


def _setting(convolution: nn.Module, name: str, count: int) -> tuple[int, ...]:
    return _spread(getattr(convolution, name), count)


def _spread(value: int | Sequence[int], count: int) -> tuple[int, ...]:
    return (value,) * count if isinstance(value, int) else tuple(value)


def stored_values(part: nn.Module) -> int:
    """How many values of a part's weight are stored: all, or the blocks of a grouped one."""
    return part.blocks.numel() if isinstance(part, PermutedConvolution) else weight_of(part).numel()


def index_bytes(part: nn.Module) -> int:
    """Bytes of the 32-bit indices that a part gathers channels by."""
    return 4 * (part.inputs.numel() + part.places.numel()) if isinstance(part, PermutedConvolution) else 0


def moments_within(parts: Sequence[nn.Module], moments: torch.Tensor) -> list[torch.Tensor]:
    """Second moments of what every part of an ungrouped chain reads, from those of the layer's own rows.

    A part reads the patch through the parts before it. Where later parts reach further, it is applied at several places
    of the patch, and the mean over these is taken: exact but for patches at the borders.

    Args:
        parts: the chain.
        moments: of the layer's rows, (d, d): a covariance, or moments about zero.

    Returns:
        For every part (d', d'), float64, ordered as its weight's rows.
    """
    moments = moments.double()
    return [torch.stack([_through(*read, moments) for read in reads]).mean(0) for reads in _places(parts)]


def means_within(parts: Sequence[nn.Module], mean: torch.Tensor) -> list[torch.Tensor]:
    """Means of what every part of an ungrouped chain reads, (d',), from those of the layer's own rows, (d,)."""
    mean = mean.double()
    return [torch.stack([_mean_through(*read, mean) for read in reads]).mean(0) for reads in _places(parts)]


def _places(parts: Sequence[nn.Module]) -> Iterator[list[tuple[torch.Tensor, torch.Tensor | None]]]:
    """For every part what it reads of the patch, at every place at which it is applied."""
    first = weight_of(parts[0])
    kernels = [tuple(weight_of(part).shape[2:]) for part in parts]
    whole = tuple(map(max, zip(*kernels, strict=True))) if kernels[0] else ()
    grid = torch.arange(first.shape[1] * math.prod(whole), device=first.device).view(first.shape[1], *whole)
    for position, own in enumerate(kernels):
        yield list(_reads(grid, parts[:position], own))


def _reads(
    grid: torch.Tensor, before: Sequence[nn.Module], own: tuple[int, ...]
) -> Iterator[tuple[torch.Tensor, torch.Tensor | None]]:
    """For every place at which a part is applied: columns of the patch, (own positions, d'), and the map on them."""
    prefix = composed(before) if before else None
    reached = tuple(prefix.shape[2:]) if prefix is not None else (1,) * len(own)
    later = [range(1 if done > 1 or width > 1 else size) for size, done, width in _axes(grid, reached, own)]
    for place in itertools.product(*later):
        columns = [
            grid[(slice(None), *map(_slice, grid.shape[1:], reached, own, place, at))].flatten()
            for at in itertools.product(*map(range, own))
        ]
        yield torch.stack(columns), None if prefix is None else prefix.flatten(1)


def _axes(grid: torch.Tensor, reached: tuple[int, ...], own: tuple[int, ...]) -> Iterator[tuple[int, int, int]]:
    return zip(grid.shape[1:], reached, own, strict=True)


def _slice(size: int, reached: int, own: int, place: int, at: int) -> slice:
    """What of one axis is read: all of it by what stands before, else one position: the part's own or a later one's."""
    if reached > 1:
        return slice(0, size)
    start = at if own > 1 else place
    return slice(start, start + 1)


def _through(columns: torch.Tensor, prefix: torch.Tensor | None, moments: torch.Tensor) -> torch.Tensor:
    """Moments of the rows that a prefix makes of some columns of the patch."""
    taps, width = columns.shape
    flat = columns.flatten()
    block = moments[flat][:, flat].view(taps, width, taps, width)
    if prefix is not None:
        block = torch.einsum("rd,sdte,qe->srtq", prefix, block, prefix)
    return block.permute(1, 0, 3, 2).reshape(taps * block.shape[1], -1)


def _mean_through(columns: torch.Tensor, prefix: torch.Tensor | None, mean: torch.Tensor) -> torch.Tensor:
    """Mean of the rows that a prefix makes of some columns of the patch."""
    values = mean[columns]
    return (values if prefix is None else values @ prefix.T).T.flatten()
