"""Small contents of every kind that a package knows, made from a seed."""

from __future__ import annotations

import numpy as np
from onnx import NodeProto, helper, numpy_helper

from featherweight.packaging.package import Content
from featherweight.packaging.spans import SIZES, TensorSpan


def content_of(tensors: list[np.ndarray], between: bytes = b"") -> Content:
    """Tensors one after the other, with other bytes around them."""
    spans, data = [], between
    for number, tensor in enumerate(tensors):
        assert tensor.dtype.name in SIZES
        spans.append(TensorSpan(len(data), tensor.nbytes, tensor.dtype.name, tensor.shape, f"tensor{number}"))
        data += tensor.tobytes() + between
    return Content({"artefact": data}, {"target": "test"}, {"artefact": spans})


def levels(seed: int, shape: tuple[int, ...], spread: float, dtype: str = "int8") -> np.ndarray:
    """Gaussian levels with rows of different scale and dead columns."""
    random = np.random.default_rng(seed)
    rows = random.normal(0, spread, shape) * random.uniform(0.3, 1, (shape[0], *[1] * (len(shape) - 1)))
    rows *= random.random(shape[1:]) > 0.2
    limit = np.iinfo(dtype)
    return np.clip(np.round(rows) + (128 if dtype == "uint8" else 0), limit.min, limit.max).astype(dtype)


def every_kind() -> dict[str, Content]:
    """Contents by name; each is of another kind."""
    random = np.random.default_rng(7)
    coarse = levels(0, (12, 60), 30)
    coarser = np.round(np.round(coarse * 0.31) / 0.31).astype(np.int8)
    palette = random.choice(np.array([-1.5, -0.0, 0.0, 0.25, np.nan], dtype="f4"), (16, 40))
    scaled = (levels(1, (10, 40), 3) * random.random((10, 1), dtype="f4")).astype("f4")
    return {
        "int8, few": content_of([levels(2, (16, 8, 3, 3), 1.5)], b"between"),
        "int8, many": content_of([coarse, coarser]),
        "int8, sparse": content_of([levels(3, (50, 40), 0.4)]),
        "uint8": content_of([levels(4, (16, 50), 20, "uint8")]),
        "int16": content_of([levels(5, (16, 50), 900, "int16")]),
        "int32": content_of([levels(6, (16, 50), 20000, "int32")]),
        "float32": content_of([random.normal(0, 1, (20, 30)).astype("f4"), palette.astype("f4"), scaled]),
        "float16": content_of([random.normal(0, 1, (20, 30)).astype("f2"), palette.astype("f2")]),
        "float64": content_of([random.normal(0, 1, (20, 30))]),
        "an .onnx file": Content({"artefact.onnx": onnx_file()}),
        "no tensor": Content({"artefact": b"a graph and its names, a graph and its names"}),
        "one byte": Content({"artefact": b"x"}),
    }


def onnx_file(weight: np.ndarray | None = None) -> bytes:
    """An .onnx file with tensors wherever they may stand: initializers, constants, constants of a branch.

    Args:
        weight: of the convolution; one from a seed where none is given.
    """
    weight = levels(11, (16, 4, 3, 3), 3) if weight is None else weight
    product = levels(12, (24, 16), 2, "uint8")
    real = np.random.default_rng(0).normal(0, 1, (8, 10))
    held = {"conv": weight, "gemm": product, "bias": real[0].astype("f4"), "half": real.astype("f2")}
    inner = helper.make_graph([_constant("inner", real.astype("f4"))], "then", [], [])
    nodes = [
        _constant("outer", np.arange(12, dtype="i8").reshape(3, 4)),
        _constant("scalar", np.array(2.5, "f4")),
        helper.make_node("If", ["condition"], ["y"], then_branch=inner),
    ]
    graph = helper.make_graph(nodes, "main", [], [], [numpy_helper.from_array(one, name) for name, one in held.items()])
    return helper.make_model(graph, producer_name="test").SerializeToString()


def _constant(name: str, value: np.ndarray) -> NodeProto:
    return helper.make_node("Constant", [], [name], value=numpy_helper.from_array(value, name))
