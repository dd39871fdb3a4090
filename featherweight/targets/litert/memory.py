"""How much memory a ``.tflite`` file's activations take at their peak: read off its tensors and their lifetimes.

The largest sum of live tensors, not the size of the runtime's arena: that adds what kernels take for themselves and
what doesn't fit into gaps, and differs between versions.
"""

from __future__ import annotations

import math
from typing import Any

from featherweight.targets.litert import flatbuffer
from featherweight.targets.litert.names import names_of, operator_names

_SHARING = frozenset({"RESHAPE", "EXPAND_DIMS", "SQUEEZE"})  # the same bytes under another shape
_BYTES = {
    "FLOAT64": 8, "INT64": 8, "UINT64": 8, "COMPLEX64": 8, "FLOAT32": 4, "INT32": 4, "UINT32": 4,
    "FLOAT16": 2, "BFLOAT16": 2, "INT16": 2, "UINT16": 2, "INT8": 1, "UINT8": 1, "BOOL": 1,
}  # fmt: skip


def peak_bytes(content: bytes) -> int:
    """The largest sum of bytes of live activations over all operators of a file."""
    model = flatbuffer.read_model(content)
    graph = model.subgraphs[0]
    names, running = operator_names(model), flatbuffer.running_operators(model)
    place = {int(index): int(index) for index in graph.inputs}  # tensor → the tensor whose bytes it lies in
    first = dict.fromkeys(place, 0)
    last = dict.fromkeys(place, 0)
    for step, number in enumerate(running):
        operator = graph.operators[number]
        reads = [place[int(index)] for index in operator.inputs if int(index) in place]
        last.update(dict.fromkeys(reads, step))
        for index in map(int, operator.outputs):
            place[index] = reads[0] if names[number] in _SHARING and reads else index
            first.setdefault(place[index], step)
            last[place[index]] = step
    last.update({place[int(index)]: len(running) for index in graph.outputs if int(index) in place})
    sizes = {index: _bytes(graph.tensors[index]) for index in first}
    alive = [
        sum(size for index, size in sizes.items() if first[index] <= step <= last[index])
        for step in range(len(running))
    ]
    return max(alive, default=sum(sizes.values()))


def _bytes(tensor: Any) -> int:
    from ai_edge_litert import schema_py_generated as schema  # noqa: PLC0415

    return math.prod(map(int, tensor.shape)) * _BYTES[names_of(schema.TensorType)[tensor.type]]
