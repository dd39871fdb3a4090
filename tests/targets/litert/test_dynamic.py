"""int8 weights under real activations: ranges per inference, or weights widened at loading."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from featherweight.contracts import Plan, PlanError, Step
from featherweight.methods import METHODS
from featherweight.methods.apply import apply
from featherweight.network import Network, capture
from featherweight.network.grids import Compressed
from featherweight.network.surgery import Slim
from featherweight.recovery import recover
from featherweight.targets.litert import LiteRT
from featherweight.tasks.data import Split
from featherweight.testing import ANY_TARGET

TARGET = LiteRT()


class Mixed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.full, self.depth = nn.Conv2d(3, 16, 3, padding=1), nn.Conv2d(16, 16, 3, padding=1, groups=16)
        self.head = nn.Linear(16, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(torch.relu(self.depth(torch.relu(self.full(x)))).mean((2, 3)))


def _problem() -> tuple[Network, Split]:
    torch.manual_seed(0)
    x = torch.randn(64, 3, 8, 8)
    return capture(Mixed(), x[:2]), Split.of(x)


def _made(activations: dict[str, str], **settings: object) -> tuple[Network, Split, Compressed]:
    network, split = _problem()
    choices = {
        name: (Step("quantization", {"weights": "int8", "activations": kind, **settings}),)
        for name, kind in activations.items()
    }
    made = apply(network, Plan("n", "litert", choices), split, TARGET.capability, METHODS)
    return network, split, recover(Slim.whole(network), made, split, TARGET)


@pytest.mark.parametrize("bits", [8, 4])
def test_every_kind_of_kernel_takes_int8_weights_and_finds_its_ranges(tmp_path: Path, bits: int) -> None:
    network, split, made = _made(dict.fromkeys(("full", "depth", "head"), "dynamic"), bits=bits)
    path = tmp_path / "dynamic.tflite"
    artefact = TARGET.lower(made, path)
    assert artefact.operators["CONV_2D float32"] == artefact.operators["DEPTHWISE_CONV_2D float32"] == 1
    assert not any(name.startswith("DEQUANTIZE") for name in artefact.operators)
    parts = TARGET.parts(path)
    assert parts["int8 constants"] == 3 * 16 * 9 + 16 * 9 + 160
    x = split.take(range(32)).inputs[0]
    file = torch.from_numpy(TARGET.load(path)((x.numpy(),)))
    with torch.no_grad():
        simulated, original = made.network.module(x), network.module(x)
    assert not torch.equal(file, simulated)  # activations really went through integers
    assert (file - simulated).abs().mean() < 0.02 * original.std()


def test_the_three_ways_stand_side_by_side_in_one_file(tmp_path: Path) -> None:
    _, split, made = _made({"full": "int8", "depth": "float32", "head": "dynamic"})
    path = tmp_path / "mixed.tflite"
    artefact = TARGET.lower(made, path)
    assert artefact.operators["CONV_2D int8"] == 1
    assert artefact.operators["DEPTHWISE_CONV_2D float32"] == artefact.operators["FULLY_CONNECTED float32"] == 1
    x = split.take(range(32)).inputs[0]
    file = torch.from_numpy(TARGET.load(path)((x.numpy(),)))
    with torch.no_grad():
        assert (file - made.network.module(x)).abs().mean() < 0.05 * file.std()


def test_a_target_without_such_kernels_refuses() -> None:
    network, split = _problem()
    plan = Plan("n", "t", {"head": (Step("quantization", {"weights": "int8", "activations": "dynamic"}),)})
    capability = replace(ANY_TARGET, dynamic_kinds=frozenset())
    with pytest.raises(PlanError, match="activations: int8 or float32"):
        apply(network, plan, split, capability, METHODS)
