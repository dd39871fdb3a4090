"""Sizes written into a graph: what every call's constants must become when channels go.

``torch.export`` writes sizes that the user's code computed into the graph as plain integers: ``view(b, 4, 8)``,
``split([16, 16])``, ``layer_norm(x, [64])``. For a cut, :func:`rewritten` gives a call's arguments as they must be
afterwards. Surgery compares them with the old ones to find the attributes that have to change; the masked reference
runs statistics with them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import fx

from featherweight.network.channels.units import Cut, Mask

Rewrite = Callable[[Cut, fx.Node, dict[str, Any]], dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Change:
    """A size in a call that must change."""

    node: fx.Node
    old: int
    new: int


def operation(node: fx.Node) -> str:
    """The ATen operation's name, without overload and in-place underscore."""
    schema = getattr(node.target, "_schema", None)
    return schema.name.partition("::")[2].removesuffix("_") if schema is not None else ""


def named_arguments(node: fx.Node) -> dict[str, Any]:
    """A call's explicit arguments by their names in the schema."""
    schema = node.target._schema.arguments  # type: ignore[union-attr]  # an ATen overload
    named = {argument.name: value for argument, value in zip(schema, node.args, strict=False)}
    return named | dict(node.kwargs)


def shape_of(node: fx.Node) -> list[Any]:
    """The (partly symbolic) sizes of a node's only or first result."""
    fake = node.meta["val"]
    first = fake[0] if isinstance(fake, (list, tuple)) else fake
    return list(first.shape)


def kept(cut: Cut, node: fx.Node, dim: int) -> Mask | None:
    """Which indices of a concrete axis of a node's result stay; None where all do or the size is symbolic."""
    size = shape_of(node)[dim]
    return cut.keep(node.name, dim, size) if isinstance(size, int) else None


def new_size(cut: Cut, node: fx.Node, dim: int) -> Any:
    """The size of an axis of a node's result after the cut."""
    mask = kept(cut, node, dim)
    return shape_of(node)[dim] if mask is None else int(mask.sum())


def _sizes(name: str) -> Rewrite:
    """Constants that list the sizes of the result."""

    def rewrite(cut: Cut, node: fx.Node, arguments: dict[str, Any]) -> dict[str, Any]:
        given = list(arguments[name])
        first = arguments["dim"] % (len(shape_of(node)) - len(given) + 1) if "sizes" in arguments else 0
        for at, size in enumerate(given):
            if isinstance(size, int) and size != -1:
                given[at] = new_size(cut, node, first + at)
        return arguments | {name: given}

    return rewrite


def _slice(cut: Cut, node: fx.Node, arguments: dict[str, Any]) -> dict[str, Any]:
    """Bounds move to the number of kept indices before them."""
    source, dim = arguments["self"], arguments.get("dim", 0)
    mask = kept(cut, source, dim % len(shape_of(source)))
    if mask is None:
        return arguments
    changed = dict(arguments)
    for name in ("start", "end"):
        bound = arguments.get(name)
        if isinstance(bound, int) and abs(bound) < len(mask):
            before = int(mask[: bound if bound >= 0 else len(mask) + bound].sum())
            changed[name] = before if bound >= 0 else before - int(mask.sum())
    return changed


def _narrow(cut: Cut, node: fx.Node, arguments: dict[str, Any]) -> dict[str, Any]:
    source, dim = arguments["self"], arguments["dim"]
    mask = kept(cut, source, dim % len(shape_of(source)))
    if mask is None:
        return arguments
    start, length = arguments["start"] % len(mask), arguments["length"]
    inside = int(mask[start : start + length].sum())
    return arguments | {"start": int(mask[:start].sum()), "length": inside}


def _split(name: str) -> Rewrite:
    """Lengths of sections become their kept lengths."""

    def rewrite(cut: Cut, node: fx.Node, arguments: dict[str, Any]) -> dict[str, Any]:
        source = arguments["self"]
        mask = kept(cut, source, arguments.get("dim", 0) % len(shape_of(source)))
        if mask is None:
            return arguments
        if isinstance(arguments[name], int):
            return arguments | {name: int(mask[: arguments[name]].sum())}
        pieces = np.split(mask, np.cumsum(arguments[name])[:-1])
        return arguments | {name: [int(piece.sum()) for piece in pieces]}

    return rewrite


def _normalized_shape(cut: Cut, node: fx.Node, arguments: dict[str, Any]) -> dict[str, Any]:
    count = len(arguments["normalized_shape"])
    return arguments | {"normalized_shape": [new_size(cut, node, dim) for dim in range(-count, 0)]}


def _num_groups(cut: Cut, node: fx.Node, arguments: dict[str, Any]) -> dict[str, Any]:
    mask = kept(cut, node, 1)
    if mask is None:
        return arguments
    alive = mask.reshape(arguments["num_groups"], -1).any(axis=1)
    return arguments | {"num_groups": int(alive.sum())}


def _conv_groups(cut: Cut, node: fx.Node, arguments: dict[str, Any]) -> dict[str, Any]:
    groups, source = arguments.get("groups", 1), arguments["input"]
    channel = len(shape_of(source)) - len(shape_of(arguments["weight"])) + 1
    mask = kept(cut, source, channel)
    if groups == 1 or mask is None:
        return arguments
    return arguments | {"groups": int(mask.reshape(groups, -1).any(axis=1).sum())}


_REWRITES: Mapping[str, Rewrite] = {
    **dict.fromkeys(("view", "expand", "new_zeros", "new_ones", "new_full", "new_empty"), _sizes("size")),
    **dict.fromkeys(("zeros", "ones", "full", "empty", "broadcast_to", "_unsafe_view"), _sizes("size")),
    "reshape": _sizes("shape"),
    "unflatten": _sizes("sizes"),
    "slice": _slice,
    "narrow": _narrow,
    "split": _split("split_size"),
    "split_with_sizes": _split("split_sizes"),
    **dict.fromkeys(("layer_norm", "rms_norm"), _normalized_shape),
    "group_norm": _num_groups,
    **{f"conv{kind}{dims}d": _conv_groups for kind in ("", "_transpose") for dims in (1, 2, 3)},
}


def rewritten(cut: Cut, node: fx.Node) -> dict[str, Any]:
    """A call's arguments by name, with every baked-in size as it must be after the cut."""
    arguments = named_arguments(node)
    rewrite = _REWRITES.get(operation(node))
    return rewrite(cut, node, arguments) if rewrite else arguments


def _pairs(old: Any, new: Any) -> Iterator[tuple[int, int]]:
    if isinstance(old, (list, tuple)):
        for before, after in zip(old, new, strict=True):
            yield from _pairs(before, after)
    elif isinstance(old, int) and isinstance(new, int) and old != new:
        yield old, new


def changes(cut: Cut, node: fx.Node) -> Iterator[Change]:
    """The sizes of one call that must change."""
    if not isinstance(node.target, torch._ops.OpOverload) or operation(node) not in _REWRITES:
        return
    old, new = named_arguments(node), rewritten(cut, node)
    for name, value in old.items():
        for before, after in _pairs(value, new[name]):
            yield Change(node, before, after)
    yield from _folded(cut, node)


def _folded(cut: Cut, node: fx.Node) -> Iterator[Change]:
    """Heads folded into the batch: the constant hides inside a symbolic product."""
    fake = node.meta.get("val")
    if not isinstance(fake, torch.Tensor):
        return
    for dim, size in enumerate(fake.shape):
        for number, axis in enumerate(cut.axes(node.name, dim)):
            if not isinstance(size, int) and axis is not None:
                gone = int(cut.removed(number, axis.labels).sum())
                if gone:
                    yield Change(node, len(axis.labels), len(axis.labels) - gone)


__all__ = ["Change", "changes", "kept", "named_arguments", "new_size", "operation", "rewritten", "shape_of"]
