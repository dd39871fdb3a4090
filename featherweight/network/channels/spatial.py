"""Pooling, resizing, and channels traded for space."""

from __future__ import annotations

from featherweight.network.channels.trace import Call, Result, Rule, Rules, Trace
from featherweight.network.labels import Axis, Value


def _windows(spatial: int) -> Rule:
    """Operations over the last ``spatial`` axes; channels pass."""

    def rule(trace: Trace, call: Call) -> Result:
        value: Value = call.arguments.get("self", call.arguments.get("input"))  # type: ignore[assignment]
        for axis in value.axes[-spatial:]:
            trace.freeze(call, axis, "works over it as space")
        results = [Value(sizes, (*value.axes[:-spatial], *(None,) * spatial)) for sizes in call.sizes]
        return results if len(results) > 1 else results[0]

    return rule


def _pixel_shuffle(trace: Trace, call: Call) -> Result:
    """(C r², H, W) → (C, H r, W r): the r² channels of one output channel go together."""
    value: Value = call["self"]
    axis = value.axes[-3]
    if axis is None or not axis.material():
        trace.freeze(call, axis, "spreads it over space")
        return Value(call.out, (*value.axes[:-3], None, None, None))
    merged = trace.merge(call, axis.full().reshape(call.out[-3], -1))
    return Value(call.out, (*value.axes[:-3], Axis(merged), None, None))


def _pixel_unshuffle(trace: Trace, call: Call) -> Result:
    """(C, H r, W r) → (C r², H, W): each channel becomes r² in a row."""
    value: Value = call["self"]
    axis = value.axes[-3]
    spread = None if axis is None else Axis(axis.labels, axis.outer, axis.inner * call["downscale_factor"] ** 2)
    return Value(call.out, (*value.axes[:-3], spread, None, None))


def _channel_shuffle(trace: Trace, call: Call) -> Result:
    """(g, c) → (c, g) along the channels."""
    value: Value = call.arguments.get("self", call.arguments.get("input"))  # type: ignore[assignment]
    axis = value.axes[1]
    if axis is None:
        return value
    merged = trace.tie_sections(call, axis, call["groups"])
    return value.replace(1, None if merged is None else Axis(merged, inner=call["groups"]))


def _im2col(trace: Trace, call: Call) -> Result:
    """(B, C, H, W) → (B, C k², L): each channel becomes its k² taps in a row."""
    value: Value = call["self"]
    axis = value.axes[-3]
    for space in value.axes[-2:]:
        trace.freeze(call, space, "slides over it")
    taps = call.out[-2] // value.sizes[-3]
    spread = None if axis is None else Axis(axis.labels, axis.outer, axis.inner * taps)
    return Value(call.out, (*value.axes[:-3], spread, None))


def _grid_sampler(trace: Trace, call: Call) -> Result:
    value, grid = call["input"], call["grid"]
    trace.freeze_value(call, grid, "samples at these places")
    for axis in value.axes[2:]:
        trace.freeze(call, axis, "samples over it")
    return Value(call.out, (*value.axes[:2], *(None,) * (value.ndim - 2)))


_POOLS = ("max_pool{}d", "avg_pool{}d", "adaptive_avg_pool{}d", "adaptive_max_pool{}d", "max_pool{}d_with_indices")
_POOLS += ("lp_pool{}d", "_adaptive_avg_pool{}d", "reflection_pad{}d", "replication_pad{}d")
_RESIZES = {"nearest1d": 1, "nearest2d": 2, "nearest3d": 3, "linear1d": 1, "bilinear2d": 2, "bicubic2d": 2}
_RESIZES |= {"trilinear3d": 3, "_nearest_exact2d": 2, "_nearest_exact1d": 1}

RULES: Rules = {
    **{pool.format(dims): _windows(dims) for pool in _POOLS for dims in (1, 2, 3)},
    **{f"upsample_{kind}": _windows(dims) for kind, dims in _RESIZES.items()},
    **{f"_upsample_{kind}_aa": _windows(dims) for kind, dims in _RESIZES.items()},
    "_upsample_nearest_exact2d": _windows(2),
    "pixel_shuffle": _pixel_shuffle,
    "pixel_unshuffle": _pixel_unshuffle,
    **dict.fromkeys(("channel_shuffle", "native_channel_shuffle"), _channel_shuffle),
    "im2col": _im2col,
    **dict.fromkeys(("grid_sampler", "grid_sampler_2d", "grid_sampler_3d"), _grid_sampler),
}
