"""Cutting and joining: a slice takes a slice of the labels, a concatenation concatenates them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from featherweight.network.channels.trace import Call, Result, Rules, Trace, material_labels
from featherweight.network.labels import Axis, Value


def _slice(trace: Trace, call: Call) -> Result:
    value: Value = call["self"]
    dim = call.dim(value)
    axis, size = value.axes[dim], value.sizes[dim]
    window = range(size)[slice(call.arguments.get("start"), call.arguments.get("end"), call.arguments.get("step", 1))]
    if axis is None or len(window) == size:
        return Value(call.out, value.axes)
    if window.step != 1 or not axis.material():
        trace.freeze(call, axis, "takes every n-th index of it")
        return _without_axis(call, value, dim)
    return _with_axis(call, value, dim, Axis(axis.full()[window.start : window.stop]))


def _with_axis(call: Call, value: Value, dim: int, axis: Axis | None) -> Value:
    return Value(call.out, (*value.axes[:dim], axis, *value.axes[dim + 1 :]))


def _without_axis(call: Call, value: Value, dim: int) -> Value:
    return _with_axis(call, value, dim, None)


def _narrow(trace: Trace, call: Call) -> Result:
    value: Value = call["self"]
    dim = call.dim(value)
    axis = value.axes[dim]
    if axis is None:
        return Value(call.out, value.axes)
    start = call["start"] % value.sizes[dim]
    return _with_axis(call, value, dim, Axis(axis.full()[start : start + call["length"]]))


def _select(trace: Trace, call: Call) -> Result:
    value: Value = call["self"]
    dim = call.dim(value)
    trace.freeze(call, value.axes[dim], "picks one index of it by number")
    return Value(call.out, (*value.axes[:dim], *value.axes[dim + 1 :]))


def _unbind(trace: Trace, call: Call) -> Result:
    value: Value = call["self"]
    dim = call.dim(value)
    trace.freeze(call, value.axes[dim], "takes it apart index by index")
    rest = (*value.axes[:dim], *value.axes[dim + 1 :])
    return [Value(sizes, rest) for sizes in call.sizes]


def _sections(trace: Trace, call: Call) -> Result:
    """``chunk`` and ``split``: sections of equal length keep equal lengths, so their k-th indices go together."""
    value: Value = call["self"]
    dim = call.dim(value)
    axis = value.axes[dim]
    lengths = [sizes[dim] for sizes in call.sizes]
    if axis is None or len(lengths) == 1:
        return [Value(sizes, value.axes) for sizes in call.sizes]
    if not axis.material():
        trace.freeze(call, axis, "cuts it")
        return [Value(sizes, (*value.axes[:dim], None, *value.axes[dim + 1 :])) for sizes in call.sizes]
    if len(set(lengths)) > 1 and "split_sizes" not in call.arguments:
        trace.freeze(call, axis, "cuts it into sections of unequal length")
    pieces = _tied_pieces(trace, call, axis, lengths)
    return [
        Value(sizes, (*value.axes[:dim], piece, *value.axes[dim + 1 :]))
        for sizes, piece in zip(call.sizes, pieces, strict=True)
    ]


def _tied_pieces(trace: Trace, call: Call, axis: Axis, lengths: Sequence[int]) -> list[Axis]:
    pieces = np.split(axis.full(), np.cumsum(lengths)[:-1])
    for length in set(lengths):
        equal = [piece for piece in pieces if len(piece) == length]
        trace.merge(call, np.stack(equal, axis=1))
    return [Axis(piece) for piece in pieces]


def _glu(trace: Trace, call: Call) -> Result:
    value: Value = call["self"]
    dim = call.dim(value)
    axis = value.axes[dim]
    if axis is None:
        return Value(call.out, value.axes)
    half = trace.tie_sections(call, axis, 2)
    return _with_axis(call, value, dim, None if half is None else Axis(half))


def _cat(trace: Trace, call: Call) -> Result:
    values: list[Value] = [value for value in call["tensors"] if value.sizes != (0,)]
    dim = call.dim(values[0])
    axes = [
        None if at == dim else trace.join(call, *(value.axes[at] for value in values)) for at in range(values[0].ndim)
    ]
    parts = [value.axes[dim] for value in values]
    if any(part is not None for part in parts):
        if call.out[dim] > (1 << 19) or not all(part is None or part.material() for part in parts):
            for part in parts:
                trace.freeze(call, part, "lines it up with an axis of unknown length")
        else:
            labels = [material_labels(value.axes[dim], value.sizes[dim]) for value in values]
            axes[dim] = Axis(np.concatenate(labels))
    return Value(call.out, tuple(axes))


def _stack(trace: Trace, call: Call) -> Result:
    values: list[Value] = list(call["tensors"])
    axes = [trace.join(call, *(value.axes[at] for value in values)) for at in range(values[0].ndim)]
    axes.insert(call["dim"] % (values[0].ndim + 1), None)
    return Value(call.out, tuple(axes))


def _pad(trace: Trace, call: Call) -> Result:
    """Constant padding leaves the padded indices fixed; the others keep their labels, and the amounts stay right."""
    value: Value = call["self"]
    amounts = call["pad"]
    constant = call.arguments.get("mode", "constant") == "constant"
    axes = list(value.axes)
    for number in range(len(amounts) // 2):
        dim = value.ndim - 1 - number
        before, after = amounts[2 * number], amounts[2 * number + 1]
        axis = axes[dim]
        if axis is None or (before == 0 and after == 0):
            continue
        if not constant or before < 0 or after < 0 or not axis.material():
            trace.freeze(call, axis, "pads it with its own values or crops it")
            axes[dim] = None
        else:
            ends = [material_labels(None, before), axis.full(), material_labels(None, after)]
            axes[dim] = Axis(np.concatenate(ends))
    return Value(call.out, tuple(axes))


def _index_select(trace: Trace, call: Call) -> Result:
    return _take(trace, call, call["self"], call.dim(call["self"]), call["index"], "index")


def _index(trace: Trace, call: Call) -> Result:
    """``x[:, idx]`` with one index vector; anything richer is frozen."""
    value: Value = call["self"]
    used = [dim for dim, index in enumerate(call["indices"]) if index is not None]
    indices: list[Value] = [call["indices"][dim] for dim in used]
    if len(used) == 1 and indices[0].ndim == 1:
        return _take(trace, call, value, used[0], indices[0], "indices")
    for index in indices:
        trace.freeze_value(call, index, "indexes by it")
    for dim in used:
        trace.freeze(call, value.axes[dim], "indexes it by data")
    if len(used) != 1:
        trace.freeze_value(call, value, "indexes it by data")
        return Value.plain(call.out)
    rank = indices[0].ndim
    return Value(call.out, (*value.axes[: used[0]], *(None,) * rank, *value.axes[used[0] + 1 :]))


def _take(trace: Trace, call: Call, value: Value, dim: int, index: Value, name: str) -> Value:
    axis = value.axes[dim]
    state = call.state(name, depth=0)
    numbers = trace.constant(state) if state else None
    if axis is None or not axis.material() or numbers is None or numbers.dtype.kind != "i":
        trace.freeze(call, axis, "indexes it by data")
        trace.freeze_value(call, index, "indexes by it")
        return _without_axis(call, value, dim)
    labels = axis.full()[numbers.astype(np.int64)]
    trace.indexers.append((state, axis.full()))
    entries = trace.join(call, Axis(labels), index.axes[0])
    return _with_axis(call, value, dim, entries)


RULES: Rules = {
    "slice": _slice,
    "narrow": _narrow,
    "select": _select,
    "unbind": _unbind,
    **dict.fromkeys(
        ("chunk", "unsafe_chunk", "split", "unsafe_split", "split_with_sizes", "tensor_split"),
        _sections,
    ),
    "glu": _glu,
    **dict.fromkeys(("cat", "concat", "concatenate"), _cat),
    "stack": _stack,
    **dict.fromkeys(("pad", "constant_pad_nd"), _pad),
    "index_select": _index_select,
    "index": _index,
}
