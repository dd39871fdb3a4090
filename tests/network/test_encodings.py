"""Chains of encodings: what they hold, how they compose, and that targets see their values."""

from __future__ import annotations

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from torch import nn

from featherweight.network.capture import capture
from featherweight.network.encodings import (
    AffineEncoding,
    BinaryEncoding,
    CodebookEncoding,
    HalfEncoding,
    MaskEncoding,
    chain_of,
    encode,
    encoding_of,
    holds,
    weight_type,
)
from featherweight.network.grids import Compressed, with_grids
from featherweight.network.modules import set_weight, weight_of
from featherweight.numerics.affine import AffineGrid, fit_symmetric


@given(st.lists(st.floats(-100, 100, width=32), min_size=1, max_size=9), st.integers(0, 1000))
@example([-1.401298464324817e-45, 0.0], 0)  # the middle of subnormal neighbours rounds onto one of them
def test_a_codebook_gives_the_nearest_value(values: list[float], seed: int) -> None:
    codebook = torch.tensor(sorted(values), dtype=torch.float32)
    weight = torch.randn(20, generator=torch.Generator().manual_seed(seed)) * 50
    found = CodebookEncoding(codebook)(weight)
    distances = (weight.double().unsqueeze(1) - codebook.double()).abs()
    nearest = distances.min(1).values
    assert torch.allclose((found.double() - weight.double()).abs(), nearest, atol=1e-4)
    assert torch.equal(CodebookEncoding(codebook)(found), found)


def _chained() -> nn.Linear:
    torch.manual_seed(0)
    linear = nn.Linear(6, 4)
    encode(linear, MaskEncoding(torch.rand(4, 6) > 0.5))
    encode(linear, CodebookEncoding(torch.tensor([-0.3, 0.0, 0.2])))
    return linear


def test_masked_stays_masked_and_shared_stays_shared() -> None:
    linear = _chained()
    assert (weight_type(linear), encoding_of(linear)) == ("float32", None)
    assert [type(one) for one in chain_of(linear)] == [MaskEncoding, CodebookEncoding]
    weight = weight_of(linear)
    encode(linear, AffineEncoding(fit_symmetric(weight), axis=0, integer=True))
    rounded = weight_of(linear)
    assert weight_type(linear) == "int8"
    assert not rounded[weight == 0].any()
    assert all(len(row.unique()) <= 3 for row in rounded)


def test_a_broken_chain_is_noticed() -> None:
    linear = _chained()
    assert holds(linear)
    encode(linear, HalfEncoding())
    assert holds(linear)  # shared values, rounded: still shared
    linear.parametrizations["weight"].original.data += 0.3 * torch.rand(4, 6)  # type: ignore[index]
    assert holds(linear)  # the chain makes them what they were meant to be
    broken = _chained()
    encode(broken, AffineEncoding(AffineGrid(torch.full((4,), 0.1), torch.full((4,), 3), -8, 7), 0, False))
    broken.parametrizations["weight"][-1].zero_point += 20  # type: ignore[index]  # zero is off this grid
    assert not holds(broken)


def test_targets_see_the_values_of_encodings_that_they_have_no_type_for() -> None:
    linear = _chained()
    network = capture(nn.Sequential(linear, nn.ReLU()), torch.randn(2, 6))
    graph = with_grids(Compressed(network))
    called = {str(node.target) for node in graph.graph.nodes if node.op == "call_function"}
    assert called == {"aten.linear.default", "aten.relu.default"}
    x = torch.randn(5, 6)
    plain = nn.Linear(6, 4)
    set_weight(plain, weight_of(linear))
    plain.bias = linear.bias
    assert torch.allclose(graph(x), torch.relu(plain(x)))


@pytest.mark.parametrize("encoding", [HalfEncoding(), CodebookEncoding(torch.tensor([0.1, 0.7]))])
def test_a_state_dict_brings_an_encoded_weight_back(encoding: nn.Module) -> None:
    one, two = nn.Linear(3, 3), nn.Linear(3, 3)
    encode(one, encoding)
    encode(two, type(encoding)(torch.zeros(2)) if isinstance(encoding, CodebookEncoding) else HalfEncoding())
    two.load_state_dict(one.state_dict())
    assert torch.equal(weight_of(one), weight_of(two))


@given(st.integers(0, 100), st.booleans(), st.sampled_from([torch.float16, torch.float32, torch.float64]))
def test_signs_with_scales_stay_what_they_are(seed: int, zero: bool, dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(seed)
    scale = torch.rand(3, generator=generator)
    scale[0] = 0.0
    encoding = BinaryEncoding(scale, zero)
    found = encoding(torch.randn(3, 2, 2, 2, generator=generator).to(dtype))
    assert found.dtype == dtype
    assert torch.equal(encoding(found), found)

    magnitudes = torch.where(found.flatten(1) == 0, scale.to(dtype).unsqueeze(1), found.flatten(1).abs())
    assert torch.equal(magnitudes, scale.to(dtype).unsqueeze(1).expand(3, 8))
    assert zero or not bool((found[1:] == 0).any())
    assert not found[0].any()


def test_encoding_can_bring_a_new_weight_under_what_is_held_already() -> None:
    linear = _chained()
    mask = chain_of(linear)[0].mask
    encode(linear, HalfEncoding(), torch.full((24,), 1 / 3))
    assert torch.equal(weight_of(linear) != 0, mask)
    assert float(weight_of(linear).max()) == pytest.approx(0.2, rel=1e-3)  # the codebook's nearest, halved


@pytest.mark.parametrize("encoding", [BinaryEncoding(torch.ones(4), True), CodebookEncoding(torch.tensor([-1.0, 1.0]))])
def test_values_reach_the_graph_without_their_operations(encoding: nn.Module) -> None:
    linear = encode(nn.Linear(6, 4), encoding)
    graph = with_grids(Compressed(capture(linear, torch.randn(2, 6))))
    assert {str(node.target) for node in graph.graph.nodes if node.op == "call_function"} == {"aten.linear.default"}
    convolution = nn.Conv2d(3, 4, 3).to(memory_format=torch.channels_last)
    assert holds(encode(convolution, encoding))
