"""Networks made for phones."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn


def conv_bn(
    width: int, out: int, kernel: int, stride: int = 1, groups: int = 1, act: type | None = nn.ReLU
) -> nn.Module:
    layers = [nn.Conv2d(width, out, kernel, stride, kernel // 2, groups=groups, bias=False), nn.BatchNorm2d(out)]
    return nn.Sequential(*layers, *([act()] if act else []))


class MobileNetV1(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        layers = [conv_bn(3, 8, 3, 2)]
        for width, out, stride in ((8, 16, 1), (16, 24, 2), (24, 24, 1), (24, 32, 2)):
            layers += [conv_bn(width, width, 3, stride, width), conv_bn(width, out, 1)]
        self.model = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1))
        self.fc = nn.Linear(32, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(self.model(x).view(-1, self.fc.in_features))


class InvertedResidual(nn.Module):
    def __init__(self, width: int, out: int, stride: int, expand: int) -> None:
        super().__init__()
        hidden = width * expand
        self.use_res_connect = stride == 1 and width == out
        expansion = [conv_bn(width, hidden, 1, act=nn.ReLU6)] if expand != 1 else []
        self.conv = nn.Sequential(
            *expansion, conv_bn(hidden, hidden, 3, stride, hidden, nn.ReLU6), conv_bn(hidden, out, 1, act=None)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.conv(x) if self.use_res_connect else self.conv(x)


class MobileNetV2(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        blocks = [(8, 4, 1, 1), (4, 8, 2, 3), (8, 8, 1, 3), (8, 12, 2, 3), (12, 12, 1, 3)]
        self.features = nn.Sequential(
            conv_bn(3, 8, 3, 2, act=nn.ReLU6), *(InvertedResidual(*block) for block in blocks), conv_bn(12, 32, 1)
        )
        self.classifier = nn.Sequential(nn.Dropout(0.2), nn.Linear(32, 10))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.classifier(F.adaptive_avg_pool2d(self.features(x), (1, 1)).reshape(x.shape[0], -1))


class SqueezeExcite(nn.Module):
    def __init__(self, width: int, reduced: int, gate: type) -> None:
        super().__init__()
        self.reduce = nn.Conv2d(width, reduced, 1)
        self.expand = nn.Conv2d(reduced, width, 1)
        self.gate = gate()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        scale = F.relu(self.reduce(F.adaptive_avg_pool2d(x, 1)))
        return x * self.gate(self.expand(scale))


class MobileNetV3(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = conv_bn(3, 8, 3, 2, act=nn.Hardswish)
        self.dw1, self.se1 = conv_bn(8, 8, 3, 2, 8), SqueezeExcite(8, 4, nn.Hardsigmoid)
        self.pw1 = conv_bn(8, 12, 1, act=None)
        self.pw2, self.dw2 = conv_bn(12, 24, 1, act=nn.Hardswish), conv_bn(24, 24, 5, 1, 24, nn.Hardswish)
        self.se2, self.pw3 = SqueezeExcite(24, 8, nn.Hardsigmoid), conv_bn(24, 12, 1, act=None)
        self.last = conv_bn(12, 32, 1, act=nn.Hardswish)
        self.classifier = nn.Sequential(nn.Linear(32, 24), nn.Hardswish(), nn.Dropout(0.2), nn.Linear(24, 10))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.pw1(self.se1(self.dw1(self.stem(x))))
        x = x + self.pw3(self.se2(self.dw2(self.pw2(x))))
        return self.classifier(self.last(x).mean(dim=[2, 3]))


def channel_shuffle(x: torch.Tensor, groups: int) -> torch.Tensor:
    b, c, h, w = x.size()
    x = x.view(b, groups, c // groups, h, w)
    return torch.transpose(x, 1, 2).contiguous().view(b, c, h, w)


class ShuffleUnit(nn.Module):
    def __init__(self, width: int, out: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        half = out // 2
        self.branch1 = nn.Sequential()
        if stride > 1:
            self.branch1 = nn.Sequential(conv_bn(width, width, 3, stride, width, None), conv_bn(width, half, 1))
        inner = width if stride > 1 else half
        self.branch2 = nn.Sequential(
            conv_bn(inner, half, 1), conv_bn(half, half, 3, stride, half, None), conv_bn(half, half, 1)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.stride == 1:
            x1, x2 = x.chunk(2, dim=1)
            out = torch.cat((x1, self.branch2(x2)), dim=1)
        else:
            out = torch.cat((self.branch1(x), self.branch2(x)), dim=1)
        return channel_shuffle(out, 2)


class ShuffleNetV2(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1 = conv_bn(3, 8, 3, 2)
        self.stages = nn.Sequential(
            ShuffleUnit(8, 16, 2), ShuffleUnit(16, 16, 1), ShuffleUnit(16, 32, 2), ShuffleUnit(32, 32, 1)
        )
        self.conv5 = conv_bn(32, 24, 1)
        self.fc = nn.Linear(24, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(self.conv5(self.stages(self.conv1(x))).mean([2, 3]))


class Fire(nn.Module):
    def __init__(self, width: int, squeeze: int, expand: int) -> None:
        super().__init__()
        self.squeeze = nn.Conv2d(width, squeeze, 1)
        self.expand1x1 = nn.Conv2d(squeeze, expand, 1)
        self.expand3x3 = nn.Conv2d(squeeze, expand, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.relu(self.squeeze(x))
        return torch.cat([F.relu(self.expand1x1(x)), F.relu(self.expand3x3(x))], 1)


class SqueezeNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 12, 3, 2), nn.ReLU(True), nn.MaxPool2d(3, 2, ceil_mode=True), Fire(12, 4, 8), Fire(16, 4, 8)
        )
        self.classifier = nn.Sequential(nn.Dropout(), nn.Conv2d(16, 10, 1), nn.ReLU(True), nn.AdaptiveAvgPool2d(1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.flatten(self.classifier(self.features(x)), 1)


class MBConv(nn.Module):
    def __init__(self, width: int, expand: int) -> None:
        super().__init__()
        hidden = width * expand
        self.expand = conv_bn(width, hidden, 1, act=nn.SiLU)
        self.depthwise = conv_bn(hidden, hidden, 5, 1, hidden, nn.SiLU)
        self.se = SqueezeExcite(hidden, width // 4, nn.Sigmoid)
        self.project = conv_bn(hidden, width, 1, act=None)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.project(self.se(self.depthwise(self.expand(x))))


class EfficientNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = conv_bn(3, 16, 3, 2, act=nn.SiLU)
        self.blocks = nn.Sequential(MBConv(16, 4), MBConv(16, 6))
        self.head = nn.Sequential(
            conv_bn(16, 32, 1, act=nn.SiLU), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 10)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.blocks(self.stem(x)))


class FastestDet(nn.Module):
    """A detector with one shared neck and three heads: objectness, box and classes."""

    def __init__(self, classes: int = 5) -> None:
        super().__init__()
        self.stem = conv_bn(3, 8, 3, 2)
        self.stage1, self.stage2, self.stage3 = ShuffleUnit(8, 16, 2), ShuffleUnit(16, 16, 1), ShuffleUnit(16, 32, 2)
        self.up = nn.Upsample(scale_factor=2, mode="bilinear")
        self.neck = conv_bn(48, 16, 1)
        self.spp = nn.ModuleList([nn.Sequential(*(conv_bn(16, 16, 5, 1, 16) for _ in range(n))) for n in (1, 2, 3)])
        self.mix = conv_bn(48, 16, 1, act=None)
        self.obj, self.reg, self.cls = (self.head(16, out) for out in (1, 4, classes))

    @staticmethod
    def head(width: int, out: int) -> nn.Module:
        return nn.Sequential(conv_bn(width, width, 1), conv_bn(width, width, 5, 1, width), nn.Conv2d(width, out, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        p1 = self.stage2(self.stage1(self.stem(x)))
        p2 = self.stage3(p1)
        x = self.neck(torch.cat((p1, self.up(p2)), dim=1))
        x = F.relu(x + self.mix(torch.cat([branch(x) for branch in self.spp], dim=1)))
        return torch.cat((self.obj(x).sigmoid(), self.reg(x), F.softmax(self.cls(x), dim=1)), dim=1)
