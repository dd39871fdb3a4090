"""Real data sets and trained networks for benchmarks, read from ``FEATHERWEIGHT_DATA``; never part of the project."""

from __future__ import annotations

import os
import sys
import zipfile
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import nn
from torch.nn import functional

from featherweight.tasks import Data, Split

ROOT = Path(os.environ.get("FEATHERWEIGHT_DATA", "../shared/data"))
RESULTS = Path(__file__).parent / "results"
_MEAN = np.array([0.485, 0.456, 0.406], dtype=np.float32)
_STD = np.array([0.229, 0.224, 0.225], dtype=np.float32)


def need(*names: str) -> None:
    """Leave with a clear word where data is missing."""
    missing = [name for name in names if not (ROOT / name).exists()]
    if missing:
        print(f"skipped: {', '.join(missing)} not found under {ROOT} (set FEATHERWEIGHT_DATA)")
        sys.exit(0)


def _sheet(name: str) -> tuple[np.ndarray, np.ndarray]:
    folder = ROOT / "cifar10"
    pixels = np.array(Image.open(folder / f"{name}.webp").convert("RGB"))
    tiles = pixels.reshape(pixels.shape[0] // 32, 32, 100, 32, 3).transpose(0, 2, 1, 3, 4).reshape(-1, 32, 32, 3)
    images = ((tiles.astype(np.float32) / 255 - _MEAN) / _STD).transpose(0, 3, 1, 2)
    return np.ascontiguousarray(images), np.load(folder / f"{name}_labels.npy").astype(np.int64)


def cifar10(train: int = 2000) -> Data:
    """CIFAR-10: some training images to calibrate on, 4,000 test images to validate with, 6,000 to prove with."""
    need("cifar10")
    Image.MAX_IMAGE_PIXELS = None
    x, y = _sheet("cifar10_train_5000_1")
    tx, ty = _sheet("cifar10_test_10000")
    order = np.random.default_rng(0).permutation(len(tx))
    validation, test = order[:4000], order[4000:]
    return Data(
        train=Split.of((x[:train], y[:train])),
        validation=Split.of((tx[validation], ty[validation])),
        test=Split.of((tx[test], ty[test])),
        name="cifar10",
    )


class _Block(nn.Module):
    def __init__(self, inside: int, planes: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inside, planes, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(planes)
        self.conv2 = nn.Conv2d(planes, planes, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(planes)
        self.stride, self.more = stride, (planes - inside) // 2

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.bn2(self.conv2(functional.relu(self.bn1(self.conv1(x)))))
        if self.stride > 1:
            x = functional.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, self.more, self.more))
        return functional.relu(y + x)


class CifarResNet(nn.Module):
    """The ResNet of He et al. 2016, section 4.2, with identity shortcuts (option A)."""

    def __init__(self, blocks: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16)
        inside, layers = 16, []
        for planes, stride in ((16, 1), (32, 2), (64, 2)):
            row = [_Block(inside if i == 0 else planes, planes, stride if i == 0 else 1) for i in range(blocks)]
            layers.append(nn.Sequential(*row))
            inside = planes
        self.layer1, self.layer2, self.layer3 = layers
        self.linear = nn.Linear(64, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(n, 3, 32, 32) → (n, 10)."""
        x = functional.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        return self.linear(x.mean((2, 3)))


def cifar_resnet(depth: int) -> CifarResNet:
    """The trained ResNet-20 or ResNet-56."""
    need("cifar10_resnets")
    (path,) = (ROOT / "cifar10_resnets").glob(f"resnet{depth}-*.th")
    state = torch.load(path, map_location="cpu", weights_only=True)["state_dict"]
    network = CifarResNet((depth - 2) // 6)
    network.load_state_dict({name.removeprefix("module."): value for name, value in state.items()})
    return network.eval()


class _InvertedResidual(nn.Module):
    def __init__(self, inside: int, outside: int, stride: int, expand: int) -> None:
        super().__init__()
        wide = inside * expand
        spatial = _conv(wide, wide, 3, stride, wide)
        last = [nn.Conv2d(wide, outside, 1, bias=False), nn.BatchNorm2d(outside)]
        self.conv = nn.Sequential(*([] if expand == 1 else [_conv(inside, wide, 1)]), spatial, *last)
        self.shortcut = stride == 1 and inside == outside

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.conv(x) if self.shortcut else self.conv(x)


def _conv(inside: int, outside: int, kernel: int, stride: int = 1, groups: int = 1) -> nn.Sequential:
    """Convolution, batch norm, ReLU6; where it strides, padded at the far borders only, as TensorFlow does."""
    convolution = nn.Conv2d(inside, outside, kernel, stride, kernel // 2 * (stride == 1), groups=groups, bias=False)
    row = [convolution, nn.BatchNorm2d(outside), nn.ReLU6()]
    return nn.Sequential(*row) if stride == 1 else _Strided(*row)


class _Strided(nn.Sequential):
    def forward(self, input: torch.Tensor) -> torch.Tensor:
        return super().forward(functional.pad(input, (0, 1, 0, 1)))


class _MobileNetV2(nn.Module):
    """MobileNetV2 of Sandler et al. 2018 (arXiv:1801.04381), with TensorFlow's borders."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = [_conv(3, 32, 3, 2)]
        inside = 32
        for expand, outside, count, stride in (
            (1, 16, 1, 1),
            (6, 24, 2, 2),
            (6, 32, 3, 2),
            (6, 64, 4, 2),
            (6, 96, 3, 1),
            (6, 160, 3, 2),
            (6, 320, 1, 1),
        ):
            for index in range(count):
                layers.append(_InvertedResidual(inside, outside, stride if index == 0 else 1, expand))
                inside = outside
        self.features = nn.Sequential(*layers, _conv(inside, 1280, 1))
        self.classifier = nn.Sequential(nn.Dropout(0.2), nn.Linear(1280, 1000))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.classifier(self.features(x).mean((2, 3)))


def mobilenet_v2() -> nn.Module:
    """The trained MobileNetV2 1.0 for images of 224 by 224; (n, 3, 224, 224) → (n, 1000)."""
    need("imagenet_mobile_models")
    path = ROOT / "imagenet_mobile_models" / "mobilenetv2_1.0_224_folded_fp16.pt"
    network = _MobileNetV2()
    network.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    return network.float().eval()


def imagenet_sample() -> tuple[torch.Tensor, np.ndarray]:
    """550 photographs of 550 classes: images (550, 3, 224, 224) as MobileNetV2 wants them, and labels."""
    need("imagenet_sample")
    images, labels = [], []
    with zipfile.ZipFile(ROOT / "imagenet_sample" / "images_256.zip") as archive:
        for name in sorted(archive.namelist()):
            if not name.endswith(".jpg"):
                continue
            with archive.open(name) as file:
                pixels = np.array(Image.open(file).convert("RGB"), dtype=np.float32)[16:240, 16:240]
            images.append((pixels - 128) / 128)
            labels.append(int(name.rpartition("/")[2].split("_")[0]))
    return torch.from_numpy(np.stack(images).transpose(0, 3, 1, 2).copy()), np.array(labels)
