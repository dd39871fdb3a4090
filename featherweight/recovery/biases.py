"""Biases on integer kernels: they must fit 32 bits on the grid of the products."""

from __future__ import annotations

import torch
from torch import fx, nn

from featherweight.network.capture import Network, capture
from featherweight.network.encodings import AffineEncoding, carrier, encoding_of
from featherweight.network.grids import Compressed
from featherweight.network.modules import bias_of, copied, weight_of
from featherweight.targets.placement import integer_layers

_LARGEST = 2.0**30  # of 2³¹ steps: the products of 32,000 inputs fit into the other half


def fit_biases(compressed: Compressed) -> Compressed:
    """The network with coarser scales for channels whose bias is more than 2³⁰ steps of their products' grid.

    An integer kernel adds up in 32 bits, in steps of the input's scale times the weight's. A channel whose weights are
    nearly nothing has a tiny scale, and its bias would be cut off, silently. What it loses by coarser steps is at most
    ``2⁻³¹ · 255 · inputs`` of the bias: a thousandth for 8,000 inputs.

    Args:
        compressed: with grids of activations; it stays as it is, and comes back where all biases fit.
    """
    network, coarser = compressed.network, dict[str, torch.Tensor]()
    nodes = {node.name: node for node in network.graph.graph.nodes}
    for layer in integer_layers(network):
        least = _least_scale(network, layer.name, nodes[layer.node], compressed)
        if least is not None:
            coarser[layer.name] = least
    if not coarser:
        return compressed
    module = copied(network.module)
    for name, least in coarser.items():
        _coarsen(module.get_submodule(name), least)
    return Compressed(capture(module, network.example), compressed.grids)


def _least_scale(network: Network, name: str, node: fx.Node, compressed: Compressed) -> torch.Tensor | None:
    """What a layer's weight scales must be at least, (channels,); None where all are."""
    module, source = network.module.get_submodule(name), node.args[0]
    encoding, bias = encoding_of(module), bias_of(module)
    grid = compressed.grids.get(source.name) if isinstance(source, fx.Node) else None
    if grid is None or bias is None or not isinstance(encoding, AffineEncoding) or encoding.dynamic:
        return None
    least = (bias.abs().double() / (float(grid.scale) * _LARGEST)).float()
    least = least if encoding.scale.numel() == least.numel() else least.max().reshape(encoding.scale.shape)
    return least if bool((encoding.scale < least).any()) else None


def _coarsen(module: nn.Module, least: torch.Tensor) -> None:
    """Raise scales, and round the stored weight to them, in place."""
    encoding = encoding_of(module)
    if isinstance(encoding, AffineEncoding):
        encoding.scale = torch.maximum(encoding.scale, least)
        owner = carrier(module)
        owner.parametrizations["weight"].original.data.copy_(weight_of(owner))  # type: ignore[index, union-attr]
