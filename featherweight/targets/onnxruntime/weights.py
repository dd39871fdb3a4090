"""Encoded weights in an ONNX graph: as what their encodings hold, stored in their own type, and checked in the file."""

from __future__ import annotations

import operator
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import fx, nn

from featherweight.network.capture import Network
from featherweight.network.encodings import AffineEncoding, HalfEncoding, encodings
from featherweight.network.modules import weight_of
from featherweight.targets.onnxruntime.graph import Graph, attributes_of, digest
from featherweight.targets.scaling import weight_missing

_aten = torch.ops.aten
_q = torch.ops.quantized_decomposed
_STORED = "stored_levels_"


@dataclass(frozen=True, slots=True)
class Weight:
    """An int8 weight on its way into the file.

    Attributes:
        name: path of the module that owns it.
        encoding: its encoding.
        output_shape: of one sample of its layer.
        widening: the DequantizeLinear that makes reals of it.
    """

    name: str
    encoding: AffineEncoding
    output_shape: tuple[int, ...]
    widening: Any


def levels_of(module: nn.Module, encoding: AffineEncoding) -> np.ndarray:
    """The levels of a module's weight, int8, in the weight's shape."""
    return encoding.grid.levels(weight_of(module), encoding.axis).to(torch.int8).numpy()


def settle_weights(graph_module: fx.GraphModule, module: nn.Module) -> None:
    """Put levels in the place of rounding a weight to its grid, and the widened weight in that of casts; in place.

    Args:
        graph_module: the simulated network.
        module: the network's own, whose modules carry the encodings.
    """
    places = {name: place for place, (name, _) in enumerate(encodings(module))}
    graph = graph_module.graph
    for node in list(graph.nodes):
        if node.target is _q.quantize_per_channel.default:
            path = str(node.args[1].target).removesuffix(".scale")
            name = path.partition(".parametrizations.")[0]
            encoding = module.get_submodule(path)
            if isinstance(encoding, AffineEncoding):
                levels = torch.from_numpy(levels_of(module.get_submodule(name), encoding))
                _stand_in(graph_module, node, f"{_STORED}{places[name]}", levels)
        elif node.target is _aten.to.dtype and node.args[1] is torch.float16 and node.args[0].op == "get_attr":
            half = operator.attrgetter(str(node.args[0].target))(graph_module).half()
            for user in list(node.users):
                _keep_norms_apart(graph_module, _stand_in(graph_module, user, f"widened_{user.name}", half.float()))
    graph.eliminate_dead_code()
    graph_module.recompile()


def _stand_in(graph_module: fx.GraphModule, node: fx.Node, name: str, value: torch.Tensor) -> fx.Node:
    with graph_module.graph.inserting_before(node):
        constant = _constant(graph_module, name, value)
    node.replace_all_uses_with(constant)
    return constant


def _constant(graph_module: fx.GraphModule, name: str, value: torch.Tensor) -> fx.Node:
    """A new constant, where the graph is open for insertions."""
    graph_module.register_buffer(name, value)
    constant = graph_module.graph.get_attr(name)
    constant.meta["val"] = value
    return constant


def _keep_norms_apart(graph_module: fx.GraphModule, weight: fx.Node) -> None:
    """Scale and shift instead of a batch normalisation behind a half weight; in place.

    The exporter would multiply the normalisation into the weight, which is then none that float16 holds.
    """
    behind = [norm for layer in weight.users for norm in layer.users if norm.target is _aten.batch_norm.default]
    for norm in [one for one in behind if not one.args[5]]:  # those of known statistics
        scale, shift = _scale_and_shift(graph_module, norm)
        with graph_module.graph.inserting_before(norm):
            factor = _constant(graph_module, f"scale_{norm.name}", scale)
            summand = _constant(graph_module, f"shift_{norm.name}", shift)
            scaled = graph_module.graph.call_function(_aten.mul.Tensor, (norm.args[0], factor))
            shifted = graph_module.graph.call_function(_aten.add.Tensor, (scaled, summand))
        norm.replace_all_uses_with(shifted)


def _scale_and_shift(graph_module: fx.GraphModule, norm: fx.Node) -> tuple[torch.Tensor, torch.Tensor]:
    """``γ/σ`` and ``β − μγ/σ`` of a batch normalisation in evaluation mode, (channels, 1, …), float32."""
    gain, bias, mean, variance = (_value_of(graph_module, one) for one in norm.args[1:5])
    if mean is None or variance is None:
        raise TypeError(f"{norm.name} has no statistics")
    scale = torch.rsqrt(variance + float(str(norm.args[7])))
    scale = scale if gain is None else scale * gain
    shift = (0.0 if bias is None else bias) - mean * scale
    sizes = (-1, *[1] * (norm.meta["val"].ndim - 2))
    return scale.view(sizes).float(), shift.view(sizes).float()


def _value_of(graph_module: fx.GraphModule, constant: object) -> torch.Tensor | None:
    """What a node for a constant stands for, float64; None where there is none."""
    if not isinstance(constant, fx.Node):
        return None
    return operator.attrgetter(str(constant.target))(graph_module).detach().double()


def stored_weights(graph: Graph, network: Network) -> list[Weight]:
    """The int8 weights of a graph, in its order, turned as the operations that read them want them."""
    names = list(encodings(network.module))
    shapes = {layer.name: layer.output_shape for layer in network.layers}
    found = []
    for node in list(graph.nodes):
        if node.op_type == "DequantizeLinear" and node.input[0].startswith(_STORED):
            name, encoding = names[int(node.input[0].removeprefix(_STORED))]
            if isinstance(encoding, AffineEncoding):
                found.append(Weight(name, encoding, shapes[name], _turned(graph, node)))
    return found


def _turned(graph: Graph, widening: Any) -> Any:
    """The widening of a turned weight where the graph turns the widened one."""
    turn = graph.only_reader(widening.output[0])
    if turn is None or turn.op_type != "Transpose":
        return widening
    order = attributes_of(turn)["perm"]
    levels = graph.add_constant(graph.constants[widening.input[0]].transpose(order))
    axis = order.index(attributes_of(widening)["axis"])
    graph.remove(turn)
    graph.remove(widening)
    return graph.add("DequantizeLinear", [levels, *widening.input[1:]], turn.output[0], axis=axis)


def store_half(graph: Graph, network: Network) -> None:
    """Store the weights whose encoding says so as float16; the runtime widens them once, at loading."""
    wanted = {
        digest(turned)
        for name, encoding in encodings(network.module)
        if isinstance(encoding, HalfEncoding)
        for turned in _both_ways(weight_of(network.module.get_submodule(name)).numpy())
    }
    read = {name for node in graph.nodes for name in node.input}
    for name, value in list(graph.constants.items()):
        if name in read and value.dtype == np.float32 and digest(value) in wanted:
            half = graph.add_constant(value.astype(np.float16))
            graph.replace(name, graph.add("Cast", [half], to=1).output[0])


def _both_ways(weight: np.ndarray) -> Iterator[np.ndarray]:
    """A weight as it is, and turned for a product."""
    yield weight
    if weight.ndim == 2:
        yield weight.T


def check_weights(model: Any, network: Network) -> None:
    """Every encoded weight lies in the file, level by level, with the scales of its grid.

    A channel may count in steps 2^k times as large, where its bias needs room; its levels are then those divided.

    Raises:
        LoweringError: one doesn't: the conversion changed it.
    """
    constants = list(Graph(model).constants.values())
    held = {digest(value) for value in constants}
    for name, encoding in encodings(network.module):
        module = network.module.get_submodule(name)
        if isinstance(encoding, AffineEncoding):
            there = _levels_there(levels_of(module, encoding), encoding.scale.numpy(), constants)
        else:
            there = any(digest(one) in held for one in _both_ways(weight_of(module).half().numpy()))
        if not there:
            raise weight_missing(network, name, str(encoding.type_name))


def _levels_there(levels: np.ndarray, scale: np.ndarray, constants: list[np.ndarray]) -> bool:
    """Whether levels (channels first) and their scales are among the constants."""
    rows = levels.reshape(len(levels), -1)
    with np.errstate(over="ignore"):  # constants that are no scales of this weight
        ratios = [one.ravel() / scale for one in constants if one.dtype == np.float32 and one.size == scale.size]
    stored = [
        turned.reshape(rows.shape)
        for one in constants
        if one.dtype == np.int8
        for turned in _both_ways(one)
        if turned.shape == levels.shape
    ]
    return any(
        np.array_equal(np.rint(rows / ratio[:, None]), one)
        for ratio in ratios
        if _powers_of_two(ratio)
        for one in stored
    )


def _powers_of_two(ratio: np.ndarray) -> bool:
    mantissa, exponent = np.frexp(ratio)
    return bool((mantissa == 0.5).all() and (exponent >= 1).all())
