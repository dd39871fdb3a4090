"""Apply: a plan becomes a network, layer by layer in execution order.

Each layer is first refit – in closed form, from a walk of dense and compressed side by side – to what the *dense*
network put out there, from the inputs that the *compressed* prefix really gives; then the plan's steps act on the refit
layer under the Gram matrix of those inputs. Errors are repaired as they arise instead of adding up.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import nn

from featherweight.contracts import Capability, Plan, PlanError
from featherweight.methods.seam import Method, Subject, apply_steps, subject_of
from featherweight.network.capture import Layer, Network, capture
from featherweight.network.modules import bias_of, copied, replace_module, set_bias, set_weight, weight_of
from featherweight.numerics.gram import covariance_of, refit
from featherweight.observation.evidence import OBSERVED_KINDS
from featherweight.observation.rows import input_rows, output_rows, sample_positions, weight_rows
from featherweight.observation.walk import walk
from featherweight.tasks.data import Split

_ROWS_PER_LAYER = 16_384
_ROWS_PER_COLUMN = 8


@dataclass
class _Builder:
    """The visitor of the walk: builds every layer's replacement and keeps it."""

    network: Network
    plan: Plan
    capability: Capability
    methods: Sequence[Method]
    generator: torch.Generator
    built: dict[str, nn.Module] = field(default_factory=dict)

    def visit(self, layer: Layer, dense: torch.Tensor, given: torch.Tensor) -> nn.Module | None:
        steps = self.plan.choices.get(layer.name, ())
        refittable = layer.replaceable and layer.kind in OBSERVED_KINDS
        if not refittable or not (steps or self.built):
            return None
        module = copied(self.network.module.get_submodule(layer.name))
        rows, targets = self._rows(layer, given, dense)
        mean, covariance = _moments(rows)
        if self.built:  # something upstream changed, so the inputs differ from those that the weight was trained on
            _refit(layer, module, (rows, targets), (mean, covariance))
        subject = subject_of(layer, module, covariance, mean, 0.0, self.capability)
        self.built[layer.name] = apply_steps(subject, steps, self.methods)
        return self.built[layer.name]

    def _rows(self, layer: Layer, given: torch.Tensor, dense: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        width = weight_rows(layer, torch.empty(layer.weight_shape, device="meta")).shape[-1]
        wanted = max(_ROWS_PER_LAYER, _ROWS_PER_COLUMN * width)
        at = sample_positions(layer, len(given), -(-wanted // len(given)), self.generator)
        return input_rows(layer, given, at), output_rows(layer, dense, at)


def _moments(rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean (g, d) and covariance (g, d, d) of rows (g, m, d), float64."""
    count = rows.shape[1]
    mean = rows.double().mean(1)
    return mean, covariance_of((rows.transpose(1, 2) @ rows).double() / count, mean)


def _refit(
    layer: Layer,
    module: nn.Module,
    pairs: tuple[torch.Tensor, torch.Tensor],
    moments: tuple[torch.Tensor, torch.Tensor],
) -> None:
    """Move the weight, in place, to the least-squares fit of the dense outputs from the given inputs."""
    rows, targets = pairs
    mean, covariance = moments
    centre = targets.double().mean(1)
    cross = (targets.transpose(1, 2) @ rows).double() / rows.shape[1] - centre.unsqueeze(2) * mean.unsqueeze(1)
    fitted = refit(weight_rows(layer, weight_of(module)), covariance, cross)
    bias = centre - (fitted @ mean.unsqueeze(-1)).squeeze(-1)
    set_weight(module, fitted)
    set_bias(module, bias.flatten())


def apply(
    network: Network,
    plan: Plan,
    split: Split,
    capability: Capability,
    methods: Sequence[Method],
    *,
    seed: int = 0,
) -> Network:
    """The network that a plan asks for.

    Args:
        network: the dense network; it stays as it is.
        plan: steps by layer name.
        split: calibration samples, all held at once: twice their live activations.
        capability: of the target.
        methods: the catalogue.
        seed: of the sampled positions.

    Raises:
        PlanError: the plan names a layer that doesn't exist or can't be replaced.
    """
    check_plan(network, plan)
    builder = _Builder(network, plan, capability, methods, torch.Generator().manual_seed(seed))
    walk(network, split.take(range(len(split))).inputs, builder.visit)
    return assemble(network, builder.built)


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
    for name, steps in plan.choices.items():
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
    for name, steps in plan.choices.items():
        if steps:
            apply_steps(_neutral(network.layer(name), network.module.get_submodule(name), capability), steps, methods)


def _neutral(layer: Layer, module: nn.Module, capability: Capability) -> Subject:
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

    The steps run under neutral statistics, which gives every module its shape and encoding; the state then gives every
    value.

    Raises:
        PlanError: the plan doesn't fit the network, or the state doesn't fit the plan.
    """
    check_plan(network, plan)
    built: dict[str, nn.Module] = {}
    for layer in network.layers:
        steps = plan.choices.get(layer.name, ())
        module = copied(network.module.get_submodule(layer.name))
        bias = state.get(f"{layer.name}.bias")
        if bias is not None and bias_of(module) is None:  # the refit gave it one
            set_bias(module, torch.zeros_like(bias))
            built[layer.name] = module
        if steps:
            built[layer.name] = apply_steps(_neutral(layer, module, capability), steps, methods)
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
