"""The family of single zeros."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from featherweight.contracts import PlanError, Step
from featherweight.methods.lowrank import LowRank
from featherweight.methods.quantization import Quantization
from featherweight.methods.seam import apply_steps, cost_of, effective_weight, predicted_error
from featherweight.methods.sparsity import Sparsity
from featherweight.network.capture import capture
from featherweight.network.encodings import AffineEncoding, HalfEncoding, MaskEncoding, chain_of, holds
from featherweight.numerics.gram import output_error
from featherweight.numerics.sparsity import CRITERIA
from featherweight.testing import ANY_TARGET, MethodContract, contract_problem, subjects

INT8 = {"weights": "int8", "activations": "int8"}
HALF = {"weights": "float16", "activations": "float32"}


class TestSparsity(MethodContract):
    method = Sparsity(package=True)


class TestSparsityWithoutPackage(MethodContract):
    method = Sparsity()


def test_without_a_package_every_layer_is_refused_with_the_way_out() -> None:
    network, split = contract_problem()
    for name, subject in subjects(network, split).items():
        settings, (refusal,) = Sparsity().options(subject)
        assert not settings
        assert (refusal.subject, refusal.action) == (name, "sparsity")
        assert "contract suite" in refusal.reason
        assert "package" in refusal.remedy


def test_with_a_package_the_options_are_three_shares_and_the_pattern_where_it_fits() -> None:
    network, split = contract_problem()
    found = {name: Sparsity(True).options(subject) for name, subject in subjects(network, split).items()}
    shares = [{"zeros": 0.5}, {"zeros": 0.7}, {"zeros": 0.9}]
    assert found["wide"] == ([*shares, {"pattern": "2:4"}], [])
    settings, (refusal,) = found["full"]  # three input channels
    assert settings == shares
    assert refusal.action == "sparsity 2:4"
    assert "3 inputs" in refusal.reason


@pytest.mark.parametrize("criterion", CRITERIA)
@pytest.mark.parametrize("zeros", [0.5, 0.9])
def test_the_asked_share_is_zero_and_held_there(criterion: str, zeros: float) -> None:
    network, split = contract_problem()
    for subject in subjects(network, split).values():
        built = Sparsity(True).apply(subject, {"zeros": zeros, "criterion": criterion})
        (encoding,) = chain_of(built)
        assert isinstance(encoding, MaskEncoding)
        assert encoding.mask.shape == built.weight.shape
        assert holds(built)
        rows = len(built.weight) if criterion == "wanda" else 1
        assert int((~encoding.mask).sum()) == rows * int(zeros * built.weight.numel() / rows + 0.5)
        assert not built.weight[~encoding.mask].any()


def test_the_pattern_runs_along_input_channels_at_every_kernel_position() -> None:
    network, split = contract_problem()
    module = torch.nn.Sequential(torch.nn.Conv2d(8, 6, 3), torch.nn.ReLU(), torch.nn.Conv2d(6, 2, 1)).double()
    small = capture(module, torch.randn(2, 8, 5, 5).double())
    x = torch.randn(32, 8, 5, 5).double()
    subject = subjects(small, type(split).of(x))["0"]
    built = Sparsity(True).apply(subject, {"pattern": "2:4"})
    runs = chain_of(built)[0].mask.reshape(6, 2, 4, 3, 3)
    assert (runs.sum(2) == 2).all()
    grouped = subjects(network, split)["grouped"]
    mask = chain_of(Sparsity(True).apply(grouped, {"pattern": "1:4"}))[0].mask
    assert (mask.reshape(16, 3, 4).sum(2) == 1).all()


def test_without_a_criterion_narrow_layers_take_the_dearer_one() -> None:
    network, split = contract_problem()
    for name, criterion in (("full", "obs"), ("narrow", "obs"), ("wide", "sparsegpt")):
        subject = subjects(network, split)[name]
        masks = [
            chain_of(Sparsity(True).apply(subject, {"zeros": 0.5} | extra))[0].mask
            for extra in ({}, {"criterion": criterion})
        ]
        assert torch.equal(*masks)


def test_what_stays_is_refit() -> None:
    network, split = contract_problem()
    subject = subjects(network, split)["wide"]
    built = Sparsity(True).apply(subject, {"zeros": 0.7})
    fitted = predicted_error(replace(subject, module=built))
    plain = output_error(subject.weight * chain_of(built)[0].mask - subject.weight, subject.covariance)
    assert fitted < 0.5 * plain


@pytest.mark.parametrize(("settings", "encoding"), [(INT8, AffineEncoding), (HALF, HalfEncoding)])
def test_quantization_after_it_keeps_the_zeros(settings: dict[str, str], encoding: type) -> None:
    network, split = contract_problem()
    for subject in subjects(network, split).values():
        sparse = Sparsity(True).apply(subject, {"zeros": 0.7})
        mask = chain_of(sparse)[0].mask
        built = Quantization().apply(replace(subject, module=sparse), settings)
        assert [type(one) for one in chain_of(built)] == [MaskEncoding, encoding]
        assert not built.weight[~mask].any()
        assert holds(built)
        assert built.weight.any()


def test_zeros_save_no_byte_of_the_file() -> None:
    network, split = contract_problem()
    subject = subjects(network, split)["wide"]
    layer = network.layer("wide")
    built = Sparsity(True).apply(subject, {"zeros": 0.9})
    assert cost_of(layer, built, ANY_TARGET) == cost_of(layer, subject.module, ANY_TARGET)


def test_an_exported_network_computes_with_the_zeros() -> None:
    network, split = contract_problem()
    subject = subjects(network, split)["wide"]
    built = apply_steps(subject, (Step("sparsity", {"zeros": 0.5}),), (Sparsity(True),))
    x = torch.randn(4, 256).double()
    graph = capture(built, x).graph
    expected = x @ effective_weight(replace(subject, module=built))[0].T + built.bias
    assert torch.allclose(graph(x), expected)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"zeros": 0.0},
        {"zeros": 1.0},
        {"zeros": 1},
        {"zeros": True},
        {"zeros": float("nan")},
        {"zeros": "0.5"},
        {"pattern": "4:2"},
        {"pattern": "0:4"},
        {"pattern": "2:4:8"},
        {"pattern": "2:5"},
        {"pattern": 2},
        {"zeros": 0.5, "pattern": "2:4"},
        {"zeros": 0.5, "speed": 2},
    ],
)
def test_impossible_settings_are_refused(settings: dict) -> None:
    network, split = contract_problem()
    with pytest.raises(PlanError, match="zeros between 0 and 1"):
        Sparsity(True).apply(subjects(network, split)["wide"], settings)


def test_unknown_criteria_are_refused_by_name() -> None:
    network, split = contract_problem()
    with pytest.raises(PlanError, match="'luck'"):
        Sparsity(True).apply(subjects(network, split)["wide"], {"zeros": 0.5, "criterion": "luck"})


@pytest.mark.parametrize("first", [Sparsity(True), LowRank()])
def test_zeros_come_first(first: Sparsity | LowRank) -> None:
    network, split = contract_problem()
    subject = subjects(network, split)["wide"]
    settings = {"zeros": 0.5} if first.name == "sparsity" else {"rank": 8}
    with pytest.raises(PlanError, match="come first"):
        Sparsity(True).apply(replace(subject, module=first.apply(subject, settings)), {"zeros": 0.5})
