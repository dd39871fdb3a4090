"""Batch normalisation folded into the layer before it.

In evaluation mode ``γ (Wx + b − μ)/σ + β`` is the linear map ``(γ/σ) W x + (γ/σ)(b − μ) + β``. Runtimes fold it when
they convert; we fold first, so that what is measured, rounded and factorised is what ships (Jacob et al. 2018,
arXiv:1712.05877, section 3.2).
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval, fuse_linear_bn_eval

from featherweight.network.capture import Layer, Network, capture
from featherweight.network.modules import copied, replace_module

_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


def _foldable(network: Network) -> Iterator[tuple[Layer, str]]:
    """Layers whose output goes to one batch normalisation and nowhere else, with that module's name."""
    nodes = {node.name: node for node in network.graph.graph.nodes}
    for layer in network.layers:
        users = list(nodes[layer.node].users)
        if not layer.replaceable or layer.kind == "embedding" or len(users) != 1:
            continue
        user = users[0]
        if user.target is not torch.ops.aten.batch_norm.default:
            continue
        norm = _norm_name(user)
        if norm and type(network.module.get_submodule(norm)) in _NORMS:
            yield layer, norm


def _norm_name(node: torch.fx.Node) -> str:
    """The module that owns the running mean of a batch_norm node; empty where the statistics are computed."""
    mean = node.args[3]
    if not isinstance(mean, torch.fx.Node) or mean.op != "get_attr" or len(mean.users) != 1:
        return ""
    return str(mean.target).rpartition(".")[0]


def fold_batch_norm(network: Network) -> Network:
    """The same network with every batch normalisation folded that follows a layer directly.

    Others (before a layer, after an addition) stay. The input is untouched; outputs agree to float rounding.
    """
    pairs = list(_foldable(network))
    if not pairs:
        return network
    module = copied(network.module)
    for layer, norm_name in pairs:
        owner = module.get_submodule(layer.name)
        norm = module.get_submodule(norm_name)
        if layer.kind == "linear":
            fused = fuse_linear_bn_eval(owner, norm)  # type: ignore[arg-type]
        else:
            fused = fuse_conv_bn_eval(owner, norm, transpose="transpose" in layer.kind)  # type: ignore[arg-type]
        replace_module(module, layer.name, fused.requires_grad_(False))
        replace_module(module, norm_name, nn.Identity())
    return capture(module, network.example)
