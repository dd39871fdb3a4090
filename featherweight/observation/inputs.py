"""Looking at what layers read while a graph runs."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable

import torch
from torch import fx

from featherweight.network.capture import Layer, Network


class InputWatch(fx.Interpreter, ABC):
    """Runs a network's graph and hands every chosen layer's input to :meth:`see`.

    Args:
        network: whose graph is run.
        layers: those that are looked at.
        seed: of the generator that samples are drawn with.
    """

    def __init__(self, network: Network, layers: Iterable[Layer], seed: int) -> None:
        super().__init__(network.graph)
        self.layers = {layer.node: layer for layer in layers}
        self.generator = torch.Generator().manual_seed(seed)

    def run_node(self, n: fx.Node) -> object:
        """Run a node; a layer's input is seen before."""
        layer = self.layers.get(n.name)
        if layer is not None:
            args, _ = self.fetch_args_kwargs_from_env(n)
            self.see(layer, args[0])
        return super().run_node(n)

    @abstractmethod
    def see(self, layer: Layer, x: torch.Tensor) -> None:
        """Take from a layer's input of one batch what is wanted."""
