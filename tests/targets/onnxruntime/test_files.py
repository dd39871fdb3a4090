"""Files of whatever origin: run, timed, and refused where they can't be."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from featherweight.contracts import DataError, LoweringError
from featherweight.targets.onnxruntime import describe, run
from tests.targets.onnxruntime.networks import TARGET


def written(path: Path, nodes: list, shape: list, constants: dict | None = None, kind: int = TensorProto.FLOAT) -> Path:
    """A file with an input ``x`` of that shape and an output ``y``."""
    value = helper.make_tensor_value_info
    outputs = [value(name, TensorProto.FLOAT, None) for node in nodes for name in node.output if name.startswith("y")]
    held = [numpy_helper.from_array(one, name) for name, one in (constants or {}).items()]
    graph = helper.make_graph(nodes, "g", [value("x", kind, shape)], outputs, held)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    path.write_bytes(model.SerializeToString())
    return path


def test_a_file_for_one_sample_is_run_sample_by_sample(tmp_path: Path) -> None:
    path = written(tmp_path / "one.onnx", [helper.make_node("Neg", ["x"], ["y"])], [1, 3])
    x = np.arange(21, dtype=np.float64).reshape(7, 3)
    found = TARGET.load(path)((x,))
    assert found.dtype == np.float32
    assert np.array_equal(found, -x)


def test_a_file_for_other_batches_is_refused(tmp_path: Path) -> None:
    path = written(tmp_path / "four.onnx", [helper.make_node("Neg", ["x"], ["y"])], [4, 3])
    with pytest.raises(LoweringError, match="any number of samples, or one"):
        TARGET.load(path)


def test_a_file_with_several_outputs_is_refused(tmp_path: Path) -> None:
    nodes = [helper.make_node("Neg", ["x"], ["y1"]), helper.make_node("Abs", ["x"], ["y2"])]
    with pytest.raises(LoweringError, match="one output"):
        TARGET.load(written(tmp_path / "two.onnx", nodes, ["batch", 3]))


def test_samples_of_another_shape_are_refused(tmp_path: Path) -> None:
    path = written(tmp_path / "a.onnx", [helper.make_node("Neg", ["x"], ["y"])], ["batch", 3])
    for batch in ((np.zeros((2, 4)),), (np.zeros((2, 3, 1)),), (np.zeros((2, 3)), np.zeros((2, 3)))):
        with pytest.raises(DataError, match="shape that the file takes"):
            TARGET.load(path)(batch)


def test_reals_are_not_cut_to_whole_numbers(tmp_path: Path) -> None:
    node = helper.make_node("Cast", ["x"], ["y"], to=TensorProto.FLOAT)
    load = TARGET.load(written(tmp_path / "a.onnx", [node], ["batch", 3], kind=TensorProto.UINT8))
    assert np.array_equal(load((np.full((2, 3), 200),)), np.full((2, 3), 200.0))
    with pytest.raises(DataError, match="whole numbers"):
        load((np.full((2, 3), 0.5),))


@pytest.mark.parametrize("content", [b"", b"not a model", b"\x08\x08" * 100, b"TFL3" * 100])
def test_what_is_no_file_is_refused(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "a.onnx"
    path.write_bytes(content)
    for use in (TARGET.load, TARGET.profile, lambda one: TARGET.benchmark([one])):
        with pytest.raises(LoweringError, match="must load"):
            use(path)


def test_half_a_file_is_refused(tmp_path: Path) -> None:
    weight = np.ones((64, 64), np.float32)
    path = written(tmp_path / "a.onnx", [helper.make_node("MatMul", ["x", "w"], ["y"])], ["b", 64], {"w": weight})
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(LoweringError, match="must load"):
        TARGET.load(path)


def test_weights_in_other_files_are_refused(tmp_path: Path) -> None:
    weight = np.ones((64, 64), np.float32)
    path = written(tmp_path / "a.onnx", [helper.make_node("MatMul", ["x", "w"], ["y"])], ["b", 64], {"w": weight})
    onnx.save(onnx.load(path), path, save_as_external_data=True, location="w.bin", size_threshold=0)
    with pytest.raises(LoweringError, match="hold its own weights"):
        TARGET.load(path)


def test_inputs_that_are_no_numbers_are_refused(tmp_path: Path) -> None:
    node = helper.make_node("StringNormalizer", ["x"], ["y"])
    path = written(tmp_path / "a.onnx", [node], [1], kind=TensorProto.STRING)
    model = onnx.load(path)
    model.graph.output[0].type.tensor_type.elem_type = TensorProto.STRING
    path.write_bytes(model.SerializeToString())
    for use in (TARGET.load, TARGET.profile, lambda one: TARGET.benchmark([one])):
        with pytest.raises(LoweringError, match="tensors of numbers"):
            use(path)


def test_a_file_that_fails_while_running_is_refused(tmp_path: Path) -> None:
    shape = np.array([7, 7], np.int64)
    path = written(tmp_path / "a.onnx", [helper.make_node("Reshape", ["x", "s"], ["y"])], ["b", 3], {"s": shape})
    with pytest.raises(LoweringError, match="must run"):
        TARGET.load(path)((np.zeros((2, 3)),))
    with pytest.raises(LoweringError, match="must run"):
        TARGET.benchmark([path])


def test_a_larger_file_takes_longer(tmp_path: Path) -> None:
    paths = []
    for size in (8, 768):
        weight = np.ones((size, size), np.float32)
        node = helper.make_node("MatMul", ["x", "w"], ["y"])
        paths.append(written(tmp_path / f"{size}.onnx", [node], ["b", size], {"w": weight}))
    small, large = TARGET.benchmark(paths, runs=30, threads=1)
    assert small.median_ms < large.median_ms
    assert (small.runs, small.threads) == (30, 1)
    ((name, first),), ((_, second),) = (TARGET.profile(path, runs=10) for path in paths)
    assert name in ("MatMul", "Gemm", "FusedMatMul")
    assert first < second


def test_operators_are_timed_in_their_order(tmp_path: Path) -> None:
    names = ["Exp", "Abs", "Exp", "Sqrt"]
    ends = ["x", "a", "b", "c", "y"]
    nodes = [helper.make_node(name, [ends[at]], [ends[at + 1]]) for at, name in enumerate(names)]
    rows = TARGET.profile(written(tmp_path / "a.onnx", nodes, ["b", 3]), runs=3)
    assert [name for name, _ in rows] == names
    assert all(0 < ms < 10 for _, ms in rows)


def test_bytes_add_up_and_operators_have_types(tmp_path: Path) -> None:
    weight = np.ones((64, 32), np.float16)
    nodes = [helper.make_node("Cast", ["x"], ["h"], to=10), helper.make_node("MatMul", ["h", "w"], ["m"])]
    nodes.append(helper.make_node("Cast", ["m"], ["y"], to=1))
    path = written(tmp_path / "a.onnx", nodes, ["b", 64], {"w": weight})
    parts = TARGET.parts(path)
    assert parts["float16 constants"] == 64 * 32 * 2
    assert sum(parts.values()) == path.stat().st_size
    model = run.read_model(path.read_bytes())
    assert describe.operators_by_type(model) == {"Cast float16": 1, "Cast float32": 1, "MatMul float16": 1}
