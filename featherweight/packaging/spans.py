"""Where the tensors lie in a file, read from the file itself: ``.tflite``, ``.onnx`` and ``.safetensors``.

Only what is needed is read, every offset is checked, and a file that isn't understood simply has no tensors: it is
packed all the same, as bytes.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from math import prod

from featherweight.packaging.protobuf import BYTES, Field, Wire

# Element names as in numpy; TensorType of the public LiteRT schema.
_LITERT_TYPES = {0: "float32", 1: "float16", 2: "int32", 3: "uint8", 4: "int64", 7: "int16", 9: "int8", 10: "float64"}
_SAFETENSORS_TYPES = {
    "F64": "float64",
    "F32": "float32",
    "F16": "float16",
    "BF16": "float16",  # two bytes whose upper one holds the exponent: the same treatment
    "I64": "int64",
    "I32": "int32",
    "I16": "int16",
    "I8": "int8",
    "U8": "uint8",
    "BOOL": "uint8",
}
# TensorProto.DataType of the public ONNX schema; unsigned 4 and 8 bytes are coded as signed ones are.
_ONNX_TYPES = {
    1: "float32", 2: "uint8", 3: "int8", 4: "uint16", 5: "int16", 6: "int32", 7: "int64", 9: "uint8", 10: "float16",
    11: "float64", 12: "int32", 13: "int64", 16: "float16",
}  # fmt: skip
# The messages on the way from a model to its tensors: message → number of a field → the message that it holds. Tensors
# are initializers, and attributes of nodes (Constant's value); attributes hold the bodies of branches and loops, too.
_ONNX_MESSAGES = {
    "model": {7: "graph"},
    "graph": {1: "node", 5: "tensor"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph"},
}
_DIMS, _DATA_TYPE, _NAME, _RAW = 1, 2, 8, 9  # fields of TensorProto
_TYPED = {1: 4, 11: 10}  # data_type → the field whose packed numbers lie as in memory (float_data, double_data)
SIZES = {
    "float64": 8,
    "float32": 4,
    "float16": 2,
    "int64": 8,
    "int32": 4,
    "int16": 2,
    "uint16": 2,
    "int8": 1,
    "uint8": 1,
}
_MOST_TENSORS = 1 << 16
_MOST_FIELDS = 1 << 21  # of an .onnx file: a second or two
_MOST_AXES = 8
_LONGEST_NAME = 256  # bytes


@dataclass(frozen=True, slots=True)
class TensorSpan:
    """A tensor's bytes in a file, little-endian, in row-major order.

    Attributes:
        offset, length: in bytes.
        dtype: numpy's name of the element.
        shape: of the tensor as it lies in memory. Its output channels are the first axis, or the last one (weights of
            an ONNX product, of a depthwise convolution in LiteRT): coding tries both.
        name: for people.
    """

    offset: int
    length: int
    dtype: str
    shape: tuple[int, ...]
    name: str = ""


def tensor_spans(name: str, content: bytes) -> tuple[TensorSpan, ...]:
    """The tensors of a file in the order of their bytes, none overlapping another.

    A file that isn't understood has none.

    Args:
        name: of the file; its ending tells the format.
        content: of the file.
    """
    readers = {".tflite": _litert_spans, ".onnx": _onnx_spans, ".safetensors": _safetensors_spans}
    reader = next((one for ending, one in readers.items() if name.endswith(ending)), None)
    if reader is None:
        return ()
    try:
        found = reader(content)
    except (ValueError, KeyError, TypeError, IndexError, AttributeError, struct.error, RecursionError):
        return ()
    return apart(found, len(content))


def apart(spans: list[TensorSpan] | tuple[TensorSpan, ...], length: int) -> tuple[TensorSpan, ...]:
    """The spans that lie inside ``length`` bytes, hold what their shape says and don't overlap an earlier one."""
    kept, end = [], 0
    for span in sorted(spans, key=lambda one: (one.offset, -one.length)):
        whole = min(span.shape, default=1) > 0 and span.length == prod(span.shape) * SIZES[span.dtype]
        if whole and span.offset >= end and span.offset + span.length <= length:
            kept.append(span)
            end = span.offset + span.length
    return tuple(kept)


def _safetensors_spans(content: bytes) -> list[TensorSpan]:
    (size,) = struct.unpack_from("<Q", content)
    header = json.loads(content[8 : 8 + size])
    found = []
    for name, entry in header.items():
        if name != "__metadata__" and entry["dtype"] in _SAFETENSORS_TYPES:
            begin, end = entry["data_offsets"]
            kind, shape = _SAFETENSORS_TYPES[entry["dtype"]], tuple(int(n) for n in entry["shape"])
            found.append(TensorSpan(8 + size + int(begin), int(end) - int(begin), kind, shape, name))
    return found


class _Table:
    """A FlatBuffer table: fields by number, each read on demand."""

    def __init__(self, data: bytes, place: int) -> None:
        self.data, self.place = data, place
        self.fields = place - struct.unpack_from("<i", data, place)[0]
        if self.fields < 0:
            raise ValueError("a table before the file")
        self.size = struct.unpack_from("<H", data, self.fields)[0]

    def at(self, field: int) -> int:
        """Where a field lies; 0 where it is absent."""
        if 4 + 2 * field >= self.size:
            return 0
        offset = struct.unpack_from("<H", self.data, self.fields + 4 + 2 * field)[0]
        return self.place + offset if offset else 0

    def scalar(self, field: int, code: str) -> int:
        """A number; 0 where it is absent."""
        place = self.at(field)
        return struct.unpack_from("<" + code, self.data, place)[0] if place else 0

    def vector(self, field: int) -> tuple[int, int]:
        """Where a vector's elements begin and how many they are."""
        place = self.at(field)
        if not place:
            return 0, 0
        start = place + struct.unpack_from("<I", self.data, place)[0]
        return start + 4, struct.unpack_from("<I", self.data, start)[0]

    def tables(self, field: int) -> list[_Table]:
        """A vector of tables."""
        start, count = self.vector(field)
        if count > _MOST_TENSORS:
            raise ValueError("too many tables")
        places = (start + 4 * k for k in range(count))
        return [_Table(self.data, place + struct.unpack_from("<I", self.data, place)[0]) for place in places]


def _litert_spans(content: bytes) -> list[TensorSpan]:
    """Tensors of every subgraph that have a constant buffer (schema version 3; fields by their numbers there)."""
    model = _Table(content, struct.unpack_from("<I", content)[0])
    if content[4:8] != b"TFL3":
        return []
    buffers = model.tables(4)
    found: dict[int, TensorSpan] = {}
    for graph in model.tables(2):
        for tensor in graph.tables(0):
            index, kind = tensor.scalar(2, "I"), _LITERT_TYPES.get(tensor.scalar(1, "b"))
            start, count = buffers[index].vector(0)
            shape_at, rank = tensor.vector(0)
            if kind and count and index not in found and rank <= _MOST_AXES:
                shape = struct.unpack_from(f"<{rank}i", content, shape_at) if rank else (1,)
                found[index] = TensorSpan(start, count, kind, shape, _text(tensor, 3))
    return list(found.values())


def _text(table: _Table, field: int) -> str:
    start, count = table.vector(field)
    return table.data[start : start + min(count, _LONGEST_NAME)].decode(errors="replace")


def _onnx_spans(content: bytes) -> list[TensorSpan]:
    """Tensors of the graph, and of graphs inside it, whose numbers lie in the file as they do in memory.

    Messages wait in a list to be walked, so that it doesn't matter how deep they are nested.
    """
    wire, found = Wire(content, _MOST_FIELDS), []
    waiting = [("model", 0, len(content))]
    while waiting and len(found) < _MOST_TENSORS:
        message, start, end = waiting.pop()
        fields = wire.fields(start, end)
        if message == "tensor":
            found += _onnx_tensor(content, wire, fields)
            continue
        for field in fields:
            inside = _ONNX_MESSAGES[message].get(field.number)
            if inside and field.wire == BYTES:
                waiting.append((inside, field.start, field.end))
    return found


def _onnx_tensor(content: bytes, wire: Wire, fields: Iterator[Field]) -> Iterator[TensorSpan]:
    """The span of a TensorProto; none where its numbers are written in another way, or lie in another file."""
    shape: list[int] = []
    held: dict[int, Field] = {}
    for field in fields:
        held[field.number] = field
        if field.number == _DIMS:
            shape += wire.numbers(field)
    code = next(wire.numbers(held[_DATA_TYPE]), 0) if _DATA_TYPE in held else 0
    data = held.get(_RAW) or held.get(_TYPED.get(code, _RAW))
    if data and data.wire == BYTES and code in _ONNX_TYPES and len(shape) <= _MOST_AXES:
        name = held.get(_NAME, Field(_NAME, BYTES, 0, 0))
        told = content[name.start : min(name.end, name.start + _LONGEST_NAME)].decode(errors="replace")
        yield TensorSpan(data.start, data.end - data.start, _ONNX_TYPES[code], tuple(shape) or (1,), told)
