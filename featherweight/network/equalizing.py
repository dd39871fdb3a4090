"""Cross-layer equalization on a captured network: its chains are found on the graph and rescaled.

A positive scale passes through ReLU, pooling and padding with zeros, channel by channel. So where a layer's output
goes through such operations to one other layer and nowhere else, scale can move between the two weights, and the
network computes what it did (Nagel et al. 2019, arXiv:1906.04721, section 4.1). ReLU6 has a fixed corner: it ends a
chain.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import fx

from featherweight.network.capture import Layer, Network, capture
from featherweight.network.modules import bias_of, copied, set_bias, set_weight, weight_of
from featherweight.numerics.equalization import Stage, equalize

_aten = torch.ops.aten
SCALES_PASS = frozenset(
    {
        _aten.relu.default,
        _aten.relu_.default,
        _aten.dropout.default,
        _aten.max_pool1d.default,
        _aten.max_pool2d.default,
        _aten.avg_pool1d.default,
        _aten.avg_pool2d.default,
        _aten.adaptive_avg_pool2d.default,
    }
)
_KINDS = frozenset({"linear", "conv1d", "conv2d", "conv3d", "depthwise_conv1d", "depthwise_conv2d", "depthwise_conv3d"})


def chains_of(network: Network) -> tuple[tuple[str, ...], ...]:
    """Names of layers that can be equalized together, in order; every chain has at least two.

    Args:
        network: with batch normalisation folded: one that stands between two layers separates them.
    """
    fit = {layer.node: layer for layer in network.layers if can_be_scaled(layer)}
    nodes = {node.name: node for node in network.graph.graph.nodes}
    following = {node: after.node for node in fit if (after := _reader(nodes[node], fit)) is not None}
    inner = set(following.values())
    chains = []
    for node in fit:
        if node in inner or node not in following:
            continue
        chain = [node]
        while chain[-1] in following:
            chain.append(following[chain[-1]])
        chains.append(tuple(fit[one].name for one in chain))
    return tuple(chains)


def equalized(network: Network) -> tuple[Network, tuple[tuple[str, ...], ...]]:
    """The network with all its chains equalized, and those; outputs agree to float rounding.

    The input is untouched. A network without chains comes back as it is.
    """
    chains = chains_of(network)
    if not chains:
        return network, ()
    module = copied(network.module)
    for chain in chains:
        owners = [module.get_submodule(name) for name in chain]
        layers = [network.layer(name) for name in chain]
        stages = [
            Stage(weight_of(owner), bias_of(owner), _depthwise(layer))
            for owner, layer in zip(owners, layers, strict=True)
        ]
        for owner, stage in zip(owners, equalize(stages), strict=True):
            set_weight(owner, stage.weight)
            if stage.bias is not None:
                set_bias(owner, stage.bias)
    return capture(module, network.example), chains


def _depthwise(layer: Layer) -> bool:
    return layer.kind.startswith("depthwise")


def can_be_scaled(layer: Layer) -> bool:
    """Whether a layer's channels are plain, so that each may have a scale: all read by all, or each by its own."""
    if not layer.replaceable or layer.kind not in _KINDS:
        return False
    return layer.groups == 1 or (_depthwise(layer) and layer.groups == layer.weight_shape[0])


def _reader(node: fx.Node, fit: dict[str, Layer]) -> Layer | None:
    """The one layer that reads a layer's output through operations that scales pass; None where there is none."""
    first = fit[node.name]
    for after in _onward(node):
        second = fit.get(after.name)
        if second is not None:
            # a convolution and a linear layer count their channels on other axes
            return second if (first.geometry is None) == (second.geometry is None) else None
        if after.target not in SCALES_PASS or (first.geometry is None and "pool" in str(after.target)):
            return None
    return None


def _onward(node: fx.Node) -> Iterator[fx.Node]:
    """The nodes that follow, as long as each has one reader, which reads it as its first argument."""
    while len(node.users) == 1:
        after = next(iter(node.users))
        if not after.args or after.args[0] is not node:
            return
        yield after
        node = after
