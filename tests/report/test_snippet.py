from __future__ import annotations

import ast
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from ai_edge_litert import schema_py_generated as schema
from hypothesis import given
from hypothesis import strategies as st

from featherweight.contracts import Artefact, TensorSpec
from featherweight.report.snippet import litert_snippet, onnxruntime_snippet, program_of
from featherweight.targets.litert.flatbuffer import write_model

GRID_IN, GRID_OUT = (0.05, -14), (0.1, 3)


def artefact(
    inputs: tuple[TensorSpec, ...], outputs: tuple[TensorSpec, ...], file: str = "artefact.tflite"
) -> Artefact:
    return Artefact("litert", file, 1, "0" * 64, inputs, outputs, {})


def real(name: str, **changes) -> TensorSpec:
    return replace(TensorSpec(name, (1, 2, 3), "float32"), **changes)


def doubled(path: Path, *, integer: bool) -> Artefact:
    """A LiteRT file with one ADD, of an input to itself, on int8 grids or on reals."""
    model, graph, code, operator = schema.ModelT(), schema.SubGraphT(), schema.OperatorCodeT(), schema.OperatorT()
    code.builtinCode = code.deprecatedBuiltinCode = schema.BuiltinOperator.ADD
    code.version = 2 if integer else 1
    operator.opcodeIndex, operator.inputs, operator.outputs = 0, [0, 0], [1]
    operator.builtinOptionsType, operator.builtinOptions = schema.BuiltinOptions.AddOptions, schema.AddOptionsT()
    graph.tensors = [tensor_of("in", GRID_IN, integer), tensor_of("out", GRID_OUT, integer)]
    graph.inputs, graph.outputs, graph.operators, graph.name = [0], [1], [operator], "main"
    model.version, model.operatorCodes, model.subgraphs, model.buffers = 3, [code], [graph], [schema.BufferT()]
    path.write_bytes(write_model(model))
    if not integer:
        return artefact((real("in"),), (real("out"),), path.name)
    inputs, outputs = (
        real(name, dtype="int8", scale=scale, zero_point=zero)
        for name, (scale, zero) in (("in", GRID_IN), ("out", GRID_OUT))
    )
    return artefact((inputs,), (outputs,), path.name)


def tensor_of(name: str, grid: tuple[float, int], integer: bool):
    tensor = schema.TensorT()
    tensor.name, tensor.shape, tensor.buffer = name, [1, 2, 3], 0
    tensor.type = schema.TensorType.INT8 if integer else schema.TensorType.FLOAT32
    if integer:
        tensor.quantization = schema.QuantizationParametersT()
        tensor.quantization.scale, tensor.quantization.zeroPoint = [grid[0]], [grid[1]]
    return tensor


def found_by(program: str, folder: Path) -> np.ndarray:
    """What a program saves that prints an output "out", run by itself."""
    program += 'import sys\nassert not any(name.startswith(("featherweight", "torch")) for name in sys.modules)\n'
    (folder / "program.py").write_text(program)
    done = subprocess.run([sys.executable, "-I", "program.py"], cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "out" in done.stdout
    return np.load(folder / "found.npy")


@pytest.mark.parametrize("integer", [True, False])
def test_it_runs_a_real_file_in_the_runtime_alone(tmp_path, integer) -> None:
    program = litert_snippet(doubled(tmp_path / "twice.tflite", integer=integer))
    sample = np.array([[[0.5, -0.25, 1.0], [2.0, 0.0, -1.5]]], "float32")
    placeholder = 'np.zeros((1, 2, 3), "float32")'
    assert placeholder in program
    program = program.replace(placeholder, f'np.array({sample.tolist()}, "float32")')
    found = found_by(program + 'np.save("found.npy", y0)\n', tmp_path)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, 2 * sample, atol=GRID_OUT[0] / 2 + 2 * GRID_IN[0] / 2 if integer else 0)


def test_it_runs_an_onnx_file_in_the_runtime_alone(tmp_path) -> None:
    value = onnx.helper.make_tensor_value_info
    ends = (value(name, onnx.TensorProto.FLOAT, ["batch", 2, 3]) for name in ("in", "out"))
    graph = onnx.helper.make_graph([onnx.helper.make_node("Add", ["in", "in"], ["out"])], "g", *([one] for one in ends))
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=8)
    (tmp_path / "twice.onnx").write_bytes(model.SerializeToString())
    one = replace(artefact((real("in", layout="NCHW"),), (real("out"),), "twice.onnx"), target="onnxruntime")
    sample = np.array([[[0.5, -0.25, 1.0], [2.0, 0.0, -1.5]]], "float32")
    program = onnxruntime_snippet(one)
    assert "in: your sample, NCHW" in program
    program = program.replace('np.zeros((1, 2, 3), "float32")', f'np.array({sample.tolist()}, "float32")')
    assert np.array_equal(found_by(program + 'np.save("found.npy", outputs[0])\n', tmp_path), 2 * sample)


def test_every_runtime_has_its_program() -> None:
    one = artefact((real("x"),), (real("y"),))
    for name, package in (("litert", "ai-edge-litert"), ("onnxruntime", "onnxruntime")):
        found = program_of(replace(one, target=name))
        assert found is not None
        assert found[1] == package
        assert package.replace("-", "_") in found[0]
    assert program_of(replace(one, target="abacus")) is None


def functions_of(program: str) -> dict:
    """The functions that a program defines, without running the rest."""
    tree = ast.parse(program)
    tree.body = [node for node in tree.body if isinstance(node, ast.FunctionDef)]
    space: dict = {"np": np}
    exec(compile(tree, "snippet", "exec"), space)
    return space


@given(st.floats(-100, 100, width=32), st.sampled_from(["int8", "uint8", "int16"]), st.integers(0, 127))
def test_quantizing_there_and_back_errs_by_half_a_step_or_saturates(value, dtype, zero) -> None:
    grid = real("x", dtype=dtype, scale=0.05, zero_point=zero)
    space = functions_of(litert_snippet(artefact((grid,), (grid,))))
    steps = space["quantize"](np.array([value]), 0.05, zero, dtype)
    limits = np.iinfo(dtype)
    low, high = ((limit - zero) * 0.05 for limit in (limits.min, limits.max))
    assert steps.dtype == dtype
    assert space["dequantize"](steps, 0.05, zero)[0] == pytest.approx(min(max(value, low), high), abs=0.0251, rel=1e-6)


def test_reals_need_no_functions() -> None:
    program = litert_snippet(artefact((real("x"),), (real("y"),)))
    assert "def " not in program
    assert "quantize" not in program


def test_every_input_and_output_is_there() -> None:
    program = litert_snippet(artefact((real("a"), real("b", dtype="int64")), (real("c"), real("d"))))
    ast.parse(program)
    for index in (0, 1):
        (fed,) = re.findall(rf'set_tensor\(interpreter\.get_input_details\(\)\[(\d)\]\["index"\], x{index}\)', program)
        (read,) = re.findall(
            rf"y{index} = interpreter\.get_tensor\(interpreter\.get_output_details\(\)\[(\d)\]", program
        )
        assert (int(fed), int(read)) == (index, index)
    assert '"int64"' in program


@pytest.mark.parametrize("write", [litert_snippet, onnxruntime_snippet])
@given(name=st.text(), layout=st.text(), file=st.text())
def test_names_stay_words(write, name, layout, file) -> None:
    spec = real(name, layout=layout)
    program = write(artefact((spec,), (spec,), file))
    tree = ast.parse(program)
    plain = ast.parse(write(artefact((real("x"),), (real("y"),))))
    assert [type(node) for node in ast.walk(tree)] == [type(node) for node in ast.walk(plain)]
    words = [node.value for node in ast.walk(tree) if isinstance(node, ast.Constant)]
    assert file in words
    assert name in words
