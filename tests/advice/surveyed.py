"""Surveys made up around a network, without a runtime."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import SimpleNamespace

import torch
from torch import nn

from featherweight.advice.survey import Measured, Survey
from featherweight.contracts import Capability
from featherweight.network import Network, capture, fold_batch_norm
from featherweight.network.channels import analyse
from featherweight.network.surgery import confirm
from featherweight.testing import ANY_TARGET

Operators = Sequence[tuple[str, float]]


def measured(network: Network, size: int, operators: Operators, types: Mapping[str, int] | None = None) -> Measured:
    return Measured(network, size, sum(time for _, time in operators) or 1.0, tuple(operators), types or {})


def surveyed(
    module: nn.Module,
    *shape: int,
    operators: Operators = (("CONV_2D", 1.0),),
    integer: tuple[int, Operators, Mapping[str, int]] | None = None,
    capability: Capability = ANY_TARGET,
) -> Survey:
    """The survey of a module on a target that runs nothing: sizes as float32 with 100 bytes beside, times as given."""
    network = fold_batch_norm(capture(module.eval(), torch.randn(2, *shape)))
    target = SimpleNamespace(name="abacus", capability=capability)
    original = measured(network, 4 * network.cost.parameters + 100, operators)
    trial = None if integer is None else measured(network, *integer)
    return Survey(target, original, trial, "", confirm(network, analyse(network.graph)))
