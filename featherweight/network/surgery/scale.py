"""Attention logits keep their scale when heads get narrower.

``scaled_dot_product_attention`` and hand-written attention divide by the square root of the *current* head width, so
narrower heads would get larger logits than the original. The queries' weights take the ratio, which is exact.
"""

from __future__ import annotations

import logging
import math
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import fx, nn

from featherweight.contracts import ModelError
from featherweight.network.channels.trace import describe_origin, state_name
from featherweight.network.channels.units import Cut
from featherweight.network.surgery.attributes import module_path
from featherweight.network.surgery.literals import kept, named_arguments, operation, shape_of
from featherweight.network.surgery.silence import Reweighted
from featherweight.network.surgery.trial import Subject

_PRODUCTS = frozenset(("matmul", "bmm", "einsum", "baddbmm"))
_SCALINGS = frozenset(("mul", "div"))
_WEIGHTED = frozenset(("linear", "addmm", "mm", "matmul", "layer_norm", "rms_norm", "conv1d", "conv2d", "conv3d"))
_REMEDY = "leave the width of these heads as it is (remove whole heads instead)"


def rescale(subject: Subject, module: nn.Module, cut: Cut) -> None:
    """Multiply the queries' weights of narrower heads so that the logits keep their scale; in place.

    Args:
        subject: the original network; its weights only show which rows reach the queries.
        module: the smaller network.
        cut: what went.

    Raises:
        ModelError: the scale can't be followed back to the queries' weights.
    """
    ratios = dict(_fused(subject.graph, module, cut))
    if any(_narrowed_product(node, cut) for node in subject.graph.graph.nodes):
        ratios |= {_query(node): ratio for node, ratio in _written_out(subject, module).items()}
    for node, ratio in ratios.items():
        _scale_source(subject, module, cut, node, ratio)


def _own_scale(node: fx.Node, module: nn.Module) -> bool:
    """Whether the call was made by PyTorch's attention, whose replacement keeps its scale itself."""
    path = module_path(node)
    return path is not None and isinstance(module.get_submodule(path), nn.MultiheadAttention)


def _fused(graph: fx.GraphModule, module: nn.Module, cut: Cut) -> Iterator[tuple[fx.Node, float]]:
    """Queries of fused attention without a scale of its own, with the factor that they need."""
    for node in graph.graph.nodes:
        if operation(node) != "scaled_dot_product_attention" or _own_scale(node, module):
            continue
        arguments = named_arguments(node)
        query = arguments["query"]
        mask = kept(cut, query, len(shape_of(query)) - 1)
        if arguments.get("scale") is None and mask is not None:
            yield query, math.sqrt(mask.sum() / len(mask))


def _narrowed_product(node: fx.Node, cut: Cut) -> bool:
    """Whether a product of two activations sums over an axis that got shorter."""
    if operation(node) not in _PRODUCTS or any(state_name(source) for source in node.all_input_nodes):
        return False
    return any(kept(cut, source, dim) is not None for source in node.all_input_nodes for dim in (-1, -2))


def _written_out(subject: Subject, module: nn.Module) -> dict[fx.Node, float]:
    """Scalings whose constant changed with the width, found by exporting the smaller network."""
    before = [node for node in subject.graph.graph.nodes if operation(node) in _SCALINGS]
    after = [node for node in _export(module, subject.example).graph.nodes if operation(node) in _SCALINGS]
    before = [node for node in before if not _own_scale(node, module)]
    after = [node for node in after if not _own_scale(node, module)]
    if len(before) != len(after):
        raise ModelError("Removing channels must not change the steps of forward.", "another graph", _REMEDY)
    ratios: dict[fx.Node, float] = {}
    for old, new in zip(before, after, strict=True):
        for was, now in zip(old.args, new.args, strict=True):
            if isinstance(was, (int, float)) and isinstance(now, (int, float)) and was != now:
                ratios[old] = was / now if operation(old) == "mul" else now / was
    return ratios


def _export(module: nn.Module, example: Sequence[torch.Tensor]) -> fx.GraphModule:
    logging.getLogger("torch.export").setLevel(logging.ERROR)
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # torch's own notes about recurrent layers
        shapes = tuple({0: torch.export.Dim.DYNAMIC} for _ in example)
        try:
            return torch.export.export(module, tuple(example), dynamic_shapes=shapes).module()
        except Exception as error:  # torch.export has no error class of its own
            text = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise ModelError("The smaller network must be traceable by torch.export.", text, _REMEDY) from error


class _Reach(Reweighted):
    """Runs the graph and keeps the results of some weighted calls as leaves."""

    def __init__(self, subject: Subject, stops: set[fx.Node]) -> None:
        super().__init__(subject.graph, subject.weights, keep_values=True)
        self.stops = stops
        self.leaves: dict[fx.Node, torch.Tensor] = {}

    def run_node(self, n: fx.Node) -> Any:
        if n.op == "output":
            return None
        result = super().run_node(n)
        if n in self.stops:
            result = result.detach().requires_grad_()
            self.leaves[n] = result
        return result


def _weighted(node: fx.Node) -> bool:
    return operation(node) in _WEIGHTED and any(state_name(source) for source in node.all_input_nodes)


def _query(node: fx.Node) -> fx.Node:
    """Where scaled logits come from: the first factor of their product; scaled queries are what they are."""
    current = node
    while current.all_input_nodes and not _weighted(current):
        if operation(current) in _PRODUCTS:
            return current.all_input_nodes[0]
        current = current.all_input_nodes[0]
    return node


def _sources(node: fx.Node) -> set[fx.Node]:
    """The nearest weighted calls that a value comes from."""
    found: set[fx.Node] = set()
    stack = [node]
    while stack:
        current = stack.pop()
        if _weighted(current):
            found.add(current)
        else:
            stack += current.all_input_nodes
    return found


def _scale_source(subject: Subject, module: nn.Module, cut: Cut, query: fx.Node, ratio: float) -> None:
    """Scale what the queries come from; the rows of it that reach them are those with a gradient."""
    stops = _sources(query)
    if not stops:
        raise ModelError("Narrower heads must get their logits from weights.", describe_origin(query), _REMEDY)
    reach = _Reach(subject, stops)
    with torch.enable_grad():
        reach.run(*subject.example)
        reach.env[query].square().sum().backward()
    for stop in stops:
        gradient = reach.leaves[stop].grad
        if gradient is not None:
            rows = gradient.movedim(_channel(stop), -1).flatten(0, -2).abs().sum(0) > 0
            _scale_rows(module, cut, stop, rows, ratio)


def _channel(node: fx.Node) -> int:
    """The axis of a weighted call's result that its rows make."""
    return 1 if operation(node).startswith("conv") else -1


def _scale_rows(module: nn.Module, cut: Cut, node: fx.Node, rows: torch.Tensor, ratio: float) -> None:
    """Scale these outputs of a weighted call (rows of its weight and bias), as far as they are still there."""
    mask = kept(cut, node, _channel(node))
    if mask is not None:
        rows = rows[torch.from_numpy(mask).to(rows.device)]
    factor = torch.ones(len(rows), dtype=torch.float64, device=rows.device).masked_fill(rows, ratio)
    arguments = named_arguments(node)
    bias = "self" if operation(node) == "addmm" else "bias"
    weight = next(name for name in ("weight", "mat2", "other") if name in arguments)
    for name, axis in ((weight, -1 if weight in ("mat2", "other") else 0), (bias, 0)):
        state = arguments.get(name)
        if state is None:
            continue
        if state.op != "get_attr":
            raise ModelError("The queries' weights must be plain parameters.", describe_origin(node), _REMEDY)
        parameter = module.get_parameter(str(state.target))
        shape = [1] * parameter.ndim
        shape[axis] = -1
        with torch.no_grad():
            parameter.mul_(factor.to(parameter).view(shape))


__all__ = ["rescale"]
