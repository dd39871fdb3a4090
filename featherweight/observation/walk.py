"""The walk: dense and compressed side by side, in execution order.

Two interpreters run in step, one over the dense graph and one over the graph that is being compressed, which holds the
same calls and may have fewer channels. At a weighted layer a visitor is shown what the dense network puts out there
and what the compressed prefix gives, and answers with the module that computes the compressed output from there on. So
a layer can be refit to what the *dense* network put out, from the inputs that the *compressed* prefix really gives:
errors are repaired as they arise instead of adding up. Where a layer's output is added to a shortcut, what it should
put out is what the sum lacks, so that an error that came down the shortcut is repaired too.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx, nn

from featherweight.contracts import ModelError
from featherweight.network.capture import Layer, Network
from featherweight.network.surgery import Slim

_SUMS = (torch.ops.aten.add.Tensor, torch.ops.aten.add_.Tensor)


@dataclass(frozen=True)
class Passage:
    """What a visitor is shown at a layer.

    Attributes:
        layer: of the compressed graph, widths included.
        given: the input that the compressed prefix gives.
        target: what the layer should put out: the dense output, without the channels that went, and with what the
            shortcut that it is added to lacks; None where the layer's channels can't be told from the dense ones.
    """

    layer: Layer
    given: torch.Tensor
    target: torch.Tensor | None


Visitor = Callable[[Passage], nn.Module | None]


def _shortcut_of(node: fx.Node) -> fx.Node | None:
    """The other side of the plain sum that a node's value goes into and nowhere else; None where there is none."""
    users = list(node.users)
    if len(users) != 1 or users[0].target not in _SUMS or users[0].kwargs or len(users[0].all_input_nodes) != 2:
        return None
    return next(source for source in users[0].all_input_nodes if source is not node)


class _Side(fx.Interpreter):
    """One of the two: runs node by node, and forgets a value after its last use."""

    def __init__(self, graph: fx.GraphModule, inputs: tuple[torch.Tensor, ...]) -> None:
        super().__init__(graph)
        self.args_iter = iter(inputs)

    def advance(self, node: fx.Node, module: nn.Module | None = None) -> Any:
        """Run the node, or a module on its first argument, and keep the result."""
        result = self.run_node(node) if module is None else module(self.env[node.args[0]])  # type: ignore[index]
        self.env[node] = result
        return result

    def forget(self, node: fx.Node) -> None:
        """Drop what this node was the last to use."""
        for done in self.user_to_last_uses.get(node, []):
            del self.env[done]


def _in_step(dense: Network, smaller: Network) -> list[tuple[fx.Node, fx.Node]]:
    pairs = list(zip(dense.graph.graph.nodes, smaller.graph.graph.nodes, strict=False))
    if len(dense.graph.graph.nodes) != len(smaller.graph.graph.nodes) or any(a.name != b.name for a, b in pairs):
        odd = next((f"{a.name} became {b.name}" for a, b in pairs if a.name != b.name), "one has more operations")
        raise ModelError(
            "A network must run the same operations at every width.",
            f"its forward branches on the number of channels: {odd}",
            "take the branch out of forward, or keep these channels",
        )
    return pairs


def walk(slim: Slim, inputs: tuple[torch.Tensor, ...], visit: Visitor) -> tuple[torch.Tensor, torch.Tensor]:
    """Run both networks side by side.

    Args:
        slim: the dense network, beside the one that the compressed side starts from.
        inputs: calibration samples, all at once: memory is twice the live activations.
        visit: called at every layer that can be replaced, embeddings excepted, in execution order; the module it
            answers with computes the compressed output, and None keeps the layer as it is.

    Returns:
        The dense and the compressed output.

    Raises:
        ModelError: the two don't run the same operations.
    """
    layers = {layer.node: layer for layer in slim.network.layers if layer.kind != "embedding" and layer.replaceable}
    left, right = _Side(slim.dense.graph, inputs), _Side(slim.network.graph, inputs)
    results = (torch.empty(0), torch.empty(0))
    with torch.no_grad():
        for there, here in _in_step(slim.dense, slim.network):
            output = left.advance(there)
            module = None
            if here.name in layers:
                layer = layers[here.name]
                target = _target(slim, layer, _values(left, there), _values(right, here)[1:])
                module = visit(Passage(layer, right.env[here.args[0]], target))  # type: ignore[index]
            results = (output, right.advance(here, module))
            left.forget(there)
            right.forget(here)
    first, second = (result[0] if isinstance(result, tuple) else result for result in results)
    return first, second


def _values(side: _Side, node: fx.Node) -> list[Any]:
    """What the node put out, where it did, and what that is added to, where it is there already."""
    other = _shortcut_of(node)
    return [side.env.get(node), None if other is None else side.env.get(other)]


def _target(slim: Slim, layer: Layer, dense: list[Any], compressed: list[Any]) -> torch.Tensor | None:
    output, there = dense
    axis = 1 if layer.geometry else output.ndim - 1
    target = slim.channels(layer, output, axis)
    channels = layer.output_shape[0] if layer.geometry else layer.output_shape[-1]
    if target.shape[axis] != channels:
        return None
    (here,) = compressed
    if not (isinstance(there, torch.Tensor) and isinstance(here, torch.Tensor)) or there.shape != output.shape:
        return target
    there = slim.channels(layer, there, axis)
    return target + (there - here) if there.shape == here.shape else target
