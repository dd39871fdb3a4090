"""Layers handed to ONNX Runtime's integer kernels.

With activation grids a layer becomes the pattern that the runtime knows: ``DequantizeLinear`` on its input, its int8
weight and its int32 bias, the operation, ``QuantizeLinear``. The bias lies on the grid of the products,
``round(b / (s_x · s_w))`` (Jacob et al. 2018, arXiv:1712.05877, section 2.4). With ranges per inference it becomes
``DynamicQuantizeLinear`` and a product of integers, scaled back: ``s_x · s_w · Σ (q_x − z_x) · q_w + b``. With real
activations the weight alone is widened, ``s_w · (q_w − z_w)``, in operations that the runtime carries out once, at
loading. (``DequantizeLinear`` it would carry out for every inference, and it may put the activations of a product on
8 bits unasked.)
"""

from __future__ import annotations

from typing import Any

import numpy as np

from featherweight.contracts import LoweringError
from featherweight.targets.onnxruntime.graph import Graph, attributes_of
from featherweight.targets.onnxruntime.weights import Weight


def use_kernels(graph: Graph, weight: Weight) -> None:
    """Give the layer of an int8 weight the kernel that its encoding asks for; in place.

    Raises:
        LoweringError: the weight has a zero point or its layer a bias that no integer kernel takes.
    """
    if not (weight.encoding.integer or weight.encoding.dynamic):
        _widen(graph, weight)
        return
    if bool(weight.encoding.zero_point.any()):
        raise LoweringError(
            "Integer kernels take weights without a zero point.",
            f"{weight.name!r} has one",
            "write symmetric: true in the plan",
        )
    for node in graph.readers(weight.widening.output[0]):
        if weight.encoding.dynamic:
            _find_ranges(graph, weight, node)
        elif (source := graph.producer(node.input[0])) is not None and source.op_type == "DequantizeLinear":
            _on_grids(graph, weight, node, source)


def _widen(graph: Graph, weight: Weight) -> None:
    """A weight made real once, at loading."""
    levels, scale, zero = (graph.constants[name] for name in weight.widening.input)
    axis = attributes_of(weight.widening)["axis"]
    shape = [-1 if position == axis else 1 for position in range(levels.ndim)]
    real = graph.add("Cast", [graph.add_constant(levels)], to=1).output[0]
    if zero.any():
        real = graph.add("Sub", [real, graph.add_constant(zero.reshape(shape).astype(np.float32))]).output[0]
    graph.remove(weight.widening)
    graph.add("Mul", [real, graph.add_constant(scale.reshape(shape))], weight.widening.output[0])


def _on_grids(graph: Graph, weight: Weight, node: Any, source: Any) -> None:
    """A layer whose input lies on a grid: its bias goes on the grid of its products."""
    if node.op_type == "MatMul":
        node = _as_gemm(graph, weight, node, source)
    if node is None or len(node.input) < 3:
        return
    bias = graph.constants[node.input[2]]
    step = graph.constants[source.input[1]].astype(np.float64)
    products = (step * graph.constants[weight.widening.input[1]]).astype(np.float32)
    levels = graph.add_constant(np.rint(bias / products.astype(np.float64)).astype(np.int32))
    node.input[2] = graph.add("DequantizeLinear", [levels, graph.add_constant(products)], axis=0).output[0]


def _bias_added(graph: Graph, weight: Weight, product: Any) -> tuple[Any, str] | None:
    """The addition of a constant row to a product, and that constant's name; None where there is none."""
    after = graph.only_reader(product.output[0])
    if after is None or after.op_type != "Add":
        return None
    (other,) = [name for name in after.input if name != product.output[0]] or [""]
    value = graph.constants.get(other)
    outputs = graph.constants[weight.widening.input[0]].shape[1]
    return (after, other) if value is not None and value.shape == (outputs,) else None


def _as_gemm(graph: Graph, weight: Weight, product: Any, source: Any) -> Any | None:
    """A product of matrices with a bias as Gemm, whose kernel adds the bias to the integers; None without a bias.

    (…, inputs) → (rows, inputs) → (rows, outputs) → (…, outputs).
    """
    added = _bias_added(graph, weight, product)
    if added is None:
        return None
    after, bias = added
    inputs, outputs = graph.constants[weight.widening.input[0]].shape
    flat = graph.add("Reshape", [source.input[0], graph.add_constant(np.array([-1, inputs]))])
    real = graph.add("DequantizeLinear", [flat.output[0], *source.input[1:]])
    gemm = graph.add("Gemm", [real.output[0], weight.widening.output[0], bias])
    shape = graph.add_constant(np.array([-1, *weight.output_shape[:-1], outputs]))
    graph.remove(product)
    graph.remove(after)
    graph.add("Reshape", [gemm.output[0], shape], after.output[0])
    return gemm


def _find_ranges(graph: Graph, weight: Weight, node: Any) -> None:
    """A product on real inputs: they are put on a grid for each inference, and the integers are scaled back.

    Raises:
        LoweringError: the layer is no product of matrices.
    """
    if node.op_type not in ("Gemm", "MatMul"):
        raise LoweringError(
            "Ranges per inference are found for products of matrices.",
            f"{weight.name!r} is a {node.op_type}",
            "give it activations: int8 or float32 in the plan",
        )
    levels, scale = (graph.constants[name] for name in weight.widening.input[:2])
    if attributes_of(node).get("transB", 0):
        levels = levels.T
    x, step, zero = graph.add("DynamicQuantizeLinear", [node.input[0]], 3).output
    product = graph.add("MatMulInteger", [x, graph.add_constant(levels), zero]).output[0]
    real = graph.add("Cast", [product], to=1).output[0]
    scales = graph.add("Mul", [step, graph.add_constant(scale)]).output[0]
    graph.remove(node)
    if len(node.input) > 2:
        scaled = graph.add("Mul", [real, scales]).output[0]
        graph.add("Add", [scaled, node.input[2]], node.output[0])
    else:
        graph.add("Mul", [real, scales], node.output[0])
