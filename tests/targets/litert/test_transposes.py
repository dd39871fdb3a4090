"""Transpositions go where padding and means can do without, and nothing changes in what is computed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from featherweight.contracts import Plan, Step
from featherweight.methods import METHODS
from featherweight.methods.apply import apply
from featherweight.network import capture
from featherweight.network.grids import Compressed, with_grids
from featherweight.network.surgery import Slim
from featherweight.recovery import recover
from featherweight.targets.litert import LiteRT
from featherweight.tasks.data import Split

INT8 = (Step("quantization", {"weights": "int8", "activations": "int8"}),)


class Shortcut(nn.Module):
    """The identity shortcut of a CIFAR ResNet, and a mean over the image."""

    def __init__(self, keepdim: bool) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 16, 3, 2, 1)
        self.head, self.keepdim = nn.Linear(16, 4), keepdim

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = functional.relu(self.first(x))
        x = functional.relu(self.second(x) + functional.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 4, 4)))
        return self.head(x.mean((2, 3), keepdim=self.keepdim).flatten(1))


@pytest.mark.parametrize("integer", [True, False])
@pytest.mark.parametrize("keepdim", [True, False])
def test_none_is_left_and_the_outputs_stay(keepdim: bool, integer: bool, tmp_path: Path) -> None:
    x = torch.rand(64, 3, 8, 8)
    network, split, target = capture(Shortcut(keepdim), x[:2]), Split.of(x), LiteRT()
    compressed = Compressed(network)
    if integer:
        plan = Plan("n", "litert", dict.fromkeys(("first", "second", "head"), INT8))
        made = apply(network, plan, split, target.capability, METHODS)
        compressed = recover(Slim.whole(network), made, split, target)
    artefact = target.lower(compressed, tmp_path / "a.tflite")
    assert not [name for name in artefact.operators if name.startswith("TRANSPOSE")] or keepdim, artefact.operators
    found = target.load(tmp_path / "a.tflite")((x.numpy(),))
    expected = with_grids(compressed)(x).detach().numpy()
    step = float(compressed.grids["linear"].scale) if integer else 1e-5
    assert np.abs(found - expected).max() <= 2.01 * step
