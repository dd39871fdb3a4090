"""Attributes that name sizes: ``out_channels``, ``groups``, ``num_heads``, and the user's own.

PyTorch's classes say where their sizes stand. A user's own module is searched for integers that equal a size which its
forward wrote into the graph; whether a guess is right shows when the module runs (see ``removal``).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx, nn

from featherweight.network.channels.units import Cut
from featherweight.network.surgery.attention import NarrowAttention
from featherweight.network.surgery.literals import changes, new_size, operation, rewritten, shape_of

_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d)
_KNOWN = (
    *_CONVOLUTIONS,
    *_NORMS,
    nn.Linear,
    nn.LayerNorm,
    nn.RMSNorm,
    nn.GroupNorm,
    nn.PReLU,
    nn.Embedding,
    nn.EmbeddingBag,
    nn.RNNBase,
    nn.RNNCellBase,
    nn.MultiheadAttention,
)


_ATTENTIONS = (nn.MultiheadAttention, NarrowAttention)  # a subclass may do more: its forward is left to fail
_SIDES = ("ih", "hh")
_NO_CHANNELS = frozenset(
    ("stride", "padding", "kernel_size", "dilation", "num_layers", "depth", "scale_factor", "upscale_factor")
)


@dataclass(frozen=True, slots=True)
class Guess:
    """An attribute of a user's module that may name a size which changed.

    Attributes:
        module: its path.
        owner: its class; all modules of one class are treated alike.
        attribute: the attribute's name.
        value: what it would become.
        doubtful: whether the old value may mean something else: a size that stays, or a size of another module.
    """

    module: str
    owner: str
    attribute: str
    value: Any
    doubtful: bool


def module_path(node: fx.Node) -> str | None:
    """The innermost module whose forward made the call; None for calls of no module."""
    stack = node.meta.get("nn_module_stack") or {}
    paths = [entry[0] for key, entry in stack.items() if not str(key).startswith("_")]
    return re.sub(r"@\d+", "", paths[-1]) if paths else None


def in_own_forward(module: nn.Module, node: fx.Node) -> bool:
    """Whether a call was made by a module whose sizes PyTorch's own classes don't tell."""
    path = module_path(node)
    return path is not None and not isinstance(module.get_submodule(path), _KNOWN)


def update_known(module: nn.Module, nodes: Iterable[fx.Node], cut: Cut) -> None:
    """Set the sizes that PyTorch's own modules keep, in place."""
    calls: dict[str, list[fx.Node]] = {}
    for node in nodes:
        path = module_path(node)
        if path is not None:
            calls.setdefault(path, []).append(node)
    for path, owner in list(module.named_modules()):
        if isinstance(owner, nn.MultiheadAttention):
            _update_attention(module, path, owner, cut)
        elif isinstance(owner, _KNOWN):
            _update(owner, calls.get(path, []), cut)


def _update(owner: nn.Module, calls: list[fx.Node], cut: Cut) -> None:
    weight = getattr(owner, "weight", None)
    if isinstance(owner, nn.Linear):
        owner.out_features, owner.in_features = weight.shape  # type: ignore[union-attr]
    elif isinstance(owner, _CONVOLUTIONS):
        _update_convolution(owner, calls, cut)
    elif isinstance(owner, (nn.Embedding, nn.EmbeddingBag)):
        owner.num_embeddings, owner.embedding_dim = weight.shape  # type: ignore[union-attr]
    elif isinstance(owner, nn.RNNBase):
        owner.input_size, owner.hidden_size = (
            int(owner.get_parameter(f"weight_{side}_l0").shape[1]) for side in _SIDES
        )
    elif isinstance(owner, nn.RNNCellBase):
        owner.input_size, owner.hidden_size = (int(owner.get_parameter(f"weight_{side}").shape[1]) for side in _SIDES)
    elif isinstance(owner, nn.PReLU):
        owner.num_parameters = owner.weight.shape[0]
    else:
        _update_norm(owner, calls, cut)


def _update_convolution(owner: Any, calls: list[fx.Node], cut: Cut) -> None:
    for node in calls:
        if operation(node).startswith("conv"):
            owner.groups = rewritten(cut, node).get("groups", 1)
    first, second = owner.weight.shape[:2]
    if owner.transposed:
        owner.in_channels, owner.out_channels = first, second * owner.groups
    else:
        owner.out_channels, owner.in_channels = first, second * owner.groups


def _update_norm(owner: Any, calls: list[fx.Node], cut: Cut) -> None:
    for node in calls:
        name = operation(node)
        if name in ("batch_norm", "instance_norm"):
            owner.num_features = new_size(cut, node, 1)
        elif name == "group_norm":
            owner.num_groups, owner.num_channels = rewritten(cut, node)["num_groups"], new_size(cut, node, 1)
        elif name in ("layer_norm", "rms_norm"):
            owner.normalized_shape = tuple(rewritten(cut, node)["normalized_shape"])


def _update_attention(root: nn.Module, path: str, owner: nn.MultiheadAttention, cut: Cut) -> None:
    """Replace attention that lost heads, head width or stream channels by one that can hold it."""
    width, inner = owner.head_dim, owner.num_heads * owner.head_dim
    if owner.out_proj.weight.shape == (owner.embed_dim, inner) or type(owner) not in _ATTENTIONS:
        return
    mask = cut.keep_state(f"{path}.out_proj.weight" if path else "out_proj.weight", 1, inner)
    heads = owner.num_heads if mask is None else int(mask.reshape(owner.num_heads, width).any(axis=1).sum())
    scale = owner.scale if isinstance(owner, NarrowAttention) else width**-0.5
    narrow = NarrowAttention.narrowed(owner, heads, scale)
    parent, _, child = path.rpartition(".")
    setattr(root.get_submodule(parent), child, narrow)


def guesses(module: nn.Module, nodes: Iterable[fx.Node], cut: Cut) -> list[Guess]:
    """Attributes of the user's own modules that may have to change.

    Certain are those that equal a size which the module's own forward wrote down. Sizes that passed through, and those
    that a module further out may have handed in, are doubtful.
    """
    written: dict[str, dict[int, int]] = {}
    passing: dict[str, dict[int, int]] = {}
    steady: dict[str, set[int]] = {}
    for node in nodes:
        path = module_path(node)
        if path is None:
            continue
        inside = isinstance(module.get_submodule(path), _KNOWN)
        if not inside:
            for change in changes(cut, node):
                written.setdefault(path, {}).setdefault(change.old, change.new)
            steady.setdefault(path, set()).update(size for size, new in _sizes(node, cut) if size == new)
        for holder in _holders(node, module):
            for size, new in _sizes(node, cut):
                if size != new:
                    passing.setdefault(holder, {}).setdefault(size, new)
    found = []
    for path, sizes in passing.items():
        owner = module.get_submodule(path)
        if isinstance(owner, _KNOWN):
            continue
        own = written.get(path, {})
        for attribute, value in _matching(owner, sizes | own):
            old = getattr(owner, attribute)
            certain = all(size in own and size not in steady.get(path, ()) for size in _changed(old, value))
            doubtful = not certain or attribute in _NO_CHANNELS
            found.append(Guess(path, type(owner).__qualname__, attribute, value, doubtful))
    return found


def _changed(old: Any, new: Any) -> list[int]:
    """The sizes in an attribute that would change."""
    pairs = [(old, new)] if isinstance(old, int) else zip(old, new, strict=True)
    return [before for before, after in pairs if before != after]


def _holders(node: fx.Node, module: nn.Module) -> Iterator[str]:
    """Paths of the modules whose attributes the call's sizes may come from: those whose forward was running."""
    stack = node.meta.get("nn_module_stack") or {}
    for key, entry in stack.items():
        path = re.sub(r"@\d+", "", entry[0])
        if not str(key).startswith("_") and type(module.get_submodule(path)).__module__ != "torch.nn.modules.container":
            yield path


def _sizes(node: fx.Node, cut: Cut) -> Iterator[tuple[int, int]]:
    """Concrete sizes of a result, before and after."""
    if isinstance(node.meta.get("val"), torch.Tensor):
        for dim, size in enumerate(shape_of(node)):
            if isinstance(size, int):
                yield size, new_size(cut, node, dim)


def _matching(owner: nn.Module, sizes: Mapping[int, int]) -> Iterator[tuple[str, Any]]:
    for attribute, value in vars(owner).items():
        if attribute.startswith("_") or attribute == "training":
            continue
        if isinstance(value, int) and not isinstance(value, bool) and value in sizes:
            yield attribute, sizes[value]
        elif isinstance(value, (tuple, list)) and any(type(item) is int and item in sizes for item in value):
            yield attribute, type(value)(sizes.get(item, item) if type(item) is int else item for item in value)


__all__ = ["Guess", "guesses", "module_path", "update_known"]
