"""Convolutions of one to three dimensions, transposed or not, in groups or not.

A weight is (out, in / g, *kernel), or (in, out / g, *kernel) where transposed. With ``g`` groups either the k-th
channel of every group goes together (the ``inner`` pass; groups stay, each gets narrower), or whole groups go (the
``outer`` pass; depthwise always: a group is a channel there).
"""

from __future__ import annotations

from featherweight.network.channels.trace import Call, Result, Rules, Trace
from featherweight.network.labels import Axis, Value


def _convolution(trace: Trace, call: Call) -> Result:
    value, weight, bias = call["input"], call["weight"], call.arguments.get("bias")
    channel = value.ndim - weight.ndim + 1
    for axis in value.axes[channel + 1 :]:
        trace.freeze(call, axis, "slides over it")
    transposed = "transpose" in str(call.node.target)
    groups = call.arguments.get("groups", 1)
    source = value.axes[channel]
    if source is not None and not source.material():
        trace.freeze(call, source, "reads it in an order that isn't followed")
        source = None
    if groups == 1:
        incoming = trace.join(call, weight.axes[0 if transposed else 1], source)
        outgoing = weight.axes[1 if transposed else 0]
    else:
        incoming, outgoing = _grouped(trace, call, source, weight, groups)
    if bias is not None:
        outgoing = trace.join(call, outgoing, bias.axes[0])
    trace.port(call, "weight", "input", incoming)
    trace.port(call, "weight", "output", outgoing)
    return Value(call.out, (*value.axes[:channel], outgoing, *(None,) * (weight.ndim - 2)))


def _grouped(
    trace: Trace, call: Call, source: Axis | None, weight: Value, groups: int
) -> tuple[Axis | None, Axis | None]:
    """Labels of the input and output channels of a grouped convolution."""
    blocks, inside = weight.axes[0], weight.axes[1]
    narrow = weight.sizes[1] > 1 and weight.sizes[0] > groups
    if blocks is None or inside is None:
        trace.freeze(call, source, "convolves it in groups by a weight that can't shrink")
        return None, None
    if trace.mode == "inner" and narrow:
        return _narrower_groups(trace, call, source, blocks, inside, groups)
    return _fewer_groups(trace, call, source, blocks, inside, groups)


def _narrower_groups(
    trace: Trace, call: Call, source: Axis | None, blocks: Axis, inside: Axis, groups: int
) -> tuple[Axis | None, Axis | None]:
    """The k-th channel of every group goes together, for inputs and outputs alike."""
    tied = Axis(trace.merge(call, blocks.full().reshape(groups, -1).T))
    transposed = "transpose" in str(call.node.target)
    outputs, inputs = (inside, tied) if transposed else (tied, inside)
    if source is None:
        trace.freeze(call, inputs, "reads values that can't be removed")
    else:
        inputs = trace.join(call, inputs, Axis(trace.merge(call, source.full().reshape(groups, -1).T)))
    return source, Axis(outputs.labels, outer=groups)


def _fewer_groups(
    trace: Trace, call: Call, source: Axis | None, blocks: Axis, inside: Axis, groups: int
) -> tuple[Axis | None, Axis | None]:
    """Whole groups go: the inputs, the weights and the outputs of a group together."""
    trace.freeze(call, inside, "keeps the width of its groups")
    whole = Axis(trace.merge(call, blocks.full().reshape(groups, -1)))
    if source is None:
        trace.freeze(call, whole, "reads values that can't be removed")
    else:
        trace.join(call, whole, Axis(trace.merge(call, source.full().reshape(groups, -1))))
    transposed = "transpose" in str(call.node.target)
    return source, Axis(whole.labels, inner=len(inside.labels)) if transposed else blocks


RULES: Rules = dict.fromkeys(
    (f"conv{kind}{dims}d" for kind in ("", "_transpose") for dims in (1, 2, 3)),
    _convolution,
)
