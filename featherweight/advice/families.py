"""What each family could gain at most: int8 as measured, the others by the target's account of bytes."""

from __future__ import annotations

import math
from collections.abc import Iterator

from featherweight.advice.survey import Advice, Survey, counted, integer_layers
from featherweight.network.capture import Layer
from featherweight.network.channels import ChannelUnit
from featherweight.planning.units import independent_units


def integers(survey: Survey) -> Iterator[Advice]:
    """int8 wherever there is a kernel: both files were made and timed."""
    trial, original = survey.integer, survey.original
    if trial is None:
        return
    faster = original.milliseconds - trial.milliseconds
    layers = integer_layers(survey.network, survey.capability)
    finding = (
        f"{len(layers)} of {len(survey.network.layers)} layers on int8: {original.size_bytes:,} → "
        f"{trial.size_bytes:,} bytes, {original.milliseconds:.3g} → {trial.milliseconds:.3g} ms"
    )
    told = (finding, "measured on files of both; what it does to answers, data tell", "featherweight compress")
    yield survey.advice(
        "helps", "int8 everywhere", told,
        size_bytes=max(original.size_bytes - trial.size_bytes, 0), milliseconds=max(faster, 0.0),
    )  # fmt: skip
    if faster < 0:
        told = (
            f"{original.milliseconds:.3g} → {trial.milliseconds:.3g} ms",
            "the integer file takes longer: conversions eat up what its kernels save",
            "look at what stands in the way between integer layers",
        )
        yield survey.advice("does not help", "int8 for time", told, milliseconds=-faster)


def halves(survey: Survey) -> Iterator[Advice]:
    """float16 weights."""
    kinds = survey.capability.layer_kinds.get("float16", frozenset())
    layers = [layer for layer in survey.network.layers if layer.replaceable and layer.kind in kinds]
    saved = sum(2 * math.prod(layer.weight_shape) for layer in layers)
    if saved:
        told = (
            f"{counted(len(layers), 'layer')} as float16",
            "at next to no error; weights are widened at loading, so it saves no time",
            "featherweight compress; pin it in the rules where int8 loses too much",
        )
        yield survey.advice("helps", "float16 weights", told, size_bytes=saved)


def fewer_ranks(survey: Survey) -> Iterator[Advice]:
    """Factors of half of the rank at which a pair costs as much as its layer."""
    layers = [layer for layer in survey.network.layers if _factorisable(layer)]
    size, macs = sum(layer.cost.size_bytes for layer in layers) / 2, sum(layer.cost.macs for layer in layers) / 2
    if layers:
        told = (
            f"{counted(len(layers), 'layer')} in pairs of factors, at half of the cost",
            "every factor is one more pass over memory: it pays in wide layers, and errors are for data to price",
            "featherweight compress",
        )
        yield survey.advice("helps", "low rank, half the cost", told, size_bytes=size, macs=macs)


def _factorisable(layer: Layer) -> bool:
    plain = layer.kind in ("linear", "conv1d", "conv2d", "conv3d") and layer.groups == 1 and layer.replaceable
    return plain and min(layer.weight_shape[0], math.prod(layer.weight_shape[1:])) >= 16


def half_channels(survey: Survey) -> Iterator[Advice]:
    """Half of the groups of every coupled unit."""
    units = independent_units(survey.coupling)
    if not units:
        return
    left = {layer.name: _left(layer, units) for layer in survey.network.layers}
    size = sum(layer.cost.size_bytes * (1 - left[layer.name]) for layer in survey.network.layers)
    macs = sum(layer.cost.macs * (1 - left[layer.name]) for layer in survey.network.layers)
    told = (
        f"half of the channels of {counted(len(units), 'unit')}: {macs / max(survey.network.cost.macs, 1):.0%} fewer "
        "multiplications",
        "time follows where kernels stay full; how many can go without harm, data tell",
        "featherweight compress --minimize latency",
    )
    yield survey.advice("helps", "pruning, half the channels", told, size_bytes=size, macs=macs)


def _left(layer: Layer, units: list[ChannelUnit]) -> float:
    """Share of a weight that is left when half of the groups of every unit go."""
    lost = [0.0, 0.0]
    for unit in units:
        for piece in unit.slices:
            if piece.state == layer.weight and piece.axis < 2:
                lost[piece.axis] += piece.indices.shape[1] * (unit.groups // 2) / layer.weight_shape[piece.axis]
    return (1 - lost[0]) * (1 - lost[1])


def storage_only(survey: Survey) -> Iterator[Advice]:
    """Families that shrink a package and neither the file nor the time."""
    types = ", ".join(survey.capability.weight_types)
    reason = f"{survey.target.name} stores {types} and nothing else: "
    remedy = "minimise the package: featherweight compress --minimize package"
    for subject, finding, why in (
        ("zeros and shared values", "zero weights and codebooks leave the file as large", "every value is stored"),
        ("fewer than 8 bits", "4-bit levels take a byte each in the file", "no kernel reads packed levels"),
    ):
        if "int4" not in types or "bits" not in subject:
            yield survey.advice("does not help", subject, (finding, reason + why, remedy))


def description(survey: Survey) -> Iterator[Advice]:
    """Bytes of the file that are no weights."""
    rest = survey.original.size_bytes - 4 * survey.network.cost.parameters
    if rest > 0.1 * survey.original.size_bytes:
        told = (
            f"{rest:,} bytes of the file are no weights",
            "they describe the graph: operators, shapes, names; no method touches them",
            "fewer layers make it smaller",
        )
        yield survey.advice("does not help", "the file's description", told, size_bytes=rest)
