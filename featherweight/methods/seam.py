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

from featherweight.contracts import Capability, Cost, PlanError, Refusal, Scalar, Step, Steps
from featherweight.network.capture import Layer
from featherweight.network.encodings import is_integer, weight_type
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
    first, *rest = leaves(subject.module)
    weight = weight_rows(subject.layer, weight_of(first)).double()
    for leaf in rest:
        weight = weight_of(leaf).double().flatten(1) @ weight
    return weight


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
    if len(parts) > 1 and is_integer(parts[1]):
        first = weight_rows(subject.layer, weight_of(parts[0])).double()
        spread = ((first @ subject.covariance) * first).sum(-1).clamp(min=0.0).sqrt()
        centre = (first @ subject.mean.double().unsqueeze(-1)).squeeze(-1)
        width = float((centre + 4 * spread).max() - (centre - 4 * spread).min())
        error += (width / 255) ** 2 / 12 * float(weight_of(parts[1]).double().square().sum())
    return error


_TYPE_BYTES = {"float32": 4, "float16": 2, "int8": 1}


def cost_of(layer: Layer, module: nn.Module, capability: Capability) -> Cost:
    """What a replacement costs on the target: exact MACs and parameters, bytes by the target's own account."""
    size = macs = parameters = 0
    for leaf in leaves(module):
        kind, weight = weight_type(leaf), weight_of(leaf)
        channels = weight.shape[0]
        parameters += weight.numel() + (0 if bias_of(leaf) is None else channels)
        macs += weight.numel() * layer.positions
        size += weight.numel() * _TYPE_BYTES[kind]
        size += channels * (4 + capability.bytes_per_channel[kind]) + capability.bytes_per_layer
    return Cost(size, macs, parameters)


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
