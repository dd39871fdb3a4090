"""What options take in a package: the coder's own adaptive estimate for levels, entropies for everything else.

Figures for one option hold at its layer's own width; at others its bits per value stay, as they nearly do.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import nn

from featherweight.contracts import Capability, CostForm, RealTerms
from featherweight.methods.seam import description_of, leaves
from featherweight.network.capture import Layer
from featherweight.network.composition import stored_values
from featherweight.network.encodings import (
    AffineEncoding,
    CodebookEncoding,
    chain_of,
    encoding_of,
    weight_type,
)
from featherweight.network.encodings.chain import carrier
from featherweight.network.modules import bias_of, weight_of
from featherweight.packaging import estimate_bits, real_bits

DESCRIPTION = 0.3
"""Share of a file's description of its layers (names, shapes, offsets) that a package keeps."""

GRIDS = 0.2
"""Share of the description of integer kernels' grids."""

SCALES = 0.9
"""Share of scales and biases that it keeps: their low bits are noise."""

_FEW = 4096  # values: a palette of more is none


def with_rate(
    form: CostForm, layer: Layer, module: nn.Module, capability: Capability, *, kept: bool = False
) -> CostForm:
    """The form of a layer's replacement, with what it takes in a package.

    Args:
        form: from :func:`featherweight.methods.seam.cost_form`.
        layer: as captured.
        module: what takes its place.
        capability: of the target.
        kept: whether that is the layer as the original holds it: then its reals are coded, since what is left of the
            whole package when all layers are taken off is small beside them.
    """
    parts = leaves(module)
    bits = [weight_bits(part, coded=kept) for part in parts]
    stored = [stored_values(part) for part in parts]
    rate = float(np.average(bits, weights=stored)) / 8
    sizes = {"float32": 4, "float16": 2, "int8": 1}
    held = [sizes[weight_type(part)] for part in parts]
    # Bytes of weights alone, by what they grow with: the form's own terms without channels and description.
    layers, grids = (sum(one) for one in zip(*(description_of(part, capability) for part in parts), strict=True))
    beside = layers + grids
    product, rows, columns, constant = form.size_bytes
    whole = form.at(*_own_widths(layer)).size_bytes
    weights = sum(size * count for size, count in zip(held, stored, strict=True))
    small = max(whole - weights - beside, 0)
    width = _own_widths(layer)[0]
    by_row = small / width if width else 0.0
    share = rate * sum(stored) / max(weights, 1)
    own_rows = rows - by_row
    terms: RealTerms = (
        product * share,
        own_rows * share + by_row * SCALES * _told_apart(parts, capability),
        columns * share,
        (constant - beside) * share + layers * DESCRIPTION + grids * GRIDS,
    )
    return replace(form, package_bytes=terms)


def _told_apart(parts: Sequence[nn.Module], capability: Capability) -> float:
    """Share of biases and scales that differ from channel to channel: what repeats costs nothing, nor do zeros."""
    told = total = 0.0
    for part in parts:
        rows, each = len(weight_of(carrier(part))), capability.bytes_per_channel[weight_type(part)]
        encoding = encoding_of(part)
        scales = encoding.grid.scale if isinstance(encoding, AffineEncoding) else torch.empty(0)
        distinct = len(torch.unique(scales)) / rows if rows and scales.numel() else 1.0
        told += rows * (4 * int(bias_of(part) is not None) + each * min(distinct, 1.0))
        total += rows * (4 + each)
    return told / total if total else 1.0


def _own_widths(layer: Layer) -> tuple[int, int]:
    return layer.weight_shape[0], layer.weight_shape[1]


def weight_bits(part: nn.Module, *, coded: bool = False) -> float:
    """Bits that one value of a module's weight takes in a package, on average.

    Args:
        part: a leaf of what takes a layer's place.
        coded: whether reals are coded as the packer would, instead of estimated by their entropies.
    """
    owner = carrier(part)
    weight, encoding = weight_of(owner).detach(), encoding_of(part)
    if isinstance(encoding, AffineEncoding):
        levels = encoding.grid.levels(weight, encoding.axis)
        if levels.ndim > 2:  # as files hold them: input channels innermost
            levels = levels.movedim(1, -1)
        period = levels.shape[-1] if levels.ndim > 2 else 1
        return estimate_bits(levels.reshape(len(levels), -1).numpy().astype(np.int32), period) / weight.numel()
    if any(isinstance(one, CodebookEncoding) for one in chain_of(part)):
        _, counts = torch.unique(weight, return_counts=True)
        return _entropy(counts.double().numpy()) + 32 * min(len(counts), _FEW) / weight.numel()
    values = weight.half().numpy() if weight_type(part) == "float16" else weight.float().numpy()
    if coded and values.size:
        return real_bits(np.moveaxis(values, 1, -1)) / values.size
    return _entropies(values)


def _entropies(values: np.ndarray) -> float:
    """Of reals, bits each: zeros told first, then bytes plane by plane.

    A refit leaves noise in all but the upper two bytes, whatever grid the weights were trained to lie on.
    """
    flat = values.ravel()
    zeros = int((flat == 0).sum())
    held = flat[flat != 0] if zeros else flat
    told = _entropy(np.array([zeros, len(held)], dtype=float))
    if not len(held):
        return told
    planes = held.view(np.uint8).reshape(len(held), -1)[:, -2:]
    bits = sum(_entropy(np.bincount(plane, minlength=256).astype(float)) for plane in planes.T)
    return told + (bits + 8 * (flat.itemsize - planes.shape[1])) * len(held) / len(flat)


def _entropy(counts: np.ndarray) -> float:
    """Of frequencies, in bits a value."""
    shares = counts[counts > 0] / counts.sum()
    return float(-(shares * np.log2(shares)).sum())
