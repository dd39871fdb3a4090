"""The grouping family."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from featherweight.contracts import Capability, Plan, PlanError, Step
from featherweight.methods import METHODS
from featherweight.methods.apply import apply, rebuild
from featherweight.methods.grouping import Grouping
from featherweight.methods.quantization import Quantization
from featherweight.methods.seam import Subject, apply_steps, chains, effective_weight, predicted_error
from featherweight.network.capture import capture
from featherweight.network.composition import positions, stored_values
from featherweight.network.encodings import (
    AffineEncoding,
    HalfEncoding,
    encode,
    encoding_of,
    encodings,
    holds,
    is_integer,
    weight_type,
)
from featherweight.network.grids import with_grids
from featherweight.network.grouped import PermutedConvolution
from featherweight.network.modules import copied, shift_bias
from featherweight.network.surgery import Slim
from featherweight.observation.evidence import observe
from featherweight.observation.rows import output_rows, sample_positions
from featherweight.recovery import recover
from featherweight.targets.litert import LiteRT
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


INT8 = Step("quantization", {"weights": "int8", "activations": "int8"})


def test_quantization_rounds_the_blocks_alone_and_the_permutation_stays() -> None:
    subject = _problem()[0]["wide"]
    steps = (Step("grouping", {"groups": 4}), INT8)
    grouped, built = (apply_steps(subject, steps[:count], METHODS) for count in (1, 2))
    assert isinstance(built, PermutedConvolution)
    assert torch.equal(built.inputs, grouped.inputs)
    assert torch.equal(built.outputs, grouped.outputs)
    assert weight_type(built) == "int8"
    assert is_integer(built)
    assert holds(built)
    encoding = encoding_of(built)
    assert isinstance(encoding, AffineEncoding)
    steps_of = built.blocks.flatten(1) / encoding.scale.double().unsqueeze(1)
    assert torch.allclose(steps_of, steps_of.round(), atol=1e-4)
    difference = (built.weight - grouped.weight).abs().amax((1, 2, 3))
    assert bool((difference <= encoding.scale[built.places] * 127).all())
    assert not built.weight[grouped.weight == 0].any()
    assert [name for name, _ in encodings(nn.Sequential(built))] == ["0.convolution"]  # stored once
    nearest = Step("quantization", {**INT8.settings, "rounding": "nearest", "bits": 4})
    errors = [
        predicted_error(replace(subject, module=apply_steps(subject, (steps[0], one), METHODS), input_noise=0.0))
        for one in (Step("quantization", {**INT8.settings, "bits": 4}), nearest)
    ]
    assert errors[0] < errors[1]  # GPTQ under each set's own inputs


def test_what_follows_grouping_is_offered_where_the_target_lists_the_kernel() -> None:
    subject = _problem()[0]["wide"]
    listed = {kind: kinds | {"grouped_conv2d"} for kind, kinds in ANY_TARGET.layer_kinds.items()}
    for capability, wanted in ((GROUPS, False), (replace(GROUPS, layer_kinds=listed), True)):
        state = replace(subject, module=Grouping().apply(subject, {"groups": 4}), capability=capability)
        settings, refusals = Quantization().options(state)
        assert bool(settings) == wanted
        assert all("no int8 kernel for a grouped_conv2d" in one.reason for one in refusals if "int8" in one.action)
        chains_of = [
            found[0] for found in chains(replace(subject, capability=capability), METHODS) if found.__class__ is tuple
        ]
        names = {tuple(step.method for step in steps) for steps in chains_of}
        assert (("grouping", "quantization") in names) == wanted
    dynamic = Step("quantization", {"weights": "int8", "activations": "dynamic"})
    with pytest.raises(PlanError, match="grouped_conv2d"):
        apply_steps(replace(subject, capability=GROUPS), (Step("grouping", {"groups": 4}), dynamic), METHODS)


def test_grouped_and_rounded_it_runs_on_an_integer_kernel(tmp_path: Path) -> None:
    _, x = _problem(torch.float32)
    network = capture(_Net().eval(), x[:2])
    target, split = LiteRT(), Split.of(x)
    plan = Plan("", "litert", {"wide": (Step("grouping", {"groups": 4}), INT8)})
    applied = apply(network, plan, split, target.capability, METHODS)
    built = recover(Slim.whole(network), applied, split, target)
    assert built.grids
    artefact = target.lower(built, tmp_path / "grouped.tflite")
    assert artefact.operators["CONV_2D int8"] == 1
    found = target.load(tmp_path / "grouped.tflite")((x[:8].numpy(),))
    simulated = with_grids(built)(x[:8]).detach().numpy()
    assert abs(found - simulated).max() < 0.05 * simulated.std()
    again = rebuild(network, plan, applied.module.state_dict(), target.capability, METHODS)
    assert torch.equal(again.module(x), applied.module(x))
