"""What LiteRT runs on a CPU, as data.

Sources: the LiteRT 8-bit quantization specification (which operators keep a scale, which have a fixed one), XNNPACK's
list of delegated operators, and what the converter of the pinned version really emits (tests/targets/litert).
"""

from __future__ import annotations

import torch

from featherweight.contracts import Capability
from featherweight.targets.placement import MOVING, OperatorData

_aten = torch.ops.aten

_INTEGER_KINDS = frozenset({"linear", "conv1d", "conv2d", "depthwise_conv1d", "depthwise_conv2d"})

CAPABILITY = Capability(
    target="litert",
    weight_types=("float32", "float16", "int8"),
    activation_types=("float32", "int8"),
    layer_kinds={
        "float32": _INTEGER_KINDS | {"conv_transpose2d", "conv3d", "embedding"},
        "float16": _INTEGER_KINDS | {"conv_transpose2d"},
        "int8": _INTEGER_KINDS,
    },
    channel_multiple=8,  # XNNPACK's float tile is 6 by 8 on arm64, its int8 tile a multiple of 8
    # int8: a scale for the weight's channel and one for the int32 bias; zero points are shared by the whole file
    bytes_per_channel={"float32": 0, "float16": 0, "int8": 8},
    bytes_per_layer=256,
    bytes_per_integer=168,  # scale and zero point of its output and of what it is added to
    # ResNet-20's layers put in pairs one by one: what the inner one takes less; the converter gives an integer
    # convolution a bias of zeros.
    bytes_per_bias={"float32": (67, 4), "float16": (67, 4), "int8": (104, 0)},
    dynamic_kinds=frozenset({"linear", "conv2d", "depthwise_conv2d"}),
)

OPERATORS = OperatorData(
    same=MOVING | {_aten.avg_pool2d.default, _aten.cat.default},
    free=frozenset(
        {
            _aten.add.Tensor,
            _aten.add_.Tensor,
            _aten.sub.Tensor,
            _aten.mul.Tensor,
            _aten.mul_.Tensor,
            _aten.mean.dim,
            _aten.adaptive_avg_pool2d.default,
            _aten.relu.default,
            _aten.relu_.default,
        }
    ),
    fixed={
        _aten.sigmoid.default: (1 / 256, -128),
        _aten.softmax.int: (1 / 256, -128),
        _aten.tanh.default: (1 / 128, 0),
    },
)
