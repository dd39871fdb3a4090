"""What an ``.onnx`` file holds: its operators with their types, its bytes, its inputs and outputs."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from featherweight.contracts import Artefact, TensorSpec
from featherweight.targets.onnxruntime.run import read_model


def _type_name(element: int) -> str:
    """The name of an element type, as numpy calls it."""
    from onnx import helper  # noqa: PLC0415

    return str(np.dtype(helper.tensor_dtype_to_np_dtype(element)))


def operators_by_type(model: Any) -> Mapping[str, int]:
    """How often each operator occurs in an optimized graph, with the type that it computes on: "QLinearConv uint8"."""
    types = {one.name: one.type.tensor_type.elem_type for one in model.graph.input}
    types |= {one.name: one.data_type for one in model.graph.initializer}
    counts: Counter[str] = Counter()
    for node in model.graph.node:
        computed = types.get(node.input[_DATA_AT.get(node.op_type, 0)], 0) if node.input else 0
        types |= zip(node.output, _made_types(node, types, computed), strict=True)
        counts[f"{node.op_type} {_type_name(computed)}" if computed else node.op_type] += 1
    return dict(sorted(counts.items()))


# The runtime writes its optimized graph without the types between operations: where they differ from those that go in.
_DATA_AT = {"QLinearConcat": 1}  # first the grid that comes out
_GRID_AT = {"QuantizeLinear": 2, "DequantizeLinear": 1, "MatMulIntegerToFloat": 2, "DynamicQuantizeMatMul": 0}


def _made_types(node: Any, types: Mapping[str, int], computed: int) -> list[int]:
    """The types of what an operation makes; 0 where one isn't known."""
    from onnx import TensorProto  # noqa: PLC0415

    if node.op_type == "DynamicQuantizeLinear":
        return [TensorProto.UINT8, TensorProto.FLOAT, TensorProto.UINT8]
    if node.op_type == "MatMulInteger":
        return [TensorProto.INT32]
    if node.op_type in _GRID_AT:
        return [types.get(node.input[_GRID_AT[node.op_type]], 0)]
    to = [one.i for one in node.attribute if one.name == "to"]
    return [to[0] if to else computed] * len(node.output)


def bytes_by_part(content: bytes) -> dict[str, int]:
    """Where a file's bytes are: constants by type, and everything else (graph, names)."""
    from onnx import numpy_helper  # noqa: PLC0415

    parts: Counter[str] = Counter()
    for one in read_model(content).graph.initializer:
        parts[f"{_type_name(one.data_type)} constants"] += numpy_helper.to_array(one).nbytes
    parts["graph, names"] = len(content) - parts.total()
    return dict(parts)


def artefact_of(path: Path, content: bytes, operators: Mapping[str, int]) -> Artefact:
    """The description of a written file: its hash, what goes in and comes out, its operators."""
    model = read_model(content)

    def spec(value: Any, *, comes_in: bool) -> TensorSpec:
        kind = value.type.tensor_type
        shape = tuple(one.dim_value or 1 for one in kind.shape.dim)
        image = comes_in and len(shape) == 4 and _type_name(kind.elem_type).startswith("float")
        return TensorSpec(value.name, shape, _type_name(kind.elem_type), "NCHW" if image else "")

    return Artefact(
        target="onnxruntime",
        file=path.name,
        size_bytes=len(content),
        sha256=hashlib.sha256(content).hexdigest(),
        inputs=tuple(spec(one, comes_in=True) for one in model.graph.input),
        outputs=tuple(spec(one, comes_in=False) for one in model.graph.output),
        operators=operators,
    )
