"""What a layer's weight really multiplies: sampled rows of its input.

A layer computes ``y = W x`` at every output position. For a convolution ``x`` is the patch under the kernel (one row
of im2col). Only the sampled positions are gathered, so the cost follows the number of samples and not the image.
"""

from __future__ import annotations

import math

import torch
from torch.nn import functional

from featherweight.network.capture import Layer
from featherweight.network.geometry import Geometry


def sample_positions(layer: Layer, samples: int, count: int, generator: torch.Generator) -> torch.Tensor:
    """Output positions, drawn with replacement for every sample; all of them, in order, where ``count`` is enough.

    Returns:
        (samples, p) int64, flat positions, ``p = min(count, layer.positions)``.
    """
    every = layer.positions
    if count >= every:
        return torch.arange(every).expand(samples, -1)
    return torch.randint(every, (samples, count), generator=generator)


def _read_offsets(geometry: Geometry, padded: tuple[int, ...], output: tuple[int, ...]) -> torch.Tensor:
    """Flat index into the padded input for every (output position, kernel position): (positions, kernel)."""
    flat = torch.zeros(1, 1, dtype=torch.int64)
    for size, out, kernel, stride, dilation in zip(
        padded, output, geometry.kernel, geometry.stride, geometry.dilation, strict=True
    ):
        reads = torch.arange(out).view(-1, 1) * stride + torch.arange(kernel).view(1, -1) * dilation
        flat = flat.view(flat.shape[0], 1, flat.shape[1], 1) * size + reads.view(1, out, 1, kernel)
        flat = flat.reshape(flat.shape[0] * out, -1)
    return flat


def input_rows(layer: Layer, x: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
    """Rows of a layer's input at sampled output positions.

    Args:
        layer: linear, or a convolution that is not transposed.
        x: the layer's input, (samples, …).
        positions: (samples, p) from :func:`sample_positions`.

    Returns:
        (g, samples · p, d), ``d`` ordered as ``weight.reshape(out, -1)``.
    """
    if layer.geometry is None:
        rows = x.reshape(len(x), -1, x.shape[-1])
        picked = torch.gather(rows, 1, positions.to(x.device).unsqueeze(2).expand(-1, -1, rows.shape[2]))
        return picked.reshape(1, -1, rows.shape[2])
    geometry = layer.geometry
    pads = [end for pair in reversed(geometry.padding) for end in pair]
    padded = functional.pad(x, pads) if any(pads) else x
    offsets = _read_offsets(geometry, tuple(padded.shape[2:]), layer.output_shape[1:])
    samples, channels = padded.shape[:2]
    count, kernel = positions.shape[1], math.prod(geometry.kernel)
    index = offsets[positions].to(x.device).reshape(samples, 1, count * kernel).expand(-1, channels, -1)
    patches = torch.gather(padded.flatten(2), 2, index).view(samples, geometry.groups, -1, count, kernel)
    return patches.permute(1, 0, 3, 2, 4).reshape(geometry.groups, samples * count, -1)


def output_rows(layer: Layer, y: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
    """Rows of a layer's output at the same positions: (g, samples · p, out / g)."""
    if layer.geometry is None:
        rows = y.reshape(len(y), -1, y.shape[-1]).transpose(1, 2)
    else:
        rows = y.flatten(2)
    index = positions.to(y.device).unsqueeze(1).expand(-1, rows.shape[1], -1)
    picked = torch.gather(rows, 2, index).transpose(1, 2).reshape(positions.numel(), layer.groups, -1)
    return picked.transpose(0, 1)


def weight_rows(layer: Layer, weight: torch.Tensor) -> torch.Tensor:
    """The weight as the map of those rows: (g, out / g, d)."""
    return weight.reshape(layer.groups, weight.shape[0] // layer.groups, -1)
