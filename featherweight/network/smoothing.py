"""Where scale can move from activations into the weights that read them, and moving it there.

A positive scale of a channel passes through ReLU, pooling and dropout. So where all that reads a value are layers, what
puts it out may be divided by a scale for every channel, and the weights that read it multiplied: the network computes
what it did (SmoothQuant, Xiao et al. 2023, arXiv:2211.10438). What can be divided: a layer's own weight and bias, and
those of a normalisation.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import fx, nn

from featherweight.network.capture import Layer, Network, capture
from featherweight.network.equalizing import SCALES_PASS, can_be_scaled
from featherweight.network.modules import bias_of, copied, set_bias, set_weight, weight_of

_aten = torch.ops.aten
_NORMS: Mapping[object, tuple[int, tuple[type[nn.Module], ...]]] = {
    _aten.layer_norm.default: (2, (nn.LayerNorm,)),
    _aten.batch_norm.default: (1, (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)),
}


@dataclass(frozen=True, slots=True)
class Site:
    """A value that scale can leave.

    Attributes:
        producer: the module that puts it out: a layer or a normalisation.
        readers: names of the layers that read it, all there are.
    """

    producer: str
    readers: tuple[str, ...]


def sites_of(network: Network) -> tuple[Site, ...]:
    """Every value of the network that scale can leave, in execution order."""
    layers = {layer.node: layer for layer in network.layers if layer.replaceable}
    found = []
    for node in network.graph.graph.nodes:
        producer = _producer(network, node, layers)
        readers = list(_readers(node, layers)) if producer else []
        whole = bool(readers) and all(reader is not None for reader in readers)
        names = tuple(reader.name for reader in readers if reader is not None)
        if whole and producer not in names:
            found.append(Site(producer, names))
    return tuple(found)


def scaled(network: Network, scales: Mapping[str, torch.Tensor]) -> Network:
    """The network with what some producers put out divided, channel by channel; outputs agree to float rounding.

    Args:
        network: stays as it is.
        scales: producer of a site → (channels,), positive.
    """
    if not scales:
        return network
    module = copied(network.module)
    for site in sites_of(network):
        if site.producer not in scales:
            continue
        scale = scales[site.producer].double()
        owner = module.get_submodule(site.producer)
        set_weight(owner, weight_of(owner).double() / scale.view(-1, *[1] * (weight_of(owner).ndim - 1)))
        bias = bias_of(owner)
        if bias is not None:
            set_bias(owner, bias.double() / scale)
        for name in site.readers:
            reader = module.get_submodule(name)
            shape = (1, -1, *[1] * (weight_of(reader).ndim - 2))
            set_weight(reader, weight_of(reader).double() * scale.view(shape))
    return capture(module, network.example)


def _producer(network: Network, node: fx.Node, layers: Mapping[str, Layer]) -> str:
    """The module whose weight scales what a node puts out, channel by channel; empty where there is none."""
    if node.name in layers:
        return layers[node.name].name if can_be_scaled(layers[node.name]) else ""
    entry = _NORMS.get(node.target) if node.op == "call_function" else None
    weight = node.args[entry[0]] if entry is not None and len(node.args) > entry[0] else None
    if entry is None or not isinstance(weight, fx.Node) or weight.op != "get_attr" or len(weight.users) != 1:
        return ""
    name = str(weight.target).rpartition(".")[0]
    owner = network.module.get_submodule(name)
    return name if type(owner) in entry[1] and weight_of(owner).ndim == 1 else ""


def _readers(node: fx.Node, layers: Mapping[str, Layer]) -> Iterator[Layer | None]:
    """Everything that reads a node's value, through what scale passes; None stands for what can't take scale."""
    last = _channels_last(node)
    for after in node.users:
        first = bool(after.args) and after.args[0] is node and after.all_input_nodes.count(node) == 1
        layer = layers.get(after.name)
        if layer is not None:
            takes = first and layer.groups == 1 and can_be_scaled(layer)
            yield layer if takes and (layer.geometry is None) == last else None
        elif first and after.target in SCALES_PASS and not (last and "pool" in str(after.target)):
            yield from _readers(after, layers)
        else:
            yield None


def _channels_last(node: fx.Node) -> bool:
    """Whether a value's channels are its last axis: that of vectors, and of what isn't an image."""
    while node.target in SCALES_PASS:
        node = node.all_input_nodes[0]
    return "conv" not in str(node.target) and (
        node.target is not _aten.batch_norm.default or node.meta["val"].ndim == 2
    )
