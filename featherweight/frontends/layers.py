"""An exported program's weighted calls given back to modules.

A ``.pt2`` file holds operations and parameters; its classes are gone. Where a convolution, a linear layer, an embedding
or a batch normalisation owns its parameters alone, a module of PyTorch's own class takes their place under the same
name, so that whatever works on modules works on exported programs too. The function computed stays the same.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import fx, nn

_aten = torch.ops.aten


def _linear(weight: torch.Tensor, bias: bool, _: list[Any]) -> nn.Module:
    return nn.Linear(weight.shape[1], weight.shape[0], bias=bias)


def _convolution(kind: Callable[..., nn.Module]) -> Callable[[torch.Tensor, bool, list[Any]], nn.Module]:
    def make(weight: torch.Tensor, bias: bool, rest: list[Any]) -> nn.Module:
        stride, padding, dilation, groups = (rest + [1, 0, 1, 1][len(rest) :])[:4]
        if isinstance(padding, list):
            padding = tuple(padding)
        return kind(
            weight.shape[1] * groups, weight.shape[0], tuple(weight.shape[2:]), _size(stride), padding, _size(dilation),
            groups, bias,
        )  # fmt: skip

    return make


def _size(value: Any) -> Any:
    return (
        tuple(value) if isinstance(value, list) and len(value) > 1 else value[0] if isinstance(value, list) else value
    )


_WEIGHTED: Mapping[object, Callable[[torch.Tensor, bool, list[Any]], nn.Module]] = {
    _aten.linear.default: _linear,
    _aten.conv1d.default: _convolution(nn.Conv1d),
    _aten.conv1d.padding: _convolution(nn.Conv1d),
    _aten.conv2d.default: _convolution(nn.Conv2d),
    _aten.conv2d.padding: _convolution(nn.Conv2d),
    _aten.conv3d.default: _convolution(nn.Conv3d),
    _aten.conv3d.padding: _convolution(nn.Conv3d),
}
_NORMS: Mapping[int, Callable[..., nn.Module]] = {
    2: nn.BatchNorm1d,
    3: nn.BatchNorm1d,
    4: nn.BatchNorm2d,
    5: nn.BatchNorm3d,
}


def _owner(graph: fx.GraphModule, nodes: list[fx.Node | None], allowed: set[str]) -> str | None:
    """The name of the container that holds these parameters and nothing else; None where there is none."""
    present = [node for node in nodes if node is not None]
    if any(node.op != "get_attr" or len(node.users) != 1 for node in present):
        return None
    owners = {str(node.target).rpartition(".")[0] for node in present}
    if len(owners) != 1 or "" in owners:
        return None
    (name,) = owners
    container = graph.get_submodule(name)
    held = {*dict(container.named_parameters()), *dict(container.named_buffers())}
    names = {str(node.target).rpartition(".")[2] for node in present}
    return name if held - {"num_batches_tracked"} == names <= allowed else None


def _replacement(graph: fx.GraphModule, node: fx.Node) -> tuple[str, nn.Module] | None:
    args: list[Any] = list(node.args)
    if node.target in _WEIGHTED:
        bias = args[2] if len(args) > 2 else None
        name = _owner(graph, [args[1], bias], {"weight", "bias"})
        if name is None:
            return None
        weight = graph.get_submodule(name).weight
        if not isinstance(weight, torch.Tensor):
            return None
        return name, _WEIGHTED[node.target](weight, bias is not None, args[3:])
    if node.target is _aten.batch_norm.default and args[5] is False and all(args[1:5]):
        name = _owner(graph, args[1:5], {"weight", "bias", "running_mean", "running_var"})
        rank = node.meta["val"].ndim
        return None if name is None else (name, _NORMS[rank](args[1].meta["val"].shape[0], eps=args[7]))
    return None


def with_layers(graph: fx.GraphModule) -> fx.GraphModule:
    """Put modules of PyTorch's own classes behind the weighted calls of an exported program's module, in place."""
    for node in list(graph.graph.nodes):
        found = _replacement(graph, node) if node.op == "call_function" else None
        if found is None:
            continue
        name, module = found
        old = graph.get_submodule(name)
        state = {key: value for key, value in old.state_dict().items() if key in module.state_dict()}
        module.to(next(iter(state.values())).dtype).load_state_dict(state, strict=False)
        parent, _, child = name.rpartition(".")
        setattr(graph.get_submodule(parent), child, module.eval())
        with graph.graph.inserting_before(node):
            call = graph.graph.call_module(name, (node.args[0],))
        call.meta = dict(node.meta)
        node.replace_all_uses_with(call)
        graph.graph.erase_node(node)
    graph.graph.eliminate_dead_code()
    graph.recompile()
    return graph
