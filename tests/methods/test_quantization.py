"""The quantization family."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from featherweight.contracts import PlanError, Step
from featherweight.methods import METHODS
from featherweight.methods.lowrank import LowRank
from featherweight.methods.quantization import Quantization
from featherweight.methods.seam import apply_steps, chains, cost_of, effective_weight, leaves, predicted_error
from featherweight.network.encodings import AffineEncoding, HalfEncoding, encoding_of
from featherweight.testing import ANY_TARGET, MethodContract, contract_problem, subjects

INT8 = {"weights": "int8", "activations": "int8"}
HALF = {"weights": "float16", "activations": "float32"}


class TestQuantization(MethodContract):
    method = Quantization()


def test_weights_lie_on_a_symmetric_grid_for_every_channel() -> None:
    network, split = contract_problem()
    for subject in subjects(network, split).values():
        built = Quantization().apply(subject, INT8)
        encoding = encoding_of(built)
        assert isinstance(encoding, AffineEncoding)
        assert encoding.integer
        assert not encoding.zero_point.any()
        assert encoding.scale.shape == (built.weight.shape[0],)
        levels = built.weight / encoding.scale.view(-1, *[1] * (built.weight.ndim - 1))
        assert torch.allclose(levels, levels.round(), atol=1e-4)
        assert levels.abs().max() <= 127.001


def test_float16_is_exactly_half_precision() -> None:
    network, split = contract_problem()
    subject = subjects(network, split)["wide"]
    built = Quantization().apply(subject, HALF)
    assert isinstance(encoding_of(built), HalfEncoding)
    assert torch.equal(built.weight, network.module.wide.weight.half().double())


def test_integer_activations_add_their_noise_to_the_prediction() -> None:
    network, split = contract_problem()
    subject = subjects(network, split)["wide"]
    state = replace(subject, module=Quantization().apply(subject, INT8))
    quiet = predicted_error(replace(state, input_noise=0.0))
    noise = subject.input_noise * float(effective_weight(state).square().sum())
    assert predicted_error(state) == pytest.approx(quiet + noise)
    assert noise > 0


def test_the_predicted_noise_of_activations_is_what_rounding_them_does() -> None:
    network, split = contract_problem()
    subject = subjects(network, split)["wide"]
    state = replace(subject, module=Quantization().apply(subject, INT8), covariance=subject.covariance * 0)
    x = TestQuantization._inputs(network, split, network.layer("wide"))
    scale = float(x.max()) / 255
    rounded = (x / scale).round() * scale
    measured = float(((rounded - x) @ subject.module.weight.T).square().sum(1).mean())
    assert predicted_error(state) == pytest.approx(measured, rel=0.35)


def test_kinds_without_a_kernel_are_refused_by_type() -> None:
    network, split = contract_problem()
    kinds = {**ANY_TARGET.layer_kinds, "int8": frozenset({"linear"})}
    capability = replace(ANY_TARGET, layer_kinds=kinds)
    settings, refusals = Quantization().options(subjects(network, split, capability)["depth"])
    assert settings == [HALF]
    assert [refusal.action for refusal in refusals] == ["quantization int8"]


def test_a_weight_is_encoded_once() -> None:
    network, split = contract_problem()
    subject = subjects(network, split)["wide"]
    with pytest.raises(PlanError, match="once"):
        Quantization().apply(replace(subject, module=Quantization().apply(subject, INT8)), HALF)


def test_it_follows_low_rank_factor_by_factor() -> None:
    network, split = contract_problem()
    subject = subjects(network, split)["wide"]
    steps = (Step("lowrank", {"rank": 8}), Step("quantization", INT8))
    built = apply_steps(subject, steps, METHODS)
    assert [type(encoding_of(leaf)) for leaf in leaves(built)] == [AffineEncoding, AffineEncoding]
    alone = LowRank().apply(subject, {"rank": 8})
    difference = effective_weight(replace(subject, module=built)) - effective_weight(replace(subject, module=alone))
    assert float(difference.norm()) < 0.05 * float(effective_weight(replace(subject, module=alone)).norm())
    cost = cost_of(network.layer("wide"), built, ANY_TARGET)
    assert cost.size_bytes == 8 * (256 + 48) + (8 + 48) * (4 + 8)


def test_chains_hold_every_method_alone_and_in_order() -> None:
    network, split = contract_problem()
    every = list(chains(subjects(network, split)["wide"], METHODS))
    found = [one[0] for one in every if isinstance(one, tuple)]
    names = {tuple(step.method for step in steps) for steps in found}
    assert names == {(), ("lowrank",), ("quantization",), ("lowrank", "quantization")}
    assert found[0] == ()


def test_steps_correct_the_bias_by_the_mean_of_the_error() -> None:
    network, split = contract_problem()
    subject = subjects(network, split)["wide"]
    x = TestQuantization._inputs(network, split, network.layer("wide"))
    built = apply_steps(subject, (Step("lowrank", {"rank": 4}),), METHODS)
    error = (built(x) - subject.module(x)).detach()
    assert error.std(0).max() > 0.01
    assert torch.allclose(error.mean(0), torch.zeros(48).double(), atol=1e-10)


def test_unknown_methods_are_refused_by_name() -> None:
    network, split = contract_problem()
    with pytest.raises(PlanError, match="'magic'"):
        apply_steps(subjects(network, split)["wide"], (Step("magic"),), METHODS)
