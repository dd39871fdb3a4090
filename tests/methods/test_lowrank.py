"""The low-rank family."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch
from torch import nn

from featherweight.contracts import PlanError
from featherweight.methods.lowrank import LowRank
from featherweight.methods.seam import Subject, leaves, predicted_error
from featherweight.network.capture import capture
from featherweight.network.composition import composed, positions
from featherweight.numerics.factorisation import plain_spatial, plain_tucker
from featherweight.numerics.gram import output_error
from featherweight.tasks.data import Split
from featherweight.testing import ANY_TARGET, MethodContract, contract_problem, subjects


class TestLowRank(MethodContract):
    method = LowRank()


class TestChains(MethodContract):
    method = LowRank(("spatial", "tucker2"))


def test_ranks_are_multiples_below_where_two_layers_cost_as_much() -> None:
    network, split = contract_problem()
    settings, refusals = LowRank().options(subjects(network, split)["wide"])
    ranks = [choice["rank"] for choice in settings]
    assert not refusals
    assert ranks == sorted(set(ranks))
    assert all(rank % 4 == 0 and rank * (48 + 256) < 0.7 * 48 * 256 for rank in ranks)


def test_grouped_and_tiny_layers_are_refused_with_the_reason() -> None:
    network, split = contract_problem()
    all_subjects = subjects(network, split)
    for name, word in (("depth", "depthwise"), ("grouped", "grouped"), ("narrow", "too small")):
        settings, (refusal,) = LowRank().options(all_subjects[name])
        assert not settings
        assert word in refusal.reason


def test_the_factors_keep_geometry_bias_and_type() -> None:
    network, split = contract_problem()
    built = LowRank().apply(subjects(network, split)["full"], {"rank": 8})
    assert isinstance(built, nn.Sequential)
    assert built[0].kernel_size == (3, 3)
    assert built[0].padding == (1, 1)
    assert built[0].bias is None
    assert built[1].kernel_size == (1, 1)
    assert built[1].weight.dtype == torch.float64
    assert torch.equal(built[1].bias, network.module.full.bias)


def test_it_never_loses_to_the_plain_svd() -> None:
    network, split = contract_problem()
    subject = subjects(network, split)["wide"]
    for rank in (4, 16, 28):
        built = LowRank().apply(subject, {"rank": rank})
        u, s, v = torch.linalg.svd(subject.weight[0], full_matrices=False)
        plain = ((u[:, :rank] * s[:rank]) @ v[:rank]).unsqueeze(0) - subject.weight
        found = predicted_error(type(subject)(**{**vars(subject), "module": built}))
        assert found <= output_error(plain, subject.covariance)


@pytest.mark.parametrize("rank", [0, 49, 2.5, "8", None])
def test_impossible_ranks_are_refused(rank: object) -> None:
    network, split = contract_problem()
    with pytest.raises(PlanError, match="rank"):
        LowRank().apply(subjects(network, split)["wide"], {"rank": rank})


# ------------------------------------------------------------------------------------------------ chains for kernels

EVERY = LowRank(kinds=("pair", "spatial", "tucker2"))
_OLD = {
    "plain": nn.Conv2d(8, 12, 3, padding=1),
    "strided": nn.Conv2d(8, 12, 3, stride=(2, 1), padding=(1, 2), bias=False),
    "dilated": nn.Conv2d(8, 12, 3, padding="same", dilation=2),
    "oblong": nn.Conv2d(8, 12, (5, 2), stride=2, padding=(2, 0)),
    "mirrored": nn.Conv2d(8, 12, 3, padding=1, padding_mode="reflect"),
}


@pytest.fixture(params=_OLD)
def convolution(request: pytest.FixtureRequest) -> tuple[Subject, torch.Tensor]:
    """A layer under correlated inputs: its subject, and the inputs that it was observed on."""
    generator = torch.Generator().manual_seed(0)
    mixing = torch.randn(80, 80, generator=generator).double() / 9
    x = (torch.randn(24, 8 * 80, generator=generator).double().view(24, 8, 80) @ mixing + 0.3).view(24, 8, 10, 8)
    (subject,) = subjects(capture(copy.deepcopy(_OLD[request.param]).double(), x[:2]), Split.of(x), _SMALL).values()
    return subject, x


_SMALL = replace(ANY_TARGET, channel_multiple=2)
_CHAINS = [
    {"kind": "spatial", "rank": 1},
    {"kind": "spatial", "rank": 7},
    {"kind": "tucker2", "rank_in": 1, "rank_out": 1},
    {"kind": "tucker2", "rank_in": 4, "rank_out": 7},
]


@pytest.mark.parametrize("settings", _CHAINS, ids=str)
def test_a_chain_is_one_convolution_with_the_predicted_error_and_cost(convolution, settings: dict) -> None:
    subject, x = convolution
    built = LowRank().apply(subject, settings)
    parts = leaves(built)
    assert [part.bias is None for part in parts] == [True] * (len(parts) - 1) + [False]
    difference = composed(parts).flatten(1)[None] - subject.weight
    predicted = output_error(difference, subject.covariance)
    error = (built(x) - subject.module(x)).transpose(0, 1).flatten(1)
    measured = float((error - error.mean(1, keepdim=True)).square().mean(1).sum())
    assert predicted == pytest.approx(measured, rel=1e-6)
    network = capture(built, x[:2])
    counts = positions(subject.layer, parts)
    assert sum(n * part.weight.numel() for n, part in zip(counts, parts, strict=True)) == network.cost.macs
    assert positions(subject.layer, [subject.module]) == [subject.layer.positions]


def test_chains_never_lose_to_plain_decompositions(convolution) -> None:
    subject, _ = convolution
    kernel = subject.module.weight
    for settings, plain in (
        ({"kind": "spatial", "rank": 5}, plain_spatial(kernel, 5).kernel()),
        ({"kind": "tucker2", "rank_in": 3, "rank_out": 4}, plain_tucker(kernel, 3, 4).kernel()),
    ):
        built = composed(leaves(LowRank().apply(subject, settings)))
        aware, blind = (output_error((k - kernel).flatten(1)[None], subject.covariance) for k in (built, plain))
        assert aware <= blind * (1 + 1e-6)


def test_offered_chains_take_fewer_multiplications_and_plain_catalogues_offer_none(convolution) -> None:
    subject, _ = convolution
    kinds = [choice.get("kind", "pair") for choice in EVERY.options(subject)[0]]
    assert set(kinds) == {"pair", "spatial", "tucker2"}
    assert all("kind" not in choice for choice in LowRank().options(subject)[0])
    for settings in EVERY.options(subject)[0]:
        parts = leaves(EVERY.apply(subject, settings))
        macs = sum(n * part.weight.numel() for n, part in zip(positions(subject.layer, parts), parts, strict=True))
        assert macs < subject.layer.cost.macs
    assert [choice for choice in EVERY.options(subject)[0] if "kind" not in choice] == LowRank().options(subject)[0]


def test_layers_without_a_kernel_to_take_apart_have_pairs_alone() -> None:
    network, split = contract_problem()
    every = subjects(network, split)
    assert EVERY.options(every["wide"]) == LowRank().options(every["wide"])
    for name, word in (("wide", "no k×k kernel"), ("depth", "depthwise")):
        with pytest.raises(PlanError, match=word):
            LowRank().apply(every[name], {"kind": "spatial", "rank": 2})


@pytest.mark.parametrize(
    "settings",
    [
        {"kind": "spatial", "rank": 0},
        {"kind": "spatial", "rank": 10**6},
        {"kind": "tucker2", "rank": 3},
        {"kind": "tucker2", "rank_in": 9, "rank_out": 2},
        {"kind": "tucker2", "rank_in": 1, "rank_out": 12},
        {"kind": "tucker2", "rank_in": "2", "rank_out": 2},
        {"kind": "cp", "rank": 2},
        {"kind": "pair"},
        {"kind": "pair", "rank": 2, "x": 1},
    ],
    ids=str,
)
def test_impossible_chains_are_refused(convolution, settings: dict) -> None:
    with pytest.raises(PlanError, match="rank"):
        LowRank().apply(convolution[0], settings)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
@pytest.mark.parametrize("settings", [*_CHAINS, {"rank": 3}], ids=str)
def test_zeros_dead_inputs_and_other_precisions_stay_finite(dtype: torch.dtype, settings: dict) -> None:
    x = torch.randn(4, 8, 6, 6).double()
    plain = copy.deepcopy(_OLD["plain"]).double()
    (subject,) = subjects(capture(plain, x[:2]), Split.of(x)).values()
    for fill in (0.0, 0.3):
        module = copy.deepcopy(plain).to(dtype)
        module.weight.data.fill_(fill)
        for covariance in (subject.covariance * 0, torch.ones_like(subject.covariance), subject.covariance * 1e-30):
            state = replace(subject, module=module, weight=module.weight.reshape(1, 12, -1), covariance=covariance)
            parts = leaves(LowRank().apply(state, settings))
            assert {part.weight.dtype for part in parts} == {dtype}
            assert all(bool(torch.isfinite(part.weight).all()) for part in parts)
