"""What capability data say of a layer's bytes, against files of both targets."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from featherweight.contracts import Choice, Option, Step, Steps
from featherweight.methods import METHODS
from featherweight.methods.apply import neutral_subject
from featherweight.methods.seam import apply_steps, cost_form, widths_of
from featherweight.network import Network, capture
from featherweight.planning.latency.standin import stand_in
from featherweight.targets import Target, target_by_name

STATIC: Steps = (Step("quantization", {"weights": "int8", "activations": "int8"}),)
PAIR: Steps = (Step("lowrank", {"kind": "spatial", "rank": 16}),)
LAYERS, CHANNELS = 8, 32


def _bytes(network: Network, target: Target, steps: Steps, path: Path) -> tuple[int, int]:
    """Predicted for all layers together, and of the file."""
    options = {}
    for layer in network.layers:
        subject = neutral_subject(layer, network.module.get_submodule(layer.name), target.capability)
        form = cost_form(layer, apply_steps(subject, steps, METHODS), target.capability)
        options[layer.name] = Option(layer.name, steps, form.at(*widths_of(layer)), 0.0, 0.0)
    choice = Choice(options, {})
    target.lower(stand_in(network, choice, target, METHODS), path)
    return choice.cost.size_bytes, path.stat().st_size


@pytest.mark.parametrize("steps", [PAIR, (*PAIR, *STATIC)], ids=["real", "int8"])
@pytest.mark.parametrize("name", ["litert", "onnxruntime"])
def test_a_pair_of_layers_takes_what_is_said_of_it(name: str, steps: Steps, tmp_path: Path) -> None:
    """The inner layer of a pair has no bias: what the file gains against one layer for each is predicted."""
    torch.manual_seed(0)
    layers = [one for _ in range(LAYERS) for one in (nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1), nn.ReLU())]
    network, target = capture(nn.Sequential(*layers).eval(), (torch.randn(2, CHANNELS, 8, 8),)), target_by_name(name)
    found = [_bytes(network, target, one, tmp_path / "made") for one in (steps, steps[len(PAIR) :])]
    predicted, measured = (one - other for one, other in zip(*found, strict=True))
    assert abs(predicted - measured) < 100 * LAYERS
