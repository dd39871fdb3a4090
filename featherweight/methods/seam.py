"""The one seam of all compression methods.

A method looks at a :class:`Subject` – one layer as it stands, and what is known of its inputs – and says which
settings make sense there (:meth:`Method.options`) or why none does. :meth:`Method.apply` then builds the module that
takes the layer's place. It is a pure function: nothing is mutated, no target is known by name, and the same call gives
the same bytes. Methods that may follow one another on a layer say so in ``follows``; the table tries every such chain.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import nn

from featherweight.contracts import Capability, Cost, CostForm, PlanError, Refusal, Scalar, Step, Steps
from featherweight.network.capture import Layer
from featherweight.network.composition import (
    composed,
    index_bytes,
    means_within,
    moments_within,
    positions,
    stored_values,
)
from featherweight.network.encodings import holds, is_integer, weight_type
from featherweight.network.modules import bias_of, copied, shift_bias, weight_of
from featherweight.numerics.gram import output_error
from featherweight.observation.rows import weight_rows

Settings = Mapping[str, Scalar]


@dataclass(frozen=True)
class Subject:
    """One layer as it stands, and what is known of its inputs.

    Attributes:
        layer: the captured layer.
        module: what computes it now: the layer's own module, or what an earlier method of the chain made of it.
        weight: the map that must be approximated, (g, n, d).
        covariance: of its input rows, (g, d, d).
        mean: of its input rows, (g, d).
        input_noise: mean squared rounding error of its input on its best int8 grid.
        capability: what the target can run.
    """

    layer: Layer
    module: nn.Module
    weight: torch.Tensor
    covariance: torch.Tensor
    mean: torch.Tensor
    input_noise: float
    capability: Capability


class Method(Protocol):
    """A family of compression.

    Attributes:
        name: its name in plans and reports.
        follows: methods that may stand before it on the same layer.
    """

    name: str
    follows: frozenset[str]

    def options(self, subject: Subject) -> tuple[list[Settings], list[Refusal]]:
        """The settings worth a row in the table, and what can't be done here with the reason."""
        ...

    def apply(self, subject: Subject, settings: Settings) -> nn.Module:
        """The module that takes the subject's place; the subject stays as it is."""
        ...


PRUNING = "pruning"
"""The name of the one family that acts on coupled units and not on layers."""


def layer_steps(steps: Steps) -> Steps:
    """The steps that act on a layer by itself: all but pruning, which comes first and acts on a whole unit.

    Raises:
        PlanError: pruning isn't the first step, or stands there twice.
    """
    if any(step.method == PRUNING for step in steps[1:]):
        raise PlanError(
            "Channels go before anything else is done to a layer, and once.",
            " > ".join(map(str, steps)),
            f"put {PRUNING} first",
        )
    return steps[1:] if steps and steps[0].method == PRUNING else steps


def only_a_package(subject: Subject, method: str) -> Refusal:
    """The refusal of a family whose values recur, where nothing but the file counts."""
    reason = f"{subject.capability.target} stores every value anyway; only a package gets smaller"
    return Refusal(subject.layer.name, method, reason, "count an entropy-coded package of the file")


def leaves(module: nn.Module) -> list[nn.Module]:
    """The weighted modules of a layer's replacement, in execution order."""
    return list(module) if isinstance(module, nn.Sequential) else [module]


def subject_of(
    layer: Layer,
    module: nn.Module,
    covariance: torch.Tensor,
    mean: torch.Tensor,
    input_noise: float,
    capability: Capability,
) -> Subject:
    """The subject that a chain of methods starts from."""
    weight = weight_rows(layer, weight_of(module))
    return Subject(layer, module, weight, covariance, mean, input_noise, capability)


def effective_weight(subject: Subject) -> torch.Tensor:
    """The map that the subject's module computes with its encoded weights, (g, n, d), float64."""
    parts = leaves(subject.module)
    return weight_rows(subject.layer, weight_of(parts[0]).double() if len(parts) == 1 else composed(parts))


def predicted_error(subject: Subject) -> float:
    """Predicted mean squared error of the subject's output, summed over outputs, for one position.

    ``tr(D C Dᵀ)`` of its encoded weights, plus the rounding of activations where an integer kernel runs: the input's
    measured noise through the whole map, and inner activations as uniform noise over ±4 standard deviations.
    """
    effective = effective_weight(subject)
    error = output_error(effective - subject.weight.double(), subject.covariance)
    parts = leaves(subject.module)
    if is_integer(parts[0]):
        error += subject.input_noise * float(effective.square().sum())
    if any(map(is_integer, parts[1:])):
        covariances = moments_within(parts, subject.covariance[0])
        means = means_within(parts, subject.mean[0])
        for position in range(1, len(parts)):
            if is_integer(parts[position]):
                gain = float(composed(parts[position:]).square().sum())
                error += _inner_noise(covariances[position], means[position]) * gain
    return error


def _inner_noise(covariance: torch.Tensor, mean: torch.Tensor) -> float:
    """Mean squared rounding of what an inner part reads, uniform over its mean plus or minus 4 standard deviations."""
    spread = 4 * covariance.diagonal().clamp(min=0.0).sqrt()
    return (float((mean + spread).max() - (mean - spread).min()) / 255) ** 2 / 12


_TYPE_BYTES = {"float32": 4, "float16": 2, "int8": 1}


def cost_form(layer: Layer, module: nn.Module, capability: Capability) -> CostForm:
    """What a replacement costs on the target, at any width: exact MACs and parameters, bytes by the target's account.

    A chain's first leaf reads the layer's columns and its last one gives the layer's rows; what lies between them
    doesn't change with either.
    """
    parts = leaves(module)
    totals = torch.zeros(3, 4, dtype=torch.int64)
    for position, (leaf, count) in enumerate(zip(parts, positions(layer, parts), strict=True)):
        kind, weight = weight_type(leaf), weight_of(leaf)
        (rows, inputs), kernel = weight.shape[:2], weight[0, 0].numel()
        first, last = position == 0, position == len(parts) - 1
        values = torch.tensor(
            [
                kernel * int(first and last),
                kernel * inputs * int(last and not first),
                kernel * rows * int(first and not last),
                weight.numel() * int(not (first or last)),
            ]
        )
        if index_bytes(leaf):  # sets of channels: exact at this width only
            values = torch.tensor([0, 0, 0, stored_values(leaf)])
        channels = torch.tensor([0, int(last), 0, rows * int(not last)])
        biases = channels * int(bias_of(leaf) is not None)
        each = 0 if bias_of(leaf) is not None else capability.bytes_per_bias[kind][1]
        constant = torch.tensor([0, 0, 0, sum(description_of(leaf, capability)) + index_bytes(leaf)])
        totals[0] += values * _TYPE_BYTES[kind] + channels * (4 + capability.bytes_per_channel[kind] - each) + constant
        totals[1] += values * count
        totals[2] += values + biases
    return CostForm(*((row[0], row[1], row[2], row[3]) for row in totals.tolist()))


def description_of(leaf: nn.Module, capability: Capability) -> tuple[int, int]:
    """Bytes of a file's description of a leaf, about: of the layer itself, and of its integer kernel's grids."""
    less = 0 if bias_of(leaf) is not None else capability.bytes_per_bias[weight_type(leaf)][0]
    return capability.bytes_per_layer - less, capability.bytes_per_integer * int(is_integer(leaf))


def widths_of(layer: Layer) -> tuple[int, int]:
    """Rows of a layer's weight, and its columns for one kernel position: its two widths."""
    return layer.weight_shape[0], layer.weight_shape[1]


def cost_of(layer: Layer, module: nn.Module, capability: Capability) -> Cost:
    """The cost at the layer's own width."""
    return cost_form(layer, module, capability).at(*widths_of(layer))


def apply_steps(subject: Subject, steps: Steps, methods: Sequence[Method]) -> nn.Module:
    """Run a chain of methods on a subject and let the bias take the mean of the error: ``b + (W − W̃) E[x]``.

    Raises:
        PlanError: a step names a method that isn't in the catalogue, or can't follow the step before it.
    """
    known = {method.name: method for method in methods}
    state = replace(subject, module=copied(subject.module))
    for position, step in enumerate(steps):
        if step.method not in known:
            raise PlanError(
                "Every step of a plan must name a method of the catalogue.",
                f"{step.method!r} on {subject.layer.name!r}",
                f"one of: {', '.join(known)}",
            )
        if position and steps[position - 1].method not in known[step.method].follows:
            raise PlanError(
                "A step must be able to follow the one before it.",
                f"{step.method!r} after {steps[position - 1].method!r} on {subject.layer.name!r}",
                "change their order, or leave one out",
            )
        state = replace(state, module=known[step.method].apply(state, step.settings))
        if not all(map(holds, leaves(state.module))):
            raise PlanError(
                "What an earlier step holds must stay: zeros zero, shared values shared.",
                f"{step} on {subject.layer.name!r} breaks it",
                "put it first, or leave one of the steps out",
            )
    if steps:
        missing = (subject.weight.double() - effective_weight(state)) @ subject.mean.double().unsqueeze(-1)
        shift_bias(leaves(state.module)[-1], missing.flatten())
    return state.module


def chains(subject: Subject, methods: Sequence[Method]) -> Iterator[tuple[Steps, Subject] | Refusal]:
    """Every chain of methods worth a row for this layer, the empty one first, and what was refused."""
    open_chains: list[tuple[Steps, Subject]] = [((), subject)]
    yield open_chains[0]
    for method in methods:
        grown: list[tuple[Steps, Subject]] = []
        for steps, state in open_chains:
            if steps and steps[-1].method not in method.follows:
                continue
            settings, refusals = method.options(state)
            if not steps:
                yield from refusals
            grown += [
                ((*steps, Step(method.name, dict(choice))), replace(state, module=method.apply(state, choice)))
                for choice in settings
            ]
        yield from grown
        open_chains += grown
