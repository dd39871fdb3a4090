"""A ``.tflite`` file read and rewritten: half weights, short names, operators.

The file is a FlatBuffer with a public schema; ``ai_edge_litert`` ships its object API.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Collection, Mapping
from typing import Any

import numpy as np

from featherweight.targets.litert.names import names_of, operator_names
from featherweight.targets.litert.packing import write_model

# The first version of each kernel that finds ranges per inference, with one scale for every output channel.
_DYNAMIC_VERSIONS = {"CONV_2D": 5, "DEPTHWISE_CONV_2D": 6, "FULLY_CONNECTED": 9}
_WEIGHTED = ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED", "TRANSPOSE_CONV")


def read_model(content: bytes) -> Any:
    """The file as a tree of objects (``ModelT``)."""
    from ai_edge_litert.tools import flatbuffer_utils  # noqa: PLC0415

    return flatbuffer_utils.read_model_from_bytearray(content)


def operators_by_type(model: Any) -> Mapping[str, int]:
    """How often each operator occurs, with the type it computes on: ``{"CONV_2D int8": 20, "ADD int8": 9}``."""
    from ai_edge_litert import schema_py_generated as schema  # noqa: PLC0415

    types = names_of(schema.TensorType)
    graph = model.subgraphs[0]
    counts: Counter[str] = Counter()
    for name, operator in zip(operator_names(model), graph.operators, strict=True):
        kind = types[graph.tensors[operator.inputs[0]].type].lower()
        counts[f"{name} {kind}"] += 1
    return dict(sorted(counts.items()))


def weight_contents(model: Any) -> frozenset[bytes]:
    """SHA-256 of every int8 and float16 constant's sorted values: the same whatever order the kernel wants them in."""
    from ai_edge_litert import schema_py_generated as schema  # noqa: PLC0415

    kinds = {schema.TensorType.INT8: "i1", schema.TensorType.FLOAT16: "<f2"}
    found = set()
    for tensor in model.subgraphs[0].tensors:
        data = model.buffers[tensor.buffer].data
        if data is not None and tensor.type in kinds:
            held = np.frombuffer(bytes(data), dtype=kinds[tensor.type])
            values = np.sort(held + held.dtype.type(0))  # −0 and 0 sort alike and differ in their bytes
            found.add(hashlib.sha256(values.tobytes()).digest())
    return frozenset(found)


def shorten_names(model: Any) -> None:
    """Drop names and notes that no runtime reads: they would ship paths and cost kilobytes."""
    model.description = ""
    model.metadata = None
    model.metadataBuffer = None
    for graph in model.subgraphs:
        graph.name = "main"
        outside = set(graph.inputs) | set(graph.outputs)
        for index, tensor in enumerate(graph.tensors):
            tensor.name = tensor.name if index in outside else ""


def drop_unused(model: Any) -> None:
    """Keep the tensors and buffers that something refers to; buffer 0 stays empty, as the format asks."""
    for graph in model.subgraphs:
        used = {int(i) for one in graph.operators for i in (*one.inputs, *one.outputs) if i >= 0}
        place = _keep_tensors(graph, sorted({*used, *map(int, graph.inputs), *map(int, graph.outputs)}))
        for signature in model.signatureDefs or []:
            for entry in (*signature.inputs, *signature.outputs):
                entry.tensorIndex = place[entry.tensorIndex]
    used = sorted({tensor.buffer for graph in model.subgraphs for tensor in graph.tensors} | {0})
    place = {old: new for new, old in enumerate(used)}
    model.buffers = [model.buffers[old] for old in used]
    for graph in model.subgraphs:
        for tensor in graph.tensors:
            tensor.buffer = place[tensor.buffer]


def store_half(model: Any) -> int:
    """Store every real weight as float16 that float16 holds exactly; the runtime widens it once, at loading.

    Lossless by construction: a weight changes its storage only where every value survives the round trip.

    Returns:
        How many weights were stored so.
    """
    from ai_edge_litert import schema_py_generated as schema  # noqa: PLC0415

    graph = model.subgraphs[0]
    names = operator_names(model)
    widened: dict[int, int] = {}
    fresh: list[Any] = []
    for name, operator in zip(names, graph.operators, strict=True):
        if name not in _WEIGHTED:
            continue
        index = operator.inputs[1]
        if index not in widened and (half := _as_half(model, graph.tensors[index], schema)) is not None:
            widened[index] = _add_widening(model, graph, index, half, schema)
            fresh.append(widened[index])
    if not widened:
        return 0
    code = _operator_code(model, schema.BuiltinOperator.DEQUANTIZE, schema)
    new = []
    for index, half_index in widened.items():
        operator = schema.OperatorT()
        operator.opcodeIndex, operator.inputs, operator.outputs = code, [half_index], [index]
        new.append(operator)
    graph.operators = new + graph.operators
    return len(new)


def run_dynamic(model: Any, levels: Collection[bytes]) -> int:
    """Hand int8 weights to kernels that take real activations and put them on int8 per inference; in place.

    The converter widens such weights to reals before a real kernel. Where the widened weight is one of those asked for,
    the kernel gets the integers themselves.

    Args:
        model: as the converter made it.
        levels: SHA-256 of the sorted levels of every weight that is to run so.

    Returns:
        How many kernels run so now.
    """
    from ai_edge_litert import schema_py_generated as schema  # noqa: PLC0415

    graph = model.subgraphs[0]
    source = {int(one.outputs[0]): int(one.inputs[0]) for one in _widenings(model)}
    count = 0
    for name, operator in zip(operator_names(model), graph.operators, strict=True):
        widened = int(operator.inputs[1]) if name in _DYNAMIC_VERSIONS else -1
        if widened not in source or graph.tensors[source[widened]].type != schema.TensorType.INT8:
            continue
        data = bytes(model.buffers[graph.tensors[source[widened]].buffer].data)
        if hashlib.sha256(np.sort(np.frombuffer(data, np.int8)).tobytes()).digest() not in levels:
            continue
        operator.inputs = [operator.inputs[0], source[widened], *operator.inputs[2:]]
        code = model.operatorCodes[operator.opcodeIndex]
        code.version = max(code.version, _DYNAMIC_VERSIONS[name])
        if name == "FULLY_CONNECTED":
            operator.builtinOptions.asymmetricQuantizeInputs = True
        count += 1
    read = {int(i) for one in graph.operators for i in one.inputs}
    idle = [one for one in _widenings(model) if int(one.outputs[0]) not in read]
    graph.operators = [one for one in graph.operators if one not in idle]
    return count


def _as_half(model: Any, tensor: Any, schema: Any) -> np.ndarray | None:
    data = model.buffers[tensor.buffer].data
    if tensor.type != schema.TensorType.FLOAT32 or data is None or len(data) == 0:
        return None
    values = np.frombuffer(bytes(data), dtype="<f4")
    with np.errstate(over="ignore"):
        half = values.astype("<f2")
    return half if np.array_equal(half.astype("<f4"), values) else None


def _add_widening(model: Any, graph: Any, index: int, half: np.ndarray, schema: Any) -> int:
    """A float16 tensor for a weight, which becomes the output of a DEQUANTIZE; the new tensor's index."""
    old = graph.tensors[index]
    buffer, tensor = schema.BufferT(), schema.TensorT()
    buffer.data = np.frombuffer(half.tobytes(), dtype=np.uint8)
    model.buffers.append(buffer)
    tensor.shape, tensor.type, tensor.name = old.shape, schema.TensorType.FLOAT16, ""
    tensor.buffer, tensor.hasRank = len(model.buffers) - 1, True
    graph.tensors.append(tensor)
    old.buffer = 0
    return len(graph.tensors) - 1


def _operator_code(model: Any, builtin: int, schema: Any) -> int:
    for index, code in enumerate(model.operatorCodes):
        if max(code.builtinCode, code.deprecatedBuiltinCode) == builtin:
            return index
    code = schema.OperatorCodeT()
    code.builtinCode, code.deprecatedBuiltinCode, code.version = builtin, builtin, 3
    model.operatorCodes.append(code)
    return len(model.operatorCodes) - 1


def single_operator(content: bytes, index: int) -> bytes:
    """A file that holds one operator of another file, with its constants; its activations are inputs and outputs."""
    model = read_model(content)
    graph = model.subgraphs[0]
    operator = graph.operators[index]
    widening = [other for other in _widenings(model) if other.outputs[0] in list(operator.inputs)]
    graph.operators = [*widening, operator]
    made = {other.outputs[0] for other in widening}
    reads = {i for one in graph.operators for i in one.inputs if i >= 0}
    graph.inputs = sorted(i for i in reads - made if not _is_constant(model, i))
    graph.outputs = list(operator.outputs)
    model.signatureDefs = None
    drop_unused(model)
    return write_model(model)


def _is_constant(model: Any, index: int) -> bool:
    return model.buffers[model.subgraphs[0].tensors[index].buffer].data is not None


def _widenings(model: Any) -> list[Any]:
    """The operators that turn a stored half weight into a real one; the runtime runs them once, at loading."""
    pairs = zip(operator_names(model), model.subgraphs[0].operators, strict=True)
    return [one for name, one in pairs if name == "DEQUANTIZE" and _is_constant(model, one.inputs[0])]


def running_operators(model: Any) -> list[int]:
    """Indices of the operators that run for every sample."""
    once = _widenings(model)
    return [index for index, one in enumerate(model.subgraphs[0].operators) if one not in once]


def _keep_tensors(graph: Any, kept: list[int]) -> dict[int, int]:
    """Leave only these tensors in a graph, in place; old index → new index."""
    place = {old: new for new, old in enumerate(kept)}
    graph.tensors = [graph.tensors[old] for old in kept]
    graph.inputs = [place[i] for i in graph.inputs]
    graph.outputs = [place[i] for i in graph.outputs]
    for operator in graph.operators:
        operator.inputs = [place.get(i, -1) for i in operator.inputs]
        operator.outputs = [place[i] for i in operator.outputs]
        operator.intermediates = None
    return place


def bytes_by_part(content: bytes) -> dict[str, int]:
    """Where a file's bytes are: weights by type, and everything else (graph, scales, names)."""
    from ai_edge_litert import schema_py_generated as schema  # noqa: PLC0415

    model = read_model(content)
    types = names_of(schema.TensorType)
    parts: Counter[str] = Counter()
    seen: set[int] = set()
    for tensor in model.subgraphs[0].tensors:
        data = model.buffers[tensor.buffer].data
        if data is None or tensor.buffer in seen:
            continue
        seen.add(tensor.buffer)
        parts[f"{types[tensor.type].lower()} constants"] += len(data)
    parts["graph, scales, names"] = len(content) - parts.total()
    return dict(parts)
