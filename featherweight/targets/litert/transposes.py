"""Transpositions taken out of a ``.tflite`` graph where the operation between can work in the other order.

PyTorch counts channels first, LiteRT last. The converter turns most operations round; between integer kernels it leaves
padding and means in PyTorch's order, with a TRANSPOSE before and after, each a copy of the whole tensor. Notation: a
TRANSPOSE with ``p`` makes dimension ``p[i]`` of its input dimension ``i`` of its output.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from featherweight.targets.litert.names import operator_names

_PADS = ("PAD", "PADV2")


class _Graph:
    """The main graph with who makes and who reads every tensor."""

    def __init__(self, model: Any) -> None:
        self.model, self.graph = model, model.subgraphs[0]
        self.names = dict(zip(map(id, self.graph.operators), operator_names(model), strict=True))
        self.readers: dict[int, list[Any]] = {}
        for operator in self.graph.operators:
            for index in operator.inputs:
                self.readers.setdefault(int(index), []).append(operator)

    def only_reader(self, operator: Any) -> Any | None:
        """The one operator that reads this one's output, where it is no output of the graph."""
        (output,) = operator.outputs
        readers = self.readers.get(int(output), [])
        return readers[0] if len(readers) == 1 and output not in self.graph.outputs else None

    def constant(self, index: int) -> np.ndarray | None:
        """The whole numbers of a constant tensor; None where it is computed."""
        from ai_edge_litert import schema_py_generated as schema  # noqa: PLC0415

        tensor = self.graph.tensors[index]
        data = self.model.buffers[tensor.buffer].data
        kinds = {schema.TensorType.INT32: "<i4", schema.TensorType.INT64: "<i8"}
        if data is None or tensor.type not in kinds:
            return None
        return np.frombuffer(bytes(data), dtype=kinds[tensor.type]).reshape(tensor.shape)

    def new_constant(self, values: np.ndarray, like: int) -> int:
        """A constant tensor of the same type and shape as another; its index."""
        from ai_edge_litert import schema_py_generated as schema  # noqa: PLC0415

        old = self.graph.tensors[like]
        tensor, buffer = schema.TensorT(), schema.BufferT()
        buffer.data = np.frombuffer(values.tobytes(), dtype=np.uint8)  # type: ignore[assignment]
        self.model.buffers.append(buffer)
        tensor.shape, tensor.type, tensor.name, tensor.hasRank = list(values.shape), old.type, "", True
        tensor.buffer = len(self.model.buffers) - 1
        self.graph.tensors.append(tensor)
        return len(self.graph.tensors) - 1


def _through_pad(graph: _Graph, first: Any, pad: Any) -> list[Any] | None:
    """TRANSPOSE, PAD, inverse TRANSPOSE become one PAD; the operators that go, or None."""
    last = graph.only_reader(pad)
    if last is None or graph.names.get(id(last)) != "TRANSPOSE":
        return None
    order, back = graph.constant(first.inputs[1]), graph.constant(last.inputs[1])
    pads = graph.constant(pad.inputs[1])
    if order is None or back is None or pads is None or not np.array_equal(order[back], np.arange(len(order))):
        return None
    turned = np.empty_like(pads)
    turned[order] = pads
    pad.inputs = [first.inputs[0], graph.new_constant(turned, pad.inputs[1]), *pad.inputs[2:]]
    pad.outputs = list(last.outputs)
    return [first, last]


def _through_mean(graph: _Graph, first: Any, mean: Any) -> list[Any] | None:
    """TRANSPOSE, MEAN become one MEAN where what stays keeps its order; the operators that go, or None."""
    order, axes = graph.constant(first.inputs[1]), graph.constant(mean.inputs[1])
    if order is None or axes is None or mean.builtinOptions is None or mean.builtinOptions.keepDims:
        return None
    positive = np.mod(axes, len(order))
    stay = np.delete(order, positive)
    if not np.array_equal(stay, np.sort(stay)):
        return None
    turned = np.sort(order[positive]).astype(axes.dtype).reshape(axes.shape)
    mean.inputs = [first.inputs[0], graph.new_constant(turned, mean.inputs[1])]
    return [first]


def _one(model: Any) -> bool:
    graph = _Graph(model)
    for first in graph.graph.operators:
        after = graph.only_reader(first) if graph.names[id(first)] == "TRANSPOSE" else None
        if after is None or after.inputs[0] != first.outputs[0]:
            continue
        name, gone = graph.names[id(after)], None
        if name in _PADS:
            gone = _through_pad(graph, first, after)
        elif name == "MEAN":
            gone = _through_mean(graph, first, after)
        if gone:
            graph.graph.operators = [one for one in graph.graph.operators if one not in gone]
            return True
    return False


def drop_transposes(model: Any) -> None:
    """Take out every transposition that padding and means don't need, in place."""
    while _one(model):
        pass
