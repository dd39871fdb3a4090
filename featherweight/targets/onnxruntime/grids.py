"""Operations that only move or clip values, done on the levels themselves instead of on reals.

Rounding to a grid is monotone and acts on every value alone, so it may be done before a value is moved or clipped, or
the largest of several is picked: ``round(clip(x, a, b)) = clip(round(x), round(a), round(b))``, exactly. Operations of
that kind before a ``QuantizeLinear`` go behind it; where the value then comes straight from the same grid, both vanish.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from featherweight.targets.onnxruntime.graph import Graph

_MOVES = frozenset(
    {"Reshape", "Transpose", "Flatten", "Squeeze", "Unsqueeze", "Slice", "Gather", "MaxPool", "Identity"}
)
_CLIPS = frozenset({"Relu", "Clip"})
_LAYERS = frozenset({"Conv", "ConvTranspose", "Gemm"})
_PRODUCTS = _LAYERS | {"MatMul"}
_PARTS = frozenset({"Split", "Expand", "Tile"})
_SHIFT = 128  # from a grid's levels -128 … 127 to those of uint8


def use_unsigned(graph: Graph) -> None:
    """Count the levels of activations from 0 instead of from −128: the same reals, in the type of x86's kernels.

    On x86 the runtime turns int8 activations into uint8 by itself, but only between operations that it knows both ways,
    and leaves a layer beside any other operation on reals.
    """
    for node in graph.nodes:
        zero = graph.constant_of(node, 2) if node.op_type in ("QuantizeLinear", "DequantizeLinear") else None
        if zero is not None and zero.ndim == 0 and zero.dtype == np.int8:
            node.input[2] = graph.add_constant(np.uint8(int(zero) + _SHIFT))


def hoist(graph: Graph) -> None:
    """Put every rounding to a grid before the operations that move and clip values; in place."""
    again = True
    while again:
        roundings = [node for node in graph.nodes if node.op_type == "QuantizeLinear"]
        again = sum(_hoist_one(graph, node) for node in roundings) > 0


def _hoist_one(graph: Graph, rounding: Any) -> bool:
    """One step upwards for one rounding; whether there was one."""
    before = graph.producer(rounding.input[0])
    if before is None:
        return False
    if before.op_type == "DequantizeLinear" and _same_grid(graph, before, rounding):
        graph.remove(rounding)
        graph.replace(rounding.output[0], before.input[0])
        return True
    if graph.only_reader(before.output[0]) is not rounding or not _commutes(graph, before):
        return False
    source, grid, made = before.input[0], list(rounding.input[1:]), rounding.output[0]
    graph.remove(rounding)
    graph.remove(before)
    rounded = graph.add("QuantizeLinear", [source, *grid]).output[0]
    if before.op_type in _CLIPS:
        _clip_levels(graph, before, rounded, made, grid)
    else:
        before.input[0], before.output[0] = rounded, made
        if before.op_type == "Pad":
            _pad_levels(graph, before, grid)
        graph.nodes.append(before)
    return True


def _same_grid(graph: Graph, one: Any, other: Any) -> bool:
    pairs = zip(one.input[1:], other.input[1:], strict=True)
    return all(np.array_equal(graph.constants[a], graph.constants[b]) for a, b in pairs)


def _commutes(graph: Graph, node: Any) -> bool:
    if node.input[0] in graph.constants:
        return False
    if node.op_type in _MOVES:
        return len(node.output) == 1
    if node.op_type == "Pad":
        plain = all(one.s in (b"constant", b"") for one in node.attribute if one.name == "mode")
        return plain and (len(node.input) < 3 or not node.input[2] or node.input[2] in graph.constants)
    return node.op_type in _CLIPS and all(not name or name in graph.constants for name in node.input[1:])


def _level(graph: Graph, value: float, grid: list[str]) -> np.ndarray:
    """The level of a real on a grid."""
    scale, zero = (graph.constants[name] for name in grid)
    ends = np.iinfo(zero.dtype)
    return np.clip(np.rint(value / scale) + zero, ends.min, ends.max).astype(zero.dtype)


def _clip_levels(graph: Graph, node: Any, rounded: str, made: str, grid: list[str]) -> None:
    """Clip levels as the operation clipped reals; not at all where the grid ends before."""
    ends = np.iinfo(graph.constants[grid[1]].dtype)
    bounds = [0.0, np.inf] if node.op_type == "Relu" else [-np.inf, np.inf]
    for position in range(1, len(node.input)):
        if node.input[position]:
            bounds[position - 1] = float(graph.constants[node.input[position]])
    low, high = (_level(graph, bound, grid) for bound in bounds)
    if low == ends.min and high == ends.max:
        graph.replace(made, rounded)
    else:
        graph.add("Clip", [rounded, graph.add_constant(low), graph.add_constant(high)], made)


def _pad_levels(graph: Graph, node: Any, grid: list[str]) -> None:
    """Fill with the level of what the operation filled with."""
    given = float(graph.constants[node.input[2]]) if len(node.input) > 2 and node.input[2] else 0.0
    level = graph.add_constant(_level(graph, given, grid))
    inputs = [*node.input[:2], level, *node.input[3:]]
    del node.input[:]
    node.input.extend(inputs)


def keep_real(graph: Graph) -> None:
    """Keep layers with real weights real where they stand between grids; in place.

    Since 1.21 the runtime rounds real weights to int8 by itself where a layer reads from a grid and what it makes goes
    to one, at once or through Relu or Clip. ``LeakyRelu`` with a slope of 1 changes nothing, is none of these, and
    kernels compute it along with the layer.
    """
    for node in [node for node in graph.nodes if node.op_type in _LAYERS]:
        source, weight = (_widened_by(graph, name) for name in node.input[:2])
        reader = graph.only_reader(node.output[0])
        if source is None or weight is not None or reader is None:
            continue
        if reader.op_type in ("QuantizeLinear", *_CLIPS):
            reader.input[0] = graph.add("LeakyRelu", [node.output[0]], alpha=1.0).output[0]


def keep_products_real(graph: Graph) -> None:
    """Keep products of two activations real, as those of attention are, where both come from grids; in place.

    Without weights they are nobody's layer, but the runtime multiplies the levels by itself wherever it finds a product
    behind two ``DequantizeLinear``. One operand is doubled and the other halved, which changes no product and costs
    nothing: the runtime draws both factors out into one of the product of matrices, 1.
    """
    for node in [node for node in graph.nodes if node.op_type in _PRODUCTS]:
        operands = [_widened_by(graph, name) for name in node.input[:2]]
        if all(one is not None and one.input[0] not in graph.constants for one in operands):
            for position, factor in enumerate((2.0, 0.5)):
                scaled = graph.add("Mul", [node.input[position], graph.add_constant(np.float32(factor))])
                node.input[position] = scaled.output[0]


def _widened_by(graph: Graph, name: str) -> Any | None:
    """What made a value real that lay on a grid, moved since or not; None where it didn't lie on one.

    What moves reals is no barrier: the runtime lets it move the levels instead.
    """
    node = graph.producer(name)
    while node is not None and node.op_type in _MOVES | _PARTS:
        node = graph.producer(node.input[0])
    return node if node is not None and node.op_type == "DequantizeLinear" else None
