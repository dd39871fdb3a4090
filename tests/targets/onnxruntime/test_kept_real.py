"""Weights that the plan keeps real stay whole: no runtime rounds them, no exporter multiplies anything into them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import nn
from torch.nn import functional

from featherweight.contracts import LoweringError, Step
from featherweight.network.modules import weight_of
from featherweight.targets.onnxruntime import lower
from tests.targets.onnxruntime.networks import HALF, INT8, STORED, TARGET, compressed, difference, steps_apart


class Chain(nn.Module):
    """Three layers; the middle one has a weight beside which all others are 0 on an int8 grid, on a value that is 0."""

    def __init__(self, layer: Callable[[int, int], nn.Module], between: Callable[[torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.first, self.middle, self.last = layer(8, 8), layer(8, 8), layer(8, 8)
        self.between = between
        self.first.weight.data[0], self.first.bias.data[0], weight_of(self.middle).data[0, 0] = 0, 0, 100

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(self.between(self.middle(self.first(x))))


LAYERS = {
    "conv": (lambda a, b: nn.Conv2d(a, b, 3, padding=1), (64, 8, 6, 6)),
    "linear": (nn.Linear, (64, 8)),
}
BETWEEN = {"nothing": lambda x: x, "relu": functional.relu, "clip": lambda x: functional.hardtanh(x, -0.3, 0.4)}
MIDDLE: dict[str, tuple[Step, ...]] = {"real": (), "half": HALF, "stored": STORED}


@pytest.mark.parametrize(
    ("kind", "between", "middle"),
    [
        ("conv", "nothing", "real"),
        ("conv", "relu", "half"),
        ("conv", "clip", "stored"),
        ("linear", "nothing", "half"),
        ("linear", "relu", "real"),
    ],
)
def test_a_real_layer_between_integer_layers_keeps_its_weight(kind, between, middle, tmp_path: Path) -> None:
    layer, shape = LAYERS[kind]
    torch.manual_seed(0)
    x, plan = torch.randn(shape), {"middle": MIDDLE[middle]} if MIDDLE[middle] else {}
    made = compressed(Chain(layer, BETWEEN[between]), x, first=INT8, last=INT8, **plan)
    path = tmp_path / "a.onnx"
    operators = TARGET.lower(made, path).operators
    assert sum(n for name, n in operators.items() if name.split()[0] in lower.KERNELS) == 2
    assert steps_apart(made, path, x) <= 2.01


def test_a_runtime_that_rounds_a_real_weight_is_told_on(monkeypatch, tmp_path: Path) -> None:
    """What the layers are kept from happens: this runtime does it, and the count of kernels shows it."""
    monkeypatch.setattr(lower, "keep_real", lambda graph: None)
    layer, shape = LAYERS["conv"]
    x = torch.randn(shape)
    made = compressed(Chain(layer, functional.relu), x, first=INT8, last=INT8)
    with pytest.raises(LoweringError, match="3 integer kernels for 2 int8 layers"):
        TARGET.lower(made, tmp_path / "a.onnx")


class Moved(Chain):
    """The middle layer reads values that were moved as reals: the grid ends before."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(self.middle(self.between(self.first(x))))


@pytest.mark.parametrize(
    ("kind", "move"),
    [
        ("conv", lambda x: x.unflatten(2, (2, 3)).transpose(2, 3).flatten(2, 3)),
        ("linear", lambda x: x.unflatten(1, (4, 2)).transpose(1, 2).flatten(1)),
    ],
    ids=["conv", "linear"],
)
def test_so_does_one_that_reads_moved_values(kind, move, tmp_path: Path) -> None:
    layer, shape = LAYERS[kind]
    torch.manual_seed(0)
    x = torch.randn(shape)
    made = compressed(Moved(layer, move), x, first=INT8, last=INT8)
    path = tmp_path / "a.onnx"
    operators = TARGET.lower(made, path).operators
    assert sum(n for name, n in operators.items() if name.split()[0] in lower.KERNELS) == 2
    assert steps_apart(made, path, x) <= 2.01


class Scaled(nn.Module):
    """Layers with batch normalisations behind them that nobody has folded."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.last = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3), nn.Linear(8, 4)
        self.norm, self.bare = nn.BatchNorm2d(8), nn.BatchNorm1d(4, affine=False)
        for norm in (self.norm, self.bare):
            norm.load_state_dict({"running_mean": torch.randn(norm.num_features)}, strict=False)
            norm.load_state_dict({"running_var": torch.rand(norm.num_features) + 0.5}, strict=False)
        nn.init.normal_(self.norm.weight)
        nn.init.normal_(self.norm.bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = functional.relu(self.norm(self.first(x)))
        x = functional.relu(self.norm(self.second(x)))
        return self.bare(self.last(x.mean((2, 3))))


def test_half_weights_stay_whole_before_normalisations(tmp_path: Path) -> None:
    x = torch.randn(16, 3, 10, 10)
    made = compressed(Scaled(), x, **dict.fromkeys(("first", "second", "last"), HALF))
    path = tmp_path / "a.onnx"
    TARGET.lower(made, path)
    held = [one.data_type for one in onnx.load(path).graph.initializer]
    assert held.count(onnx.TensorProto.FLOAT16) == 3
    assert np.abs(difference(made, path, x)).max() <= 1e-5
