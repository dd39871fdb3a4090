"""LiteRT for real: integer kernels where asked, the same numbers as the simulation, the network's own weights."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from featherweight.contracts import LoweringError, Plan, Step
from featherweight.methods import METHODS
from featherweight.methods.apply import apply
from featherweight.network import capture
from featherweight.network.encodings import HalfEncoding, encode
from featherweight.network.grids import Compressed, load_grids, save_compressed, with_grids
from featherweight.network.surgery import Slim
from featherweight.recovery import recover
from featherweight.targets.litert import LiteRT, flatbuffer, lower
from featherweight.targets.placement import integer_layers
from featherweight.tasks.data import Split
from featherweight.testing import TargetContract
from tests.targets.networks import Residual

TARGET = LiteRT()
INT8 = (Step("quantization", {"weights": "int8", "activations": "int8"}),)
HALF = (Step("quantization", {"weights": "float16", "activations": "float32"}),)


class TestLiteRT(TargetContract):
    target = TARGET


class Block(nn.Module):
    """A convolution, an operation between, and another convolution."""

    def __init__(self, between: Callable[[torch.Tensor], torch.Tensor], channels: int = 8) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3, padding=1)
        self.between = between
        self.second = nn.Conv2d(channels, 4, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.second(self.between(self.first(x)))


def _compressed(module: nn.Module, x: torch.Tensor, **choices: tuple[Step, ...]) -> Compressed:
    network, split = capture(module, x[:2]), Split.of(x)
    made = apply(network, Plan("n", "litert", choices), split, TARGET.capability, METHODS)
    return recover(Slim.whole(network), made, split, TARGET)


def _steps_apart(compressed: Compressed, path: Path, x: torch.Tensor) -> float:
    """How many steps of the output's grid the file lies from the simulation, at most."""
    found = TARGET.load(path)((x.numpy(),))
    expected = with_grids(compressed)(x).detach().numpy()
    step = max(float(grid.scale) for grid in compressed.grids.values())
    return float(np.abs(found - expected).max() / step)


BETWEEN = {
    "relu": functional.relu,
    "relu6": functional.relu6,
    "max pool": lambda x: functional.max_pool2d(x, 2),
    "average pool": lambda x: functional.avg_pool2d(x, 2),
    "add": lambda x: x + functional.relu(x),
    "mul": lambda x: x * functional.relu(x),
    "concat": lambda x: torch.cat([functional.relu(x), x], 1)[:, :8],
    "global mean": lambda x: x.mean((2, 3), keepdim=True),
    "adaptive pool": lambda x: functional.adaptive_avg_pool2d(x, 1),
    "transpose": lambda x: x.transpose(2, 3),
    "sigmoid": torch.sigmoid,
}


@pytest.mark.parametrize("name", BETWEEN)
def test_everything_between_two_integer_layers_runs_on_integers(name: str, tmp_path: Path) -> None:
    x = torch.randn(64, 3, 8, 8)
    compressed = _compressed(Block(BETWEEN[name]), x, first=INT8, second=INT8)
    artefact = TARGET.lower(compressed, tmp_path / "a.tflite")
    real = [key for key in artefact.operators if key.endswith("float32") and not key.startswith("QUANTIZE")]
    assert not real, artefact.operators
    assert artefact.operators["CONV_2D int8"] == 2
    assert _steps_apart(compressed, tmp_path / "a.tflite", x) <= 2.01


@pytest.mark.parametrize("name", ["hardswish", "silu", "gelu", "odd shift"])
def test_operations_without_an_integer_kernel_stay_real_and_right(name: str, tmp_path: Path) -> None:
    functions = {
        "hardswish": functional.hardswish,
        "silu": functional.silu,
        "gelu": functional.gelu,
        "odd shift": lambda x: x + 0.37,
    }
    x = torch.randn(32, 3, 8, 8)
    compressed = _compressed(Block(functions[name]), x, first=INT8, second=INT8)
    artefact = TARGET.lower(compressed, tmp_path / "a.tflite")
    assert artefact.operators["CONV_2D int8"] == 2
    assert _steps_apart(compressed, tmp_path / "a.tflite", x) <= 2.01


MIXES = {
    "all int8": dict.fromkeys(("stem", "depth", "point", "hidden", "head"), INT8),
    "a real layer between": {"stem": INT8, "depth": INT8, "hidden": INT8, "head": INT8},
    "half weights": {"stem": INT8, "point": HALF, "hidden": HALF, "head": INT8},
    "low rank, then int8": {"hidden": (Step("lowrank", {"rank": 8}), *INT8), "head": INT8},
    "low rank, half": {"hidden": (Step("lowrank", {"rank": 8}), *HALF)},
}


@pytest.mark.parametrize("mix", MIXES)
def test_mixed_plans_give_what_they_ask_for(mix: str, tmp_path: Path) -> None:
    x = torch.rand(64, 1, 8, 8)
    compressed = _compressed(Residual(), x, **MIXES[mix])
    path = tmp_path / "a.tflite"
    artefact = TARGET.lower(compressed, path)
    kernels = sum(
        n for key, n in artefact.operators.items() if key.endswith(" int8") and key.split()[0] in lower.KERNELS
    )
    assert kernels == len(integer_layers(compressed.network))
    halves = sum(isinstance(e, HalfEncoding) for _, e in lower.encodings(compressed.network.module))
    assert artefact.operators.get("DEQUANTIZE float16", 0) == halves
    found, expected = TARGET.load(path)((x.numpy(),)), with_grids(compressed)(x).detach().numpy()
    assert np.abs(found - expected).mean() < 0.02 * expected.std()
    assert all(ms > 0 for _, ms in TARGET.profile(path, runs=2))


def test_equal_shapes_keep_their_own_weights(tmp_path: Path) -> None:
    """Two layers of one shape: the converter's cache must not take one's weights for the other's."""
    x = torch.rand(64, 16, 6, 6)
    module = nn.Sequential(*[layer for _ in range(4) for layer in (nn.Conv2d(16, 16, 1), nn.ReLU())])
    compressed = _compressed(module, x, **{str(2 * i): INT8 for i in range(4)})
    TARGET.lower(compressed, tmp_path / "a.tflite")  # raises where a weight isn't in the file
    assert _steps_apart(compressed, tmp_path / "a.tflite", x) <= 3.01


def test_a_foreign_weight_is_noticed() -> None:
    x = torch.rand(16, 3, 8, 8)
    one = _compressed(Block(functional.relu), x, first=INT8, second=INT8)
    other = _compressed(Block(functional.relu), x, first=INT8, second=INT8)
    content = lower.convert(one)
    lower.check_weights(one, content)
    with pytest.raises(LoweringError, match="own weights"):
        lower.check_weights(other, content)
    with pytest.raises(LoweringError, match="integer kernel"):
        lower.check_kernels(one, lower.convert(Compressed(one.network)))


def test_half_weights_halve_the_file_and_lose_nothing(tmp_path: Path) -> None:
    module = nn.Sequential(nn.Linear(64, 256), nn.ReLU(), nn.Linear(256, 10))
    x = torch.randn(8, 64)
    plain = TARGET.lower(Compressed(capture(module, x)), tmp_path / "plain.tflite")
    for at in (0, 2):
        encode(module[at], HalfEncoding())
    network = capture(module, x)
    half = TARGET.lower(Compressed(network), tmp_path / "half.tflite")
    assert half.size_bytes < 0.56 * plain.size_bytes
    found = TARGET.load(tmp_path / "half.tflite")((x.numpy(),))
    assert np.allclose(found, network.module(x).numpy(), atol=1e-5)


def test_images_go_in_as_nhwc_and_the_description_says_so(tmp_path: Path) -> None:
    x = torch.rand(16, 3, 8, 6)
    artefact = TARGET.lower(_compressed(Block(functional.relu), x, first=INT8), tmp_path / "a.tflite")
    (spec,) = artefact.inputs
    assert (spec.shape, spec.layout, spec.dtype) == ((1, 8, 6, 3), "NHWC", "float32")
    assert artefact.outputs[0].shape == (1, 8, 6, 4) or artefact.outputs[0].shape == (1, 4, 8, 6)


def test_files_carry_no_names_or_paths(tmp_path: Path) -> None:
    x = torch.rand(4, 3, 8, 8)
    TARGET.lower(_compressed(Block(functional.relu), x), tmp_path / "a.tflite")
    content = (tmp_path / "a.tflite").read_bytes()
    assert b"Block" not in content
    assert b"torch" not in content
    model = flatbuffer.read_model(content)
    assert flatbuffer.operator_names(model).count("CONV_2D") == 2


def test_buffers_are_aligned(tmp_path: Path) -> None:
    x = torch.rand(4, 3, 8, 8)
    TARGET.lower(_compressed(Block(functional.relu), x, first=INT8), tmp_path / "a.tflite")
    content = (tmp_path / "a.tflite").read_bytes()
    model = flatbuffer.read_model(content)
    for buffer in model.buffers:
        if buffer.data is not None and len(buffer.data) > 64:
            assert content.index(bytes(buffer.data)) % 16 == 0


def test_state_and_grids_survive_the_disk(tmp_path: Path) -> None:
    compressed = _compressed(Residual(), torch.rand(32, 1, 8, 8), **MIXES["all int8"])
    save_compressed(compressed, tmp_path)
    grids = load_grids(tmp_path)
    assert grids.keys() == compressed.grids.keys()
    for node, grid in grids.items():
        assert torch.equal(grid.scale, compressed.grids[node].scale.float())
        assert int(grid.zero_point) == int(compressed.grids[node].zero_point)


@pytest.mark.parametrize("content", [b"", b"not a model", b"TFL3" * 100])
def test_what_is_no_file_is_refused(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "a.tflite"
    path.write_bytes(content)
    with pytest.raises(LoweringError, match="must load"):
        TARGET.load(path)


class Strange(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.linalg.svdvals(x)


def test_an_operation_that_the_converter_lacks_is_named() -> None:
    with pytest.raises(LoweringError, match="converter must take"):
        lower.convert(Compressed(capture(Strange(), torch.randn(2, 3, 3))))


def test_files_that_take_and_give_integers_are_run_on_reals(tmp_path: Path) -> None:
    """A file of somebody else's, its input and output on int8 grids: the first and the last operator taken off."""
    x = torch.rand(16, 3, 8, 8)
    compressed = _compressed(Block(functional.relu), x, first=INT8, second=INT8)
    TARGET.lower(compressed, tmp_path / "real.tflite")
    model = flatbuffer.read_model((tmp_path / "real.tflite").read_bytes())
    graph = model.subgraphs[0]
    names = flatbuffer.operator_names(model)
    assert (names[0], names[-1]) == ("QUANTIZE", "DEQUANTIZE")
    graph.inputs, graph.outputs = list(graph.operators[0].outputs), list(graph.operators[-1].inputs)
    graph.operators, model.signatureDefs = graph.operators[1:-1], None
    flatbuffer.drop_unused(model)
    (tmp_path / "integer.tflite").write_bytes(flatbuffer.write_model(model))
    found, expected = (TARGET.load(tmp_path / f"{name}.tflite")((x.numpy(),)) for name in ("integer", "real"))
    assert found.dtype == np.float32
    assert np.allclose(found, expected, atol=1e-6)
