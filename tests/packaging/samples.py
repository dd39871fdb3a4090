"""Small contents of every kind that a package knows, made from a seed."""

from __future__ import annotations

import numpy as np

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
        "no tensor": Content({"artefact": b"a graph and its names, a graph and its names"}),
        "one byte": Content({"artefact": b"x"}),
    }
