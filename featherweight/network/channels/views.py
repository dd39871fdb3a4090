"""Moving labels without computing: reshapes, permutations, expansion, repetition, and constants made on the way."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from featherweight.network.channels.trace import Call, Result, Rule, Rules, Trace
from featherweight.network.labels import MATERIAL_LIMIT, Axis, Labels, Value


def _segments(before: Sequence[int], after: Sequence[int]) -> Iterator[tuple[range, range]]:
    """Smallest runs of axes with the same product: a reshape acts on each run by itself."""
    i = j = 0
    while i < len(before) or j < len(after):
        start_i, start_j = i, j
        left = right = 1
        while i == start_i or j == start_j or left != right:
            if i < len(before) and (left <= right or j >= len(after)):
                left, i = left * before[i], i + 1
            elif j < len(after):
                right, j = right * after[j], j + 1
            else:
                break
        yield range(start_i, i), range(start_j, j)


def _factors(trace: Trace, call: Call, value: Value, dims: range) -> list[tuple[int, Axis | None]]:
    """The axes as factors: (size, None) where plain, (size, axis) for labels; neighbouring plain ones merged."""
    flat: list[tuple[int, Axis | None]] = []
    for dim in dims:
        axis = value.axes[dim]
        if axis is not None and axis.size == 1:
            trace.freeze(call, axis, "regroups an axis of one index")
            continue
        flat += (
            [(value.sizes[dim], None)]
            if axis is None
            else [
                (axis.outer, None),
                (len(axis.labels), Axis(axis.labels)),
                (axis.inner, None),
            ]
        )
    merged: list[tuple[int, Axis | None]] = []
    for size, axis in flat:
        if axis is None and size == 1:
            continue
        if axis is None and merged and merged[-1][1] is None:
            merged[-1] = (merged[-1][0] * size, None)
        else:
            merged.append((size, axis))
    return merged


def _deal(sizes: Sequence[int], targets: Sequence[int]) -> list[list[tuple[int, int]]] | None:
    """Cut factors into pieces (size, target) that fill the targets in order; None where a cut would not be whole."""
    pieces: list[list[tuple[int, int]]] = []
    at, need = 0, targets[0] if targets else 1
    for size in sizes:
        mine: list[tuple[int, int]] = []
        rest = size
        while rest > 1 or not mine:
            while need == 1 and at + 1 < len(targets):
                at, need = at + 1, targets[at + 1]
            piece = math.gcd(rest, need)
            if piece not in (rest, need):
                return None
            mine.append((piece, at))
            rest, need = rest // piece, need // piece
            if piece == 1 and rest > 1:
                return None
        pieces.append(mine)
    return pieces


def reshaped(trace: Trace, call: Call, value: Value, sizes: tuple[int, ...]) -> Value:
    """The labels of ``value.reshape(sizes)``."""
    axes: list[Axis | None] = []
    for before, after in _segments(value.sizes, sizes):
        targets = [sizes[dim] for dim in after]
        if len(before) == len(after) == 1:
            axes.append(value.axes[before[0]])
        elif all(value.axes[dim] is None for dim in before):
            axes += [None] * len(targets)
        else:
            axes += _reshape_segment(trace, call, _factors(trace, call, value, before), targets)
    return Value(sizes, tuple(axes))


def _reshape_segment(
    trace: Trace, call: Call, factors: list[tuple[int, Axis | None]], targets: list[int]
) -> list[Axis | None]:
    dealt = _deal([size for size, _ in factors], targets)
    if dealt is None:
        for _, axis in factors:
            trace.freeze(call, axis, "regroups it across the borders of its parts")
        return [None] * len(targets)
    filled: list[list[tuple[int, Labels | None]]] = [[] for _ in targets]
    for (_, axis), pieces in zip(factors, dealt, strict=True):
        carrier, labels = (-1, None) if axis is None else trace.split(call, axis, [size for size, _ in pieces])
        for number, (size, target) in enumerate(pieces):
            filled[target].append((size, labels if number == carrier else None))
    return [_assemble(trace, call, parts) for parts in filled]


def _assemble(trace: Trace, call: Call, parts: list[tuple[int, Labels | None]]) -> Axis | None:
    """One axis out of its parts; where several are labelled, one goes on and the others stay."""
    labelled = [number for number, (_, labels) in enumerate(parts) if labels is not None]
    if not labelled:
        return None
    keep = labelled[-1] if trace.mode == "inner" else labelled[0]
    for number in labelled:
        if number != keep:
            trace.freeze(call, Axis(parts[number][1]), "multiplies it with another removable axis")  # type: ignore[arg-type]
    sizes = [size for size, _ in parts]
    return Axis(parts[keep][1], math.prod(sizes[:keep]), math.prod(sizes[keep + 1 :]))  # type: ignore[arg-type]


def _reshape(trace: Trace, call: Call) -> Result:
    return reshaped(trace, call, call["self"], call.out)


def _permute(trace: Trace, call: Call) -> Result:
    value: Value = call["self"]
    return Value(call.out, tuple(value.axes[dim % value.ndim] for dim in call["dims"]))


def _swap(first: str, second: str) -> Rule:
    def rule(trace: Trace, call: Call) -> Result:
        value: Value = call["self"]
        axes = list(value.axes)
        a, b = call.dim(value, first), call.dim(value, second)
        axes[a], axes[b] = axes[b], axes[a]
        return Value(call.out, tuple(axes))

    return rule


def _reverse(trace: Trace, call: Call) -> Result:
    return Value(call.out, call["self"].axes[::-1])


def _transpose_matrix(trace: Trace, call: Call) -> Result:
    axes = call["self"].axes
    return Value(call.out, (*axes[:-2], axes[-1], axes[-2]))


def _movedim(trace: Trace, call: Call) -> Result:
    value: Value = call["self"]
    source, target = call["source"], call["destination"]
    sources = [dim % value.ndim for dim in (source if isinstance(source, (list, tuple)) else [source])]
    targets = [dim % value.ndim for dim in (target if isinstance(target, (list, tuple)) else [target])]
    rest = iter(dim for dim in range(value.ndim) if dim not in sources)
    order = [sources[targets.index(dim)] if dim in targets else next(rest) for dim in range(value.ndim)]
    return Value(call.out, tuple(value.axes[dim] for dim in order))


def _unsqueeze(trace: Trace, call: Call) -> Result:
    value: Value = call["self"]
    axes = list(value.axes)
    axes.insert(call["dim"] % (value.ndim + 1), None)
    return Value(call.out, tuple(axes))


def _squeeze(trace: Trace, call: Call) -> Result:
    value: Value = call["self"]
    dims = call.arguments.get("dim", list(range(value.ndim)))
    dims = {dim % value.ndim for dim in (dims if isinstance(dims, (list, tuple)) else [dims])}
    kept = [dim for dim in range(value.ndim) if not (dim in dims and value.sizes[dim] == 1)]
    for dim in set(range(value.ndim)) - set(kept):
        trace.freeze(call, value.axes[dim], "drops it")
    return Value(call.out, tuple(value.axes[dim] for dim in kept))


def _expand(trace: Trace, call: Call) -> Result:
    """Copies of one index are free: each can go by itself, as far as others allow it."""
    value: Value = call["self"]
    reference = call.arguments.get("other")
    axes: list[Axis | None] = []
    for dim, size in enumerate(call.out):
        at = dim - len(call.out) + value.ndim
        if at >= 0 and value.sizes[at] == size:
            axes.append(value.axes[at])
            continue
        if at >= 0:
            trace.spread(call, value.axes[at])
        if reference is not None:
            axes.append(reference.axes[dim])
        else:
            axes.append(free_axis(trace, size))
    return Value(call.out, tuple(axes))


def free_axis(trace: Trace, size: int) -> Axis | None:
    """New labels for an axis whose indices are all the same; none for batch-like and very long axes."""
    return trace.fresh(size) if 1 < size <= MATERIAL_LIMIT else None


def _constant(trace: Trace, call: Call) -> Result:
    """A tensor filled with one number: all its indices are free."""
    return Value(call.out, tuple(free_axis(trace, size) for size in call.out))


def _repeat(trace: Trace, call: Call) -> Result:
    value: Value = call["self"]
    repeats = call.arguments.get("repeats", call.arguments.get("dims"))
    lead = len(call.out) - value.ndim
    counts = [1] * (len(call.out) - len(repeats)) + list(repeats)
    axes: list[Axis | None] = []
    for dim, count in enumerate(counts):
        axis = value.axes[dim - lead] if dim >= lead else None
        axes.append(None if axis is None else Axis(axis.labels, axis.outer * count, axis.inner))
    return Value(call.out, tuple(axes))


def _repeat_interleave(trace: Trace, call: Call) -> Result:
    value: Value = call["self"]
    if call.arguments.get("dim") is None or not isinstance(call.arguments.get("repeats"), int):
        trace.freeze_value(call, value, "repeats it in a way that isn't followed")
        return Value.plain(call.out)
    dim = call.dim(value)
    axis = value.axes[dim]
    repeated = None if axis is None else Axis(axis.labels, axis.outer, axis.inner * call["repeats"])
    return Value(call.out, (*value.axes[:dim], repeated, *value.axes[dim + 1 :]))


def _flip(trace: Trace, call: Call) -> Result:
    value: Value = call["self"]
    for dim in call["dims"]:
        axis = value.axes[dim % value.ndim]
        if axis is not None:
            value = value.replace(dim % value.ndim, Axis(axis.labels[::-1], axis.outer, axis.inner))
    return value


def _roll(trace: Trace, call: Call) -> Result:
    value: Value = call["self"]
    for dim in call["dims"] or range(value.ndim):
        trace.freeze(call, value.axes[dim % value.ndim], "rolls it by a constant")
    return value


RULES: Rules = {
    **dict.fromkeys(("view", "reshape", "_unsafe_view", "flatten", "unflatten", "view_as", "reshape_as"), _reshape),
    "permute": _permute,
    "transpose": _swap("dim0", "dim1"),
    "swapaxes": _swap("axis0", "axis1"),
    "swapdims": _swap("dim0", "dim1"),
    **dict.fromkeys(("t", "numpy_T"), _reverse),
    **dict.fromkeys(("mT", "adjoint", "mH"), _transpose_matrix),
    **dict.fromkeys(("movedim", "moveaxis"), _movedim),
    "unsqueeze": _unsqueeze,
    "squeeze": _squeeze,
    **dict.fromkeys(("expand", "expand_as", "broadcast_to"), _expand),
    **dict.fromkeys(("zeros", "ones", "full", "empty", "new_zeros", "new_ones", "new_full", "new_empty"), _constant),
    **dict.fromkeys(("repeat", "tile"), _repeat),
    "repeat_interleave": _repeat_interleave,
    "flip": _flip,
    "roll": _roll,
}
