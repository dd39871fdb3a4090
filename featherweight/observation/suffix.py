"""The rest of a network behind one layer: a change there costs only what comes after it.

One interpreter advances through the dense graph in execution order and holds the live values alone. At a layer, the
rest of the graph is run from a copy of these values with another module in the layer's place. Asking for layers in
execution order walks the dense graph once; going back starts it anew.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import fx, nn

from featherweight.contracts import Cost
from featherweight.network.capture import writes

FEWEST_SAMPLES, MOST_SAMPLES = 32, 128
_MACS_PER_PASS = 10_000_000_000


def anchor_samples(cost: Cost, available: int) -> int:
    """How many samples a measurement of the network's outputs takes: as many as 10 GMACs pay for, 32 to 128.

    Divergences order options and are means over samples that both networks see, so that their noise falls with the
    root of the count: 128 are plenty, and 32 still tell options apart that differ by more than a plan's own error.
    Bounding the work of a pass keeps the many passes of a table affordable for networks of any size.

    Args:
        cost: of the network for one sample.
        available: how many samples there are.
    """
    paid = _MACS_PER_PASS // max(cost.macs, 1)
    return min(available, max(FEWEST_SAMPLES, min(MOST_SAMPLES, paid)))


class Suffix:
    """A network's outputs with one layer changed, from the layer on.

    Memory: the live activations of ``inputs`` at one layer, and those of the pass from there on.

    Args:
        graph: of the dense network.
        inputs: samples, all at once.
    """

    def __init__(self, graph: fx.GraphModule, inputs: tuple[torch.Tensor, ...]) -> None:
        self._graph, self._inputs = graph, inputs
        self._nodes = list(graph.graph.nodes)
        self._places = {node.name: place for place, node in enumerate(self._nodes)}
        self._shared = not any(map(writes, self._nodes))
        self._start()

    def _start(self) -> None:
        self._walker, self._at = fx.Interpreter(self._graph), 0
        self._walker.args_iter = iter(self._inputs if self._shared else copy.deepcopy(self._inputs))

    def _move(self, place: int) -> None:
        if place < self._at:
            self._start()
        for node in self._nodes[self._at : place]:
            self._walker.env[node] = self._walker.run_node(node)
            self._forget(node, self._walker.env)
        self._at = place

    def _forget(self, node: fx.Node, values: dict[fx.Node, Any]) -> None:
        for done in self._walker.user_to_last_uses.get(node, []):
            del values[done]

    def _live(self) -> dict[fx.Node, Any]:
        """The live values; copies, views of one another still, where an operation further on writes into its input."""
        live = dict(self._walker.env)
        if not self._shared:
            own = [node for node in live if node.op != "get_attr"]
            live.update(zip(own, copy.deepcopy([live[node] for node in own]), strict=True))
        return live

    def outputs(self, name: str, module: nn.Module) -> torch.Tensor:
        """The network's outputs with a module, fed with the layer's input, in the place of the node of that name."""
        with torch.no_grad():
            self._move(self._places[name])
            node, values = self._nodes[self._at], self._live()
            values[node] = module(values[node.args[0]])  # type: ignore[index]
            self._forget(node, values)
            done = dict.fromkeys(self._nodes[: self._at + 1])  # what no one reads any more is done too
            return fx.Interpreter(self._graph).run(*self._inputs, initial_env=done | values)
