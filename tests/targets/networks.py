"""Networks that the tests of more than one target lower."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional


class Residual(nn.Module):
    """Convolutions of every kind, an addition, pooling and two linear layers."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 16, 3, padding=1)
        self.depth = nn.Conv2d(16, 16, 3, padding=1, groups=16)
        self.point = nn.Conv2d(16, 16, 1)
        self.hidden = nn.Linear(256, 32)
        self.head = nn.Linear(32, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = functional.relu(self.stem(x))
        x = functional.relu(self.point(functional.relu(self.depth(x))) + x)
        return self.head(functional.relu(self.hidden(functional.max_pool2d(x, 2).flatten(1))))
