"""An exported program's layers come back as modules, and compute the same."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from featherweight.frontends import load_model
from featherweight.network import capture, fold_batch_norm


class Mixed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(3, 8, 3, padding="same", bias=False),
            nn.BatchNorm2d(8),
            nn.ReLU(),
            nn.Conv2d(8, 16, 3, (2, 1), (1, 2), groups=8),
        )
        self.steps = nn.Conv1d(16, 8, 3, dilation=2)
        self.attend = nn.MultiheadAttention(8, 2, batch_first=True)
        self.shared = nn.Linear(8, 8)
        self.head = nn.Linear(8, 4)
        nn.init.normal_(self.body[1].running_mean)
        nn.init.uniform_(self.body[1].running_var, 0.5, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.steps(self.body(x).flatten(2)).transpose(1, 2)
        x = self.attend(x, x, x)[0]
        return self.head(self.shared(self.shared(x)).mean(1))


def test_layers_come_back_as_modules_that_can_be_folded_and_replaced(tmp_path: Path) -> None:
    module, x = Mixed().eval(), torch.randn(2, 3, 8, 8)
    program = torch.export.export(module, (x,), dynamic_shapes=({0: torch.export.Dim.DYNAMIC},))
    torch.export.save(program, tmp_path / "mixed.pt2")
    loaded = load_model(str(tmp_path / "mixed.pt2"))
    assert torch.allclose(loaded(x), module(x), atol=1e-6)
    network = fold_batch_norm(capture(loaded, x))
    assert torch.allclose(network.module(x), module(x), atol=1e-6)
    replaceable = {layer.name: layer.replaceable for layer in network.layers}
    assert replaceable.pop("attend") is False
    assert replaceable.pop("shared") is False
    assert all(replaceable.values()), replaceable
    assert set(replaceable) == {"body.0", "body.3", "steps", "attend.out_proj", "head"}
    assert not any(isinstance(child, nn.BatchNorm2d) for child in network.module.modules())
    assert network.module(torch.randn(5, 3, 8, 8)).shape == (5, 4)
