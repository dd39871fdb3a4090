"""A network whose activations carry grids, and the graph that both simulates and lowers it."""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
import torch.ao.quantization.fx._decomposed
from safetensors.torch import load_file, save
from torch import fx
from torch.fx.node import map_arg

from featherweight.files import write_atomically
from featherweight.network.capture import Network
from featherweight.numerics.affine import AffineGrid

_q = torch.ops.quantized_decomposed


@dataclass(frozen=True)
class Compressed:
    """A network as it will ship: encoded weights on its module, and the grids of its activations.

    Attributes:
        network: the compressed network; its weights carry their encodings.
        grids: graph node → grid of its value, where it lies on one.
    """

    network: Network
    grids: Mapping[str, AffineGrid] = field(default_factory=dict)


def _shallow_copy(module: fx.GraphModule) -> fx.GraphModule:
    """A graph of its own over the same parameters."""
    graph = fx.Graph()
    places: dict[fx.Node, fx.Node] = {}
    result = graph.graph_copy(module.graph, places)
    graph.output(result)
    graph.set_codegen(module.graph._codegen)
    return fx.GraphModule(module, graph)


def _settle_values(module: fx.GraphModule) -> None:
    """Put the value in the place of every operation on constants alone that no target has a type for; in place.

    Masks and codebooks are such: the file holds the values that they make. Grids and casts to half stay.
    """
    fixed: dict[fx.Node, torch.Tensor] = {}
    graph = module.graph
    for node in list(graph.nodes):
        if node.target is torch.ops.aten._assert_tensor_metadata.default:
            graph.erase_node(node)  # holds by construction, and would keep what it looks at alive
        elif node.op == "get_attr":
            value = functools.reduce(getattr, str(node.target).split("."), module)
            if isinstance(value, torch.Tensor):
                fixed[node] = value.detach()
        elif _settles(node, fixed):
            args, kwargs = (map_arg(part, lambda one: fixed[one]) for part in (node.args, node.kwargs))
            value = node.target(*args, **kwargs)
            if not isinstance(value, torch.Tensor):
                continue  # a list of parts, or a size
            fixed[node] = value
            name = f"_settled_{node.name}"
            module.register_buffer(name, fixed[node])
            with graph.inserting_before(node):
                constant = graph.get_attr(name)
            fixed[constant] = fixed[node]
            node.replace_all_uses_with(constant)
    graph.eliminate_dead_code()


def _halves(node: fx.Node, fixed: Mapping[fx.Node, torch.Tensor]) -> bool:
    """Whether a cast leads to float16 or back."""
    return torch.float16 in node.args or any(
        one in fixed and fixed[one].dtype == torch.float16 for one in node.all_input_nodes
    )


def _settles(node: fx.Node, fixed: Mapping[fx.Node, torch.Tensor]) -> bool:
    if node.op != "call_function" or not isinstance(node.target, torch._ops.OpOverload) or not node.users:
        return False
    kept = node.target.namespace == "quantized_decomposed" or _halves(node, fixed)
    sources = node.all_input_nodes
    return not kept and bool(sources) and all(one in fixed for one in sources)


def with_grids(compressed: Compressed) -> fx.GraphModule:
    """The network's graph with every gridded value rounded where it arises.

    Runs in PyTorch as a simulation of the artefact, and is what targets lower: both see the same scales.
    """
    graph_module = _shallow_copy(compressed.network.graph)
    graph = graph_module.graph
    _settle_values(graph_module)
    for node in list(graph.nodes):
        grid = compressed.grids.get(node.name)
        if grid is None:
            continue
        users = list(node.users)
        levels = (*grid.describe(), torch.int8)
        with graph.inserting_after(node):
            quantized = graph.call_function(_q.quantize_per_tensor.default, (node, *levels))
        with graph.inserting_after(quantized):
            restored = graph.call_function(_q.dequantize_per_tensor.default, (quantized, *levels))
        for user in users:
            user.replace_input_with(node, restored)
    graph.lint()
    graph_module.recompile()
    return graph_module


def save_compressed(compressed: Compressed, folder: Path) -> None:
    """Write state and grids: ``state.safetensors`` and ``grids.json``. Structure is the plan's to tell."""
    tensors = {name: tensor.contiguous() for name, tensor in compressed.network.module.state_dict().items()}
    write_atomically(folder / "state.safetensors", save(tensors))
    grids = {node: grid.describe() for node, grid in compressed.grids.items()}
    write_atomically(folder / "grids.json", json.dumps(grids, indent=1) + "\n")


def load_state(folder: Path) -> dict[str, torch.Tensor]:
    """The state that :func:`save_compressed` wrote."""
    return load_file(folder / "state.safetensors")


def load_grids(folder: Path) -> dict[str, AffineGrid]:
    """The grids that :func:`save_compressed` wrote."""
    rows = json.loads((folder / "grids.json").read_text())
    return {node: AffineGrid.from_description(row) for node, row in rows.items()}
