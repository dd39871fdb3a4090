"""Products of two activations – attention's and others – stay real between grids; the layers around them don't."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from onnx import helper
from torch import nn
from torch.nn import functional

from featherweight.contracts import LoweringError
from featherweight.network.grids import with_grids
from featherweight.targets.onnxruntime import describe, lower, run
from featherweight.targets.onnxruntime.graph import Graph
from featherweight.targets.onnxruntime.grids import keep_products_real
from featherweight.targets.onnxruntime.tidy import finished
from featherweight.targets.placement import integer_layers
from tests.targets.onnxruntime.networks import INT8, TARGET, answers, compressed, difference, model_of, steps_apart

NODE = helper.make_node
Mixing = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]


def _explicit(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    return torch.softmax(q @ k.transpose(-2, -1) / q.shape[-1] ** 0.5, -1) @ v


def _linear(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    return q @ (k.transpose(-2, -1) @ v) / q.shape[-2]


class Attention(nn.Module):
    """Two heads on (batch, tokens, 16), mixed by any function of queries, keys and values."""

    def __init__(self, mixed: Mixing) -> None:
        super().__init__()
        self.q, self.k, self.v, self.out = (nn.Linear(16, 16) for _ in range(4))
        self.mixed = mixed

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        heads = (one(x).unflatten(2, (2, 8)).transpose(1, 2) for one in (self.q, self.k, self.v))
        return self.out(self.mixed(*heads).transpose(1, 2).flatten(2))


class Fused(nn.Module):
    """Queries, keys and values cut from what one layer makes."""

    def __init__(self) -> None:
        super().__init__()
        self.all, self.out, self.head = nn.Linear(16, 48), nn.Linear(16, 16), nn.Linear(16, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        heads = self.all(x).unflatten(2, (3, 2, 8)).permute(2, 0, 3, 1, 4).unbind(0)
        return self.head(self.out(_explicit(*heads).transpose(1, 2).flatten(2)))


class Encoder(nn.Module):
    """A block as BERT has it, and a classifier on its first token."""

    def __init__(self, mixed: Mixing) -> None:
        super().__init__()
        self.attention, self.norms = Attention(mixed), nn.ModuleList([nn.LayerNorm(16), nn.LayerNorm(16)])
        self.up, self.down, self.head = nn.Linear(16, 32), nn.Linear(32, 16), nn.Linear(16, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.norms[0](x + self.attention(x))
        return self.head(self.norms[1](x + self.down(functional.gelu(self.up(x))))[:, 0])


class Patches(nn.Module):
    """A small vision transformer."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.encoder = nn.Conv2d(3, 16, 4, 4), Encoder(functional.scaled_dot_product_attention)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.encoder(self.stem(x).flatten(2).transpose(1, 2))


class Gated(nn.Module):
    """Channels weighed by a squeeze-and-excitation gate."""

    def __init__(self, gate: Callable[[torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.first, self.last = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 4, 1)
        self.squeeze, self.excite, self.gate = nn.Conv2d(8, 4, 1), nn.Conv2d(4, 8, 1), gate

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = functional.relu(self.first(x))
        return self.last(x * self.gate(self.excite(functional.relu(self.squeeze(x.mean((2, 3), keepdim=True))))))


class NonLocal(nn.Module):
    """Every place of an image looks at every other, without a softmax."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 1)
        self.q, self.k, self.v = (nn.Conv2d(8, 8, 1) for _ in range(3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = functional.relu(self.first(x))
        mixed = _linear(*(one(x).flatten(2).transpose(1, 2) for one in (self.q, self.k, self.v)))
        return self.last(mixed.transpose(1, 2).reshape(x.shape) + x)


class Gram(nn.Module):
    """A product that goes to a grid at once."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.head = nn.Linear(16, 16), nn.Linear(16, 16), nn.Linear(5, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.a(x) @ self.b(x).transpose(1, 2))


TOKENS, IMAGES = (64, 5, 16), (64, 3, 8, 8)
# name → network, shape of its inputs, products of activations that it has
NETWORKS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...], int]] = {
    "attention": (lambda: Attention(functional.scaled_dot_product_attention), TOKENS, 2),
    "explicit attention": (lambda: Attention(_explicit), TOKENS, 2),
    "linear attention": (lambda: Attention(_linear), TOKENS, 2),
    "heads of one layer": (Fused, TOKENS, 2),
    "bert": (lambda: Encoder(_explicit), TOKENS, 2),
    "vit": (Patches, IMAGES, 2),
    "squeeze and excitation": (lambda: Gated(torch.sigmoid), IMAGES, 0),
    "a real gate": (lambda: Gated(functional.hardsigmoid), IMAGES, 0),
    "non-local": (NonLocal, IMAGES, 2),
    "gram": (Gram, TOKENS, 1),
}


def kernels(operators: dict[str, int], names: tuple[str, ...]) -> int:
    return sum(n for key, n in operators.items() if key.split()[0] in names)


def on_integers(name: str) -> tuple[Any, torch.Tensor]:
    """The network with every layer on int8, and the samples that it was calibrated on."""
    build, shape, _ = NETWORKS[name]
    torch.manual_seed(0)
    module, x = build(), torch.randn(shape)
    layers = [path for path, one in module.named_modules() if isinstance(one, (nn.Linear, nn.Conv2d))]
    return compressed(module, x, **dict.fromkeys(layers, INT8)), x


@pytest.mark.parametrize("name", NETWORKS)
def test_layers_run_on_integers_and_products_on_reals(name: str, tmp_path: Path) -> None:
    made, x = on_integers(name)
    path = tmp_path / "a.onnx"
    operators = dict(TARGET.lower(made, path).operators)
    assert kernels(operators, lower.KERNELS) == len(integer_layers(made.network)) >= 3
    assert kernels(operators, lower.DYNAMIC_KERNELS) == 0
    assert kernels(operators, ("MatMul", "FusedMatMul")) == NETWORKS[name][2]
    assert steps_apart(made, path, x) <= 2.01
    with torch.no_grad():
        assert np.abs(difference(made, path, x)).mean() <= 0.005 * with_grids(made)(x).std()


def test_keeping_products_real_costs_no_operation(tmp_path: Path) -> None:
    made, _ = on_integers("explicit attention")
    operators = TARGET.lower(made, tmp_path / "a.onnx").operators
    assert not {"Mul float32", "Div float32", "LeakyRelu float32"} & set(operators)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("explicit attention", "1 integer kernels for 0 int8 layers with ranges per inference"),
        ("gram", "4 integer kernels for 3 int8 layers on grids"),
    ],
)
def test_a_runtime_that_puts_products_on_integers_is_told_on(name, words, monkeypatch, tmp_path: Path) -> None:
    """What the products are kept from happens: this runtime does it, and the count of kernels shows it."""
    monkeypatch.setattr(lower, "keep_products_real", lambda graph: None)
    made, _ = on_integers(name)
    with pytest.raises(LoweringError, match=words):
        TARGET.lower(made, tmp_path / "a.onnx")
    assert not (tmp_path / "a.onnx").exists()


def squared(operator: str, **attributes: Any) -> Any:
    """x → a grid of its own → an operation on that value twice → another grid, as a model."""
    nodes = [
        NODE("Reshape", ["x", "rows"], ["v"]) if operator == "Gemm" else NODE("Neg", ["x"], ["v"]),
        NODE("QuantizeLinear", ["v", "s", "z"], ["q"]),
        NODE("DequantizeLinear", ["q", "s", "z"], ["r"]),
        NODE(operator, ["r", "r"], ["p"], **attributes),
        NODE("QuantizeLinear", ["p", "t", "z"], ["g"]),
        NODE("DequantizeLinear", ["g", "t", "z"], ["y"]),
    ]
    constants = {"s": np.float32(0.03), "z": np.uint8(120), "t": np.float32(0.2)}
    return model_of(nodes, constants | ({"rows": np.array([-1, 4])} if operator == "Gemm" else {}))


@pytest.mark.parametrize(
    ("operator", "attributes"), [("MatMul", {}), ("Gemm", {"transB": 1}), ("Conv", {"pads": [1, 1, 1, 1]})]
)
def test_a_product_of_activations_changes_by_no_bit(operator: str, attributes: dict[str, Any]) -> None:
    model = squared(operator, **attributes)
    graph = Graph(model)
    keep_products_real(graph)
    made = finished(graph)
    x = np.random.default_rng(0).standard_normal((3, 2, 4, 4)).astype(np.float32)
    assert np.array_equal(answers(made, x), answers(model, x))
    before, after = (describe.operators_by_type(run.optimized(one.SerializeToString())) for one in (model, made))
    assert kernels(dict(before), lower.KERNELS) == 1
    assert kernels(dict(after), lower.KERNELS) == 0
