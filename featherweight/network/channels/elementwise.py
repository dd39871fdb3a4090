"""Element by element: broadcast operands line up from the right, and indices that meet are joined."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from featherweight.network.channels.trace import Call, Result, Rules, Trace
from featherweight.network.labels import Value


def tensors(arguments: Any) -> Iterator[Value]:
    """All tensors in an argument, lists included."""
    if isinstance(arguments, Value):
        yield arguments
    elif isinstance(arguments, (list, tuple)):
        for item in arguments:
            yield from tensors(item)


def broadcast(trace: Trace, call: Call) -> Result:
    """``out[..., i] = f(a[..., i], b[..., i], ...)``; an axis of size one meets nobody."""
    values = list(tensors(list(call.arguments.values())))
    sizes = call.out
    axes = []
    for dim, size in enumerate(sizes):
        meeting = []
        for value in values:
            at = dim - len(sizes) + value.ndim
            if at >= 0 and value.sizes[at] == size:
                meeting.append(value.axes[at])
            elif at >= 0:
                trace.spread(call, value.axes[at])
        axes.append(trace.join(call, *meeting) if meeting else None)
    return Value(sizes, tuple(axes))


def like_self(trace: Trace, call: Call) -> Result:
    """The same shape and labels as the first tensor: dropout, copies, casts, filled look-alikes."""
    return next(tensors(list(call.arguments.values())))


_SAME_SHAPE = (
    "dropout", "feature_dropout", "alpha_dropout", "feature_alpha_dropout", "to", "_to_copy", "type_as", "clone",
    "contiguous", "alias", "detach", "lift_fresh_copy", "fill_", "zero_", "zeros_like", "ones_like", "full_like",
    "rand_like", "randn_like", "empty_like", "float", "double", "half", "positive", "real",
)  # fmt: skip

RULES: Rules = {
    **dict.fromkeys(
        ("rsub", "masked_fill", "copy_", "log_sigmoid", "softsign", "hardswish", "where", "square", "complex", "polar"),
        broadcast,
    ),
    **dict.fromkeys(_SAME_SHAPE, like_self),
}
