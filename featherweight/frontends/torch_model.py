"""PyTorch models: from a user's function, with or without weights, or from an exported program."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn
from torch.nn.parameter import is_lazy

from featherweight.contracts import ModelError
from featherweight.frontends.exported import load_exported
from featherweight.frontends.source import resolve
from featherweight.frontends.weights import check_finite, load_weights

_FILES = (".safetensors", ".pt", ".pth", ".ckpt", ".bin", ".onnx", ".tflite", ".keras", ".h5")


def load_model(source: str, weights: str | None = None) -> nn.Module:
    """The model behind a word of the command line, its weights checked.

    Args:
        source: ``file.py:function`` or ``package.module:function``, where the function takes nothing and returns a
            ``torch.nn.Module``; or a ``.pt2`` file written by ``torch.export.save``.
        weights: a ``.safetensors`` file or a checkpoint to put into what the function returned, or None where the
            function did so itself. A ``.pt2`` file brings its own.

    Returns:
        The module as it was made, in the mode (training or not) that it was left in.

    Raises:
        ModelError: there is no such model, it has no parameters, the weights don't fit or aren't finite, or a file
            could only be read by running code from it.
    """
    if source.endswith(".pt2"):
        if weights is not None:
            remedy = "leave the weights out, or give the model as file.py:function"
            raise ModelError("A .pt2 file brings its own weights.", f"{source} with {weights}", remedy)
        model: Any = load_exported(Path(source))
    elif source.endswith(_FILES):
        got = f"{source}, which holds weights or belongs to another framework"
        remedy = "give file.py:function, which returns the torch.nn.Module, and a checkpoint of it with --weights"
        raise ModelError("A model is a function that builds it, or a .pt2 file.", got, remedy)
    else:
        model = resolve(source, ModelError)
    _check_module(model, source)
    if weights is not None:
        load_weights(model, Path(weights))
    check_finite(model)
    return model


def _check_module(model: Any, source: str) -> None:
    """Refuses what isn't a module with parameters that are really there."""
    if not isinstance(model, nn.Module):
        got, remedy = f"a {type(model).__name__}", "return the torch.nn.Module itself"
        if isinstance(model, type) and issubclass(model, nn.Module):
            got, remedy = f"the class {model.__name__}", f"return an instance of it: {model.__name__}(...)"
        elif isinstance(model, Mapping):
            remedy = "return the module, and give its weights with --weights"
        raise ModelError(f"{source} must return a torch.nn.Module.", got, remedy)
    parameters = dict(model.named_parameters())
    if not parameters:
        got = f"a {type(model).__name__} without any"
        raise ModelError("A model to compress has parameters.", got, "register its weights as nn.Parameter")
    for name, value in parameters.items():
        if is_lazy(value):
            got = f"{name} has no shape yet"
            raise ModelError("Every parameter must have its shape.", got, "run the model once before returning it")
        if value.is_meta:
            got = f"{name} is on the meta device"
            raise ModelError("Every parameter must have its values.", got, "build the model on the CPU")
