"""From a network with encodings and grids to a ``.tflite`` file.

litert-torch converts the graph; its strict mode turns exactly those operations into integer kernels whose inputs,
weights and outputs carry grids, and leaves all others real. So the file computes what ``with_grids`` simulates.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import sys
import tempfile
import warnings
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from torch import nn

from featherweight.contracts import Artefact, LoweringError, TensorSpec
from featherweight.network.encodings import AffineEncoding, HalfEncoding, encodings
from featherweight.network.grids import Compressed, with_grids
from featherweight.network.modules import weight_of
from featherweight.targets.litert import flatbuffer
from featherweight.targets.litert.packing import write_model
from featherweight.targets.litert.transposes import drop_transposes
from featherweight.targets.placement import integer_layers
from featherweight.targets.scaling import weight_missing

KERNELS = ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED")


class _ChannelsLast(nn.Module):
    """The network with image inputs as phones hold them: (batch, height, width, channels)."""

    def __init__(self, inner: nn.Module, images: list[bool]) -> None:
        super().__init__()
        self.inner, self.images = inner, images

    def forward(self, *inputs: torch.Tensor) -> torch.Tensor:
        turned = [x.permute(0, 3, 1, 2) if image else x for x, image in zip(inputs, self.images, strict=True)]
        return self.inner(*turned)


@contextlib.contextmanager
def quiet() -> Iterator[Path]:
    """Send what Python and native code print to a file, whose path is handed over, while the block runs.

    Handlers that the converter hangs on the root logger are taken off again: they would write to that file for ever.
    """
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "log"
        sys.stdout.flush()
        sys.stderr.flush()
        kept, handlers = [os.dup(1), os.dup(2)], list(logging.root.handlers)
        with log.open("a", buffering=1, errors="replace") as sink:
            try:
                os.dup2(sink.fileno(), 1)
                os.dup2(sink.fileno(), 2)
                with contextlib.redirect_stdout(sink), contextlib.redirect_stderr(sink):
                    yield log
            finally:
                logging.root.handlers[:] = handlers
                for number, saved in zip((1, 2), kept, strict=True):
                    os.dup2(saved, number)
                    os.close(saved)


@contextlib.contextmanager
def _strict() -> Iterator[None]:
    """Let the converter quantize what carries grids and nothing else; litert-torch has no switch for it.

    It also takes two constants for one when the second is copied to where the first lay (its cache knows them by
    address, and drops the copy). So constants are known by their content while the block runs.
    """
    from litert_torch._convert import litert_converter  # noqa: PLC0415
    from litert_torch.backend import inline_consts  # noqa: PLC0415

    api = litert_converter.converter_api_ext
    plain = api.run_convert_to_tfl_passes

    def strict(module: Any, passes: Any, config: Any) -> Any:
        config.qdq_conversion_mode, config.strict_qdq_mode = "STRICT", True
        return plain(module, passes, config)

    with (
        mock.patch.object(api, "run_convert_to_tfl_passes", strict),
        mock.patch.object(inline_consts._ConstantFingerprint, "from_tensor", _content_of),
    ):
        yield


def _content_of(tensor: torch.Tensor) -> str:
    raw = tensor.detach().contiguous().cpu().reshape(-1).view(torch.uint8).numpy().tobytes()
    return f"{tensor.dtype} {tuple(tensor.shape)} {hashlib.sha256(raw).hexdigest()}"


def is_image(tensor: torch.Tensor) -> bool:
    """Whether an input is (batch, channels, height, width) of reals: an image, by its shape."""
    return tensor.ndim == 4 and tensor.is_floating_point()


def convert(compressed: Compressed) -> bytes:
    """The network as the bytes of a ``.tflite`` file for one sample.

    Raises:
        LoweringError: the converter refuses.
    """
    example = compressed.network.example
    images = [is_image(tensor) for tensor in example]
    one = tuple(
        x[:1].permute(0, 2, 3, 1).contiguous() if image else x[:1] for x, image in zip(example, images, strict=True)
    )
    module = _ChannelsLast(with_grids(compressed), images).eval()
    with quiet() as log, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecations inside litert-torch
        try:
            import litert_torch  # noqa: PLC0415

            with _strict():
                content = litert_torch.convert(module, one).model_content()
        except Exception as error:
            told = [line for line in log.read_text(errors="replace").splitlines() if "error:" in line]
            raise LoweringError(
                "The LiteRT converter must take every operation of the network.",
                " | ".join([f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}", *told[-3:]]),
                "replace the operation that it names by one of the LiteRT operator set",
            ) from error
    return _finish(content, compressed.network.module)


def _finish(content: bytes, module: nn.Module) -> bytes:
    model = flatbuffer.read_model(content)
    found = list(encodings(module))
    if any(isinstance(encoding, HalfEncoding) for _, encoding in found):
        flatbuffer.store_half(model)
    dynamic = [(name, one) for name, one in found if isinstance(one, AffineEncoding) and one.dynamic]
    if dynamic:
        wanted = {hashlib.sha256(_levels(module.get_submodule(name), one)).digest() for name, one in dynamic}
        count = flatbuffer.run_dynamic(model, wanted)
        if count != len(dynamic):  # more: another layer has the same levels, and which is which can't be told
            raise LoweringError(
                "Every layer with ranges per inference must run on a kernel that finds them.",
                f"{count} such kernels for {len(dynamic)} layers ({', '.join(name for name, _ in dynamic[:8])})",
                "give the others activations: int8 or float32 in the plan",
            )
    flatbuffer.shorten_names(model)
    drop_transposes(model)
    flatbuffer.drop_unused(model)
    return write_model(model)


def check_kernels(compressed: Compressed, content: bytes) -> None:
    """Every layer that asked for an integer kernel got one.

    Raises:
        LoweringError: fewer integer kernels than integer layers.
    """
    counts = flatbuffer.operators_by_type(flatbuffer.read_model(content))
    found = Counter({name: counts.get(f"{name} int8", 0) for name in KERNELS})
    asked = integer_layers(compressed.network)
    if found.total() < len(asked):
        names = ", ".join(layer.name for layer in asked[:8])
        raise LoweringError(
            "Every int8 layer must run on an integer kernel.",
            f"{found.total()} integer kernels for {len(asked)} int8 layers ({names}, ...): {dict(counts)}",
            "set the layers next to an unsupported operation to float16 in the plan",
        )


def _levels(module: nn.Module, encoding: AffineEncoding) -> bytes:
    """The levels of a weight, sorted: the converter may turn its axes."""
    levels = encoding.grid.levels(weight_of(module), encoding.axis)
    return levels.to(torch.int8).flatten().sort().values.numpy().tobytes()


def check_weights(compressed: Compressed, content: bytes) -> None:
    """Every encoded weight lies in the file, level by level.

    Raises:
        LoweringError: one doesn't: the converter changed it.
    """
    held = flatbuffer.weight_contents(flatbuffer.read_model(content))
    for name, encoding in encodings(compressed.network.module):
        module = compressed.network.module.get_submodule(name)
        weight = weight_of(module)
        if isinstance(encoding, AffineEncoding):
            raw = _levels(module, encoding)
        else:
            values = weight.half().flatten().numpy() + np.float16(0)  # −0 and 0 sort alike and differ in their bytes
            raw = np.sort(values).tobytes()
        if hashlib.sha256(raw).digest() not in held:
            raise weight_missing(compressed.network, name, str(encoding.type_name))


def artefact_of(path: Path, content: bytes, images: list[bool]) -> Artefact:
    """The description of a written file: its hash, what goes in and comes out, its operators."""
    model = flatbuffer.read_model(content)
    graph = model.subgraphs[0]

    def spec(index: int, layout: str) -> TensorSpec:
        from ai_edge_litert import schema_py_generated as schema  # noqa: PLC0415

        tensor = graph.tensors[index]
        grid = tensor.quantization
        scale = zero = None
        if grid is not None and grid.scale is not None and len(grid.scale) > 0:
            scale, zero = float(grid.scale[0]), int(grid.zeroPoint[0])
        name = tensor.name.decode() if isinstance(tensor.name, bytes) else tensor.name
        kind = flatbuffer.names_of(schema.TensorType)[tensor.type].lower()
        return TensorSpec(name, tuple(int(size) for size in tensor.shape), kind, layout, scale, zero)

    return Artefact(
        target="litert",
        file=path.name,
        size_bytes=len(content),
        sha256=hashlib.sha256(content).hexdigest(),
        inputs=tuple(spec(i, "NHWC" if im else "") for i, im in zip(graph.inputs, images, strict=True)),
        outputs=tuple(spec(i, "") for i in graph.outputs),
        operators=flatbuffer.operators_by_type(model),
    )
