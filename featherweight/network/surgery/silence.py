"""The masked reference: the original network with channels silenced, against which every removal is checked.

It runs the original graph. After every operation, what belongs to a removed channel is set to zero, weights included.
Operations that normalise or reduce over channels (layer, group and RMS norm, means, maxima, softmax) run over the kept
channels only; every other operation runs at its full size. It never sees the smaller network.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import fx, nn

from featherweight.network.channels.units import Coupling, Cut, Removals
from featherweight.network.surgery.literals import operation, rewritten

_OVER_KEPT = frozenset(
    (
        "layer_norm", "rms_norm", "group_norm", "mean", "amax", "amin", "max", "min", "median", "softmax",
        "log_softmax", "logsumexp", "var", "std", "prod", "any", "all",
    )
)  # fmt: skip


class Silenced(nn.Module):
    """A network with some channels silenced; same inputs, same outputs, same sizes as the original."""

    def __init__(self, graph: fx.GraphModule, cut: Cut, weights: Mapping[str, torch.Tensor]) -> None:
        super().__init__()
        self.graph = graph
        self._cut, self._weights = cut, weights

    def forward(self, *inputs: torch.Tensor) -> Any:
        """The original's forward, masked."""
        return _Masking(self.graph, self._weights, self._cut).run(*inputs)


class Reweighted(fx.Interpreter):
    """Runs a graph with other tensors in place of some of its attributes."""

    def __init__(self, graph: fx.GraphModule, weights: Mapping[str, torch.Tensor], keep_values: bool = False) -> None:
        super().__init__(graph, garbage_collect_values=not keep_values)
        self._weights = weights

    def fetch_attr(self, target: str) -> Any:
        """The tensor given for an attribute, else the graph's own."""
        return self._weights[target] if target in self._weights else super().fetch_attr(target)


class _Masking(Reweighted):
    def __init__(self, graph: fx.GraphModule, weights: Mapping[str, torch.Tensor], cut: Cut) -> None:
        super().__init__(graph, weights)
        self._cut = cut

    def run_node(self, n: fx.Node) -> Any:
        over_kept = n.op == "call_function" and operation(n) in _OVER_KEPT
        result = self._narrow(n) if over_kept else super().run_node(n)
        return self._masked(n, result)

    def _masked(self, node: fx.Node, result: Any) -> Any:
        if isinstance(result, torch.Tensor):
            for dim, size in enumerate(result.shape):
                mask = self._cut.keep(node.name, dim, size)
                if mask is not None:
                    shape = [1] * result.ndim
                    shape[dim] = size
                    keep = torch.from_numpy(mask).to(result.device).view(shape)
                    result = torch.where(keep, result, torch.zeros((), dtype=result.dtype, device=result.device))
        return result

    def _narrow(self, node: fx.Node) -> Any:
        """Run on the kept channels alone, then put the results back between zeros."""
        full = super().run_node(node)
        values = {name: self._kept(argument) for name, argument in rewritten(self._cut, node).items()}
        result = node.target(**values)  # type: ignore[operator]  # an ATen overload
        if isinstance(result, torch.Tensor):
            return self._spread(node, 0, result, full)
        return tuple(self._spread(node, number, part, full[number]) for number, part in enumerate(result))

    def _kept(self, argument: Any) -> Any:
        if not isinstance(argument, fx.Node):
            return argument
        value = self.env[argument]
        if isinstance(value, torch.Tensor):
            for dim, size in enumerate(value.shape):
                mask = self._cut.keep(argument.name, dim, size)
                if mask is not None:
                    value = value.index_select(dim, torch.from_numpy(np.flatnonzero(mask)).to(value.device))
        return value

    def _spread(self, node: fx.Node, number: int, result: torch.Tensor, full: torch.Tensor) -> torch.Tensor:
        for dim, size in enumerate(full.shape):
            mask = self._cut.keep_along(self._cut.axes(node.name, dim, number), size)
            if mask is not None:
                shape = [*result.shape[:dim], size, *result.shape[dim + 1 :]]
                index = torch.from_numpy(np.flatnonzero(mask)).to(result.device)
                result = result.new_zeros(shape).index_copy(dim, index, result)
        return result


def silence(
    graph: fx.GraphModule, coupling: Coupling, removals: Removals, weights: Mapping[str, torch.Tensor] | None = None
) -> Silenced:
    """The original network with these groups silenced.

    Args:
        graph: the ATen graph that ``coupling`` was found on.
        coupling: from ``analyse``.
        removals: unit name → groups.
        weights: graph attribute → a tensor to use in its place.
    """
    return Silenced(graph, Cut(coupling, removals), weights or {})
