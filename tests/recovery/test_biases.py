"""Biases of channels with next to no weights, down to the files of both targets."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from featherweight.contracts import Plan, Step
from featherweight.methods import METHODS
from featherweight.methods.apply import apply
from featherweight.network import Network, capture
from featherweight.network.grids import Compressed, with_grids
from featherweight.network.surgery import Slim
from featherweight.recovery import recover
from featherweight.recovery.biases import fit_biases
from featherweight.targets import target_by_name
from featherweight.tasks import Split

INT8 = (Step("quantization", {"weights": "int8", "activations": "int8"}),)


class Dead(nn.Module):
    """Depthwise channels of which one has no weights, one next to none, and both a bias that what follows reads."""

    def __init__(self, *, dead: bool = True) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3, padding=1)
        self.depth = nn.Conv2d(8, 8, 3, padding=1, groups=8)
        self.last = nn.Conv2d(8, 6, 1)
        if dead:
            with torch.no_grad():
                self.depth.weight[2] = 0.0
                self.depth.weight[5] *= 1e-11
                self.depth.bias[[2, 5]] = torch.tensor([1.5, 2.5])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(torch.relu(self.depth(torch.relu(self.first(x)))))


def _made(target: str, *, dead: bool = True) -> tuple[Network, Compressed, torch.Tensor]:
    torch.manual_seed(0)
    x = torch.randn(64, 3, 8, 8)
    network, split, runtime = capture(Dead(dead=dead).eval(), (x[:2],)), Split.of(x), target_by_name(target)
    plan = Plan("", target, {layer.name: INT8 for layer in network.layers})
    slim = Slim.whole(network)
    return network, recover(slim, apply(network, plan, split, runtime.capability, METHODS), split, runtime), x


@pytest.mark.parametrize("target", ["litert", "onnxruntime"])
def test_a_bias_that_32_bits_cannot_hold_reaches_the_file(target: str, tmp_path: Path) -> None:
    network, compressed, x = _made(target)
    runtime = target_by_name(target)
    path = tmp_path / f"dead{runtime.suffix}"
    runtime.lower(compressed, path)
    with torch.no_grad():
        wanted, simulated = network.module(x), with_grids(compressed)(x)
    found = torch.as_tensor(runtime.load(path)((x.numpy(),)))
    spread = float(wanted.std())
    assert float((simulated - wanted).abs().max()) < 0.1 * spread
    assert float((found - simulated).abs().max()) < 0.05 * spread


def test_every_bias_fits_and_scales_grow_only_where_they_must() -> None:
    _, compressed, _ = _made("litert")
    depth = compressed.network.module.get_submodule("depth")
    scale = depth.parametrizations["weight"][0].scale
    (source,) = {node.args[0].name for node in compressed.network.graph.graph.nodes if node.name == "conv2d_1"}
    steps = depth.bias.abs() / (scale * float(compressed.grids[source].scale))
    assert float(steps.max()) <= 2.0**30 * (1 + 1e-6)
    assert sorted(torch.argsort(steps, descending=True)[:2].tolist()) == [2, 5]
    assert not depth.weight[[2, 5]].any()
    assert fit_biases(compressed) is compressed


def test_ordinary_channels_stay_as_they_are() -> None:
    _, compressed, _ = _made("litert", dead=False)
    assert fit_biases(compressed) is compressed
    scale = compressed.network.module.get_submodule("depth").parametrizations["weight"][0].scale
    assert float(scale.min()) > 1e-5
