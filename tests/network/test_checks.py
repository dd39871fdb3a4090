"""What can't be captured or lowered is refused up front, and PyTorch's own shortcuts don't pass replaced layers by."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from featherweight import datafree
from featherweight.contracts import ModelError, Plan, Step
from featherweight.methods import METHODS
from featherweight.methods.apply import apply
from featherweight.network import capture
from featherweight.network.checks import check_precision
from featherweight.targets.litert import LiteRT
from featherweight.tasks import task_by_name
from featherweight.tasks.data import Split
from featherweight.testing import ANY_TARGET


class Named(nn.Module):
    """A part under a name of one's choice: a layer, a parameter or a buffer."""

    def __init__(self, name: str, part: str) -> None:
        super().__init__()
        self.name, self.part = name, part
        self.first = nn.Linear(4, 4)
        if part == "layer":
            self.add_module(name, nn.Linear(4, 4))
        elif part == "parameter":
            self.register_parameter(name, nn.Parameter(torch.ones(4)))
        else:
            self.register_buffer(name, torch.ones(4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        own = getattr(self, self.name)
        return own(self.first(x)) if self.part == "layer" else self.first(x) * own


@pytest.mark.parametrize("part", ["layer", "parameter", "buffer"])
@pytest.mark.parametrize("name", ["code", "graph", "meta", "recompile", "print_readable"])
def test_names_that_a_graph_needs_are_refused_with_the_way_out(name: str, part: str) -> None:
    with pytest.raises(ModelError, match=f"called '{name}'") as caught:
        capture(Named(name, part), torch.randn(2, 4))
    assert f"'{name}_'" in caught.value.remedy
    assert capture(Named(f"{name}_", part), torch.randn(2, 4)).layers
    deeper = capture(nn.Sequential(Named(name, part)), torch.randn(2, 4))  # the other way out
    assert deeper.layers[0].name == "0.first"


@pytest.mark.parametrize("name", ["forward", "train"])
def test_names_that_hide_a_method_are_refused_by_pytorch(name: str) -> None:
    with pytest.raises(KeyError, match=name):
        Named(name, "layer")


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_other_precisions_are_refused_before_anything_is_made(tmp_path: Path, dtype: torch.dtype) -> None:
    module = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3)).to(dtype)
    kind = str(dtype).removeprefix("torch.")
    with pytest.raises(ModelError, match=rf"weights in {kind}(?s:.*)model\.float\(\)"):
        datafree.quantize(module, [(4,)], LiteRT(), task_by_name("classification"), tmp_path / "out")
    assert not list(tmp_path.iterdir())
    assert capture(module, torch.randn(2, 4).to(dtype)).layers  # to look at one is no trouble


def test_precision_is_that_of_weights_buffers_and_inputs() -> None:
    module = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3), nn.Embedding(5, 2))
    check_precision(module, (torch.randn(2, 4), torch.ones(2, dtype=torch.int64)), "litert")
    with pytest.raises(ModelError, match="inputs in float64"):
        check_precision(module, (torch.randn(2, 4).double(),), "litert")
    module[1].running_mean = module[1].running_mean.double()
    with pytest.raises(ModelError, match="weights in float64"):
        check_precision(module, (torch.randn(2, 4),), "litert")


class Transformer(nn.Module):
    def __init__(self, *, stacked: bool, norm_first: bool) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(16, 2, 32, dropout=0.0, batch_first=True, norm_first=norm_first)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=not norm_first) if stacked else layer
        self.answer = nn.Linear(16, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.answer(self.encoder(x).mean(1))


@pytest.mark.parametrize("norm_first", [True, False])
@pytest.mark.parametrize("stacked", [True, False])
@pytest.mark.parametrize(
    "step",
    [Step("lowrank", {"rank": 4}), Step("quantization", {"weights": "int8", "bits": 2, "activations": "float32"})],
    ids=str,
)
def test_what_stands_in_for_a_transformers_layer_runs(step: Step, stacked: bool, norm_first: bool) -> None:
    x = torch.randn(32, 5, 16)
    module = Transformer(stacked=stacked, norm_first=norm_first).eval()
    network = capture(module, x[:2])
    name = next(layer.name for layer in network.layers if layer.name.endswith("linear1"))
    built = apply(network, Plan("", "", {name: (step,)}), Split.of(x), ANY_TARGET, METHODS)
    with torch.no_grad():
        before, found, graph = (one(x) for one in (module, built.module, built.graph))
        assert torch.allclose(network.module(x), before, atol=1e-5)
    assert torch.allclose(found, graph, atol=1e-5)  # PyTorch's fused kernel would have read the plain weight, or failed
    assert float((found - before).abs().max()) > 1e-3
    assert isinstance(module.encoder, nn.TransformerEncoder if stacked else nn.TransformerEncoderLayer)
    user = module.encoder.layers[0] if stacked else module.encoder
    assert user.activation_relu_or_gelu == 1  # the user's own keeps its kernel
