"""The sharing family."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

from featherweight.contracts import PlanError, Refusal, Step
from featherweight.methods.lowrank import LowRank
from featherweight.methods.quantization import Quantization
from featherweight.methods.seam import Subject, apply_steps, chains, cost_of, leaves, predicted_error
from featherweight.methods.sharing import Sharing
from featherweight.methods.sparsity import Sparsity
from featherweight.network.capture import capture
from featherweight.network.encodings import AffineEncoding, CodebookEncoding, MaskEncoding, chain_of, encode, holds
from featherweight.network.modules import copied, set_weight, weight_of
from featherweight.numerics.affine import fit_symmetric
from featherweight.tasks.data import Split
from featherweight.testing import ANY_TARGET, MethodContract, contract_problem, subjects

Subjects = dict[str, Subject]
PACKED = Sharing(package=True)


@pytest.fixture(scope="module")
def every() -> Subjects:
    """Every layer of the contract's network, observed once: methods change nothing that they are given."""
    return subjects(*contract_problem())


class TestSharing(MethodContract):
    method = PACKED


def test_without_a_package_it_is_refused_with_the_reason(every: Subjects) -> None:
    settings, (refusal,) = Sharing().options(every["wide"])
    assert not settings
    assert "stores every value anyway; only a package gets smaller" in refusal.reason
    assert refusal.remedy


def test_small_layers_are_offered_few_values_or_none(every: Subjects) -> None:
    counts = {name: [choice["values"] for choice in PACKED.options(subject)[0]] for name, subject in every.items()}
    assert counts["wide"] == [4, 8, 16, 32, 64]
    assert counts["grouped"] == [4, 8, 16]
    tiny = nn.Sequential(nn.Linear(3, 5)).double()
    x = torch.randn(4, 3).double()
    subject = subjects(capture(tiny, x), Split.of(x))["0"]
    settings, (refusal,) = PACKED.options(subject)
    assert not settings
    assert "too few" in refusal.reason


@pytest.mark.parametrize("values", [2, 5, 16])
def test_a_layer_has_as_many_values_as_asked_for(every: Subjects, values: int) -> None:
    for subject in every.values():
        built = PACKED.apply(subject, {"values": values})
        assert len(weight_of(built).unique()) <= values
        assert len(chain_of(built)[0].codebook) == values
        assert holds(built)


def test_the_error_falls_with_more_values_and_the_file_stays_the_same(every: Subjects) -> None:
    subject = every["wide"]
    built = [PACKED.apply(subject, {"values": n}) for n in (2, 4, 8, 16, 32)]
    errors = [predicted_error(replace(subject, module=module)) for module in built]
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 0.02 * errors[0]
    assert len({cost_of(subject.layer, module, ANY_TARGET) for module in (*built, subject.module)}) == 1


def test_the_inputs_that_vary_count_more_and_compensation_pays(every: Subjects) -> None:
    subject = every["wide"]
    built = predicted_error(replace(subject, module=PACKED.apply(subject, {"values": 8})))
    blind = replace(subject, covariance=torch.eye(subject.weight.shape[2]).double()[None])
    other = predicted_error(replace(subject, module=PACKED.apply(blind, {"values": 8})))
    assert built < 0.8 * other


def test_zeros_stay_and_zero_is_a_value(every: Subjects) -> None:
    for subject in every.values():
        module = _masked(subject.module)
        mask = chain_of(module)[0].mask
        built = PACKED.apply(replace(subject, module=module), {"values": 4})
        weight = weight_of(built)
        assert [type(one) for one in chain_of(built)] == [MaskEncoding, CodebookEncoding]
        assert not weight[~mask].any()
        assert 0.0 in chain_of(built)[1].codebook.tolist()
        assert holds(built)


def _masked(module: nn.Module) -> nn.Module:
    return encode(copied(module), MaskEncoding(torch.rand(weight_of(module).shape) > 0.5))


def test_it_follows_low_rank_part_by_part(every: Subjects) -> None:
    subject = every["wide"]
    alone = LowRank().apply(subject, {"rank": 16})
    built = apply_steps(subject, (Step("lowrank", {"rank": 16}), Step("sharing", {"values": 32})), (LowRank(), PACKED))
    assert [len(weight_of(part).unique()) for part in leaves(built)] == [32, 32]
    errors = [predicted_error(replace(subject, module=module)) for module in (alone, built)]
    assert errors[0] < errors[1] < 1.5 * errors[0]


@pytest.mark.parametrize(
    "settings",
    [{"values": 1}, {"values": 2.0}, {"values": "8"}, {"values": True}, {"values": 5000}, {}, {"values": 4, "x": 1}],
)
def test_nonsense_is_refused(every: Subjects, settings: dict) -> None:
    with pytest.raises(PlanError, match="values"):
        PACKED.apply(every["wide"], settings)


def test_rounded_weights_are_not_shared_afterwards(every: Subjects) -> None:
    subject = every["wide"]
    module = PACKED.apply(subject, {"values": 4})
    with pytest.raises(PlanError, match="before they are rounded"):
        PACKED.apply(replace(subject, module=module), {"values": 4})
    linear = nn.Linear(256, 48)
    encode(linear, AffineEncoding(fit_symmetric(weight_of(linear)), axis=0, integer=True))
    with pytest.raises(PlanError, match="before they are rounded"):
        PACKED.apply(replace(subject, module=linear), {"values": 4})


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
@pytest.mark.parametrize("fill", ["zeros", "constant", "two rows alike"])
def test_degenerate_weights_and_moments_give_finite_weights(every: Subjects, dtype: torch.dtype, fill: str) -> None:
    subject = every["wide"]
    linear = nn.Linear(256, 48)
    weight = {"zeros": torch.zeros(48, 256), "constant": torch.full((48, 256), 0.3)}.get(fill, torch.randn(1, 256))
    set_weight(linear, weight.expand(48, 256).clone())
    linear = linear.to(dtype)
    for covariance in (subject.covariance * 0, torch.ones_like(subject.covariance), subject.covariance):
        state = replace(subject, module=linear, weight=weight_of(linear)[None], covariance=covariance)
        built = PACKED.apply(state, {"values": 16})
        assert weight_of(built).dtype == dtype
        assert bool(torch.isfinite(weight_of(built)).all())
        assert holds(built)
        if fill != "two rows alike":
            assert torch.equal(weight_of(built), weight_of(linear))


def test_every_chain_that_the_table_would_offer_can_be_taken() -> None:
    network, split = contract_problem()
    methods = (Sparsity(package=True), Sharing(package=True), Quantization())
    subject = subjects(network, split)["narrow"]
    rows = [found for found in chains(subject, methods) if not isinstance(found, Refusal)]
    assert any([step.method for step in steps] == ["sparsity", "sharing", "quantization"] for steps, _ in rows)
    for steps, _ in rows:
        apply_steps(subject, steps, methods)
