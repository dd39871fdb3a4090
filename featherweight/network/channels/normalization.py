"""Normalisations: labels pass; where statistics run over channels, they will run over the kept ones.

Batch and instance norm treat every channel by itself: exact. Layer, group and RMS norm mix channels: removing one
changes the statistics of the others, so such units are marked and the reference for them computes statistics over the
kept channels only.
"""

from __future__ import annotations

from featherweight.network.channels.trace import Call, Result, Rules, Trace
from featherweight.network.labels import Axis, Value


def _per_channel(trace: Trace, call: Call) -> Result:
    """Batch and instance norm: scale, shift and running statistics belong to their channel."""
    value: Value = call["input"]
    axis = value.axes[1]
    for name in ("weight", "bias", "running_mean", "running_var"):
        parameter = call.arguments.get(name)
        if isinstance(parameter, Value):
            axis = trace.join(call, axis, parameter.axes[0])
    return value.replace(1, axis)


def _layer(trace: Trace, call: Call) -> Result:
    """Layer and RMS norm over the trailing axes."""
    value: Value = call["input"]
    axes = list(value.axes)
    for back in range(1, len(call["normalized_shape"]) + 1):
        for name in ("weight", "bias"):
            parameter = call.arguments.get(name)
            if isinstance(parameter, Value):
                axes[-back] = trace.join(call, axes[-back], parameter.axes[-back])
        trace.statistic(call, axes[-back])
    return Value(call.out, tuple(axes))


def _group(trace: Trace, call: Call) -> Result:
    """Group norm: the k-th channel of every group, or whole groups (exact: they share nothing)."""
    value: Value = call["input"]
    groups, channels = call["num_groups"], value.sizes[1]
    axis = value.axes[1]
    for name in ("weight", "bias"):
        parameter = call.arguments.get(name)
        if isinstance(parameter, Value):
            axis = trace.join(call, axis, parameter.axes[0])
    for other in value.axes[2:]:
        trace.freeze(call, other, "takes statistics over it")
    if axis is None or groups == channels:
        return value.replace(1, axis)
    if not axis.material():
        trace.freeze(call, axis, "normalises it in an order that isn't followed")
        return value.replace(1, None)
    if groups > 1:
        grid = axis.full().reshape(groups, -1)
        trace.merge(call, grid if trace.mode == "outer" else grid.T)
    if groups == 1 or trace.mode == "inner":
        trace.statistic(call, axis)
    return value.replace(1, Axis(axis.full()))


def _prelu(trace: Trace, call: Call) -> Result:
    """One slope for all channels, or one each."""
    value, weight = call["self"], call["weight"]
    if weight.sizes == (1,) or value.ndim < 2:
        for axis in weight.axes:
            trace.freeze(call, axis, "shares one slope among all channels")
        return value
    return value.replace(1, trace.join(call, value.axes[1], weight.axes[0]))


RULES: Rules = {
    **dict.fromkeys(("batch_norm", "instance_norm"), _per_channel),
    **dict.fromkeys(("layer_norm", "rms_norm"), _layer),
    "group_norm": _group,
    "prelu": _prelu,
}
