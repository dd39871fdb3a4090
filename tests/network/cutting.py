"""What the tests of coupled channels share: lively weights, random cuts, and a reference that knows no graph."""

from __future__ import annotations

import copy
import random

import torch
from torch import nn

from featherweight.network.capture import Network
from featherweight.network.channels import Coupling, Removals


def lively(module: nn.Module, seed: int = 0) -> nn.Module:
    """Weights and statistics that keep signals alive, none of them zero or one."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, tensor in [*module.named_parameters(), *module.named_buffers()]:
            if not tensor.is_floating_point() or tensor.ndim == 0:
                continue
            noise = torch.randn(tensor.shape, generator=generator).to(tensor)
            if tensor.ndim > 1 and isinstance(tensor, nn.Parameter):
                tensor.copy_(noise * (1.5 / tensor[0].numel()) ** 0.5)
            elif name.endswith("running_var"):
                tensor.copy_(0.5 + noise.abs())
            elif isinstance(tensor, nn.Parameter) or name.endswith("running_mean"):
                tensor.copy_(0.3 * noise + (1.0 if name.endswith("weight") else 0.0))
    return module


def random_removals(coupling: Coupling, ratio: float, seed: int = 0) -> Removals:
    """About this share of every unit's groups, at least one, never all."""
    chooser = random.Random(seed)
    return {
        unit.name: sorted(chooser.sample(range(unit.groups), min(unit.groups - 1, max(1, round(unit.groups * ratio)))))
        for unit in coupling.units
    }


def zeroed(network: Network, coupling: Coupling, removals: Removals) -> nn.Module:
    """The user's own module at full size, with every slice that would go set to zero: rows, biases, norms, columns."""
    module = copy.deepcopy(network.module)
    parameters = dict(module.named_parameters(remove_duplicate=False))
    with torch.no_grad():
        for name, groups in removals.items():
            for piece in coupling.unit(name).slices:
                if piece.state in parameters:
                    index = torch.from_numpy(piece.indices[list(groups)].ravel())
                    parameters[piece.state].index_fill_(piece.axis, index, 0.0)
    return module


def relative_error(got: torch.Tensor, wanted: torch.Tensor) -> float:
    """Largest difference, relative to the largest value."""
    return float((got - wanted).detach().abs().max() / wanted.detach().abs().max())


def parameters(module: nn.Module) -> int:
    """Stored parameters, shared ones once."""
    return sum(parameter.numel() for parameter in module.parameters())
