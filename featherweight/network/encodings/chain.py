"""Encodings on modules: giving a weight one more, and reading the chain that it carries."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar, Protocol

import torch
from torch import nn
from torch.nn.utils import parametrize

from featherweight.network.encodings.affine import AffineEncoding
from featherweight.network.encodings.mask import MaskEncoding
from featherweight.network.grouped import PermutedConvolution
from featherweight.network.modules import set_weight, weight_of


class Encoding(Protocol):
    """What every encoding says of itself beside its forward.

    Attributes:
        type_name: the storage type that a target sees; None where the encoding only holds values together, and a
            target sees the type of what stands before it.
    """

    type_name: ClassVar[str | None]


def carrier(module: nn.Module) -> nn.Module:
    """The module whose weight is stored and encoded: the convolution within a grouped one, else the module itself."""
    return module.convolution if isinstance(module, PermutedConvolution) else module


def encode(module: nn.Module, encoding: nn.Module, weight: torch.Tensor | None = None) -> nn.Module:
    """Give the weight of a module's :func:`carrier` one more encoding, in place, and hand the module back.

    ``weight`` is what the module's becomes first, of as many values; None leaves it as it is.

    What is stored is the encoded weight: a converter that rounds once more, by division where PyTorch multiplies, then
    meets no value that lies between two levels. So every encoding must leave what it made as it is.
    """
    owner = carrier(module)
    old = weight_of(owner)
    value = encoding(old if weight is None else weight.reshape(old.shape).to(old.dtype))
    if parametrize.is_parametrized(owner, "weight"):
        own: Any = owner.parametrizations["weight"]  # type: ignore[index]
        own.original = nn.Parameter(value.detach().clone(), requires_grad=False)
    else:
        set_weight(owner, value)
    parametrize.register_parametrization(owner, "weight", encoding, unsafe=True)
    module.requires_grad_(False)
    return module


def chain_of(module: nn.Module) -> tuple[nn.Module, ...]:
    """The encodings of a module's weight in the order in which they act; empty where the weight is plain."""
    owner = carrier(module)
    if not parametrize.is_parametrized(owner, "weight"):
        return ()
    return tuple(owner.parametrizations["weight"])  # type: ignore[index]


def encoding_of(module: nn.Module) -> nn.Module | None:
    """The last encoding of a module's weight that a target sees; None where it sees a plain weight."""
    seen = [encoding for encoding in chain_of(module) if encoding.type_name is not None]
    return seen[-1] if seen else None


def weight_type(module: nn.Module) -> str:
    """The storage type of a module's weight: that of its encoding, or float32."""
    encoding = encoding_of(module)
    return str(encoding.type_name) if encoding is not None else "float32"


def is_integer(module: nn.Module) -> bool:
    """Whether a module asks for an integer kernel."""
    encoding = encoding_of(module)
    return isinstance(encoding, AffineEncoding) and encoding.integer


def encodings(module: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Every (module name, encoding that a target sees) below ``module``, in order."""
    for name, child in module.named_modules():
        found = encoding_of(child)
        if found is not None and carrier(child) is child:
            yield name, found


def holds(module: nn.Module) -> bool:
    """Whether the weight is what its whole chain makes of it: masked stays masked, shared stays shared."""
    value = again = weight_of(carrier(module))
    for encoding in chain_of(module):
        again = encoding(again)
    masks = [encoding for encoding in chain_of(module) if isinstance(encoding, MaskEncoding)]
    return bool(torch.equal(again, value)) and all(bool(torch.equal(mask(value), value)) for mask in masks)
