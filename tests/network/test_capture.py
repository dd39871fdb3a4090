"""Capture: what is found, what it costs, and what is refused."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

from featherweight.contracts import ModelError
from featherweight.network import capture, fold_batch_norm
from featherweight.network.encodings import AffineEncoding, HalfEncoding, encode
from featherweight.numerics.affine import fit_symmetric


class Mixed(nn.Module):
    """Every kind of product: convolutions, depthwise, transposed, linear, attention, recurrent, matrix products."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, stride=2, padding=1)
        self.depth = nn.Conv2d(8, 16, 3, padding="same", groups=8)
        self.up = nn.ConvTranspose2d(16, 4, 2, stride=2)
        self.attend = nn.MultiheadAttention(4, 2, batch_first=True)
        self.recur = nn.LSTM(4, 5, num_layers=2, batch_first=True, bidirectional=True)
        self.head = nn.Linear(10, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = functional.relu(self.depth(self.conv(x)))
        t = self.up(x).flatten(2).transpose(1, 2)
        t = self.attend(t, t, t, need_weights=False)[0]
        t, _ = self.recur(t)
        return self.head(t.mean(1))


def test_macs_agree_with_pytorchs_own_counter() -> None:
    module = nn.Sequential(
        nn.Conv2d(3, 8, 3, stride=2, padding=1),
        nn.Conv2d(8, 16, 3, padding="same", groups=8),
        nn.ConvTranspose2d(16, 4, 2, stride=2),
        nn.Flatten(2),
        nn.Conv1d(4, 6, 5, dilation=2),
        nn.Linear(136, 10),
    ).eval()
    x = torch.randn(2, 3, 12, 12)
    network = capture(module, x)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        module(x)
    assert 2 * 2 * network.cost.macs == counter.get_total_flops()


def test_macs_of_attention_and_recurrent_layers_are_those_of_their_formulas() -> None:
    module = Mixed()
    network = capture(module, torch.randn(2, 3, 12, 12))
    weighted = sum(layer.cost.macs for layer in network.layers)
    tokens, width = 144, 4
    attention = 2 * tokens * tokens * width
    recurrent = tokens * sum(w.numel() for name, w in module.recur.named_parameters() if "weight" in name)
    assert network.cost.macs == weighted + attention + recurrent


def test_layers_are_found_with_kind_shape_and_cost() -> None:
    network = capture(Mixed(), torch.randn(2, 3, 12, 12))
    found = {layer.name: layer for layer in network.layers}
    assert list(found) == ["conv", "depth", "up", "attend", "attend.out_proj", "head"]
    assert found["conv"].output_shape == (8, 6, 6)
    assert found["conv"].cost.macs == 8 * 36 * 27
    assert found["conv"].cost.parameters == 8 * 27 + 8
    assert found["depth"].kind == "depthwise_conv2d"
    assert found["depth"].groups == 8
    assert found["depth"].positions == 36
    assert found["up"].kind == "conv_transpose2d"
    assert found["head"].activation_bytes == 12
    assert {refusal.subject for refusal in network.refusals} == {"attend", "attend.out_proj"}


def test_the_users_module_is_untouched() -> None:
    module = Mixed().train()
    before = copy.deepcopy(module.state_dict())
    capture(module, torch.randn(2, 3, 12, 12))
    assert module.training
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())
    assert all(parameter.requires_grad for parameter in module.parameters())


def test_the_graph_takes_any_batch_and_one_example_is_enough() -> None:
    network = capture(nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2)), torch.randn(1, 4))
    assert network.graph(torch.randn(7, 4)).shape == (7, 2)


def test_the_fingerprint_follows_weights_and_structure() -> None:
    module = nn.Sequential(nn.Linear(4, 3), nn.ReLU())
    x = torch.randn(2, 4)
    one = capture(module, x).fingerprint()
    assert capture(copy.deepcopy(module), x * 2).fingerprint() == one
    module[0].bias.data += 1
    assert capture(module, x).fingerprint() != one
    assert capture(nn.Sequential(module[0], nn.Sigmoid()), x).fingerprint() != capture(module, x).fingerprint()


def test_a_weight_used_twice_is_not_replaceable() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one = nn.Linear(4, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.one(torch.relu(self.one(x)))

    network = capture(Twice(), torch.randn(2, 4))
    assert [layer.replaceable for layer in network.layers] == [False, False]
    assert "used 2 times" in network.refusals[0].reason


class FixedBatch(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.view(2, -1).sum(1)


class Branches(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x if x.sum() > 0 else -x


class Random(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + torch.rand_like(x)


class Pair(nn.Module):
    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return x, x


@pytest.mark.parametrize(
    ("module", "example", "rule"),
    [
        (FixedBatch(), torch.randn(2, 3, 2), "free batch dimension"),
        (Branches(), torch.randn(2, 3), "traceable"),
        (Random(), torch.randn(2, 3), "compute what the module computes"),
        (Pair(), torch.randn(2, 3), "return one tensor"),
        (nn.Linear(4, 2), torch.randn(2, 5), "run on the example"),
        (nn.Linear(4, 2), torch.full((2, 4), torch.nan), "inputs must be finite"),
        (nn.Linear(4, 2), torch.tensor(1.0), "batch as its first dimension"),
        ("no module", torch.randn(2, 4), "must be an nn.Module"),
    ],
)
def test_what_cannot_be_captured_is_refused_with_rule_and_remedy(module: object, example: object, rule: str) -> None:
    with pytest.raises(ModelError) as caught:
        capture(module, example)  # type: ignore[arg-type]
    assert rule in caught.value.rule
    assert caught.value.got
    assert caught.value.remedy


def test_weights_that_diverged_are_refused_by_name() -> None:
    module = nn.Linear(3, 2)
    module.weight.data[0, 0] = torch.inf
    with pytest.raises(ModelError, match="weight"):
        capture(module, torch.randn(2, 3))


def test_an_unknown_layer_is_named() -> None:
    network = capture(nn.Linear(3, 2), torch.randn(2, 3))
    with pytest.raises(ModelError, match="'head'"):
        network.layer("head")


class Normed(nn.Module):
    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(2, 4, 3, bias=False),
            nn.BatchNorm2d(4),
            nn.ReLU(),
            nn.Conv2d(4, 4, 3, groups=4),
            nn.BatchNorm2d(4),
        )
        self.last = nn.BatchNorm2d(4)
        self.out = nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5))
        self.to(dtype)
        for module in self.modules():
            if isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d)):
                nn.init.uniform_(module.weight, 0.5, 2)
                nn.init.normal_(module.bias)
                nn.init.normal_(module.running_mean)
                nn.init.uniform_(module.running_var, 0.5, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.body(x)
        return self.out(self.last(torch.relu(y)).mean((2, 3)))


def test_folding_keeps_the_function_and_the_input() -> None:
    x = torch.randn(4, 2, 8, 8, dtype=torch.float64)
    network = capture(Normed(torch.float64), x)
    folded = fold_batch_norm(network)
    assert torch.allclose(folded.module(x), network.module(x), atol=1e-12)
    kinds = [type(module) for module in folded.module.modules()]
    assert kinds.count(nn.BatchNorm2d) == 1  # the one after an activation stays
    assert kinds.count(nn.BatchNorm1d) == 0
    assert isinstance(network.module.get_submodule("body.1"), nn.BatchNorm2d)


def test_nothing_to_fold_gives_the_same_network_back() -> None:
    network = capture(nn.Linear(3, 2), torch.randn(2, 3))
    assert fold_batch_norm(network) is network


def test_what_an_encoding_stores_is_rounded_already() -> None:
    module = nn.Linear(64, 32)
    grid = fit_symmetric(module.weight.detach())
    wanted = grid.levels(module.weight.detach(), axis=0)
    encode(module, AffineEncoding(grid, axis=0, integer=True))
    stored = module.parametrizations["weight"].original.double()
    assert torch.equal(torch.round(stored / grid.scale.double().view(-1, 1)).long(), wanted)
    assert float((stored / grid.scale.double().view(-1, 1) - wanted).abs().max()) < 1e-4


def test_encoded_layers_are_found_again_under_their_names() -> None:
    module = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
    encode(module[0], AffineEncoding(fit_symmetric(module[0].weight.detach()), axis=0, integer=True))
    encode(module[2], HalfEncoding())
    network = capture(module, torch.randn(2, 4))
    assert [(layer.name, layer.weight) for layer in network.layers] == [("0", "0.weight"), ("2", "2.weight")]
    assert all(layer.replaceable for layer in network.layers)
    targets = {str(node.target) for node in network.graph.graph.nodes}
    assert "quantized_decomposed.dequantize_per_channel.default" in targets


def test_a_weight_that_is_computed_anew_is_not_replaceable() -> None:
    module = nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Linear(4, 8)), nn.ReLU(), nn.Linear(8, 2))
    network = capture(module, torch.randn(2, 4))
    assert [(layer.name, layer.replaceable) for layer in network.layers] == [("0", False), ("2", True)]
    assert "computed anew" in network.refusals[0].reason


class Variadic(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = nn.Linear(3, 4), nn.Linear(5, 4)

    def forward(self, *inputs: torch.Tensor) -> torch.Tensor:
        return self.left(inputs[0]) + self.right(inputs[1])


def test_several_inputs_are_captured_however_forward_takes_them() -> None:
    x, y = torch.randn(3, 3), torch.randn(3, 5)
    network = capture(Variadic(), (x, y))
    assert torch.allclose(network.graph(x[:2], y[:2]), network.module(x, y)[:2])


class _Counting(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 3)
        self.register_buffer("seen", torch.zeros(3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.linear(x)
        self.seen.add_(y.mean(0))  # type: ignore[operator]
        return y


def test_a_forward_that_writes_to_its_buffers_is_refused_by_their_names() -> None:
    with pytest.raises(ModelError, match="it writes to seen"):
        capture(_Counting(), torch.randn(2, 4))
