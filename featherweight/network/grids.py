"""A network whose activations carry grids, and the graph that both simulates and lowers it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
import torch.ao.quantization.fx._decomposed
from safetensors.torch import load_file, save
from torch import fx

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


def with_grids(compressed: Compressed) -> fx.GraphModule:
    """The network's graph with every gridded value rounded where it arises.

    Runs in PyTorch as a simulation of the artefact, and is what targets lower: both see the same scales.
    """
    graph_module = _shallow_copy(compressed.network.graph)
    graph = graph_module.graph
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
