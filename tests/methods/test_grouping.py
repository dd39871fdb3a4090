"""The grouping family."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

from featherweight.contracts import Capability, PlanError
from featherweight.methods.grouping import Grouping
from featherweight.methods.seam import Subject, effective_weight, predicted_error
from featherweight.network.capture import capture
from featherweight.network.composition import positions, stored_values
from featherweight.network.encodings import HalfEncoding, encode
from featherweight.network.grouped import PermutedConvolution
from featherweight.network.modules import copied, shift_bias
from featherweight.observation.evidence import observe
from featherweight.observation.rows import output_rows, sample_positions
from featherweight.tasks.data import Split
from featherweight.testing import ANY_TARGET, subjects

_KINDS = {**ANY_TARGET.layer_kinds, "float32": ANY_TARGET.layer_kinds["float32"] | {"grouped_conv2d"}}
GROUPS = replace(ANY_TARGET, layer_kinds=_KINDS)


class _Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 16, 3, padding=1)
        self.wide = nn.Conv2d(16, 32, 3, stride=2, padding=1, bias=False)
        self.point = nn.Conv2d(32, 16, 1)
        self.linear = nn.Linear(16, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.point(torch.relu(self.wide(torch.relu(self.first(x))))))
        return self.linear(x.mean((2, 3)))


def _problem(
    dtype: torch.dtype = torch.float64, capability: Capability = GROUPS
) -> tuple[dict[str, Subject], torch.Tensor]:
    torch.manual_seed(0)
    x = (torch.randn(48, 3, 8, 8) @ torch.randn(8, 8) + 0.2).to(dtype)
    return subjects(capture(_Net().to(dtype), x[:2]), Split.of(x), capability), x


def test_options_divide_the_channels_and_save_more_than_gathering_takes() -> None:
    every, _ = _problem()
    settings, refusals = Grouping().options(every["wide"])
    assert settings == [{"groups": 4}]  # two sets save less than gathering takes; eight are no multiple of four
    assert not refusals


@pytest.mark.parametrize(
    ("name", "word"),
    [("first", "don't divide"), ("point", "gathering its channels"), ("linear", "no channels to gather")],
)
def test_what_gains_nothing_is_refused_with_the_reason(name: str, word: str) -> None:
    every, _ = _problem()
    settings, (refusal,) = Grouping().options(every[name])
    assert not settings
    assert word in refusal.reason


def test_a_target_without_grouped_kernels_gets_none() -> None:
    every, _ = _problem(capability=ANY_TARGET)
    settings, (refusal,) = Grouping().options(every["wide"])
    assert not settings
    assert "no kernel for grouped" in refusal.reason
    assert "grouped_conv2d" in refusal.remedy


@pytest.mark.parametrize("groups", [2, 4, 16])
def test_error_macs_and_parameters_are_those_of_the_built_module(groups: int) -> None:
    every, x = _problem()
    subject = every["wide"]
    before = copied(subject.module).state_dict()
    built = Grouping().apply(subject, {"groups": groups})
    assert isinstance(built, PermutedConvolution)
    state = replace(subject, module=built, input_noise=0.0)
    given = torch.relu(_first(every)(x))
    at = sample_positions(subject.layer, len(x), 10**9, torch.Generator())
    error = output_rows(subject.layer, built(given) - subject.module(given), at)
    measured = float((error - error.mean(1, keepdim=True)).square().sum(2).mean(1).sum())
    assert predicted_error(state) == pytest.approx(measured, rel=1e-6)
    network = capture(built, given[:2])
    assert network.cost.macs == stored_values(built) * positions(subject.layer, [built])[0]
    assert network.cost.parameters == stored_values(built) + 32 == 32 * 16 * 9 // groups + 32
    assert all(torch.equal(value, before[key]) for key, value in subject.module.state_dict().items())
    again = Grouping().apply(subject, {"groups": groups}).state_dict()
    assert all(torch.equal(value, again[key]) for key, value in built.state_dict().items())


def _first(every: dict[str, Subject]) -> nn.Module:
    return every["first"].module


def test_more_groups_lose_more_and_a_moved_bias_moves_the_outputs() -> None:
    every, x = _problem()
    subject = every["wide"]
    built = [Grouping().apply(subject, {"groups": groups}) for groups in (2, 4, 8)]
    errors = [predicted_error(replace(subject, module=module)) for module in built]
    assert errors == sorted(errors)
    given, shift = torch.relu(_first(every)(x)), torch.arange(32).double()
    before = built[0](given)
    shift_bias(built[0], shift)
    assert torch.allclose(built[0](given) - before, shift.view(1, -1, 1, 1).expand_as(before))


@pytest.mark.parametrize(
    "settings", [{"groups": 3}, {"groups": 1}, {"groups": 2.0}, {"groups": True}, {}, {"groups": 2, "x": 1}]
)
def test_nonsense_is_refused(settings: dict) -> None:
    every, _ = _problem()
    with pytest.raises(PlanError, match="groups"):
        Grouping().apply(every["wide"], settings)


def test_encoded_and_mirrored_layers_are_refused() -> None:
    every, _ = _problem()
    subject = every["wide"]
    encoded = replace(subject, module=encode(copied(subject.module), HalfEncoding()))
    mirrored = copied(subject.module)
    mirrored.padding_mode = "reflect"
    for state, word in ((encoded, "encoded already"), (replace(subject, module=mirrored), "padding by reflect")):
        assert word in Grouping().options(state)[1][0].reason
        with pytest.raises(PlanError, match=word):
            Grouping().apply(state, {"groups": 2})


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_degenerate_weights_and_moments_give_finite_weights(dtype: torch.dtype) -> None:
    every, _ = _problem()
    subject = every["wide"]
    for fill in (0.0, 0.3):
        module = copied(subject.module).to(dtype)
        module.weight.data.fill_(fill)
        for covariance in (subject.covariance * 0, torch.ones_like(subject.covariance), subject.covariance):
            state = replace(subject, module=module, weight=module.weight.reshape(1, 32, -1), covariance=covariance)
            built = Grouping().apply(state, {"groups": 4})
            assert built.weight.dtype == dtype
            assert bool(torch.isfinite(effective_weight(replace(state, module=built))).all())


def test_one_sample_is_enough_to_build_on() -> None:
    torch.manual_seed(0)
    x = torch.randn(1, 3, 8, 8).double()
    network = capture(_Net().double(), x)
    seen = observe(network, Split.of(x)).layers["wide"]
    every = subjects(network, Split.of(x), GROUPS)
    built = Grouping().apply(every["wide"], {"groups": 4})
    assert seen.rows == 16
    assert bool(torch.isfinite(built.weight).all())
