"""From a network with encodings and grids to an ``.onnx`` file.

PyTorch's exporter writes the simulated network, in which roundings stand as ``QuantizeLinear`` and ``DequantizeLinear``
with the scales of the encodings and grids. What is left is to store weights in their own types and to bring layers into
the patterns that ONNX Runtime turns into integer kernels. So the file computes what ``with_grids`` simulates.
"""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator, Mapping
from typing import Any

import torch

from featherweight.contracts import LoweringError
from featherweight.network.encodings import AffineEncoding, encodings
from featherweight.network.grids import Compressed, with_grids
from featherweight.targets.onnxruntime.graph import Graph
from featherweight.targets.onnxruntime.grids import hoist, keep_products_real, keep_real, use_unsigned
from featherweight.targets.onnxruntime.kernels import use_kernels
from featherweight.targets.onnxruntime.tidy import OPSET, finished
from featherweight.targets.onnxruntime.weights import settle_weights, store_half, stored_weights
from featherweight.targets.placement import integer_layers

_MOST_BYTES = 2**31 - 1  # what a protocol buffer holds

KERNELS = ("QLinearConv", "QGemm", "QLinearMatMul")
DYNAMIC_KERNELS = ("MatMulInteger", "DynamicQuantizeMatMul", "MatMulIntegerToFloat")


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep what the exporter prints, logs and warns of to itself while the block runs."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with (
            warnings.catch_warnings(),
            contextlib.redirect_stdout(io.StringIO()),
            contextlib.redirect_stderr(io.StringIO()),
        ):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def _exported(compressed: Compressed) -> Any:
    """The simulated network as an ONNX model with a free batch dimension.

    Raises:
        LoweringError: the exporter refuses.
    """
    module, example = with_grids(compressed), compressed.network.example
    settle_weights(module, compressed.network.module)
    shapes = tuple({0: torch.export.Dim.DYNAMIC} for _ in example)
    with _quiet():
        try:
            program = torch.onnx.export(
                module.eval(), example, dynamo=True, dynamic_shapes=shapes, opset_version=OPSET, verbose=False
            )
            if program is None:
                raise RuntimeError("no program came back")
            model = program.model_proto
        except Exception as error:
            told = [line.strip() for line in str(error.__cause__ or error).splitlines() if line.strip()]
            raise LoweringError(
                "The ONNX exporter must take every operation of the network.",
                f"{type(error).__name__}: {' '.join(told[:2])[:300]}",
                "replace the operation that it names by one of the ONNX operator set",
            ) from error
    nested = {node.op_type for node in model.graph.node for one in node.attribute if one.HasField("g") or one.graphs}
    nested |= {function.name for function in model.functions}
    if nested:
        raise LoweringError(
            "A network must lower to one plain graph of operations.",
            f"the exporter wrote graphs inside the graph: {', '.join(sorted(nested))}",
            "take loops and conditions out of forward",
        )
    return model


def convert(compressed: Compressed) -> bytes:
    """The network as the bytes of an ``.onnx`` file for batches of any size.

    Raises:
        LoweringError: the exporter refuses, a grid has other than 256 levels, or the file would be too large.
    """
    size = sum(value.numel() * value.element_size() for value in compressed.network.module.state_dict().values())
    _check_size(size)
    _check_grids(compressed)
    graph = Graph(_exported(compressed))
    for weight in stored_weights(graph, compressed.network):
        use_kernels(graph, weight)
    use_unsigned(graph)
    hoist(graph)
    store_half(graph, compressed.network)
    keep_real(graph)
    keep_products_real(graph)
    content = finished(graph).SerializeToString(deterministic=True)
    _check_size(len(content))
    return content


def _check_grids(compressed: Compressed) -> None:
    narrow = [node for node, grid in compressed.grids.items() if (grid.lowest, grid.highest) != (-128, 127)]
    if narrow:
        raise LoweringError(
            "Activations lie on grids of all 256 levels of 8 bits.",
            f"others at {', '.join(narrow[:8])}",
            "give them 8 bits",
        )


def _check_size(size: int) -> None:
    if size > _MOST_BYTES:
        raise LoweringError(
            "An .onnx file holds less than 2 GiB.", f"{size:,} bytes", "compress the largest layers further"
        )


def check_kernels(compressed: Compressed, operators: Mapping[str, int]) -> None:
    """Every layer that asked for an integer kernel got one, and no other.

    Args:
        compressed: the network.
        operators: of the optimized graph, with types.

    Raises:
        LoweringError: fewer integer kernels than layers that asked for one, or more.
    """
    asked = {
        "on grids": [layer.name for layer in integer_layers(compressed.network)],
        "with ranges per inference": [
            name
            for name, one in encodings(compressed.network.module)
            if isinstance(one, AffineEncoding) and one.dynamic
        ],
    }
    for (words, layers), kernels in zip(asked.items(), (KERNELS, DYNAMIC_KERNELS), strict=True):
        found = sum(count for name, count in operators.items() if name.split()[0] in kernels)
        if found < len(layers):
            raise LoweringError(
                "Every int8 layer must run on an integer kernel.",
                f"{found} integer kernels for {len(layers)} int8 layers {words} ({', '.join(layers[:8])}): "
                f"{dict(operators)}",
                "set the layers next to an unsupported operation to float16 in the plan",
            )
        if found > len(layers):
            raise LoweringError(
                "What the plan keeps real must run on real kernels.",
                f"{found} integer kernels for {len(layers)} int8 layers {words} ({', '.join(layers[:8])}): "
                f"{dict(operators)}",
                "the installed runtime puts more on integers by itself: give layers between int8 layers int8 too, and "
                "those that feed a product of activations float16",
            )
