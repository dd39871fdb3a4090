"""Surgery on small networks: classes, attributes, state, attention's scale, refusals, and the account."""

from __future__ import annotations

import copy
import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from featherweight.contracts import ModelError
from featherweight.network.capture import capture
from featherweight.network.channels import analyse
from featherweight.network.surgery import confirm, parameters_gone, reached, remove, silence
from featherweight.network.surgery.attention import NarrowAttention
from tests.network.cutting import lively, random_removals, relative_error
from tests.zoo.attention import Bert, Decoder, Seq2Seq, ViT
from tests.zoo.catalogue import ZOO
from tests.zoo.mobile import MobileNetV2
from tests.zoo.sequence import LSTMClassifier


def pruned(module, example, ratio=0.5, only=None):
    network = capture(lively(module), example)
    coupling = confirm(network, analyse(network.graph))
    removals = random_removals(coupling, ratio)
    if only is not None:
        removals = {name: groups for name, groups in removals.items() if name in only}
        assert set(removals) == set(only)
    return network, coupling, removals, remove(network, coupling, removals)


def test_attributes_of_torch_modules_follow():
    network, _, _, smaller = pruned(MobileNetV2(), torch.randn(2, 3, 32, 32))
    for name, layer in smaller.named_modules():
        if isinstance(layer, nn.Conv2d):
            assert layer.weight.shape[:2] == (layer.out_channels, layer.in_channels // layer.groups)
            if network.module.get_submodule(name).groups > 1:
                assert layer.groups == layer.in_channels == layer.out_channels
        if isinstance(layer, nn.BatchNorm2d):
            assert layer.num_features == len(layer.weight) == len(layer.running_mean)


def test_attributes_of_recurrent_modules_follow():
    _, _, _, smaller = pruned(LSTMClassifier(), torch.randint(0, 30, (2, 7)))
    assert (smaller.lstm.input_size, smaller.lstm.hidden_size) == (6, 5)
    assert smaller.embed.embedding_dim == 6
    assert smaller.fc.in_features == 10


def test_attributes_of_the_users_modules_follow():
    _, _, _, smaller = pruned(Bert(), torch.randint(1, 20, (2, 8)), only=("layers.0.attention.query:groups",))
    first, second = smaller.layers[0].attention, smaller.layers[1].attention
    assert (first.num_attention_heads, first.attention_head_size, first.all_head_size) == (2, 5, 10)
    assert (second.num_attention_heads, second.attention_head_size, second.all_head_size) == (4, 5, 20)


def test_heads_and_width_go_together():
    names = ("blocks.0.attn.qkv", "blocks.0.attn.qkv:groups")
    _, _, _, smaller = pruned(ViT(), torch.randn(2, 3, 16, 16), only=names)
    attention = smaller.blocks[0].attn
    assert (attention.num_heads, attention.head_dim) == (1, 4)
    assert attention.qkv.weight.shape == (12, 24)
    assert attention.proj.weight.shape == (24, 4)


def test_grouped_queries_lose_a_key_head_with_its_queries():
    _, _, _, smaller = pruned(Decoder(), torch.randint(1, 20, (2, 8)), ratio=0.3, only=("attention.wq:groups",))
    attention = smaller.attention
    assert (attention.n_heads, attention.n_kv_heads, attention.n_rep, attention.head_dim) == (4, 2, 2, 4)


def test_shared_weights_stay_shared():
    network, _, _, smaller = pruned(Seq2Seq(), ZOO["seq2seq"][1](), ratio=0.25)
    assert smaller.out.weight is smaller.embed.weight
    assert smaller.embed.weight.shape[1] < network.module.embed.weight.shape[1]


def test_index_tensors_are_renumbered():
    class Shuffled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(4, 5), nn.Linear(5, 2)
            self.register_buffer("order", torch.tensor([4, 2, 0, 3, 1]))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.b(self.a(x)[:, self.order])

    network = capture(lively(Shuffled()), torch.randn(2, 4))
    coupling = analyse(network.graph)
    smaller = remove(network, coupling, {"a": [2]})
    assert smaller.order.tolist() == [3, 0, 2, 1]


def test_the_original_and_its_flags_are_untouched():
    module = MobileNetV2()
    network = capture(lively(module), torch.randn(2, 3, 32, 32))
    before = copy.deepcopy(network.module.state_dict())
    coupling = analyse(network.graph)
    smaller = remove(network, coupling, random_removals(coupling, 0.5))
    assert all(torch.equal(before[name], tensor) for name, tensor in network.module.state_dict().items())
    assert network.module.features[0][0].out_channels == 8
    assert not set(map(id, smaller.parameters())) & set(map(id, network.module.parameters()))


@pytest.mark.parametrize("name", ["mobilenet_v2", "vit", "lstm", "seq2seq"])
def test_a_plan_and_a_state_dict_rebuild_the_network(name):
    make, example = ZOO[name]
    inputs = example()
    network = capture(lively(make()), inputs)
    coupling = confirm(network, analyse(network.graph))
    removals = random_removals(coupling, 0.4)
    smaller = remove(network, coupling, removals)
    fresh = capture(make(), inputs)
    rebuilt = remove(fresh, confirm(fresh, analyse(fresh.graph)), {k: list(map(int, v)) for k, v in removals.items()})
    rebuilt.load_state_dict(smaller.state_dict())
    assert torch.equal(rebuilt(*inputs), smaller(*inputs))
    assert str(rebuilt) == str(smaller)


class WrittenOut(nn.Module):
    """Attention whose scale is computed from the width in one of the ways people write it."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how, self.heads, self.width = how, 2, 6
        self.scale = 6**-0.5
        self.embed = nn.Linear(3, 8)
        self.qkv, self.out = nn.Linear(8, 36), nn.Linear(12, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.embed(x)
        q, k, v = self.qkv(x).view(*x.shape[:2], 3, self.heads, self.width).permute(2, 0, 3, 1, 4)
        if self.how == "fused":
            y = F.scaled_dot_product_attention(q, k, v)
        elif self.how == "fused, own scale":
            y = F.scaled_dot_product_attention(q, k, v, scale=self.scale)
        elif self.how == "queries":
            y = torch.softmax((q * q.shape[-1] ** -0.5) @ k.mT, -1) @ v
        elif self.how == "logits":
            y = torch.softmax(q @ k.mT / math.sqrt(self.width), -1) @ v
        else:
            y = torch.softmax(torch.einsum("bhid,bhjd->bhij", q, k) * self.scale, -1) @ v
        return self.out(y.transpose(1, 2).flatten(2))


@pytest.mark.parametrize("how", ["fused", "fused, own scale", "queries", "logits", "attribute"])
def test_narrower_heads_keep_the_scale_of_their_logits(how):
    network, coupling, removals, smaller = pruned(
        WrittenOut(how).double(), torch.randn(2, 5, 3).double(), only=("qkv",)
    )
    expected = silence(network.graph, coupling, removals)(*network.example)
    assert relative_error(smaller(*network.example), expected) < 1e-10
    assert smaller.width == 3
    ratio = 1.0 if how in ("fused, own scale", "attribute") else math.sqrt(0.5)
    kept = [k for k in range(6) if k not in removals["qkv"]]
    rows = torch.arange(36).view(3, 2, 6)[:, :, kept].flatten()
    for part, factor in zip(range(3), (ratio, 1.0, 1.0), strict=True):
        old = network.module.qkv.weight[rows].view(3, -1)[part]
        assert torch.allclose(smaller.qkv.weight.view(3, -1)[part], old * factor, rtol=1e-12)


@pytest.mark.parametrize("need_weights", [False, True])
@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("separate", [False, True])
def test_narrow_attention_agrees_with_pytorchs(need_weights, batch_first, separate):
    full = lively(nn.MultiheadAttention(8, 2, kdim=6 if separate else None, vdim=5 if separate else None,
                                        batch_first=batch_first)).double().eval()  # fmt: skip
    narrow = NarrowAttention.narrowed(copy.deepcopy(full), num_heads=2, scale=0.5)
    shape = (3, 4) if batch_first else (4, 3)
    query = torch.randn(*shape, 8).double()
    key, value = torch.randn(*shape, 6 if separate else 8).double(), torch.randn(*shape, 5 if separate else 8).double()
    masks = {
        "attn_mask": torch.randn(4, 4).double(),
        "key_padding_mask": torch.tensor([[False, False, False, True]] * 3),
    }
    for some in ({}, {"attn_mask": masks["attn_mask"]}, masks, {"attn_mask": torch.ones(4, 4).triu(1).bool()}):
        bool_pads = {k: v for k, v in some.items() if k != "key_padding_mask"} | (
            {"key_padding_mask": torch.zeros(3, 4).double().masked_fill(masks["key_padding_mask"], -math.inf)}
            if "key_padding_mask" in some
            else {}
        )
        expected, weights = full(query, key, value, need_weights=need_weights, **bool_pads)
        output, own = narrow(query, key, value, need_weights=need_weights, **some)
        assert relative_error(output, expected) < 1e-10
        assert (own is None) == (weights is None)
        if own is not None:
            assert torch.allclose(own, weights)


def test_attention_with_added_keys_is_refused():
    with pytest.raises(ModelError, match="added keys"):
        NarrowAttention.narrowed(nn.MultiheadAttention(8, 2, add_zero_attn=True), 2, 0.5)


class Baked(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.free, self.baked, self.out = nn.Linear(3, 8), nn.Linear(8, 12), nn.Linear(4, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.baked(torch.relu(self.free(x))))
        return self.out(x.view(-1, 3, 4).sum(1))


def test_a_size_written_into_forward_is_refused_with_its_line():
    network = capture(lively(Baked()), torch.randn(2, 3))
    coupling = analyse(network.graph)
    assert {"baked", "free"} <= {unit.name for unit in coupling.units}
    with pytest.raises(ModelError, match=r"test_surgery.py:\d+: return self.out\(x.view\(-1, 3, 4\).sum\(1\)\)"):
        remove(network, coupling, {"baked": [0]})
    confirmed = confirm(network, coupling)
    assert [unit.name for unit in confirmed.units] == ["free"]
    assert any(refusal.subject == "baked" and "x.view(-1, 3, 4)" in refusal.reason for refusal in confirmed.refusals)


class Scaled(nn.Module):
    """Divides by the number of its channels."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(3, 8), nn.Linear(8, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.a(x)
        return self.b(y / y.shape[-1])


class FromInput(nn.Module):
    """Attention that takes its head width from the width of its input."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.num_heads = nn.Linear(3, 12), 2
        self.qkv, self.proj, self.out = nn.Linear(12, 36), nn.Linear(12, 12), nn.Linear(12, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.embed(x)
        b, n, c = x.shape
        q, k, v = self.qkv(x).reshape(b, n, 3, self.num_heads, c // self.num_heads).permute(2, 0, 3, 1, 4)
        x = x + self.proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(b, n, c))
        return self.out(x)


def test_queries_from_a_convolution_keep_their_scale():
    class OverPixels(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner, self.qkv, self.out = 6, nn.Conv2d(3, 18, 1), nn.Conv2d(6, 2, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            q, k, v = self.qkv(x).flatten(2).mT.split(self.inner, -1)
            return self.out(F.scaled_dot_product_attention(q, k, v).mT.unflatten(-1, x.shape[2:]))

    network, coupling, removals, smaller = pruned(OverPixels().double(), torch.randn(2, 3, 4, 4).double())
    expected = silence(network.graph, coupling, removals)(*network.example)
    assert relative_error(smaller(*network.example), expected) < 1e-10
    assert smaller.inner == 3


def test_attention_as_wide_as_its_input_narrows_with_it():
    network, coupling, removals, smaller = pruned(FromInput().double(), torch.randn(2, 5, 3).double())
    assert {unit.name: unit.groups for unit in coupling.units} == {"embed": 6, "embed:groups": 2}
    expected = silence(network.graph, coupling, removals)(*network.example)
    assert relative_error(smaller(*network.example), expected) < 1e-10
    assert smaller.num_heads == 1
    assert smaller.qkv.weight.shape == (9, 3)


def test_a_result_that_differs_is_never_handed_out():
    network = capture(lively(Scaled()), torch.randn(2, 3))
    coupling = analyse(network.graph)
    with pytest.raises(ModelError, match="outputs differ by"):
        remove(network, coupling, {"a": [0, 1]})
    assert confirm(network, coupling).units == ()


def test_layers_that_start_at_zero_hide_nothing():
    module = Scaled()
    nn.init.zeros_(module.b.weight)
    network = capture(module, torch.randn(2, 3))
    with pytest.raises(ModelError, match="outputs differ by"):
        remove(network, analyse(network.graph), {"a": [0]})


def test_the_account_is_what_the_surgery_left():
    network, coupling, removals, smaller = pruned(LSTMClassifier(), torch.randint(0, 30, (2, 7)))
    for name, groups in removals.items():
        unit = coupling.unit(name)
        assert reached(unit, network.module, smaller) == unit.groups - len(groups)
        alone = remove(network, coupling, {name: groups})
        gone = sum(p.numel() for p in network.module.parameters()) - sum(p.numel() for p in alone.parameters())
        shapes = {state: tuple(p.shape) for state, p in network.module.named_parameters()}
        assert sum(parameters_gone(unit, len(groups), shapes).values()) == gone
    assert reached(coupling.units[0], network.module, network.module) == coupling.units[0].groups


def test_silencing_nothing_changes_nothing():
    network = capture(lively(Bert()), torch.randint(1, 20, (2, 8)))
    coupling = analyse(network.graph)
    assert torch.equal(silence(network.graph, coupling, {})(*network.example), network.module(*network.example))
    assert torch.equal(remove(network, coupling, {})(*network.example), network.module(*network.example))
