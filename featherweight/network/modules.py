"""Weighted modules: reading, filling and replacing them, with the types that torch leaves open."""

from __future__ import annotations

import copy
import warnings

import torch
from torch import nn


def copied(module: nn.Module) -> nn.Module:
    """A deep copy."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's own deprecations, raised while it copies an exported program's module
        return copy.deepcopy(module)


def weight_of(module: nn.Module) -> torch.Tensor:
    """The module's weight, encoded where it carries an encoding; detached."""
    weight = module.weight
    if not isinstance(weight, torch.Tensor):
        raise TypeError(f"{type(module).__name__} has no weight")
    return weight.detach()


def bias_of(module: nn.Module) -> torch.Tensor | None:
    """The module's bias, detached; None where it has none."""
    bias = getattr(module, "bias", None)
    return bias.detach() if isinstance(bias, torch.Tensor) else None


def set_weight(module: nn.Module, weight: torch.Tensor) -> None:
    """Give a plain module a weight, in the shape and type of the one it has; in place."""
    old = weight_of(module)
    module.weight = nn.Parameter(weight.reshape(old.shape).to(old.dtype), requires_grad=False)


def set_bias(module: nn.Module, bias: torch.Tensor) -> None:
    """Give a module a bias, in the type of its weight; in place."""
    module.bias = nn.Parameter(bias.to(weight_of(module).dtype), requires_grad=False)


def shift_bias(module: nn.Module, shift: torch.Tensor) -> None:
    """Add to a module's bias, which appears where there was none; in place."""
    bias = bias_of(module)
    set_bias(module, shift.double() if bias is None else bias.double() + shift.double())


def replace_module(root: nn.Module, name: str, new: nn.Module) -> None:
    """Put ``new`` where ``root``'s submodule ``name`` was; in place."""
    parent, _, child = name.rpartition(".")
    setattr(root.get_submodule(parent), child, new)
