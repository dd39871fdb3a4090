"""Plain and residual convolutional networks."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn


class LeNet5(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 6, 5, padding=2)
        self.conv2 = nn.Conv2d(6, 16, 5)
        self.fc1 = nn.Linear(16 * 5 * 5, 24)
        self.fc2 = nn.Linear(24, 16)
        self.fc3 = nn.Linear(16, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.max_pool2d(F.relu(self.conv1(x)), 2)
        x = F.max_pool2d(F.relu(self.conv2(x)), 2)
        x = x.view(x.size(0), -1)
        x = F.relu(self.fc1(x))
        return self.fc3(F.relu(self.fc2(x)))


class VGG11(nn.Module):
    def __init__(self, plan: tuple[int | str, ...] = (8, "M", 16, "M", 16, 16, "M", 24, 24, "M", 24, 24, "M")) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        width = 3
        for item in plan:
            if isinstance(item, str):
                layers.append(nn.MaxPool2d(2))
            else:
                layers += [nn.Conv2d(width, item, 3, padding=1), nn.BatchNorm2d(item), nn.ReLU(inplace=True)]
                width = item
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Sequential(
            nn.Linear(width, 32), nn.ReLU(True), nn.Dropout(), nn.Linear(32, 32), nn.ReLU(True), nn.Linear(32, 10)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.classifier(torch.flatten(self.features(x), 1))


class PaddedShortcut(nn.Module):
    """Option A of the ResNet paper: every other pixel, zeros for the new channels."""

    def __init__(self, extra: int) -> None:
        super().__init__()
        self.extra = extra

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, self.extra // 2, self.extra // 2), "constant", 0)


class BasicBlock(nn.Module):
    def __init__(self, width: int, out: int, stride: int, shortcut: nn.Module) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(width, out, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(out)
        self.conv2 = nn.Conv2d(out, out, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(out)
        self.shortcut = shortcut

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out = F.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        out += self.shortcut(x)
        return F.relu(out)


class ResNet20(nn.Module):
    """CIFAR's ResNet with parameter-free shortcuts."""

    def __init__(self, width: int = 8, blocks: int = 3) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, width, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        stages, channels = [], width
        for stage in range(3):
            layers = []
            for block in range(blocks):
                out = width * 2**stage
                grows = stage > 0 and block == 0
                shortcut = PaddedShortcut(out - channels) if grows else nn.Sequential()
                layers.append(BasicBlock(channels, out, 2 if grows else 1, shortcut))
                channels = out
            stages.append(nn.Sequential(*layers))
        self.layer1, self.layer2, self.layer3 = stages
        self.linear = nn.Linear(channels, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out = F.relu(self.bn1(self.conv1(x)))
        out = self.layer3(self.layer2(self.layer1(out)))
        out = F.avg_pool2d(out, out.size()[3])
        out = out.view(out.size(0), -1)
        return self.linear(out)


class ResNet18(nn.Module):
    """ImageNet's ResNet with projected shortcuts."""

    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, width, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        blocks, channels = [], width
        for stage in range(4):
            for block in range(2):
                out, stride = width * 2**stage, 2 if stage > 0 and block == 0 else 1
                projects = stride > 1 or out != channels
                shortcut: nn.Module = nn.Identity()
                if projects:
                    shortcut = nn.Sequential(nn.Conv2d(channels, out, 1, stride, bias=False), nn.BatchNorm2d(out))
                blocks.append(BasicBlock(channels, out, stride, shortcut))
                channels = out
        self.blocks = nn.Sequential(*blocks)
        self.avgpool = nn.AdaptiveAvgPool2d((1, 1))
        self.fc = nn.Linear(channels, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.maxpool(F.relu(self.bn1(self.conv1(x))))
        return self.fc(torch.flatten(self.avgpool(self.blocks(x)), 1))


class GroupedBottleneck(nn.Module):
    """RegNet's X block: the middle convolution works in groups of a fixed width."""

    def __init__(self, width: int, out: int, stride: int, group_width: int) -> None:
        super().__init__()
        self.a = nn.Sequential(nn.Conv2d(width, out, 1, bias=False), nn.BatchNorm2d(out), nn.ReLU())
        self.b = nn.Sequential(
            nn.Conv2d(out, out, 3, stride, 1, groups=out // group_width, bias=False), nn.BatchNorm2d(out), nn.ReLU()
        )
        self.c = nn.Sequential(nn.Conv2d(out, out, 1, bias=False), nn.BatchNorm2d(out))
        self.proj = nn.Conv2d(width, out, 1, stride) if stride > 1 or width != out else None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        identity = x if self.proj is None else self.proj(x)
        return F.relu(self.c(self.b(self.a(x))) + identity)


class RegNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1, bias=False), nn.BatchNorm2d(8), nn.ReLU())
        self.trunk = nn.Sequential(
            GroupedBottleneck(8, 16, 2, 4), GroupedBottleneck(16, 16, 1, 4), GroupedBottleneck(16, 24, 2, 8)
        )
        self.head = nn.Linear(24, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.trunk(self.stem(x)).mean((2, 3)))


class Inception(nn.Module):
    """Branches of several kinds, joined by concatenation."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 12, 3, 2, 1)
        self.one = nn.Conv2d(12, 8, 1)
        self.three = nn.Sequential(nn.Conv2d(12, 6, 1), nn.ReLU(), nn.Conv2d(6, 10, 3, padding=1))
        self.asymmetric = nn.Sequential(
            nn.Conv2d(12, 6, 1), nn.Conv2d(6, 6, (1, 5), padding=(0, 2)), nn.Conv2d(6, 8, (5, 1), padding=(2, 0))
        )
        self.pool = nn.Sequential(nn.AvgPool2d(3, 1, 1), nn.Conv2d(12, 4, 1))
        self.bn = nn.BatchNorm2d(30)
        self.mix = nn.Conv2d(30, 16, 1)
        self.fc = nn.Linear(16 * 4, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.relu(self.stem(x))
        x = torch.cat([self.one(x), self.three(x), self.asymmetric(x), self.pool(x)], 1)
        x = F.relu(self.mix(F.relu(self.bn(x))))
        return self.fc(F.adaptive_avg_pool2d(x, 2).flatten(1))
