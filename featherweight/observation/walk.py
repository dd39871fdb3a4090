"""The walk: dense and compressed side by side, in execution order.

One interpreter runs the dense graph on pairs of values. At a weighted layer a visitor is shown the dense output and
the compressed input and answers with the module that computes the compressed output from there on. So a layer can be
refit to what the *dense* network put out, from the inputs that the *compressed* prefix really gives, shortcuts
included: errors are repaired as they arise instead of adding up.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import fx, nn
from torch.fx.node import map_aggregate

from featherweight.network.capture import Layer, Network

Visitor = Callable[[Layer, torch.Tensor, torch.Tensor], nn.Module | None]


class _Pair:
    """A value of the dense network and the same value of the compressed one."""

    __slots__ = ("compressed", "dense")

    def __init__(self, dense: Any, compressed: Any) -> None:
        self.dense, self.compressed = dense, compressed


class _Walker(fx.Interpreter):
    def __init__(self, network: Network, visit: Visitor) -> None:
        super().__init__(network.graph)
        self.layers = {layer.node: layer for layer in network.layers}
        self.visit = visit

    def run_node(self, n: fx.Node) -> Any:
        if n.op == "placeholder":
            value = super().run_node(n)
            return _Pair(value, value)
        if n.op == "output":
            return super().run_node(n)
        args, kwargs = self.fetch_args_kwargs_from_env(n)
        dense = getattr(self, n.op)(n.target, _side(args, "dense"), _side(kwargs, "dense"))
        layer = self.layers.get(n.name)
        if layer is not None and layer.kind != "embedding":
            compressed_input = _side(args[0], "compressed")
            module = self.visit(layer, dense, compressed_input)
            if module is not None:
                return _Pair(dense, module(compressed_input))
        if not _has_pair((args, kwargs)):
            return dense
        return _Pair(dense, getattr(self, n.op)(n.target, _side(args, "compressed"), _side(kwargs, "compressed")))


def _side(tree: Any, which: str) -> Any:
    return map_aggregate(tree, lambda value: getattr(value, which) if isinstance(value, _Pair) else value)


def _has_pair(tree: Any) -> bool:
    found: list[bool] = []
    map_aggregate(tree, lambda value: found.append(True) if isinstance(value, _Pair) else None)
    return bool(found)


def walk(network: Network, inputs: tuple[torch.Tensor, ...], visit: Visitor) -> tuple[torch.Tensor, torch.Tensor]:
    """Run both networks side by side.

    Args:
        network: the dense network.
        inputs: calibration samples, all at once: memory is twice the live activations.
        visit: called as ``visit(layer, dense_output, compressed_input)`` in execution order; the module it answers with
            computes the compressed output, and None keeps the dense layer.

    Returns:
        The dense and the compressed output.
    """
    with torch.no_grad():
        result = _Walker(network, visit).run(*inputs)
    if isinstance(result, tuple):
        (result,) = result
    return result.dense, result.compressed
