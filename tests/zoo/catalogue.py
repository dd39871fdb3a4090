"""The zoo: name → how to make the network and an example input."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import nn

from tests.zoo import attention, classic, dense, mobile, sequence

Example = tuple[torch.Tensor, ...]


def _images(size: int, channels: int = 3) -> Callable[[], Example]:
    return lambda: (torch.randn(2, channels, size, size),)


def _tokens(length: int) -> Callable[[], Example]:
    return lambda: (torch.randint(1, 20, (2, length)),)


ZOO: Mapping[str, tuple[Callable[[], nn.Module], Callable[[], Example]]] = {
    "lenet5": (classic.LeNet5, _images(28, 1)),
    "vgg11": (classic.VGG11, _images(32)),
    "resnet20": (classic.ResNet20, _images(16)),
    "resnet18": (classic.ResNet18, _images(32)),
    "regnet": (classic.RegNet, _images(32)),
    "inception": (classic.Inception, _images(16)),
    "mobilenet_v1": (mobile.MobileNetV1, _images(32)),
    "mobilenet_v2": (mobile.MobileNetV2, _images(32)),
    "mobilenet_v3": (mobile.MobileNetV3, _images(32)),
    "shufflenet_v2": (mobile.ShuffleNetV2, _images(32)),
    "squeezenet": (mobile.SqueezeNet, _images(32)),
    "efficientnet": (mobile.EfficientNet, _images(16)),
    "fastestdet": (mobile.FastestDet, _images(32)),
    "densenet": (dense.DenseNet, _images(16)),
    "unet": (dense.UNet, _images(16)),
    "super_resolution": (dense.SuperResolution, _images(8)),
    "volume": (dense.VolumeNet, lambda: (torch.randn(2, 1, 4, 8, 8),)),
    "keyword_spotter": (dense.KeywordSpotter, lambda: (torch.randn(2, 4, 32),)),
    "vit": (attention.ViT, _images(16)),
    "bert": (attention.Bert, _tokens(8)),
    "seq2seq": (attention.Seq2Seq, lambda: (torch.randint(0, 24, (2, 6)), torch.randint(0, 24, (2, 5)))),
    "decoder": (attention.Decoder, _tokens(8)),
    "convnext": (attention.ConvNeXt, _images(32)),
    "lstm": (sequence.LSTMClassifier, _tokens(7)),
    "gru": (sequence.GRUClassifier, lambda: (torch.randn(2, 7, 5),)),
    "two_tower": (
        sequence.TwoTower,
        lambda: (torch.randint(0, 20, (2,)), torch.randint(0, 30, (2,)), torch.randn(2, 4)),
    ),
}
