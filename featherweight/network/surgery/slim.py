"""A network without some of its channels, beside the dense one that it came from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import nn

from featherweight.network.capture import Layer, Network, capture
from featherweight.network.channels.units import Coupling
from featherweight.network.modules import copied, replace_module
from featherweight.network.surgery.attention import NarrowAttention
from featherweight.network.surgery.removal import remove

Groups = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True)
class Slim:
    """A smaller network and what became of the dense one's channels.

    Attributes:
        dense: the network before.
        network: after; its graph holds the same calls under the same names.
        removals: unit → groups that went.
        kept: layer → output channels that stayed, as positions in the dense layer; layers that kept all are missing.
    """

    dense: Network
    network: Network
    removals: Groups = field(default_factory=dict)
    kept: Mapping[str, torch.Tensor] = field(default_factory=dict)

    @classmethod
    def whole(cls, network: Network) -> Slim:
        """Nothing removed."""
        return cls(network, network)

    def channels(self, layer: Layer, values: torch.Tensor, axis: int) -> torch.Tensor:
        """Those of the dense layer's channels that stayed."""
        kept = self.kept.get(layer.name)
        return values if kept is None else values.index_select(axis, kept.to(values.device))


def slim(network: Network, coupling: Coupling, removals: Groups) -> Slim:
    """Take groups of channels out of a network, and capture what is left.

    Args:
        network: the dense network; it stays as it is.
        coupling: of its graph.
        removals: unit → groups to remove; empty ones are left out.

    Raises:
        PlanError: a unit that isn't there, or one that would be emptied.
        ModelError: forward can't do without these channels.
    """
    wanted = {name: tuple(groups) for name, groups in removals.items() if groups}
    if not wanted:
        return Slim.whole(network)
    smaller = capture(remove(network, coupling, wanted), network.example)
    return Slim(_in_the_same_words(network, smaller), smaller, wanted, _kept(network, coupling, wanted))


def _in_the_same_words(dense: Network, smaller: Network) -> Network:
    """The dense network with the attention modules that the smaller one has: same results, and the same calls."""
    narrow = [name for name, module in smaller.module.named_modules() if isinstance(module, NarrowAttention)]
    full = [name for name in narrow if not isinstance(dense.module.get_submodule(name), NarrowAttention)]
    if not full:
        return dense
    module = copied(dense.module)
    for name in full:
        attention = module.get_submodule(name)
        if isinstance(attention, nn.MultiheadAttention):
            heads, scale = attention.num_heads, attention.head_dim**-0.5
            replace_module(module, name, NarrowAttention.narrowed(attention, heads, scale))
    return capture(module, dense.example)


def _kept(network: Network, coupling: Coupling, removals: Groups) -> dict[str, torch.Tensor]:
    gone: dict[str, set[int]] = {}
    for name, groups in removals.items():
        for producer in coupling.unit(name).producers:
            gone.setdefault(producer.node, set()).update(producer.channels[list(groups)].ravel().tolist())
    channels = {layer: _channels(layer) for layer in network.layers if gone.get(layer.node)}
    return {
        layer.name: torch.tensor([c for c in range(count) if c not in gone[layer.node]])
        for layer, count in channels.items()
    }


def _channels(layer: Layer) -> int:
    return layer.output_shape[0] if layer.geometry else layer.output_shape[-1]
