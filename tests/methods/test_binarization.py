"""The binarization family."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

from featherweight.contracts import PlanError, Step
from featherweight.methods.binarization import Binarization
from featherweight.methods.lowrank import LowRank
from featherweight.methods.quantization import Quantization
from featherweight.methods.seam import Subject, apply_steps, cost_of, leaves, predicted_error
from featherweight.network.encodings import (
    BinaryEncoding,
    CodebookEncoding,
    MaskEncoding,
    chain_of,
    encode,
    holds,
    is_integer,
)
from featherweight.network.modules import copied, set_weight, weight_of
from featherweight.numerics.binary import fit_binary, fit_ternary, on_levels
from featherweight.numerics.gram import output_error
from featherweight.testing import ANY_TARGET, MethodContract, contract_problem, subjects

Subjects = dict[str, Subject]
PACKED = Binarization(package=True)


@pytest.fixture(scope="module")
def every() -> Subjects:
    """Every layer of the contract's network, observed once: methods change nothing that they are given."""
    return subjects(*contract_problem())


class TestBinarization(MethodContract):
    method = PACKED


def test_without_a_package_it_is_refused_with_the_reason(every: Subjects) -> None:
    settings, (refusal,) = Binarization().options(every["wide"])
    assert not settings
    assert "stores every value anyway; only a package gets smaller" in refusal.reason


@pytest.mark.parametrize(("kind", "most"), [("binary", 2), ("ternary", 3)])
def test_every_channel_has_its_own_signs_and_scale(every: Subjects, kind: str, most: int) -> None:
    for subject in every.values():
        built = PACKED.apply(subject, {"kind": kind})
        rows = weight_of(built).flatten(1)
        assert all(len(row.abs().unique()) <= most - 1 and len(row.unique()) <= most for row in rows)
        assert rows.abs().amax(1).unique().numel() == len(rows)
        assert holds(built)
        assert cost_of(subject.layer, built, ANY_TARGET) == cost_of(subject.layer, subject.module, ANY_TARGET)


@pytest.mark.parametrize(("kind", "fit"), [("binary", fit_binary), ("ternary", fit_ternary)])
def test_it_never_loses_to_the_closed_form_alone(every: Subjects, kind: str, fit) -> None:
    for subject in every.values():
        importance = subject.covariance.diagonal(dim1=1, dim2=2).unsqueeze(1)
        scale = fit(subject.weight, importance)
        plain = on_levels(subject.weight.double(), scale, zero=kind == "ternary") - subject.weight
        found = predicted_error(replace(subject, module=PACKED.apply(subject, {"kind": kind})))
        assert found <= output_error(plain, subject.covariance) * (1 + 1e-6)


def test_correlated_inputs_gain_much(every: Subjects) -> None:
    subject = every["wide"]
    errors = [
        predicted_error(replace(subject, module=PACKED.apply(subject, {"kind": kind})))
        for kind in ("ternary", "binary")
    ]
    blind = on_levels(subject.weight.double(), fit_ternary(subject.weight), zero=True) - subject.weight
    assert errors[0] < errors[1]
    assert errors[0] < 0.6 * output_error(blind, subject.covariance)


def test_zeros_stay_with_ternary_and_are_refused_with_binary(every: Subjects) -> None:
    subject = every["full"]
    module = encode(copied(subject.module), MaskEncoding(torch.rand(weight_of(subject.module).shape) > 0.5))
    state = replace(subject, module=module)
    assert PACKED.options(state)[0] == [{"kind": "ternary"}]
    built = PACKED.apply(state, {"kind": "ternary"})
    assert [type(one) for one in chain_of(built)] == [MaskEncoding, BinaryEncoding]
    assert not weight_of(built)[~chain_of(module)[0].mask].any()
    assert holds(built)
    with pytest.raises(PlanError, match="zeros need"):
        PACKED.apply(state, {"kind": "binary"})


def test_it_follows_low_rank_part_by_part(every: Subjects) -> None:
    subject = every["full"]
    steps = (Step("lowrank", {"rank": 12}), Step("binarization", {"kind": "ternary"}))
    built = apply_steps(subject, steps, (LowRank(), PACKED))
    assert [type(chain_of(part)[0]) for part in leaves(built)] == [BinaryEncoding, BinaryEncoding]


@pytest.mark.parametrize("settings", [{"kind": "quaternary"}, {"kind": 2}, {}, {"kind": "binary", "scale": 1.0}])
def test_nonsense_is_refused(every: Subjects, settings: dict) -> None:
    with pytest.raises(PlanError, match="kind"):
        PACKED.apply(every["wide"], settings)


def test_encoded_weights_are_refused(every: Subjects) -> None:
    subject = every["wide"]
    module = encode(copied(subject.module), CodebookEncoding(torch.tensor([-0.1, 0.1]).double()))
    with pytest.raises(PlanError, match="before they are rounded"):
        PACKED.apply(replace(subject, module=module), {"kind": "ternary"})


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
@pytest.mark.parametrize("kind", ["binary", "ternary"])
def test_degenerate_weights_and_moments_give_finite_weights(every: Subjects, dtype: torch.dtype, kind: str) -> None:
    subject = every["wide"]
    for weight in (
        torch.zeros(48, 256),
        torch.full((48, 256), -0.25),
        torch.randn(48, 256) * (torch.arange(48)[:, None] > 5),
    ):
        linear = nn.Linear(256, 48)
        set_weight(linear, weight)
        linear = linear.to(dtype)
        for covariance in (subject.covariance * 0, torch.ones_like(subject.covariance), subject.covariance):
            state = replace(subject, module=linear, weight=weight_of(linear)[None], covariance=covariance)
            built = PACKED.apply(state, {"kind": kind})
            assert weight_of(built).dtype == dtype
            assert bool(torch.isfinite(weight_of(built)).all())
            assert holds(built)
            assert not weight_of(built)[(weight_of(linear) == 0).all(1)].any()
            if len(weight.unique()) == 1:
                assert torch.allclose(weight_of(built), weight_of(linear), rtol=1e-3)


@pytest.mark.parametrize("kind", ["binary", "ternary"])
@pytest.mark.parametrize("bits", [2, 8])
def test_quantization_after_it_puts_signs_on_integer_kernels_and_changes_nothing(
    every: Subjects, kind: str, bits: int
) -> None:
    settings = {"weights": "int8", "activations": "int8", "bits": bits}
    for subject in every.values():
        signs = PACKED.apply(subject, {"kind": kind})
        built = apply_steps(
            subject, (Step("binarization", {"kind": kind}), Step("quantization", settings)), (PACKED, Quantization())
        )
        assert is_integer(built)
        assert holds(built)
        assert torch.allclose(weight_of(built), weight_of(signs), rtol=1e-6)
        assert torch.equal(weight_of(built).sign(), weight_of(signs).sign())
