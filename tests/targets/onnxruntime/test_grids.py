"""Rounding before an operation that moves or clips gives the very levels that rounding after it gives."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnxruntime
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from featherweight.targets.onnxruntime.graph import Graph
from featherweight.targets.onnxruntime.grids import hoist, use_unsigned
from featherweight.targets.onnxruntime.tidy import finished

NODE = helper.make_node


def model_of(middle: list[Any], constants: dict[str, np.ndarray], grid: tuple[float, int]) -> Any:
    """x → the operations, from "a" to "b" → rounded to an int8 grid → reals."""
    held = {"s": np.float32(grid[0]), "z": np.int8(grid[1]), **constants}
    nodes = [NODE("Neg", ["x"], ["a"]), *middle, NODE("QuantizeLinear", ["b", "s", "z"], ["q"])]
    nodes.append(NODE("DequantizeLinear", ["q", "s", "z"], ["y"]))
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes,
        "g",
        [value("x", TensorProto.FLOAT, ["batch", 2, 4, 4])],
        [value("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(np.asarray(one), name) for name, one in held.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)


def answers(model: Any, x: np.ndarray) -> np.ndarray:
    """What the runtime gives, every operation as it stands."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    made = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return np.asarray(made.run(None, {"x": x})[0])


def hoisted(model: Any) -> Any:
    graph = Graph(model)
    use_unsigned(graph)
    hoist(graph)
    return finished(graph)


CASES = {
    "relu": ([NODE("Relu", ["a"], ["b"])], {}),
    "clip": ([NODE("Clip", ["a", "l", "h"], ["b"])], {"l": np.float32(-0.7), "h": np.float32(1.9)}),
    "clip from below": ([NODE("Clip", ["a", "l"], ["b"])], {"l": np.float32(0.3)}),
    "max pool": ([NODE("MaxPool", ["a"], ["b"], kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1])], {}),
    "pad": ([NODE("Pad", ["a", "p", "v"], ["b"])], {"p": np.array([0, 0, 1, 0, 0, 0, 0, 2]), "v": np.float32(0.4)}),
    "pad with zeros": ([NODE("Pad", ["a", "p"], ["b"])], {"p": np.array([0, 1, 0, 0, 0, 0, 0, 0])}),
    "chain": (
        [
            NODE("Transpose", ["a"], ["c"], perm=[0, 2, 3, 1]),
            NODE("Relu", ["c"], ["d"]),
            NODE("Slice", ["d", "from", "to", "axis"], ["e"]),
            NODE("Reshape", ["e", "shape"], ["b"]),
        ],
        {"from": np.array([1]), "to": np.array([3]), "axis": np.array([2]), "shape": np.array([-1, 16])},
    ),
}


@pytest.mark.parametrize("name", CASES)
@given(
    scale=st.floats(2**-10, 0.5, width=32),
    zero=st.integers(-128, 127),
    seed=st.integers(0, 99),
    spread=st.floats(0.1, 9),
)
def test_levels_are_the_same(name: str, scale: float, zero: int, seed: int, spread: float) -> None:
    model = model_of(*CASES[name], (scale, zero))
    x = (spread * np.random.default_rng(seed).standard_normal((2, 2, 4, 4))).astype(np.float32)
    made = hoisted(model)
    assert np.array_equal(answers(made, x), answers(model, x))
    assert [node.op_type for node in made.graph.node[:2]] == ["Neg", "QuantizeLinear"]


def test_a_relu_at_the_end_of_the_grid_vanishes() -> None:
    made = hoisted(model_of(*CASES["relu"], (0.1, -128)))
    assert [node.op_type for node in made.graph.node] == ["Neg", "QuantizeLinear", "DequantizeLinear"]


def test_going_to_a_grid_from_the_same_grid_does_nothing() -> None:
    again = [NODE("QuantizeLinear", ["a", "s", "z"], ["c"]), NODE("DequantizeLinear", ["c", "s", "z"], ["b"])]
    made = hoisted(model_of(again, {}, (0.1, 5)))
    assert [node.op_type for node in made.graph.node] == ["Neg", "QuantizeLinear", "DequantizeLinear"]


@pytest.mark.parametrize("case", ["read twice", "another mode", "a computed bound"])
def test_what_does_not_commute_stays(case: str) -> None:
    middle, constants = {
        "read twice": ([NODE("Relu", ["a"], ["c"]), NODE("Exp", ["c"], ["e"]), NODE("Add", ["c", "e"], ["b"])], {}),
        "another mode": ([NODE("Pad", ["a", "p"], ["b"], mode="reflect")], {"p": np.array([0, 0, 1, 0, 0, 0, 0, 0])}),
        "a computed bound": (
            [NODE("ReduceMax", ["a"], ["m"], keepdims=0), NODE("Clip", ["a", "", "m"], ["b"])],
            {},
        ),
    }[case]
    model = model_of(middle, constants, (0.1, 0))
    made = hoisted(model)
    assert made.graph.node[-2].op_type == "QuantizeLinear"
    x = np.random.default_rng(0).standard_normal((2, 2, 4, 4)).astype(np.float32)
    assert np.array_equal(answers(made, x), answers(model, x))
