"""Reductions and operations along one axis.

A sum, mean or maximum over channels goes on over the kept ones. Prefix sums and sorts depend on the order of an axis,
so labels along it are frozen.
"""

from __future__ import annotations

from featherweight.network.channels.trace import Call, Result, Rules, Trace
from featherweight.network.labels import Value


def _dims(call: Call, value: Value) -> list[int]:
    given = call.arguments.get("dim")
    if given is None or given == []:
        return list(range(value.ndim))
    return [dim % max(value.ndim, 1) for dim in (given if isinstance(given, (list, tuple)) else [given])]


def _reduced(call: Call, value: Value, dims: list[int]) -> Value:
    """The labels of what is left, kept axes of size one included."""
    if len(call.out) == value.ndim:
        return Value(call.out, tuple(None if dim in dims else axis for dim, axis in enumerate(value.axes)))
    return Value(call.out, tuple(axis for dim, axis in enumerate(value.axes) if dim not in dims))


def _statistic(trace: Trace, call: Call) -> Result:
    value: Value = call.arguments.get("self", call.arguments.get("input"))  # type: ignore[assignment]
    dims = _dims(call, value)
    trace.statistic(call, *(value.axes[dim] for dim in dims))
    return _reduced(call, value, dims)


def _indexed(trace: Trace, call: Call) -> Result:
    """``max``, ``min``, ``median`` along an axis give positions too, which would shift: used positions freeze it."""
    if len(call.sizes) == 1:
        return _statistic(trace, call)
    value: Value = call["self"]
    dims = _dims(call, value)
    if any(user.args[1] != 0 and user.users for user in call.node.users):
        for dim in dims:
            trace.freeze(call, value.axes[dim], "hands out positions along it")
    trace.statistic(call, *(value.axes[dim] for dim in dims))
    reduced = _reduced(call, value, dims)
    return [reduced, reduced]


def _positions(trace: Trace, call: Call) -> Result:
    value: Value = call["self"]
    dims = _dims(call, value)
    for dim in dims:
        trace.freeze(call, value.axes[dim], "hands out positions along it")
    return _reduced(call, value, dims)


def _softmax(trace: Trace, call: Call) -> Result:
    value: Value = call["self"]
    trace.statistic(call, *(value.axes[dim] for dim in _dims(call, value)))
    return value


def _ordered(trace: Trace, call: Call) -> Result:
    value: Value = call["self"]
    dims = _dims(call, value)
    for dim in dims:
        trace.freeze(call, value.axes[dim], "depends on the order along it")
    results = [Value(sizes, tuple(None if d in dims else a for d, a in enumerate(value.axes))) for sizes in call.sizes]
    return results if len(results) > 1 else results[0]


def _triangle(trace: Trace, call: Call) -> Result:
    value: Value = call["self"]
    for axis in value.axes[-2:]:
        trace.freeze(call, axis, "depends on the order along it")
    return Value(call.out, (*value.axes[:-2], None, None))


RULES: Rules = {
    **dict.fromkeys(
        ("mean", "sum", "amax", "amin", "logsumexp", "linalg_vector_norm", "norm", "var", "std", "prod", "any", "all"),
        _statistic,
    ),
    **dict.fromkeys(("max", "min", "median"), _indexed),
    **dict.fromkeys(("argmax", "argmin"), _positions),
    **dict.fromkeys(("softmax", "log_softmax", "_softmax", "_log_softmax"), _softmax),
    **dict.fromkeys(("cumsum", "cumprod", "logcumsumexp", "sort", "topk", "argsort"), _ordered),
    **dict.fromkeys(("tril", "triu"), _triangle),
}
