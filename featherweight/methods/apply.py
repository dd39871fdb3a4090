"""Apply: a plan becomes a network, layer by layer in execution order.

Channels go first, by surgery (:mod:`featherweight.methods.pruning`). Then every layer of what is left is refit – in
closed form, from a walk of dense and compressed side by side – to what the *dense* network put out there, from the
inputs that the *compressed* prefix really gives; then the plan's steps act on the refit layer under the Gram matrix of
those inputs. Where a layer's output is added to a shortcut, it is refit to what the sum lacks. Errors are repaired as
they arise instead of adding up.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import nn

from featherweight.contracts import Capability, DataError, Plan, PlanError, Steps
from featherweight.methods.seam import Method, Subject, apply_steps, layer_steps, subject_of
from featherweight.network.capture import Layer, Network, capture
from featherweight.network.modules import bias_of, copied, replace_module, set_bias, set_weight, weight_of
from featherweight.network.surgery import Slim
from featherweight.numerics.gram import covariance_of, refit, shrunk
from featherweight.observation.evidence import OBSERVED_KINDS
from featherweight.observation.rows import input_rows, output_rows, sample_positions, weight_rows
from featherweight.observation.walk import Passage, walk
from featherweight.tasks.data import Split

_ROWS_PER_LAYER = 24_576
_ROWS_PER_COLUMN = 8


@dataclass(frozen=True, slots=True)
class Refit:
    """How layers are refit.

    Attributes:
        seed: of the positions that are looked at.
        damping: relative to the mean variance of a layer's inputs; None leaves the weights as they were trained.
    """

    seed: int = 0
    damping: float | None = 1e-3


@dataclass
class _Builder:
    """The visitor of the walk: builds every layer's replacement and keeps it."""

    slim: Slim
    plan: Plan
    capability: Capability
    methods: Sequence[Method]
    damping: float | None
    generator: torch.Generator
    untouched: frozenset[str] = frozenset()
    built: dict[str, nn.Module] = field(default_factory=dict)

    def visit(self, passage: Passage) -> nn.Module | None:
        layer = passage.layer
        steps = layer_steps(self.plan.choices.get(layer.name, ()))
        # Something upstream changed, so the inputs differ from those that the weight was trained on.
        changed = bool(self.built or self.slim.removals)
        if layer.name in self.untouched or not (layer.replaceable and layer.kind in OBSERVED_KINDS):
            return None
        if not (steps or changed):
            return None
        module = copied(self.slim.network.module.get_submodule(layer.name))
        moments = self._moments(passage)
        if changed and passage.target is not None and self.damping is not None:
            _refit(layer, module, moments, self.damping)
        subject = subject_of(layer, module, moments.likely, moments.mean, 0.0, self.capability)
        self.built[layer.name] = apply_steps(subject, steps, self.methods)
        return self.built[layer.name]

    def _moments(self, passage: Passage) -> _Moments:
        layer, given = passage.layer, passage.given
        width = weight_rows(layer, torch.empty(layer.weight_shape, device="meta")).shape[-1]
        wanted = max(_ROWS_PER_LAYER, _ROWS_PER_COLUMN * width)
        at = sample_positions(layer, len(given), -(-wanted // len(given)), self.generator)
        rows = input_rows(layer, given, at)
        unknown = rows.new_zeros(*rows.shape[:2], layer.weight_shape[0] // layer.groups)
        return _Moments.of(rows, unknown if passage.target is None else output_rows(layer, passage.target, at))


@dataclass(frozen=True)
class _Moments:
    """Means and centred second moments of rows and targets, float64; ``likely`` is the covariance to reckon with."""

    mean: torch.Tensor
    covariance: torch.Tensor
    centre: torch.Tensor
    cross: torch.Tensor
    likely: torch.Tensor

    @classmethod
    def of(cls, rows: torch.Tensor, targets: torch.Tensor) -> _Moments:
        """Of rows (g, m, d) and targets (g, m, n)."""
        rows, targets = rows.double(), targets.double()  # products of large values don't fit into less
        count = rows.shape[1]
        mean, centre = rows.mean(1), targets.mean(1)
        if not bool(torch.isfinite(mean).all() and torch.isfinite(centre).all()):  # one bad value spoils a mean
            raise DataError(
                "Activations on calibration samples must be finite.",
                "NaN or infinity in front of a layer or behind it",
                "look for broken samples, or for a network that overflows on them",
            )
        covariance = covariance_of((rows.transpose(1, 2) @ rows) / count, mean)
        cross = (targets.transpose(1, 2) @ rows) / count - centre.unsqueeze(2) * mean.unsqueeze(1)
        return cls(mean, covariance, centre, cross, shrunk(covariance, count))


def _refit(layer: Layer, module: nn.Module, moments: _Moments, damping: float) -> None:
    """Move the weight, in place, to the least-squares fit of the targets from the given inputs."""
    prior = weight_rows(layer, weight_of(module)).double()
    # What few rows say is believed of the residual alone: the weight itself isn't shrunk with the correlations.
    cross = moments.cross + prior @ (moments.likely - moments.covariance)
    fitted = refit(prior, moments.likely, cross, damping)
    bias = moments.centre - (fitted @ moments.mean.unsqueeze(-1)).squeeze(-1)
    set_weight(module, fitted)
    set_bias(module, bias.flatten())


def apply(
    network: Network | Slim,
    plan: Plan,
    split: Split,
    capability: Capability,
    methods: Sequence[Method],
    *,
    how: Refit = Refit(),
    untouched: frozenset[str] = frozenset(),
) -> Network:
    """The network that a plan asks for.

    Args:
        network: the dense network, or what pruning left of it beside it; it stays as it is. Pruning steps of the plan
            are taken for done.
        plan: steps by unit name.
        split: calibration samples, all held at once: twice their live activations.
        capability: of the target.
        methods: the catalogue.
        how: layers are refit.
        untouched: layers that aren't refit either; the plan has no steps for them.

    Raises:
        PlanError: the plan names a layer that doesn't exist or can't be replaced.
    """
    slim = network if isinstance(network, Slim) else Slim.whole(network)
    check_plan(slim.dense, plan)
    generator = torch.Generator().manual_seed(how.seed)
    builder = _Builder(slim, plan, capability, methods, how.damping, generator, untouched)
    walk(slim, split.take(range(len(split))).inputs, builder.visit)
    return assemble(slim.network, builder.built)


def assemble(network: Network, built: dict[str, nn.Module]) -> Network:
    """A copy of the network with some layers replaced, captured anew."""
    module = copied(network.module)
    for name, replacement in built.items():
        replace_module(module, name, replacement)
    return capture(module, network.example)


def check_plan(network: Network, plan: Plan) -> None:
    """A plan fits a network.

    Raises:
        PlanError: it names a layer that doesn't exist or can't be replaced.
    """
    known = {layer.name: layer for layer in network.layers}
    for name, steps in _on_layers(plan):
        if name not in known and plan.choices[name] and not steps:
            continue  # a unit of channels: pruning knows its name
        if name not in known:
            raise PlanError(
                "Every unit of a plan must be a layer of the network.",
                repr(name),
                f"one of: {', '.join(list(known)[:8])}, ...",
            )
        if steps and not (known[name].replaceable and known[name].kind in OBSERVED_KINDS):
            raise PlanError(
                "A plan can only change layers that can be replaced.",
                f"{name!r} ({known[name].kind}) with {len(steps)} steps",
                "leave that layer's steps empty; `featherweight inspect` tells why it can't change",
            )


def check_steps(network: Network, plan: Plan, capability: Capability, methods: Sequence[Method]) -> None:
    """A plan can be applied: it fits the network, and its steps can be taken, tried under neutral statistics.

    Raises:
        PlanError: it doesn't, or a step can't.
    """
    check_plan(network, plan)
    for name, steps in _on_layers(plan):
        if steps:
            module = network.module.get_submodule(name)
            apply_steps(neutral_subject(network.layer(name), module, capability), steps, methods)


def _on_layers(plan: Plan) -> list[tuple[str, Steps]]:
    return [(name, layer_steps(steps)) for name, steps in plan.choices.items()]


def neutral_subject(layer: Layer, module: nn.Module, capability: Capability) -> Subject:
    """The subject under inputs that are independent and of variance 1."""
    groups, _, width = weight_rows(layer, weight_of(module)).shape
    covariance = torch.eye(width, dtype=torch.float64).expand(groups, -1, -1)
    return subject_of(layer, module, covariance, torch.zeros(groups, width).double(), 0.0, capability)


def rebuild(
    network: Network,
    plan: Plan,
    state: dict[str, torch.Tensor],
    capability: Capability,
    methods: Sequence[Method],
) -> Network:
    """The compressed network again, from the dense one, the plan and a state dict: nothing is unpickled.

    Channels are gone already: ``network`` is what the surgery left. The steps run under neutral statistics, which gives
    every module its shape and encoding; the state then gives every value.

    Raises:
        PlanError: the plan doesn't fit the network, or the state doesn't fit the plan.
    """
    check_plan(network, plan)
    built: dict[str, nn.Module] = {}
    for layer in network.layers:
        steps = layer_steps(plan.choices.get(layer.name, ()))
        module = copied(network.module.get_submodule(layer.name))
        bias = state.get(f"{layer.name}.bias")
        if bias is not None and bias_of(module) is None:  # the refit gave it one
            set_bias(module, torch.zeros_like(bias))
            built[layer.name] = module
        if steps:
            built[layer.name] = apply_steps(neutral_subject(layer, module, capability), steps, methods)
    module = copied(network.module)
    for name, replacement in built.items():
        replace_module(module, name, replacement)
    try:
        module.load_state_dict(state)
    except RuntimeError as error:
        raise PlanError(
            "State and plan must belong together.", str(error).splitlines()[0], "take both from the same run's folder"
        ) from error
    return capture(module, network.example)
