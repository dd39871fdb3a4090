"""Contractions: the axes that are summed over live and die together; all others pass.

Linear layers, matrix products, Einstein sums, attention and table look-ups. A weight is a tensor like any other: its
rows carry the labels of the outputs, its columns those of the inputs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import fx

from featherweight.network.channels.trace import Call, Result, Rules, Trace
from featherweight.network.labels import Axis, Value

_SCORE_STEPS = 12  # scaling, masking, softmax, dropout, reshapes


def _linear(trace: Trace, call: Call) -> Result:
    """``y = x Wᵀ + b``: W is (out, in)."""
    value, weight, bias = call["input"], call["weight"], call.arguments.get("bias")
    columns = trace.join(call, weight.axes[-1], value.axes[-1])
    rows = weight.axes[0] if weight.ndim == 2 else None
    if bias is not None:
        rows = trace.join(call, rows, bias.axes[0])
    if call.node.name in trace.square and rows is not None and columns is not None and rows.size % columns.size == 0:
        trace.join(call, rows, Axis(columns.full(), outer=rows.size // columns.size))
    trace.port(call, "weight", "input", columns)
    trace.port(call, "weight", "output", rows)
    tail = (rows,) if weight.ndim == 2 else ()
    return Value(call.out, (*value.axes[:-1], *tail))


def _product(trace: Trace, call: Call, first: Value, second: Value) -> Value:
    """``matmul``: (…, n, k) by (…, k, m), with vectors and broadcast leading axes."""
    trace.join(call, first.axes[-1], second.axes[-2] if second.ndim > 1 else second.axes[-1])
    lead = len(call.out) - (first.ndim > 1) - (second.ndim > 1)
    axes: list[Axis | None] = []
    for dim in range(lead):
        meeting = []
        for value in (first, second):
            at = dim - lead + value.ndim - 2
            if at >= 0 and value.sizes[at] == call.out[dim]:
                meeting.append(value.axes[at])
            elif at >= 0:
                trace.spread(call, value.axes[at])
        axes.append(trace.join(call, *meeting))
    axes += [first.axes[-2]] if first.ndim > 1 else []
    axes += [second.axes[-1]] if second.ndim > 1 else []
    return Value(call.out, tuple(axes))


def _matmul(trace: Trace, call: Call) -> Result:
    """A product with a parameter is a weighted call: its rows are the inputs, its columns the outputs."""
    name = next(name for name in ("other", "mat2", "vec", "tensor") if name in call.arguments)
    second: Value = call[name]
    if second.ndim == 2:
        trace.port(call, name, "input", second.axes[0])
        trace.port(call, name, "output", second.axes[1])
    _tie_widths(trace, call, second)
    return _product(trace, call, call["self"], second)


def _tie_widths(trace: Trace, call: Call, second: Value) -> None:
    """Where attention is written out, ``softmax(Q Kᵀ) V``: values are as wide as queries, see :func:`_attention`."""
    width = _query_width(trace, call.node.args[0])
    if width is not None and second.axes[-1] is not None and width.size == second.sizes[-1]:
        trace.join(call, width, second.axes[-1])


def _query_width(trace: Trace, node: Any) -> Axis | None:
    """The axis that ``Q Kᵀ`` sums over, if this node holds its softmax."""
    normalised = False
    for _ in range(_SCORE_STEPS):
        if not isinstance(node, fx.Node) or node.op != "call_function" or not node.all_input_nodes:
            return None
        name = str(node.target).split(".")[1] if "." in str(node.target) else ""
        normalised = normalised or "softmax" in name
        if name in ("matmul", "bmm", "baddbmm", "einsum"):
            source = node.all_input_nodes[1 if name == "baddbmm" else 0]
            value = trace.values.get(source.name)
            return value.axes[-1] if normalised and isinstance(value, Value) else None
        node = node.all_input_nodes[0]
    return None


def _add_product(trace: Trace, call: Call) -> Result:
    """``addmm``, ``baddbmm``: ``bias + first · second``."""
    first = call.arguments.get("mat1", call.arguments.get("batch1"))
    second = call.arguments.get("mat2", call.arguments.get("batch2"))
    product = _product(trace, call, first, second)  # type: ignore[arg-type]
    bias: Value = call["self"]
    axes = list(product.axes)
    for dim in range(-bias.ndim, 0):
        if bias.sizes[dim] == call.out[dim]:
            axes[dim] = trace.join(call, axes[dim], bias.axes[dim])
    if "mat2" in call.arguments:
        trace.port(call, "mat2", "input", second.axes[0])  # type: ignore[union-attr]
        trace.port(call, "mat2", "output", axes[-1])
    return Value(call.out, tuple(axes))


def _einsum(trace: Trace, call: Call) -> Result:
    """Equal letters meet; letters of the result pass."""
    values: Sequence[Value] = call["tensors"]
    left, arrow, right = call["equation"].replace(" ", "").partition("->")
    terms = left.split(",")
    if not arrow or "." in left or any(len(set(term)) < len(term) for term in terms):
        for value in values:
            trace.freeze_value(call, value, "is an Einstein sum with repeated, implicit or elided letters")
        return Value.plain(call.out)
    sizes = {
        letter: size
        for term, value in zip(terms, values, strict=True)
        for letter, size in zip(term, value.sizes, strict=True)
        if size > 1
    }
    meeting: dict[str, list[Axis | None]] = {letter: [] for letter in left if letter != ","}
    for term, value in zip(terms, values, strict=True):
        for letter, size, axis in zip(term, value.sizes, value.axes, strict=True):
            if size == sizes.get(letter, 1):
                meeting[letter].append(axis)
            else:
                trace.spread(call, axis)
    joined = {letter: trace.join(call, *axes) for letter, axes in meeting.items()}
    return Value(call.out, tuple(joined[letter] for letter in right))


def _attention(trace: Trace, call: Call) -> Result:
    """``softmax(Q Kᵀ · scale + mask) V``; with grouped queries a key head ties its query heads.

    Nothing in the formula ties the width of values to that of queries, but one number in the code usually stands for
    both; so where they are equal they stay equal.
    """
    query, key, value, mask = call["query"], call["key"], call["value"], call.arguments.get("attn_mask")
    trace.join(call, query.axes[-1], key.axes[-1])
    if query.sizes[-1] == value.sizes[-1] and query.axes[-1] is not None and value.axes[-1] is not None:
        trace.join(call, query.axes[-1], value.axes[-1])
    positions = trace.join(call, key.axes[-2], value.axes[-2])
    trace.freeze(call, positions, "takes a softmax over it")
    lead: list[Axis | None] = []
    for dim in range(query.ndim - 2):
        meeting = [query.axes[dim]]
        for other in (key, value):
            axis, factor = other.axes[dim], query.sizes[dim] // other.sizes[dim]
            if other.sizes[dim] == 1 and factor > 1:
                trace.spread(call, axis)
            else:
                meeting.append(None if axis is None else Axis(axis.labels, axis.outer, axis.inner * factor))
        lead.append(trace.join(call, *meeting))
    result = Value(call.out, (*lead, query.axes[-2], value.axes[-1]))
    if mask is not None:
        scores = (*lead, query.axes[-2], None)
        sizes = (*query.sizes[:-1], key.sizes[-2])
        for dim in range(-mask.ndim, 0):
            if mask.sizes[dim] == sizes[dim]:
                trace.join(call, scores[dim], mask.axes[dim])
            else:
                trace.freeze(call, mask.axes[dim] if mask.sizes[dim] > 1 else None, "is a mask of another size")
    return result


def _embedding(trace: Trace, call: Call) -> Result:
    """Rows of the table by number: the width passes, the vocabulary stays."""
    weight, indices = call["weight"], call["indices"]
    trace.freeze(call, weight.axes[0], "looks rows up by number")
    trace.port(call, "weight", "output", weight.axes[1])
    return Value(call.out, (*indices.axes, weight.axes[1]))


def _embedding_bag(trace: Trace, call: Call) -> Result:
    weight = call["weight"]
    trace.freeze(call, weight.axes[0], "looks rows up by number")
    trace.port(call, "weight", "output", weight.axes[1])
    rest = [Value.plain(sizes) for sizes in call.sizes[1:]]
    return [Value(call.sizes[0], (None, weight.axes[1])), *rest]


def _cosine(trace: Trace, call: Call) -> Result:
    first, second = call["x1"], call["x2"]
    dim = call.dim(first)
    axes = [trace.join(call, a, b) for a, b in zip(first.axes, second.axes, strict=True)]
    return Value(call.out, (*axes[:dim], *axes[dim + 1 :]))


RULES: Rules = {
    "linear": _linear,
    **dict.fromkeys(("matmul", "mm", "bmm", "mv", "dot"), _matmul),
    **dict.fromkeys(("addmm", "baddbmm"), _add_product),
    "einsum": _einsum,
    "scaled_dot_product_attention": _attention,
    "embedding": _embedding,
    "embedding_bag": _embedding_bag,
    "cosine_similarity": _cosine,
}
