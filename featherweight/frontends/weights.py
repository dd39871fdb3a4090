"""Weights from files of strangers: safetensors, or checkpoints that hold tensors only. Nothing is ever unpickled."""

from __future__ import annotations

import io
import pickle
import re
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from featherweight.contracts import ModelError

# Where training scripts put the weights inside a checkpoint, and what wrappers put before every name.
_NESTS = ("state_dict", "model", "model_state_dict")
_PREFIXES = ("module.", "_orig_mod.")
_SHOWN = 3


def load_weights(model: nn.Module, path: Path) -> None:
    """Puts the weights of a file into ``model``, every one in its place.

    Args:
        model: changed in place.
        path: ``.safetensors``, or a checkpoint: a state dict, or one under ``state_dict``, ``model`` or
            ``model_state_dict``. A prefix ``module.`` or ``_orig_mod.`` that all names share is taken off.

    Raises:
        ModelError: the file can't be read without running code, or its names, shapes or types aren't the model's.
    """
    if not path.is_file():
        raise ModelError("The file with the weights must exist.", str(path), "check the path; it is relative to here")
    if path.suffix == ".safetensors":
        state = _read_safetensors(path)
    else:
        with path.open("rb") as file:
            state = _state_in(read_checkpoint(file, path.name), path)
    expected = model.state_dict(keep_vars=True)
    state = _without_prefix(state, expected)
    _check_fit(state, expected, path)
    try:
        # Not strict: tied weights may be stored once. Everything else was compared above.
        model.load_state_dict(state, strict=False)
    except (RuntimeError, AttributeError, TypeError) as failure:
        raise _unfit(path, str(failure).strip().splitlines()[-1].strip()) from failure


def check_finite(model: nn.Module) -> None:
    """Refuses NaN and infinite parameters, and NaN buffers (an attention mask may well hold infinities).

    Raises:
        ModelError: naming the first tensor and how many of its values are affected.
    """
    parameters = ((name, value, ~torch.isfinite(value)) for name, value in model.named_parameters())
    buffers = ((name, value, torch.isnan(value)) for name, value in model.named_buffers())
    for kind, tensors in (("parameter", parameters), ("buffer", buffers)):
        for name, value, bad in tensors:
            count = int(bad.sum())
            if count:
                raise ModelError(
                    "The model's weights must be finite numbers.",
                    f"{count} of {value.numel()} values of the {kind} {name} are NaN or infinite",
                    "use a checkpoint from before the training diverged",
                )


def read_checkpoint(file: BinaryIO, name: str) -> Any:
    """What a PyTorch checkpoint holds, read with ``weights_only=True``.

    Args:
        file: open for reading, at its start.
        name: what to call it in messages.

    Raises:
        ModelError: it isn't a checkpoint, is cut short, wants to run code, or unpacks to more than the file's size.
    """
    if zipfile.is_zipfile(file):
        check_stored(file, name)
    file.seek(0)
    try:
        with warnings.catch_warnings():
            # torch warns about odd pickles and TorchScript and then raises: the error below says it once.
            warnings.simplefilter("ignore")
            return torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as failure:
        file.seek(0)
        raise _unsafe(name, file.read(1), str(failure)) from failure
    except Exception as failure:  # torch raises a dozen kinds for broken files
        torchscript = "TorchScript" in str(failure)
        got = f"{name} is a TorchScript archive" if torchscript else f"{name} breaks off ({type(failure).__name__})"
        remedy = "give the state dict, saved with safetensors.torch.save_file or torch.save(model.state_dict(), ...)"
        raise ModelError("The weights must be a whole PyTorch checkpoint.", got, remedy) from failure


def check_stored(file: BinaryIO, name: str) -> None:
    """Refuses an archive whose entries unpack to more bytes than the file has: torch never compresses.

    Raises:
        ModelError: a compressed or self-overlapping archive, which could fill the memory, or a broken one.
    """
    size = file.seek(0, io.SEEK_END)
    try:
        with zipfile.ZipFile(file) as archive:
            unpacked = sum(entry.file_size for entry in archive.infolist())
    except (zipfile.BadZipFile, ValueError, OSError) as failure:
        raise ModelError("The archive must be whole.", f"{name}: {failure}", "copy or save it again") from failure
    if unpacked > size:
        got = f"{name} has {size:,} bytes and unpacks to {unpacked:,}"
        raise ModelError("PyTorch's archives are stored uncompressed.", got, "save it again with torch.save")


def _read_safetensors(path: Path) -> dict[str, torch.Tensor]:
    try:
        return load_file(path)
    except (SafetensorError, OSError, ValueError, KeyError, RuntimeError) as failure:
        raise ModelError(
            "The weights must be a whole safetensors file.",
            f"{path.name}: {failure}",
            "copy the file again, or write it again with safetensors.torch.save_file",
        ) from failure


def _unsafe(name: str, start: bytes, message: str) -> ModelError:
    """A refused pickle: which Python object it asks for, where torch's message tells."""
    found = re.search(r"GLOBAL (\S+)", message)
    if found:
        got = f"{name} asks for {found[1]}"
    else:
        got = f"{name} is a pickle of another kind" if start == b"\x80" else f"{name} is no checkpoint"
    return ModelError(
        "A checkpoint must hold tensors only: any other pickle can run code, so it is never opened.",
        got,
        "save the weights alone, with safetensors.torch.save_file(model.state_dict(), 'weights.safetensors')",
    )


def _state_in(loaded: Any, path: Path) -> dict[str, torch.Tensor]:
    """The state dict in what a checkpoint holds."""
    if isinstance(loaded, Mapping):
        nested = next((loaded[nest] for nest in _NESTS if isinstance(loaded.get(nest), Mapping)), None)
        state = loaded if nested is None else nested
        if state and all(isinstance(name, str) and torch.is_tensor(value) for name, value in state.items()):
            return dict(state)
        wrong = (f"{name}: {type(value).__name__}" for name, value in state.items() if not torch.is_tensor(value))
        got = f"{path.name} holds {_some(list(wrong)) or 'nothing'}"
    else:
        got = f"{path.name} holds a {type(loaded).__name__}"
    raise ModelError(
        "The checkpoint must map names to tensors, at the top or under 'state_dict' or 'model'.",
        got,
        "save model.state_dict() alone",
    )


def _without_prefix(state: dict[str, torch.Tensor], expected: Mapping[str, Any]) -> dict[str, torch.Tensor]:
    """The weights under the model's own names, where a wrapper put a prefix before every one."""
    for prefix in _PREFIXES:
        if all(name.startswith(prefix) for name in state) and not any(name in expected for name in state):
            state = {name.removeprefix(prefix): value for name, value in state.items()}
    return state


def _check_fit(state: Mapping[str, torch.Tensor], expected: Mapping[str, Any], path: Path) -> None:
    """Compares names, shapes and kinds of numbers; a name that is tied to a present one isn't missing."""
    present = {id(expected[name]) for name in state if name in expected}
    missing = [_described(name, value) for name, value in expected.items() if id(value) not in present]
    unexpected = [_described(name, value) for name, value in state.items() if name not in expected]
    both = [(name, value, expected[name]) for name, value in state.items() if torch.is_tensor(expected.get(name))]
    shapes = [
        f"{name}: file {tuple(value.shape)}, model {tuple(own.shape)}"
        for name, value, own in both
        if value.shape != own.shape
    ]
    kinds = [
        f"{name}: file {value.dtype} ({value.layout}, {value.device}), model {own.dtype}"
        for name, value, own in both
        if _kind(value) != _kind(own)
    ]
    groups = (
        ("missing", missing),
        ("unexpected", unexpected),
        ("of another shape", shapes),
        ("of another type", kinds),
    )
    told = [f"{len(names)} {what}: {_some(names)}" for what, names in groups if names]
    if told:
        raise _unfit(path, "; ".join(told))


def _unfit(path: Path, got: str) -> ModelError:
    remedy = "give the weights of this very network, or build the network that the weights were trained in"
    return ModelError(f"The weights in {path.name} must fit the model, name by name.", got, remedy)


def _kind(tensor: torch.Tensor) -> tuple[bool, bool, bool]:
    """Real, complex or whole numbers, and whether they are plainly there: copying across these would garble them."""
    plain = tensor.layout == torch.strided and not tensor.is_meta and not tensor.is_quantized
    return tensor.is_floating_point(), tensor.is_complex(), plain


def _described(name: str, value: Any) -> str:
    return f"{name} {tuple(value.shape)}" if torch.is_tensor(value) else name


def _some(names: list[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more
