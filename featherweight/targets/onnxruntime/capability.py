"""What ONNX Runtime runs on a CPU, as data.

Sources: the runtime's list of operators, its quantization guide (which patterns become integer kernels), and what its
optimized graphs really hold (tests/targets/onnxruntime). Operations that move or clip values need no pattern: the file
does them on the levels themselves.
"""

from __future__ import annotations

import torch

from featherweight.contracts import Capability
from featherweight.targets.placement import MOVING, OperatorData

_aten = torch.ops.aten

_INTEGER_KINDS = frozenset({"linear", "conv1d", "conv2d", "depthwise_conv1d", "depthwise_conv2d"})

CAPABILITY = Capability(
    target="onnxruntime",
    weight_types=("float32", "float16", "int8"),
    activation_types=("float32", "int8"),
    layer_kinds={
        "float32": _INTEGER_KINDS | {"conv_transpose2d", "conv3d", "embedding"},
        "float16": _INTEGER_KINDS | {"conv_transpose2d"},
        "int8": _INTEGER_KINDS,
    },
    channel_multiple=8,  # its tiles of channels are 8 or 16 wide on x86 and arm64
    # Differences between files of 2 and 6 equal layers with 16 and 48 channels, each with ReLU, bytes of weights and
    # biases taken off. int8: a scale for the weight's channel and one for the int32 bias; under real activations 4.
    # A layer (linear, convolution, depthwise): float32 87, 94, 111; float16 118, 126, 143; int8 under real activations
    # 153, 164, 181; on an integer kernel 281, 288, 305, in ResNet-20, where sums have grids too, 374.
    bytes_per_channel={"float32": 0, "float16": 0, "int8": 8},
    bytes_per_layer=100,
    bytes_per_integer=230,
    # ResNet-20's layers in pairs of ranks 4 and 16: what the inner ones take less.
    bytes_per_bias={"float32": (55, 4), "float16": (55, 4), "int8": (141, 8)},
    # ConvInteger exists and takes six times as long as the real kernel (64 channels, 3×3, 14×14: 0.49 ms, 0.077 ms)
    dynamic_kinds=frozenset({"linear"}),
)

OPERATORS = OperatorData(
    same=MOVING,
    free=frozenset(
        {
            _aten.add.Tensor,
            _aten.add_.Tensor,
            _aten.mul.Tensor,
            _aten.mul_.Tensor,
            _aten.cat.default,
            _aten.avg_pool2d.default,
            _aten.relu.default,
            _aten.relu_.default,
        }
    ),
    fixed={_aten.sigmoid.default: (1 / 256, -128)},
)
