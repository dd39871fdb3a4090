"""Apply and rebuild: plans become networks, repaired as they go, and come back from a state dict."""

from __future__ import annotations

import copy

import pytest
import torch

from featherweight.contracts import Plan, PlanError, Step
from featherweight.methods import METHODS
from featherweight.methods.apply import apply, rebuild
from featherweight.methods.seam import apply_steps
from featherweight.network import capture
from featherweight.network.modules import replace_module
from featherweight.testing import ANY_TARGET, contract_problem, subjects

INT8 = Step("quantization", {"weights": "int8", "activations": "int8"})
HALF = Step("quantization", {"weights": "float16", "activations": "float32"})


def _plan(**choices: tuple[Step, ...]) -> Plan:
    return Plan("network", "target", choices)


def test_an_empty_plan_changes_nothing() -> None:
    network, split = contract_problem()
    same = apply(network, _plan(), split, ANY_TARGET, METHODS)
    x = network.example[0]
    assert torch.equal(same.module(x), network.module(x))


def test_errors_are_repaired_as_they_arise() -> None:
    """With a lossy first layer, the walk's refit brings the outputs nearer than the same steps taken one by one."""
    network, split = contract_problem()
    lossy = {"full": (Step("lowrank", {"rank": 4}),), "wide": (Step("lowrank", {"rank": 16}),)}
    walked = apply(network, _plan(**lossy), split, ANY_TARGET, METHODS)
    module = copy.deepcopy(network.module)
    for name, steps in lossy.items():
        replace_module(module, name, apply_steps(subjects(network, split)[name], steps, METHODS))
    x = split.take(range(len(split))).inputs[0]
    wanted = network.module(x)
    with_refit, without = (float((other(x) - wanted).square().mean()) for other in (walked.module, module))
    assert with_refit < 0.7 * without


def test_the_original_is_untouched_and_the_call_repeatable() -> None:
    network, split = contract_problem()
    before = copy.deepcopy(network.module.state_dict())
    plan = _plan(full=(INT8,), wide=(Step("lowrank", {"rank": 8}), INT8))
    one, two = (apply(network, plan, split, ANY_TARGET, METHODS).fingerprint() for _ in range(2))
    assert one == two
    assert all(torch.equal(value, before[name]) for name, value in network.module.state_dict().items())


def test_state_and_plan_rebuild_the_network_without_pickling() -> None:
    network, split = contract_problem()
    network = capture(network.module.float(), network.example[0].float())
    split = type(split).of(split.take(range(len(split))).inputs[0].float())
    plan = _plan(full=(INT8,), depth=(HALF,), wide=(Step("lowrank", {"rank": 8}), INT8))
    made = apply(network, plan, split, ANY_TARGET, METHODS)
    again = rebuild(network, plan, dict(made.module.state_dict()), ANY_TARGET, METHODS)
    assert again.fingerprint() == made.fingerprint()
    assert network.module.grouped.bias is None
    assert made.module.grouped.bias is not None  # the refit gave an untouched layer one, and the rebuild kept it


def test_a_state_of_another_plan_is_refused() -> None:
    network, split = contract_problem()
    made = apply(network, _plan(wide=(Step("lowrank", {"rank": 8}),)), split, ANY_TARGET, METHODS)
    with pytest.raises(PlanError, match="belong together"):
        rebuild(network, _plan(), dict(made.module.state_dict()), ANY_TARGET, METHODS)


@pytest.mark.parametrize("name", ["nowhere", ""])
def test_a_plan_for_a_layer_that_is_not_there_is_refused(name: str) -> None:
    network, split = contract_problem()
    with pytest.raises(PlanError, match="must be a layer"):
        apply(network, _plan(**{name: (INT8,)}), split, ANY_TARGET, METHODS)
