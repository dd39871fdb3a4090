"""Pruning and the walk's refit on a small residual network."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn import functional

from featherweight.contracts import Plan, PlanError, Step
from featherweight.methods.apply import apply
from featherweight.methods.pruning import (
    Grounds,
    Prunable,
    Pruning,
    alignment,
    prune,
    removals_for,
    select,
)
from featherweight.methods.pruning.ranking import rank_groups
from featherweight.methods.seam import layer_steps
from featherweight.network import Network, capture
from featherweight.network.channels import Coupling, analyse
from featherweight.network.surgery import Slim, confirm, silence
from featherweight.observation import Evidence, observe
from featherweight.tasks.data import Split
from featherweight.testing import ANY_TARGET


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.inner = nn.Conv2d(8, 24, 3, padding=1)
        self.depth = nn.Conv2d(24, 24, 3, padding=1, groups=24)
        self.outer = nn.Conv2d(24, 8, 1)
        self.head = nn.Linear(8, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = functional.relu(self.stem(x))
        x = functional.relu(self.outer(functional.relu(self.depth(functional.relu(self.inner(x))))) + x)
        return self.head(x.mean((2, 3)))


Problem = tuple[Network, Split, Coupling, Evidence]


@pytest.fixture
def problem() -> Problem:
    x = torch.randn(96, 3, 8, 8)
    network, split = capture(Residual(), x[:2]), Split.of(x)
    return network, split, confirm(network, analyse(network.graph)), observe(network, split)


def _refit(slim: Slim, split: Split) -> Network:
    return apply(slim, Plan("n", "t", {}), split, ANY_TARGET, ())


def _error(network: Network, other: Network, split: Split) -> float:
    x = split.take(range(len(split))).inputs[0]
    with torch.no_grad():
        return float((network.module(x) - other.module(x)).square().mean())


@pytest.mark.parametrize("criterion", ["obs", "magnitude", "fpgm"])
def test_pruned_is_masked_for_every_criterion(problem: Problem, criterion: str) -> None:
    network, _, coupling, evidence = problem
    plan = Plan("n", "t", {"inner": (Step("pruning", {"keep": 12, "criterion": criterion}),)})
    removals = select(network, coupling, plan, Grounds(evidence)).removals
    smaller = prune(network, coupling, removals).network
    assert smaller.module.inner.out_channels == smaller.module.depth.groups == 12
    x = torch.randn(4, 3, 8, 8)
    masked = silence(network.graph, coupling, removals, dict(network.module.state_dict()))(x)
    assert torch.allclose(smaller.module(x), masked, atol=1e-5)


def test_the_refit_repairs_most_of_the_damage(problem: Problem) -> None:
    network, split, coupling, evidence = problem
    unit = coupling.unit("inner")
    slim = prune(network, coupling, {"inner": removals_for(unit, rank_groups(network, unit, evidence), 12)})
    assert {name: len(channels) for name, channels in slim.kept.items()} == {"inner": 12, "depth": 12}
    assert _error(network, _refit(slim, split), split) < 0.3 * _error(network, slim.network, split)


def test_an_error_that_came_down_the_shortcut_is_repaired(problem: Problem) -> None:
    network, split, coupling, _ = problem
    slim = prune(network, coupling, {"inner": range(6)})
    slim.network.module.stem.weight.mul_(0.9)  # the surgery's own copy
    slim.network.module.stem.bias.zero_()
    broken = Slim(network, capture(slim.network.module, network.example), slim.removals, slim.kept)
    assert _error(network, _refit(broken, split), split) < 0.1 * _error(network, broken.network, split)


def test_refitting_an_unpruned_network_changes_nothing(problem: Problem) -> None:
    network, split, _, _ = problem
    untouched = Slim(network, network, {"none": (0,)})  # as if something had gone
    assert _error(network, _refit(untouched, split), split) < 1e-8


def test_the_best_choice_hurts_less_than_the_worst(problem: Problem) -> None:
    network, split, coupling, evidence = problem
    order = rank_groups(network, coupling.unit("inner"), evidence).order.tolist()
    errors = [
        _error(network, _refit(prune(network, coupling, {"inner": sorted(gone)}), split), split)
        for gone in (order[:12], order[12:])
    ]
    assert errors[0] < 0.5 * errors[1]


def test_pruning_comes_first_and_the_layers_own_steps_follow(problem: Problem) -> None:
    network, _, coupling, evidence = problem
    steps = (Step("pruning", {"keep": 8}), Step("quantization", {"weights": "float16", "activations": "float32"}))
    assert layer_steps(steps) == steps[1:]
    with pytest.raises(PlanError, match="put pruning first"):
        layer_steps(steps[::-1])
    assert len(select(network, coupling, Plan("n", "t", {"inner": steps}), Grounds(evidence)).removals["inner"]) == 16


@pytest.mark.parametrize(
    "settings", [{"keep": 0}, {"keep": 25}, {"keep": 2.5}, {}, {"keep": 4, "ratio": 0.5}, {"keep": 4, "criterion": "x"}]
)
def test_settings_that_make_no_sense_are_refused(problem: Problem, settings: dict) -> None:
    network, _, coupling, evidence = problem
    plan = Plan("n", "t", {"inner": (Step("pruning", settings),)})
    with pytest.raises(PlanError):
        select(network, coupling, plan, Grounds(evidence))


def test_a_unit_that_is_not_there_is_refused_by_name(problem: Problem) -> None:
    network, _, coupling, evidence = problem
    plan = Plan("n", "t", {"elsewhere": (Step("pruning", {"keep": 1}),)})
    with pytest.raises(PlanError, match="'elsewhere'"):
        select(network, coupling, plan, Grounds(evidence))


@pytest.mark.parametrize(("multiple", "step"), [(1, 1), (4, 4), (8, 4), (16, 4), (2, 2)])
def test_counts_are_aligned_as_far_as_that_leaves_a_choice(problem: Problem, multiple: int, step: int) -> None:
    unit = problem[2].unit("inner")
    capability = replace(ANY_TARGET, channel_multiple=multiple)
    assert alignment(unit, capability) == step
    counts = Pruning().options(unit, capability)
    assert counts == sorted(counts, reverse=True)
    assert all(0 < count < 24 and count % step == 0 for count in counts)
    assert len(counts) >= 3


def test_unknown_criteria_are_refused_by_name(problem: Problem) -> None:
    network, _, coupling, evidence = problem
    with pytest.raises(PlanError, match="'luck'"):
        rank_groups(network, coupling.unit("inner"), evidence, "luck")


def test_what_can_go_is_analysed_and_tried(problem: Problem) -> None:
    assert [unit.name for unit in Prunable.of(problem[0], Pruning()).coupling.units] == ["stem", "inner"]
