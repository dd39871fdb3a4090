"""Networks that the tests of this target lower, and what they ask of the files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn
from torch.nn import functional

from featherweight.contracts import Plan, Step
from featherweight.methods import METHODS
from featherweight.methods.apply import apply
from featherweight.network import capture
from featherweight.network.grids import Compressed, with_grids
from featherweight.network.surgery import Slim
from featherweight.recovery import recover
from featherweight.targets.onnxruntime import OnnxRuntime
from featherweight.tasks.data import Split

TARGET = OnnxRuntime()
INT8 = (Step("quantization", {"weights": "int8", "activations": "int8"}),)
HALF = (Step("quantization", {"weights": "float16", "activations": "float32"}),)
STORED = (Step("quantization", {"weights": "int8", "activations": "float32"}),)
DYNAMIC = (Step("quantization", {"weights": "int8", "activations": "dynamic"}),)


class Block(nn.Module):
    """A convolution, an operation between, and another convolution."""

    def __init__(self, between: Callable[[torch.Tensor], torch.Tensor], channels: int = 8) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3, padding=1)
        self.between = between
        self.second = nn.Conv2d(channels, 4, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.second(self.between(self.first(x)))


class Tokens(nn.Module):
    """Linear layers on (batch, 5, 16), one-dimensional convolutions between."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(16, 24)
        self.full = nn.Conv1d(24, 8, 3, padding=1)
        self.depth = nn.Conv1d(8, 8, 3, padding=1, groups=8)
        self.bare = nn.Linear(8, 4, bias=False)
        self.head = nn.Linear(4, 6)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = functional.relu6(self.inner(x)).transpose(1, 2)
        return self.head(self.bare(self.depth(functional.relu(self.full(x))).transpose(1, 2)))


def compressed(module: nn.Module, x: torch.Tensor, **choices: tuple[Step, ...]) -> Compressed:
    """The module under a plan for this target, calibrated on ``x``."""
    network, split = capture(module.eval(), x[:2]), Split.of(x)
    made = apply(network, Plan("n", "onnxruntime", choices), split, TARGET.capability, METHODS)
    return recover(Slim.whole(network), made, split, TARGET)


def difference(made: Compressed, path: Path, x: torch.Tensor) -> np.ndarray:
    """What the file gives beyond what the simulation gives."""
    with torch.no_grad():
        return TARGET.load(path)((x.numpy(),)) - with_grids(made)(x).numpy()


def steps_apart(made: Compressed, path: Path, x: torch.Tensor) -> float:
    """How many steps of the coarsest grid the file lies from the simulation, at most."""
    return float(np.abs(difference(made, path, x)).max() / max(float(grid.scale) for grid in made.grids.values()))


def model_of(nodes: list[Any], constants: dict[str, np.ndarray]) -> Any:
    """Operations from "x", images of 2 channels, to "y", as an ONNX model."""
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes,
        "g",
        [value("x", TensorProto.FLOAT, ["batch", 2, 4, 4])],
        [value("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(np.asarray(one), name) for name, one in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)


def answers(model: Any, x: np.ndarray) -> np.ndarray:
    """What the runtime gives, every operation as it stands."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    made = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return np.asarray(made.run(None, {"x": x})[0])
