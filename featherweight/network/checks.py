"""What a module and its example inputs must be like before anything is made of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import fx, nn

from featherweight.contracts import ModelError


def checked_inputs(example: torch.Tensor | Sequence[torch.Tensor]) -> tuple[torch.Tensor, ...]:
    """Example inputs as a tuple, each of at least two samples.

    Raises:
        ModelError: one is no tensor with a batch, or isn't finite.
    """
    inputs = (example,) if isinstance(example, torch.Tensor) else tuple(example)
    for position, tensor in enumerate(inputs):
        if not isinstance(tensor, torch.Tensor) or tensor.ndim == 0:
            raise ModelError(
                "Every input must be a tensor with the batch as its first dimension.",
                f"input {position} is {type(tensor).__name__}",
                "hand over a tensor, or a tuple of tensors, each (batch, ...)",
            )
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise ModelError(
                "Example inputs must be finite.",
                f"NaN or infinity in input {position}",
                "look for broken samples or a division by zero in the pre-processing",
            )
    # torch.export takes a dimension of size one for a constant: two samples keep the batch free.
    return tuple(tensor if len(tensor) > 1 else torch.cat([tensor, tensor]) for tensor in inputs)


def check_module(module: nn.Module) -> None:
    """A module can be captured, as far as that can be told from its parts.

    Raises:
        ModelError: it is none, its weights aren't finite, or a part has a name that the captured graph needs.
    """
    if not isinstance(module, nn.Module):
        raise ModelError("The model must be an nn.Module.", f"a {type(module).__name__}", "return the module itself")
    for name, tensor in module.state_dict().items():
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise ModelError(
                "Weights must be finite.",
                f"NaN or infinity in {name}",
                "load an earlier checkpoint: this one diverged or was cut short",
            )
    taken = [name for name in _own_names(module) if hasattr(fx.GraphModule, name) or name == "meta"]
    if taken:
        raise ModelError(
            "A captured graph keeps the names of a network's parts beside names of its own (code, graph, meta, ...).",
            f"a part of the network is called {', '.join(map(repr, taken))}",
            f"rename it, for instance to '{taken[0]}_', or put the network into a module: its parts lie deeper then",
        )


def _own_names(module: nn.Module) -> Iterator[str]:
    """Names of the parts that a module holds itself."""
    for parts in (module.named_children(), module.named_parameters(recurse=False), module.named_buffers(recurse=False)):
        yield from (name for name, _ in parts)


def check_precision(module: nn.Module, inputs: Sequence[torch.Tensor], target: str) -> None:
    """A network computes in float32, as the files of targets do.

    Args:
        module: the network.
        inputs: example inputs.
        target: for the message.

    Raises:
        ModelError: weights or inputs are of another real type.
    """
    weights = {tensor.dtype for tensor in (*module.parameters(), *module.buffers()) if _is_other(tensor)}
    if weights:
        raise ModelError(
            f"The network must compute in float32: files for {target} hold it, or what is made from it.",
            f"weights in {_words(weights)}",
            "call model.float() first; the option that stores weights as float16 does so by itself where it pays",
        )
    given = {tensor.dtype for tensor in inputs if _is_other(tensor)}
    if given:
        raise ModelError(
            f"Inputs must be float32 or whole numbers: files for {target} take no others.",
            f"inputs in {_words(given)}",
            "hand the samples over as float32",
        )


def _is_other(tensor: torch.Tensor) -> bool:
    return tensor.dtype != torch.float32 and (tensor.is_floating_point() or tensor.is_complex())


def _words(types: set[torch.dtype]) -> str:
    return ", ".join(sorted(str(one).removeprefix("torch.") for one in types))


def without_fast_paths(module: nn.Module) -> nn.Module:
    """The module, in place, without the kernels that PyTorch's transformer layers hand their weights to.

    Those read ``linear1.weight`` themselves and never call ``linear1``, so what stands in its place wouldn't run. The
    plain path computes the same.
    """
    for part in module.modules():
        if isinstance(part, nn.TransformerEncoderLayer):
            part.activation_relu_or_gelu = 0  # "neither": what the fast path's own check asks for; read nowhere else
        elif isinstance(part, nn.TransformerEncoder):
            part.use_nested_tensor = False
    return module
