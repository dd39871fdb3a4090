"""The few lines that run the artefact in its own runtime, for whoever builds the app."""

from __future__ import annotations

import json

from featherweight.contracts import Artefact, TensorSpec

_QUANTIZE = """

def quantize(real, scale, zero_point, dtype):
    limits = np.iinfo(dtype)
    return np.clip(np.round(real / scale) + zero_point, limits.min, limits.max).astype(dtype)
"""
_DEQUANTIZE = """

def dequantize(steps, scale, zero_point):
    return (steps.astype(np.float32) - zero_point) * np.float32(scale)
"""


def program_of(artefact: Artefact) -> tuple[str, str] | None:
    """A Python program that runs the artefact, and the package that it needs; None for a runtime without one."""
    known = {"litert": (litert_snippet, "ai-edge-litert"), "onnxruntime": (onnxruntime_snippet, "onnxruntime")}
    if artefact.target not in known:
        return None
    write, package = known[artefact.target]
    return write(artefact), package


def onnxruntime_snippet(artefact: Artefact) -> str:
    """A Python program that runs an ONNX file on one sample with ``onnxruntime`` and numpy alone."""
    names = [f"{_quoted(one.name)}: x{index}" for index, one in enumerate(artefact.inputs)]
    lines = [
        "import numpy as np",
        "import onnxruntime",
        "",
        f'session = onnxruntime.InferenceSession({_quoted(artefact.file)}, providers=["CPUExecutionProvider"])',
        "",
        *(_sample(index, one) for index, one in enumerate(artefact.inputs)),
        f"outputs = session.run(None, {{{', '.join(names)}}})",
        *(f"print({_quoted(one.name)}, outputs[{index}])" for index, one in enumerate(artefact.outputs)),
    ]
    return "\n".join(lines) + "\n"


def litert_snippet(artefact: Artefact) -> str:
    """A Python program that runs a LiteRT file on one sample with ``ai_edge_litert`` and numpy alone."""
    functions = _QUANTIZE * any(one.scale is not None for one in artefact.inputs)
    functions += _DEQUANTIZE * any(one.scale is not None for one in artefact.outputs)
    lines = [
        "import numpy as np",
        "from ai_edge_litert.interpreter import Interpreter",
        *functions.rstrip("\n").split("\n"),
        *([""] * 2 if functions else []),
        f"interpreter = Interpreter(model_path={_quoted(artefact.file)})",
        "interpreter.allocate_tensors()",
        "",
        *(line for index, one in enumerate(artefact.inputs) for line in _fed(index, one)),
        "interpreter.invoke()",
        *(line for index, one in enumerate(artefact.outputs) for line in _read(index, one)),
    ]
    return "\n".join(lines) + "\n"


def _fed(index: int, one: TensorSpec) -> list[str]:
    """Lines that hand an input over."""
    value = f"x{index}"
    lines = [_sample(index, one)]
    if one.scale is not None:
        value = f"quantize({value}, {one.scale!r}, {one.zero_point or 0!r}, {_quoted(one.dtype)})"
    return [*lines, f'interpreter.set_tensor(interpreter.get_input_details()[{index}]["index"], {value})']


def _sample(index: int, one: TensorSpec) -> str:
    """The line that makes an input: zeros, until the app puts its sample there."""
    dtype = one.dtype if one.scale is None else "float32"
    comment = f"{one.name}: your sample" + (f", {one.layout}" if one.layout else "")
    return f"x{index} = np.zeros({one.shape!r}, {_quoted(dtype)})  # {_one_line(comment)}"


def _read(index: int, one: TensorSpec) -> list[str]:
    """Lines that read an output, as real numbers."""
    value = f'interpreter.get_tensor(interpreter.get_output_details()[{index}]["index"])'
    if one.scale is not None:
        value = f"dequantize({value}, {one.scale!r}, {one.zero_point or 0!r})"
    return [f"y{index} = {value}", f"print({_quoted(one.name)}, y{index})"]


def _one_line(words: str) -> str:
    """Words that stay inside a comment, whatever a tensor is called."""
    return " ".join("".join(one if one.isprintable() else " " for one in words).split())


def _quoted(words: str) -> str:
    """A Python literal in double quotes: JSON's are a part of Python's."""
    return json.dumps(words, ensure_ascii=False)
