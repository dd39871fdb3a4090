"""Weights that a converter changed are told by what it multiplied into them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from featherweight.contracts import LoweringError
from featherweight.network import capture
from featherweight.network.capture import Network
from featherweight.network.encodings import HalfEncoding, encode
from featherweight.network.grids import Compressed
from featherweight.targets.litert import LiteRT
from featherweight.targets.onnxruntime import OnnxRuntime
from featherweight.targets.scaling import scaling_beside, weight_missing


class Scaled(nn.Module):
    def __init__(self, scale: Callable[[torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.first, self.last, self.scale = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 4, 1), scale

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(torch.relu(self.scale(self.first(x))))


def _half(scale: Callable[[torch.Tensor], torch.Tensor]) -> Network:
    torch.manual_seed(0)
    module = Scaled(scale).eval()
    encode(module.first, HalfEncoding())
    return capture(module, torch.randn(2, 3, 8, 8))


SCALES = {"mul": lambda x: x * 3, "div": lambda x: x / 3, "batch_norm": nn.BatchNorm2d(8)}


@pytest.mark.parametrize("name", SCALES)
def test_scaling_beside_a_layer_is_found(name: str) -> None:
    network = _half(SCALES[name])
    assert scaling_beside(network, "first") == [name]
    assert scaling_beside(network, "last") == scaling_beside(network, "no layer") == []


@pytest.mark.parametrize("name", SCALES)
def test_litert_says_what_was_multiplied_into_a_half_weight(name: str, tmp_path: Path) -> None:
    with pytest.raises(LoweringError, match=f"multiplied {name} beside 'first' into its float16 weight"):
        LiteRT().lower(Compressed(_half(SCALES[name])), tmp_path / "a.tflite")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", SCALES)
def test_onnx_runtime_takes_them(name: str, tmp_path: Path) -> None:
    network, target = _half(SCALES[name]), OnnxRuntime()
    target.lower(Compressed(network), tmp_path / "a.onnx")
    x = torch.randn(5, 3, 8, 8)
    found = torch.from_numpy(target.load(tmp_path / "a.onnx")((x.numpy(),)))
    assert torch.allclose(found, network.module(x), atol=1e-5)


def test_without_scaling_it_is_a_fault_of_the_conversion() -> None:
    assert "fault of the conversion" in weight_missing(_half(torch.relu), "first", "float16").remedy
