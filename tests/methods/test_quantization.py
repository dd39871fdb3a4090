"""The quantization family."""

from __future__ import annotations

import functools
from dataclasses import replace

import pytest
import torch
from torch import nn

from featherweight.contracts import PlanError, Step
from featherweight.methods import METHODS
from featherweight.methods.lowrank import LowRank
from featherweight.methods.quantization import Quantization
from featherweight.methods.seam import (
    Subject,
    apply_steps,
    chains,
    cost_of,
    effective_weight,
    leaves,
    predicted_error,
)
from featherweight.network.encodings import (
    AffineEncoding,
    CodebookEncoding,
    HalfEncoding,
    MaskEncoding,
    chain_of,
    encode,
    encoding_of,
    holds,
    is_integer,
    weight_type,
)
from featherweight.network.modules import copied
from featherweight.observation.rows import weight_rows
from featherweight.testing import ANY_TARGET, MethodContract, contract_problem, subjects

INT8 = {"weights": "int8", "activations": "int8"}
HALF = {"weights": "float16", "activations": "float32"}
WEIGHTS_ALONE = {"weights": "int8", "activations": "float32"}


class TestQuantization(MethodContract):
    method = Quantization()


class TestFewBits(MethodContract):
    method = Quantization(bits=(8, 4, 3, 2))


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


@functools.cache
def every_subject() -> dict[str, Subject]:
    """Of the contract's network; nothing here changes them."""
    return subjects(*contract_problem())


def subject_named(name: str = "wide") -> Subject:
    return every_subject()[name]


def levels_of(leaf: nn.Module) -> torch.Tensor:
    """Whole numbers of steps from zero, (out, columns)."""
    encoding = encoding_of(leaf)
    assert isinstance(encoding, AffineEncoding)
    steps = leaf.weight.flatten(1) / encoding.scale.double().unsqueeze(1)
    assert torch.allclose(steps, steps.round(), atol=1e-4)
    return steps.round()


def error_of(subject: Subject, built: nn.Module) -> float:
    return predicted_error(replace(subject, module=built, input_noise=0.0))


@pytest.mark.parametrize("name", ["full", "depth", "grouped", "wide"])
@pytest.mark.parametrize("bits", [2, 3, 4, 8])
def test_few_bits_are_few_levels_on_the_same_kernels(name: str, bits: int) -> None:
    subject = subject_named(name)
    built = Quantization().apply(subject, {**INT8, "bits": bits})
    levels = levels_of(built)
    assert levels.abs().max() <= 2 ** (bits - 1) - 1
    assert weight_type(built) == "int8"
    assert is_integer(built)
    assert holds(built)
    whole = Quantization().apply(subject, INT8)
    costs = [cost_of(subject.layer, module, ANY_TARGET) for module in (built, whole)]
    assert costs[0] == costs[1]  # the file holds bytes; only a package gains


def test_eight_bits_are_what_is_meant_where_none_are_named() -> None:
    subject = subject_named()
    plain, named = (Quantization().apply(subject, step) for step in (INT8, {**INT8, "bits": 8, "rounding": "gptq"}))
    assert torch.equal(plain.weight, named.weight)


@pytest.mark.parametrize("name", ["full", "depth", "grouped", "wide"])
@pytest.mark.parametrize("bits", [2, 4, 8])
def test_gptq_never_loses_to_nearest(name: str, bits: int) -> None:
    subject = subject_named(name)
    errors = {
        rounding: error_of(subject, Quantization().apply(subject, {**INT8, "bits": bits, "rounding": rounding}))
        for rounding in ("gptq", "nearest")
    }
    assert errors["gptq"] <= errors["nearest"]
    if name == "wide":
        assert errors["gptq"] < 0.7 * errors["nearest"]


@pytest.mark.parametrize("settings", [INT8, WEIGHTS_ALONE])
def test_a_zero_point_gives_two_bits_their_fourth_level(settings: dict) -> None:
    subject = subject_named()
    symmetric, asymmetric = (
        Quantization().apply(subject, {**settings, "bits": 2, "symmetric": choice}) for choice in (True, False)
    )
    assert error_of(subject, asymmetric) < 0.8 * error_of(subject, symmetric)
    levels = levels_of(asymmetric)
    assert int((levels.amax(1) - levels.amin(1)).max()) == 3
    encoding = encoding_of(asymmetric)
    assert isinstance(encoding, AffineEncoding)
    # Integer kernels take no zero point for weights: levels are then counted from zero.
    assert bool(encoding.zero_point.any()) != encoding.integer
    assert encoding.highest - encoding.lowest == (6 if encoding.integer else 3)
    assert holds(asymmetric)


def test_weights_alone_ask_for_no_integer_kernel() -> None:
    subject = subject_named()
    built = Quantization().apply(subject, WEIGHTS_ALONE)
    assert not is_integer(built)
    assert weight_type(built) == "int8"
    noisy = replace(subject, module=built, input_noise=1.0)
    assert predicted_error(noisy) == error_of(subject, built)


@pytest.mark.parametrize("bits", [3, 8])
def test_zeros_of_a_mask_stay_zero_and_the_rest_makes_up(bits: int) -> None:
    subject = subject_named()
    weight = subject.module.weight.detach()
    module = encode(copied(subject.module), MaskEncoding(weight.abs() > weight.abs().median()))
    zeros = module.weight == 0
    masked = replace(subject, module=module)
    gptq, nearest = (
        Quantization().apply(masked, {**INT8, "bits": bits, "rounding": rounding}) for rounding in ("gptq", "nearest")
    )
    assert not gptq.weight[zeros].any()
    assert [type(one) for one in chain_of(gptq)] == [MaskEncoding, AffineEncoding]
    assert holds(gptq)
    own = weight_rows(subject.layer, module.weight.detach())  # under what the mask left
    assert error_of(replace(masked, weight=own), gptq) < 0.9 * error_of(replace(masked, weight=own), nearest)


@pytest.mark.parametrize("bits", [4, 8])
def test_shared_weights_stay_shared(bits: int) -> None:
    subject = subject_named()
    weight = subject.module.weight.detach()
    codebook = torch.linspace(float(weight.min()), float(weight.max()), 7).double() ** 3
    module = encode(copied(subject.module), CodebookEncoding(codebook))
    before = module.weight.detach()
    after = Quantization().apply(replace(subject, module=module), {**INT8, "bits": bits}).weight
    for old, new in zip(before, after, strict=True):
        assert all(len(new[old == value].unique()) == 1 for value in old.unique())
    reach = before.abs().amax(1, keepdim=True)
    assert bool(((after - before).abs() <= reach / (2**bits - 2) * 1.001).all())  # half a step: nothing is clipped


@pytest.mark.parametrize(
    "settings",
    [
        {**INT8, "bits": 1},
        {**INT8, "bits": 9},
        {**INT8, "bits": 4.0},
        {**INT8, "bits": True},
        {**HALF, "bits": 8},
        {**INT8, "symmetric": "yes"},
        {**INT8, "rounding": "up"},
        {**INT8, "activations": "dynamic"},
        {**INT8, "symmetric": False},
        {"weights": "int8"},
        {"weights": "int4", "activations": "int8"},
        {**INT8, "ranges": "luck"},
        {**INT8, "ranges": ""},
        {**WEIGHTS_ALONE, "ranges": "mse"},
        {**HALF, "ranges": "mse"},
        {**INT8, "block": 32},
    ],
    ids=str,
)
def test_settings_that_make_no_sense_are_refused(settings: dict) -> None:
    with pytest.raises(PlanError):
        Quantization().apply(subject_named(), settings)


def test_half_networks_and_constant_weights_stay_finite() -> None:
    subject = subject_named()
    for make in (lambda w: w * 0, lambda w: w * 0 + 0.5, lambda w: w.half()):
        module = copied(subject.module)
        module.weight = nn.Parameter(make(module.weight.detach()), requires_grad=False)
        for bits in (2, 8):
            built = Quantization().apply(replace(subject, module=module), {**INT8, "bits": bits})
            assert bool(torch.isfinite(built.weight).all())
            assert built.weight.dtype == module.weight.dtype


def test_inputs_that_never_vary_are_no_trouble() -> None:
    subject = subject_named()
    still = replace(subject, covariance=subject.covariance * 0)
    for bits in (2, 8):
        assert bool(torch.isfinite(Quantization().apply(still, {**INT8, "bits": bits}).weight).all())


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
    assert cost.size_bytes == 8 * (256 + 48) + (8 + 48) * 8 + 48 * 4  # the inner one has no bias


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
