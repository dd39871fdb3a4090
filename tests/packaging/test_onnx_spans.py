"""Tensors of .onnx files: where the onnx library says they are, and never outside the file, whatever stands in it."""

from __future__ import annotations

import time
from dataclasses import replace
from math import prod
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from featherweight.packaging import info, pack
from featherweight.packaging.package import Content, decode_package, encode_package
from featherweight.packaging.pieces import varint
from featherweight.packaging.spans import SIZES, TensorSpan, tensor_spans
from tests.packaging.samples import levels, onnx_file
from tests.targets.networks import Residual
from tests.targets.onnxruntime.networks import INT8, TARGET, compressed

FILE = onnx_file()


def _inside(content: bytes) -> tuple[TensorSpan, ...]:
    """The spans of an .onnx file, checked: inside it, one after the other, as long as their shapes say."""
    end, found = 0, tensor_spans("x.onnx", content)
    for span in found:
        assert end <= span.offset < span.offset + span.length <= len(content)
        assert span.length == prod(span.shape) * SIZES[span.dtype]
        end = span.offset + span.length
    return found


def _held(content: bytes, span: TensorSpan) -> np.ndarray:
    return np.frombuffer(content, span.dtype, prod(span.shape), span.offset).reshape(span.shape)


def test_initializers_and_constants_lie_where_onnx_reads_them() -> None:
    graph = onnx.ModelProto.FromString(FILE).graph
    inner = next(one.g for node in graph.node for one in node.attribute if one.HasField("g"))
    constants = [one.t for part in (graph, inner) for node in part.node for one in node.attribute if one.HasField("t")]
    expected = {one.name: numpy_helper.to_array(one) for one in (*graph.initializer, *constants)}
    found = {span.name: _held(FILE, span) for span in _inside(FILE)}
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert found[name].dtype == value.dtype
        np.testing.assert_array_equal(found[name], value.reshape(value.shape or (1,)))


@pytest.mark.parametrize(
    "kind", ["float32", "float16", "float64", "int64", "int32", "int16", "uint16", "int8", "uint8"]
)
def test_every_element_is_known(kind: str) -> None:
    tensor = numpy_helper.from_array(np.arange(6).astype(kind).reshape(2, 3), "w")
    content = helper.make_model(helper.make_graph([], "g", [], [], [tensor])).SerializeToString()
    (span,) = _inside(content)
    assert (span.dtype, span.shape, span.name) == (kind, (2, 3), "w")


@pytest.mark.parametrize("kind", [TensorProto.FLOAT, TensorProto.DOUBLE])
def test_typed_reals_lie_as_in_memory(kind: int) -> None:
    tensor = helper.make_tensor("w", kind, (2, 2), [1.0, -2.0, 0.5, 0.0])
    assert not tensor.raw_data
    content = helper.make_model(helper.make_graph([], "g", [], [], [tensor])).SerializeToString()
    (span,) = _inside(content)
    np.testing.assert_array_equal(_held(content, span), numpy_helper.to_array(tensor))


def test_numbers_that_do_not_lie_as_in_memory_have_no_span() -> None:
    packed = helper.make_tensor("w", TensorProto.INT32, (2, 2), [1, 2, 3, 4])  # variable-length integers
    outside = TensorProto(name="far", data_type=TensorProto.FLOAT, dims=(4,), data_location=TensorProto.EXTERNAL)
    short = TensorProto(name="lies", data_type=TensorProto.FLOAT, dims=(1 << 40, 1 << 40), raw_data=bytes(16))
    negative = TensorProto(name="lies", data_type=TensorProto.FLOAT, dims=(-2, -2), raw_data=bytes(16))
    graph = helper.make_graph([], "g", [], [], [packed, outside, short, negative])
    assert _inside(helper.make_model(graph).SerializeToString()) == ()


def test_a_cut_file_has_no_spans() -> None:
    whole, behind = _inside(FILE), 0
    assert len(whole) == 7
    for length in range(len(FILE)):
        found = _inside(FILE[:length])
        assert found in ((), whole)
        behind += bool(found)
    assert behind < 20  # only where what is cut off stands behind the graph


@settings(max_examples=300)
@given(st.lists(st.tuples(st.integers(0, len(FILE) - 1), st.binary(max_size=4), st.integers(0, 4)), max_size=4))
def test_a_mutated_file_has_spans_inside_itself_or_none(changes: list[tuple[int, bytes, int]]) -> None:
    content = FILE
    for place, put, gone in changes:
        content = content[:place] + put + content[place + gone :]
    found = _inside(content)
    # Read again behind a field that nobody knows, everything lies as much further on, or nothing is read.
    further = [replace(span, offset=span.offset + 3) for span in found]
    assert list(_inside(b"\xf8\x07\x01" + content)) in ([], further)


@settings(max_examples=100)
@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_left(content: bytes) -> None:
    tensor = b"\x2a" + varint(len(content)) + content
    for file in (content, b"\x3a" + varint(len(content)) + content, b"\x3a" + varint(len(tensor)) + tensor):
        assert sum(span.length for span in _inside(file)) <= len(content)


def test_graphs_in_graphs_in_graphs_are_no_trouble() -> None:
    tensor = numpy_helper.from_array(np.arange(3, dtype="f4"), "w").SerializeToString()
    graph = b"\x2a" + varint(len(tensor)) + tensor
    for _ in range(3000):  # far deeper than Python calls go
        for tag in (b"\x32", b"\x2a", b"\x0a"):  # a graph in an attribute, in a node, in a graph
            graph = tag + varint(len(graph)) + graph
    (span,) = _inside(b"\x3a" + varint(len(graph)) + graph)
    assert span.name == "w"


def test_a_file_of_countless_fields_is_left_in_time() -> None:
    start = time.process_time()
    assert _inside(b"\x3a" + varint(8_000_000) + b"\x08\x01" * 4_000_000) == ()
    assert time.process_time() - start < 20


@pytest.fixture(scope="module")
def lowered(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of the target with int8 weights whose channels differ in scale."""
    torch.manual_seed(0)
    path, module = tmp_path_factory.mktemp("lowered") / "a.onnx", Residual()
    with torch.no_grad():
        module.hidden.weight.mul_(torch.rand(1, 256) * (torch.rand(1, 256) > 0.5))
    layers = [name for name, one in module.named_modules() if isinstance(one, nn.Conv2d | nn.Linear)]
    TARGET.lower(compressed(module, torch.rand(32, 1, 8, 8), **dict.fromkeys(layers, INT8)), path)
    return path


def test_a_file_of_the_target_is_packed_smaller_by_its_tensors(lowered: Path) -> None:
    content = lowered.read_bytes()
    weights = [span for span in _inside(content) if span.dtype == "int8" and len(span.shape) > 1]
    assert {span.shape for span in weights} >= {(16, 16, 1, 1), (32, 256), (10, 32)}
    blind = encode_package(Content({"a.onnx": content}, spans={"a.onnx": ()}))
    package = encode_package(Content({"a.onnx": content}))
    assert decode_package(package).files()["a.onnx"] == content
    assert len(package) < 0.95 * len(blind)


def test_info_tells_of_levels(lowered: Path, tmp_path: Path) -> None:
    pack(lowered, tmp_path / "a.fwp")
    largest = max(info(tmp_path / "a.fwp").pieces, key=lambda piece: piece.elements)
    assert (largest.kind, largest.elements) == ("levels", 32 * 256)
    assert largest.name


def test_an_update_of_an_onnx_file_finds_its_tensors() -> None:
    old, new = (Content({"a.onnx": onnx_file(weight)}) for weight in _versions())
    update = encode_package(new, old)
    assert decode_package(update, old.joined()).files() == new.files
    assert len(update) < 0.5 * len(encode_package(new))


def _versions() -> tuple[np.ndarray, np.ndarray]:
    old = levels(4, (32, 8, 3, 3), 20)
    new = old.copy()
    new[::4] += 1
    return old, new
