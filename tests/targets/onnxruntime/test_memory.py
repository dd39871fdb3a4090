"""Peak memory of an .onnx file, counted by hand."""

from __future__ import annotations

import torch
from torch import nn

from featherweight.network import capture
from featherweight.network.grids import Compressed
from featherweight.targets.onnxruntime import OnnxRuntime


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.end = (
            nn.Conv2d(3, 8, 3, padding=1),
            nn.Conv2d(8, 8, 3, padding=1),
            nn.Linear(8, 4),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.first(x))
        return self.end((x + torch.relu(self.second(x))).mean((2, 3)))


def test_a_residual_holds_three_values_while_it_adds(tmp_path) -> None:
    target, path = OnnxRuntime(), tmp_path / "made.onnx"
    target.lower(Compressed(capture(Residual(), torch.randn(2, 3, 16, 16))), path)
    assert target.peak_memory(path) == 3 * 4 * 8 * 256
    assert target.runtime().startswith("onnxruntime ")
