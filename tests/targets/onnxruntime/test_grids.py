"""Rounding before an operation that moves or clips gives the very levels that rounding after it gives."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import helper

from featherweight.targets.onnxruntime.graph import Graph
from featherweight.targets.onnxruntime.grids import hoist, use_unsigned
from featherweight.targets.onnxruntime.tidy import finished
from tests.targets.onnxruntime.networks import answers, model_of

NODE = helper.make_node


def rounded(middle: list[Any], constants: dict[str, np.ndarray], grid: tuple[float, int]) -> Any:
    """x → the operations, from "a" to "b" → rounded to an int8 grid → reals."""
    nodes = [NODE("Neg", ["x"], ["a"]), *middle, NODE("QuantizeLinear", ["b", "s", "z"], ["q"])]
    nodes.append(NODE("DequantizeLinear", ["q", "s", "z"], ["y"]))
    return model_of(nodes, {"s": np.float32(grid[0]), "z": np.int8(grid[1]), **constants})


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
    model = rounded(*CASES[name], (scale, zero))
    x = (spread * np.random.default_rng(seed).standard_normal((2, 2, 4, 4))).astype(np.float32)
    made = hoisted(model)
    assert np.array_equal(answers(made, x), answers(model, x))
    assert [node.op_type for node in made.graph.node[:2]] == ["Neg", "QuantizeLinear"]


def test_a_relu_at_the_end_of_the_grid_vanishes() -> None:
    made = hoisted(rounded(*CASES["relu"], (0.1, -128)))
    assert [node.op_type for node in made.graph.node] == ["Neg", "QuantizeLinear", "DequantizeLinear"]


def test_going_to_a_grid_from_the_same_grid_does_nothing() -> None:
    again = [NODE("QuantizeLinear", ["a", "s", "z"], ["c"]), NODE("DequantizeLinear", ["c", "s", "z"], ["b"])]
    made = hoisted(rounded(again, {}, (0.1, 5)))
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
    model = rounded(middle, constants, (0.1, 0))
    made = hoisted(model)
    assert made.graph.node[-2].op_type == "QuantizeLinear"
    x = np.random.default_rng(0).standard_normal((2, 2, 4, 4)).astype(np.float32)
    assert np.array_equal(answers(made, x), answers(model, x))
