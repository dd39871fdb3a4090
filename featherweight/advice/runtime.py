"""What the runtime makes of the graph: missing kernels, islands between integers, time that no layer explains."""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Iterator

from featherweight.advice.structure import answering
from featherweight.advice.survey import WEIGHTED, Advice, Survey, counted, names
from featherweight.network.capture import Layer

_MOVES = re.compile(
    r"transpose|reshape|expand|squeeze|pad|slice|gather|concat|pack|split|cast|copy|reorder", re.IGNORECASE
)
_CONVERSIONS = re.compile(r"quantize", re.IGNORECASE)
_CURVES = re.compile(
    r"hard_?swish|hard_?sigmoid|swish|silu|gelu|logistic|sigmoid|tanh|softmax|softplus|mish|erf|exp|elu$|leaky|prelu|sqrt|pow",
    re.IGNORECASE,
)
_PLAIN = re.compile(r"relu6?$", re.IGNORECASE)
_NOTICEABLE = 0.01  # of the original's time or MACs
_OVERHEAD = 1.5  # times the smallest operator


def missing_kernels(survey: Survey) -> Iterator[Advice]:
    """Layers that stay in reals because the target has no int8 kernel of their kind."""
    integers, halves = (survey.capability.layer_kinds.get(kind, frozenset()) for kind in ("int8", "float16"))
    rows: dict[str, list[Layer]] = defaultdict(list)
    for layer in survey.network.layers:
        if layer.kind not in integers:
            rows[layer.kind].append(layer)
    for kind, layers in rows.items():
        half = kind in halves
        told = (
            f"no int8 kernel for {kind}",
            f"{survey.target.name} computes it in float32, and values around it are widened and rounded again",
            "store it as float16, which halves its bytes" if half else "another target may have the kernel",
        )
        yield survey.advice(
            "blocks", names(layer.name for layer in layers), told,
            size_bytes=_bytes(survey, layers), macs=sum(layer.cost.macs for layer in layers),
        )  # fmt: skip
    if survey.obstacle:
        told = ("int8 can't be had on this target", survey.obstacle, "leave such layers in float32")
        yield survey.advice("blocks", "the whole network", told)


def islands(survey: Survey) -> Iterator[Advice]:
    """Operators that run in reals in the file of the trial, and what it takes to convert values around them."""
    trial = survey.integer
    if trial is None:
        return
    for name, count, time in trial.by_operator():
        real = trial.types.get(f"{name} float32", 0)
        if not real or _CONVERSIONS.search(name) or WEIGHTED.search(name):
            continue
        told = (
            f"{counted(real, 'time')} in reals in the int8 file",
            f"{survey.target.name} doesn't compute it on integers there: values are widened before and rounded behind",
            "an operation on integers (ReLU, ReLU6, addition, max pooling) in its place keeps the chain whole",
        )
        yield survey.advice("blocks", name, told, milliseconds=time * trial.scale * real / count)
    conversions = trial.matching(_CONVERSIONS)
    count, spent = sum(row[1] for row in conversions), sum(row[2] for row in conversions) * trial.scale
    if count > len(trial.network.example) + 1:  # at the ends there must be some
        told = (
            f"{count} times a tensor goes from reals to integers or back in the int8 file",
            "every one is a pass over the activations that a whole chain of integers doesn't have",
            "see the operators that run in reals",
        )
        yield survey.advice("blocks", names(row[0] for row in conversions), told, milliseconds=spent)


def curves(survey: Survey) -> Iterator[Advice]:
    """Activation functions that the target computes by themselves."""
    for name, count, time in survey.original.matching(_CURVES):
        spent = time * survey.original.scale
        if _PLAIN.search(name) or spent < _NOTICEABLE * survey.original.milliseconds:
            continue
        told = (
            f"{count} × {name} beside the layers",
            "it is a pass of its own over the activations, where ReLU and ReLU6 are computed inside the layer's kernel",
            "ReLU or ReLU6 in its place, with some training after the change",
        )
        yield survey.advice("helps", name, told, milliseconds=spent)


def movements(survey: Survey) -> Iterator[Advice]:
    """Time that goes into moving values."""
    rows = survey.original.matching(_MOVES)
    spent = sum(time for _, _, time in rows) * survey.original.scale
    if spent < _NOTICEABLE * survey.original.milliseconds:
        return
    told = (
        "values are moved and not computed with: " + ", ".join(f"{count} × {name}" for name, count, _ in rows[:5]),
        "no compression of weights touches it; fewer channels make it smaller",
        "look for permute, reshape, pad and cat in forward that could go",
    )
    yield survey.advice("does not help", names(name for name, _, _ in rows), told, milliseconds=spent)


def layer_times(survey: Survey) -> dict[str, float]:
    """Layer → milliseconds in the whole file; empty where the file's kernels can't be told apart by layer."""
    weighted = [time for name, time in survey.original.operators if WEIGHTED.search(name)]
    layers = [layer for layer in survey.network.layers if layer.kind != "embedding"]
    if len(weighted) != len(layers):
        return {}
    times: dict[str, float] = defaultdict(float)
    for layer, time in zip(layers, weighted, strict=True):
        times[layer.name] += time * survey.original.scale
    return dict(times)


def overhead(survey: Survey) -> Iterator[Advice]:
    """Layers that take little more than the call: less work there saves no time."""
    floor = min((time for _, time in survey.original.operators), default=0.0) * survey.original.scale
    small = {name: time for name, time in layer_times(survey).items() if time <= _OVERHEAD * floor}
    if not small:
        return
    work = sum(layer.cost.macs for layer in survey.network.layers if layer.name in small)
    told = (
        f"{counted(len(small), 'layer')}: little more than the call itself, {floor:.3g} ms",
        "calling costs more than the work: fewer multiplications there save no time",
        "count on them for bytes only; fewer and wider layers would be faster",
    )
    yield survey.advice("does not help", names(small), told, milliseconds=sum(small.values()), macs=work)


def shapes(survey: Survey) -> Iterator[Advice]:
    """Layers whose output channels don't fill the kernels' tiles; outputs of the network are as many as they are."""
    step, fixed = survey.capability.channel_multiple, answering(survey)
    for layer in survey.network.layers:
        rows = layer.weight_shape[1] * layer.groups if "transpose" in layer.kind else layer.weight_shape[0]
        idle = 1 - rows / (math.ceil(rows / step) * step)
        if layer.kind == "embedding" or layer.name in fixed or not idle:
            continue
        if layer.cost.macs < _NOTICEABLE * survey.network.cost.macs:
            continue
        lower = rows // step * step
        told = (
            f"{rows} output channels, no multiple of {step}",
            f"kernels work on {step} channels at a time: {idle:.0%} of their work here is idle",
            f"{lower} channels would cost {1 - lower / (rows + (-rows % step)):.0%} less" if lower else "",
        )
        yield survey.advice("blocks", layer.name, told, macs=layer.cost.macs * idle)


def _bytes(survey: Survey, layers: list[Layer]) -> int:
    return sum({layer.weight: layer.cost.size_bytes for layer in layers}.values())
