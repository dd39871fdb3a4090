"""The family of entropy-coded quantization."""

from __future__ import annotations

import pytest
import torch

from featherweight.contracts import PlanError, Refusal, Step
from featherweight.methods.entropy import Entropy
from featherweight.methods.lowrank import LowRank
from featherweight.methods.quantization import Quantization
from featherweight.methods.seam import Subject, apply_steps, chains, leaves, predicted_error
from featherweight.methods.sparsity import Sparsity
from featherweight.network.encodings import AffineEncoding, chain_of, encoding_of, holds
from featherweight.network.modules import weight_of
from featherweight.packaging import estimate_bits
from featherweight.testing import MethodContract, contract_problem, subjects

PACKED = Entropy(package=True)


@pytest.fixture(scope="module")
def every() -> dict[str, Subject]:
    """Every layer of the contract's network, observed once: methods change nothing that they are given."""
    return subjects(*contract_problem())


class TestEntropy(MethodContract):
    method = PACKED


def test_without_a_package_it_is_refused_with_the_reason(every: dict[str, Subject]) -> None:
    settings, (refusal,) = Entropy().options(every["wide"])
    assert not settings
    assert isinstance(refusal, Refusal)
    assert "package" in refusal.reason


def _levels(subject: Subject, step: float) -> torch.Tensor:
    (part,) = leaves(PACKED.apply(subject, {"step": step, "activations": "int8"}))
    encoding = encoding_of(part)
    assert isinstance(encoding, AffineEncoding)
    return encoding.grid.levels(weight_of(part), encoding.axis)


def test_one_step_serves_the_layer_and_coarser_ones_take_fewer_bits(every: dict[str, Subject]) -> None:
    subject = every["wide"]
    spent, errors = [], []
    for step in (0.25, 0.5, 1.0, 2.0):
        module = PACKED.apply(subject, {"step": step, "activations": "float32"})
        encoding = encoding_of(module)
        assert isinstance(encoding, AffineEncoding)
        scale = encoding.grid.scale
        assert bool((scale == scale[0]).all())
        assert float(scale[0]) == pytest.approx(
            step * float(weight_of(subject.module).square().mean().sqrt()), rel=1e-5
        )
        levels = _levels(subject, step)
        spent.append(estimate_bits(levels.reshape(len(levels), -1).int().numpy()))
        (state,) = _states(subject, step)
        errors.append(predicted_error(state))
    assert spent == sorted(spent, reverse=True)
    assert errors == sorted(errors)


def _states(subject: Subject, step: float) -> list[Subject]:
    found = [one for one in chains(subject, [PACKED]) if not isinstance(one, Refusal)]
    return [state for steps, state in found if steps and steps[0].settings["step"] == step]


def test_it_follows_factors_and_single_zeros(every: dict[str, Subject]) -> None:
    subject = every["wide"]
    low = [steps for one in chains(subject, [LowRank(), PACKED]) if not isinstance(one, Refusal) for steps in [one[0]]]
    assert any([step.method for step in steps] == ["lowrank", "entropy"] for steps in low)
    masked = apply_steps(
        subject,
        (
            Step("sparsity", {"zeros": 0.5, "criterion": "magnitude"}),
            Step("entropy", {"step": 0.5, "activations": "int8"}),
        ),
        [Sparsity(package=True), PACKED],
    )
    assert holds(masked)
    assert len(chain_of(masked)) == 2
    assert float((weight_of(masked) == 0).float().mean()) >= 0.5


@pytest.mark.parametrize(
    "settings",
    [{}, {"step": 0.5}, {"step": 0.0, "activations": "int8"}, {"step": True, "activations": "int8"},
     {"step": float("nan"), "activations": "int8"}, {"step": 0.5, "activations": "dynamic"},
     {"step": 0.5, "activations": "int8", "bits": 3}],
)  # fmt: skip
def test_settings_that_make_no_sense(every: dict[str, Subject], settings: dict) -> None:
    with pytest.raises(PlanError, match="step"):
        PACKED.apply(every["wide"], settings)


def test_a_weight_is_encoded_once(every: dict[str, Subject]) -> None:
    steps = (
        Step("quantization", {"weights": "int8", "activations": "int8"}),
        Step("entropy", {"step": 0.5, "activations": "int8"}),
    )
    with pytest.raises(PlanError, match="follow"):
        apply_steps(every["wide"], steps, [Quantization(), PACKED])
