"""Concatenating and pixel-predicting networks."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn


class DenseLayer(nn.Module):
    def __init__(self, width: int, growth: int) -> None:
        super().__init__()
        self.norm1, self.conv1 = nn.BatchNorm2d(width), nn.Conv2d(width, 2 * growth, 1, bias=False)
        self.norm2, self.conv2 = nn.BatchNorm2d(2 * growth), nn.Conv2d(2 * growth, growth, 3, padding=1, bias=False)

    def forward(self, features: list[torch.Tensor]) -> torch.Tensor:
        x = self.conv1(F.relu(self.norm1(torch.cat(features, 1))))
        return self.conv2(F.relu(self.norm2(x)))


class DenseNet(nn.Module):
    def __init__(self, growth: int = 6) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, 2, 1, bias=False)
        self.block1 = nn.ModuleList(DenseLayer(8 + i * growth, growth) for i in range(3))
        width = 8 + 3 * growth
        self.norm, self.transition = nn.BatchNorm2d(width), nn.Conv2d(width, 12, 1, bias=False)
        self.block2 = nn.ModuleList(DenseLayer(12 + i * growth, growth) for i in range(3))
        self.final = nn.BatchNorm2d(12 + 3 * growth)
        self.classifier = nn.Linear(12 + 3 * growth, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        features = [self.stem(x)]
        for layer in self.block1:
            features.append(layer(features))
        x = F.avg_pool2d(self.transition(F.relu(self.norm(torch.cat(features, 1)))), 2)
        features = [x]
        for layer in self.block2:
            features.append(layer(features))
        x = F.relu(self.final(torch.cat(features, 1)))
        return self.classifier(torch.flatten(F.adaptive_avg_pool2d(x, (1, 1)), 1))


class UNet(nn.Module):
    """Down, up by transposed convolution, joined with what was there before."""

    def __init__(self, width: int = 6) -> None:
        super().__init__()
        self.down1, self.down2 = self.pair(3, width), self.pair(width, 2 * width)
        self.bottom = self.pair(2 * width, 4 * width)
        self.up2 = nn.ConvTranspose2d(4 * width, 2 * width, 2, 2)
        self.dec2 = self.pair(4 * width, 2 * width)
        self.up1 = nn.ConvTranspose2d(2 * width, width, 2, 2)
        self.dec1 = self.pair(2 * width, width)
        self.outc = nn.Conv2d(width, 2, 1)

    @staticmethod
    def pair(width: int, out: int) -> nn.Module:
        return nn.Sequential(
            nn.Conv2d(width, out, 3, padding=1), nn.BatchNorm2d(out), nn.ReLU(inplace=True),
            nn.Conv2d(out, out, 3, padding=1), nn.BatchNorm2d(out), nn.ReLU(inplace=True),
        )  # fmt: skip

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        one = self.down1(x)
        two = self.down2(F.max_pool2d(one, 2))
        x = self.up2(self.bottom(F.max_pool2d(two, 2)))
        x = self.up1(self.dec2(torch.cat([two, x], dim=1)))
        return self.outc(self.dec1(torch.cat([one, x], dim=1)))


class SuperResolution(nn.Module):
    """Pixels traded for channels and back."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Conv2d(12, 12, 3, padding=1)
        self.body = nn.Sequential(nn.Conv2d(12, 16, 3, padding=1), nn.PReLU(16), nn.Conv2d(16, 24, 3, padding=1))
        self.tail = nn.Conv2d(6, 3, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.relu(self.head(F.pixel_unshuffle(x, 2)))
        return self.tail(F.pixel_shuffle(self.body(x), 2))


class VolumeNet(nn.Module):
    """Three-dimensional convolutions, one of them transposed."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.norm1 = nn.Conv3d(1, 6, 3, padding=1), nn.BatchNorm3d(6)
        self.conv2, self.norm2 = nn.Conv3d(6, 8, 3, 2, 1), nn.GroupNorm(2, 8)
        self.up = nn.ConvTranspose3d(8, 4, 2, 2)
        self.out = nn.Conv3d(4, 2, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.relu(self.norm1(self.conv1(x)))
        return self.out(F.relu(self.up(F.silu(self.norm2(self.conv2(x))))))


class KeywordSpotter(nn.Module):
    """One-dimensional convolutions over sound."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Sequential(nn.Conv1d(4, 12, 5, 2, 2), nn.BatchNorm1d(12), nn.ReLU())
        self.conv2 = nn.Sequential(
            nn.Conv1d(12, 24, 3, groups=12, padding=1), nn.InstanceNorm1d(24, affine=True), nn.ELU()
        )
        self.conv3 = nn.Sequential(nn.Conv1d(24, 16, 1), nn.BatchNorm1d(16), nn.GELU())
        self.fc = nn.Linear(16, 6)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(self.conv3(self.conv2(self.conv1(x))).amax(-1))
