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
    """Lines that hand an input over: zeros, until the app puts its sample there."""
    dtype = one.dtype if one.scale is None else "float32"
    comment = f"{one.name}: your sample" + (f", {one.layout}" if one.layout else "")
    value = f"x{index}"
    lines = [f"{value} = np.zeros({one.shape!r}, {_quoted(dtype)})  # {_one_line(comment)}"]
    if one.scale is not None:
        value = f"quantize({value}, {one.scale!r}, {one.zero_point or 0!r}, {_quoted(one.dtype)})"
    return [*lines, f'interpreter.set_tensor(interpreter.get_input_details()[{index}]["index"], {value})']


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
