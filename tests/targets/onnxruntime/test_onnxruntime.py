"""ONNX Runtime for real: integer kernels where asked, the numbers of the simulation, the network's own weights."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import nn
from torch.nn import functional

from featherweight.contracts import LoweringError, Step
from featherweight.network import capture
from featherweight.network.encodings import AffineEncoding, HalfEncoding, encode, encodings
from featherweight.network.grids import Compressed
from featherweight.network.modules import weight_of
from featherweight.numerics.affine import AffineGrid, symmetric_grid
from featherweight.targets.onnxruntime import lower, run
from featherweight.targets.onnxruntime.weights import check_weights
from featherweight.targets.placement import integer_layers
from featherweight.testing import TargetContract
from tests.targets.networks import Residual
from tests.targets.onnxruntime.networks import (
    DYNAMIC,
    HALF,
    INT8,
    STORED,
    TARGET,
    Block,
    Tokens,
    compressed,
    difference,
    steps_apart,
)


class TestOnnxRuntime(TargetContract):
    target = TARGET


def _clips_and_pools(x: torch.Tensor) -> torch.Tensor:
    x = functional.max_pool2d(functional.relu6(x), 3, 1, 1)
    return torch.sigmoid(functional.avg_pool2d(functional.max_pool2d(x, 2), 3, 1, 1))


def _moves(x: torch.Tensor) -> torch.Tensor:
    shortcut = functional.pad(x[:, 2:6, ::2, ::2], (0, 0, 0, 0, 2, 2))
    return functional.pad(shortcut.transpose(2, 3).reshape(-1, 8, 2, 8), (1, 0, 2, 1))


def _pairs(x: torch.Tensor) -> torch.Tensor:
    half = torch.sigmoid(x)
    return torch.cat([half, x * half + half], 1)[:, 4:12]


BETWEEN = {"relu": functional.relu, "clips and pools": _clips_and_pools, "moves": _moves, "pairs": _pairs}


@pytest.mark.parametrize("name", BETWEEN)
def test_everything_between_two_integer_layers_runs_on_integers(name: str, tmp_path: Path) -> None:
    x = torch.randn(64, 3, 8, 8)
    made = compressed(Block(BETWEEN[name]), x, first=INT8, second=INT8)
    artefact = TARGET.lower(made, tmp_path / "a.onnx")
    real = {key: n for key, n in artefact.operators.items() if key.endswith("float32")}
    assert real == {"QuantizeLinear float32": 1}, artefact.operators
    assert artefact.operators["QLinearConv uint8"] == 2
    assert steps_apart(made, tmp_path / "a.onnx", x) <= 2.01


REAL = {
    "curves": lambda x: torch.tanh(functional.hardswish(functional.gelu(functional.silu(x)))) + 0.37,
    "means": lambda x: functional.adaptive_avg_pool2d(x, 1) + x.mean((2, 3), keepdim=True),
    "a relu with a grid of its own": lambda x: (x - functional.relu(x)) + functional.relu(x),
}


@pytest.mark.parametrize("name", REAL)
def test_operations_without_an_integer_kernel_stay_real_and_right(name: str, tmp_path: Path) -> None:
    x = torch.randn(32, 3, 8, 8)
    made = compressed(Block(REAL[name]), x, first=INT8, second=INT8)
    artefact = TARGET.lower(made, tmp_path / "a.onnx")
    assert artefact.operators["QLinearConv uint8"] == 2
    assert steps_apart(made, tmp_path / "a.onnx", x) <= 2.01


MIXES = {
    "real": {},
    "all int8": dict.fromkeys(("stem", "depth", "point", "hidden", "head"), INT8),
    "a real layer between": {"stem": INT8, "depth": INT8, "hidden": INT8, "head": INT8},
    "half weights": {"stem": INT8, "point": HALF, "hidden": HALF, "head": INT8},
    "low rank, then int8": {"hidden": (Step("lowrank", {"rank": 8}), *INT8), "head": INT8},
    "stored as int8": dict.fromkeys(("stem", "depth", "point", "hidden", "head"), STORED),
}


@pytest.mark.parametrize("mix", MIXES)
def test_mixed_plans_give_what_they_ask_for(mix: str, tmp_path: Path) -> None:
    x = torch.rand(64, 1, 8, 8)
    made = compressed(Residual(), x, **MIXES[mix])
    path = tmp_path / "a.onnx"
    artefact = TARGET.lower(made, path)
    kernels = sum(n for key, n in artefact.operators.items() if key.split()[0] in lower.KERNELS)
    assert kernels == len(integer_layers(made.network))
    assert not any(key.startswith(("Cast", "DequantizeLinear int8")) for key in artefact.operators)  # all at loading
    kinds = [one.type_name for _, one in encodings(made.network.module)]
    held = [one.data_type for one in onnx.load(path).graph.initializer]
    assert held.count(onnx.TensorProto.FLOAT16) == kinds.count("float16")
    if not made.grids:
        assert np.abs(difference(made, path, x)).max() <= 1e-5
    else:
        assert steps_apart(made, path, x) <= 2.01
    assert all(ms > 0 for _, ms in TARGET.profile(path, runs=2))


@pytest.mark.parametrize("step", [INT8, HALF, STORED], ids=["int8", "half", "stored"])
def test_layers_on_sequences(step: tuple[Step, ...], tmp_path: Path) -> None:
    x = torch.randn(64, 5, 16)
    made = compressed(Tokens(), x, **dict.fromkeys(("inner", "full", "depth", "bare", "head"), step))
    artefact = TARGET.lower(made, tmp_path / "a.onnx")
    if step is INT8:
        assert artefact.operators["QGemm uint8"] == 3
        assert artefact.operators["QLinearConv uint8"] == 2
        assert steps_apart(made, tmp_path / "a.onnx", x) <= 2.01
    else:
        assert np.abs(difference(made, tmp_path / "a.onnx", x)).max() <= 1e-5


def test_a_product_without_a_bias_runs_on_integers(tmp_path: Path) -> None:
    x = torch.randn(32, 5, 16)
    made = compressed(nn.Sequential(nn.Linear(16, 8, bias=False)), x, **{"0": INT8})
    layer = made.network.module.get_submodule("0")
    layer.bias = None  # the method had given it one
    network = capture(made.network.module, x[:2])
    grids = dict(zip(TARGET.place(network).nodes, made.grids.values(), strict=True))
    bare = Compressed(network, grids)
    assert TARGET.lower(bare, tmp_path / "a.onnx").operators["QLinearMatMul uint8"] == 1
    assert steps_apart(bare, tmp_path / "a.onnx", x) <= 1.01


def test_weights_are_in_the_file_as_their_levels(tmp_path: Path) -> None:
    x = torch.rand(32, 3, 8, 8)
    made = compressed(Block(functional.relu), x, first=INT8, second=STORED)
    TARGET.lower(made, tmp_path / "a.onnx")
    held = [onnx.numpy_helper.to_array(one) for one in onnx.load(tmp_path / "a.onnx").graph.initializer]
    for name, encoding in encodings(made.network.module):
        levels = encoding.grid.levels(weight_of(made.network.module.get_submodule(name)), 0).numpy()
        assert any(one.dtype == np.int8 and np.array_equal(one, levels) for one in held)
    assert TARGET.parts(tmp_path / "a.onnx")["int8 constants"] >= 8 * 27 + 32


@pytest.mark.parametrize("step", [INT8, HALF, STORED], ids=["int8", "half", "stored"])
def test_a_changed_weight_or_scale_is_noticed(step: tuple[Step, ...]) -> None:
    x = torch.rand(16, 3, 8, 8)
    made = compressed(Block(functional.relu), x, first=step, second=step)
    model = run.read_model(lower.convert(made))
    check_weights(model, made.network)
    scales = [one.scale.numpy() for _, one in encodings(made.network.module) if isinstance(one, AffineEncoding)]
    tampered = 0
    for at, one in enumerate(model.graph.initializer):
        value = onnx.numpy_helper.to_array(one).copy()
        if value.ndim == 4 and str(value.dtype) in ("int8", "float16"):
            value.flat[3] += value.dtype.type(1)
        elif any(np.array_equal(value.ravel(), scale) for scale in scales):
            value.flat[3] *= np.float32(1.01)
        else:
            continue
        changed = onnx.ModelProto.FromString(model.SerializeToString())
        changed.graph.initializer[at].raw_data = value.tobytes()
        with pytest.raises(LoweringError, match="own weights"):
            check_weights(changed, made.network)
        tampered += 1
    assert tampered == (2 if step is HALF else 4)


def test_a_foreign_weight_and_a_missing_kernel_are_noticed() -> None:
    x = torch.rand(16, 3, 8, 8)
    one = compressed(Block(functional.relu), x, first=INT8, second=INT8)
    other = compressed(Block(functional.relu), x, first=INT8, second=INT8)
    with pytest.raises(LoweringError, match="own weights"):
        check_weights(run.read_model(lower.convert(one)), other.network)
    with pytest.raises(LoweringError, match=r"0 integer kernels for 2 int8 layers on grids \(first, second\)"):
        lower.check_kernels(one, {"Conv float32": 2})
    lower.check_kernels(one, {"QLinearConv uint8": 2})


def test_a_dead_channel_keeps_its_large_bias(tmp_path: Path) -> None:
    """Tiny weights under a bias that overflows int32 in their steps: the channel counts in larger steps."""
    module = nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU())
    with torch.no_grad():
        module[0].weight[1] = 0.0
        module[0].weight[2] = 1e-9 * torch.randn(3, 1, 1)
        module[0].bias[:] = torch.tensor([0.1, 0.5, 0.7, -0.2])
    x = torch.randn(32, 3, 6, 6)
    made = compressed(module, x, **{"0": INT8})
    scales = dict(encodings(made.network.module))["0"].scale
    assert float(scales[1]) < 1e-6  # what fits 32 bits, and next to nothing still
    TARGET.lower(made, tmp_path / "a.onnx")
    assert steps_apart(made, tmp_path / "a.onnx", x) <= 1.01


def test_half_weights_halve_the_file_and_lose_nothing(tmp_path: Path) -> None:
    module = nn.Sequential(nn.Linear(64, 256), nn.ReLU(), nn.Linear(256, 10))
    x = torch.randn(8, 64)
    plain = TARGET.lower(Compressed(capture(module, x)), tmp_path / "plain.onnx")
    for at in (0, 2):
        encode(module[at], HalfEncoding())
    network = capture(module, x)
    half = TARGET.lower(Compressed(network), tmp_path / "half.onnx")
    assert half.size_bytes < 0.56 * plain.size_bytes
    assert "Cast float16" not in half.operators  # widened once, at loading
    assert np.allclose(TARGET.load(tmp_path / "half.onnx")((x.numpy(),)), network.module(x).numpy(), atol=1e-5)


def test_files_are_the_same_every_time_and_carry_no_names(tmp_path: Path) -> None:
    x = torch.rand(16, 3, 8, 8)
    made = compressed(Block(functional.relu), x, first=INT8, second=STORED)
    content = lower.convert(made)
    assert content == lower.convert(made)
    for word in (b"Block", b"torch", b"first", b"parametrizations", b".py"):
        assert word not in content
    model = run.read_model(content)
    onnx.checker.check_model(model, full_check=True)
    assert not model.metadata_props
    assert not any(node.metadata_props or node.doc_string or node.name for node in model.graph.node)


def test_the_description_says_what_goes_in_and_comes_out(tmp_path: Path) -> None:
    x = torch.rand(16, 3, 8, 6)
    artefact = TARGET.lower(compressed(Block(functional.relu), x, first=INT8), tmp_path / "a.onnx")
    (inside,), (outside,) = artefact.inputs, artefact.outputs
    assert (inside.name, inside.shape, inside.layout, inside.dtype) == ("x", (1, 3, 8, 6), "NCHW", "float32")
    assert (outside.name, outside.shape, outside.dtype) == ("output", (1, 4, 8, 6), "float32")
    assert artefact.sha256 == hashlib.sha256((tmp_path / "a.onnx").read_bytes()).hexdigest()


def test_batches_and_single_samples_agree(tmp_path: Path) -> None:
    x = torch.rand(150, 1, 8, 8)
    made = compressed(Residual(), x, **MIXES["all int8"])
    TARGET.lower(made, tmp_path / "a.onnx")
    load = TARGET.load(tmp_path / "a.onnx")
    together = load((x.numpy(),))
    apart = np.concatenate([load((x[at : at + 1].numpy(),)) for at in range(len(x))])
    assert np.array_equal(together, apart)


def test_ranges_per_inference_are_those_of_one_sample(tmp_path: Path) -> None:
    x = torch.randn(32, 5, 16) * torch.logspace(-2, 1, 32).view(-1, 1, 1)
    made = compressed(Tokens(), x, **dict.fromkeys(("inner", "bare", "head"), DYNAMIC))
    path = tmp_path / "a.onnx"
    artefact = TARGET.lower(made, path)
    assert artefact.operators["DynamicQuantizeMatMul float32"] == 3
    load = TARGET.load(path)
    found = load((x.numpy(),))
    apart = np.concatenate([load((x[at : at + 1].numpy(),)) for at in range(len(x))])
    assert np.array_equal(found, apart)
    off = difference(made, path, x)
    assert np.abs(off).max() > 0  # activations really went through integers
    assert np.abs(off).mean() < 0.02 * found.std()


def test_ranges_per_inference_are_for_products_alone() -> None:
    module = nn.Conv2d(3, 8, 1)
    grid = symmetric_grid(module.weight.detach().flatten(1).abs().amax(1))
    encode(module, AffineEncoding(grid, 0, integer=False, dynamic=True))
    with pytest.raises(LoweringError, match="products of matrices"):
        lower.convert(Compressed(capture(nn.Sequential(module), torch.randn(2, 3, 4, 4))))


def test_predicted_bytes_fit(tmp_path: Path) -> None:
    """Two files that differ by four int8 layers differ by what the capability data say of four layers."""
    sizes = {}
    for depth in (2, 6):
        layers = [one for _ in range(depth) for one in (nn.Conv2d(24, 24, 3, padding=1), nn.ReLU())]
        made = compressed(
            nn.Sequential(*layers), torch.randn(8, 24, 6, 6), **{str(2 * at): INT8 for at in range(depth)}
        )
        sizes[depth] = TARGET.lower(made, tmp_path / f"{depth}.onnx").size_bytes
    data = TARGET.capability
    layer = 24 * 24 * 9 + 24 * (4 + data.bytes_per_channel["int8"]) + data.bytes_per_layer + data.bytes_per_integer
    assert sizes[6] - sizes[2] == pytest.approx(4 * layer, rel=0.01)


class Words(nn.Module):
    """Two inputs, one of whole numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(20, 8)
        self.head = nn.Linear(8, 3)

    def forward(self, words: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
        return self.head((self.table(words) * weights.unsqueeze(2)).sum(1))


class Pair(Words):
    def forward(self, *inputs: torch.Tensor) -> torch.Tensor:
        return super().forward(*inputs)


@pytest.mark.parametrize("kind", [Words, Pair])
def test_several_inputs_go_in_by_their_order(kind: type[Words], tmp_path: Path) -> None:
    module, inputs = kind().eval(), (torch.randint(20, (9, 5)), torch.rand(9, 5))
    artefact = TARGET.lower(Compressed(capture(module, inputs)), tmp_path / "a.onnx")
    assert [one.dtype for one in artefact.inputs] == ["int64", "float32"]
    assert [one.shape for one in artefact.inputs] == [(1, 5), (1, 5)]
    found = TARGET.load(tmp_path / "a.onnx")(tuple(one.numpy() for one in inputs))
    assert np.allclose(found, module(*inputs).detach().numpy(), atol=1e-6)
    (timing,) = TARGET.benchmark([tmp_path / "a.onnx"], runs=5, threads=2)
    assert 0 < timing.median_ms <= timing.p90_ms


class Strange(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.linalg.eigvalsh(x)


def test_an_operation_that_the_exporter_lacks_is_named() -> None:
    with pytest.raises(LoweringError, match="exporter must take") as caught:
        lower.convert(Compressed(capture(Strange(), torch.randn(2, 3, 3))))
    assert "eigvalsh" in str(caught.value) or "eigh" in str(caught.value)


def test_files_beyond_the_format_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lower, "_MOST_BYTES", 100)
    with pytest.raises(LoweringError, match="2 GiB"):
        lower.convert(Compressed(capture(nn.Linear(8, 8), torch.randn(2, 8))))


def test_grids_with_fewer_levels_are_refused() -> None:
    network = capture(nn.Linear(8, 8), torch.randn(2, 8))
    grids = {network.layers[0].node: AffineGrid(torch.tensor(0.1), torch.tensor(0), -8, 7)}
    with pytest.raises(LoweringError, match="256 levels"):
        lower.convert(Compressed(network, grids))
