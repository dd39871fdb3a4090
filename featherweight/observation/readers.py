"""The layers that read a coupled unit's channels, with what was seen of their inputs."""

from __future__ import annotations

import math

import torch

from featherweight.network.capture import Network
from featherweight.network.channels import ChannelUnit, LayerChannels
from featherweight.network.modules import weight_of
from featherweight.numerics.elimination import Consumer
from featherweight.observation.evidence import Evidence


def readers_of(network: Network, unit: ChannelUnit, evidence: Evidence) -> dict[str, Consumer]:
    """Layer → what its weight does with the unit's groups, for observed consumers; each weighed by one over its energy.

    Grouped convolutions read every channel in a part of their rows only and are left out.
    """
    by_node = {layer.node: layer for layer in network.layers}
    found = {}
    for consumer in unit.consumers:
        layer = by_node.get(consumer.node)
        if layer is None or layer.groups > 1 or layer.name not in evidence.layers:
            continue
        weight = weight_of(network.module.get_submodule(layer.name))
        covariance = evidence.layers[layer.name].covariance[0]
        rows = weight.flatten(1).double()
        energy = float(((rows @ covariance) * rows).sum())
        found[layer.name] = Consumer(rows, covariance, _columns(consumer, weight), 1.0 / max(energy, 1e-30))
    return found


def _columns(consumer: LayerChannels, weight: torch.Tensor) -> torch.Tensor:
    """The columns of a consumer's flattened weight that go with every group, (groups, c)."""
    kernel = math.prod(weight.shape[2:])
    channels = torch.from_numpy(consumer.channels)
    return (channels.unsqueeze(2) * kernel + torch.arange(kernel)).flatten(1)
