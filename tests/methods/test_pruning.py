"""Pruning and refit on a small residual network."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional

from featherweight.contracts import PlanError
from featherweight.methods.pruning import kept_channels, prune, rank_groups, removals_for
from featherweight.network import Network, capture
from featherweight.network.channels import Coupling, analyse
from featherweight.network.surgery import confirm, silence
from featherweight.observation import Evidence, observe
from featherweight.recovery.refit import refit_network
from featherweight.tasks.data import Split


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


@pytest.fixture
def problem() -> tuple[Network, Split, Coupling, Evidence]:
    x = torch.randn(96, 3, 8, 8)
    network, split = capture(Residual(), x[:2]), Split.of(x)
    return network, split, confirm(network, analyse(network.graph)), observe(network, split)


@pytest.mark.parametrize("criterion", ["obs", "magnitude", "fpgm"])
def test_pruned_is_masked_for_every_criterion(problem: tuple, criterion: str) -> None:
    network, _, coupling, evidence = problem
    unit = coupling.unit("inner")
    ranking = rank_groups(network, unit, evidence, criterion)
    assert sorted(ranking.order.tolist()) == list(range(24))
    removals = {"inner": removals_for(unit, ranking, 0.5)}
    smaller = prune(network, coupling, removals)
    assert smaller.module.inner.out_channels == smaller.module.depth.groups == 12
    x = torch.randn(4, 3, 8, 8)
    masked = silence(network.graph, coupling, removals, dict(network.module.state_dict()))(x)
    assert torch.allclose(smaller.module(x), masked, atol=1e-5)


def _error(network: Network, other: Network, split: Split) -> float:
    x = split.take(range(len(split))).inputs[0]
    with torch.no_grad():
        return float((network.module(x) - other.module(x)).square().mean())


def test_the_refit_repairs_most_of_the_damage(problem: tuple) -> None:
    network, split, coupling, evidence = problem
    unit = coupling.unit("inner")
    removals = {"inner": removals_for(unit, rank_groups(network, unit, evidence), 0.5)}
    smaller = prune(network, coupling, removals)
    kept = kept_channels(coupling, removals, network)
    assert {name: len(channels) for name, channels in kept.items()} == {"inner": 12, "depth": 12}
    fitted = refit_network(network, smaller, kept, split)
    assert _error(network, fitted, split) < 0.3 * _error(network, smaller, split)


def test_refitting_an_unpruned_network_changes_nothing(problem: tuple) -> None:
    network, split, _, _ = problem
    same = refit_network(network, network, {}, split)
    assert _error(network, same, split) < 1e-8


def test_the_best_choice_hurts_less_than_the_worst(problem: tuple) -> None:
    network, split, coupling, evidence = problem
    unit = coupling.unit("inner")
    order = rank_groups(network, unit, evidence).order.tolist()
    errors = []
    for gone in (order[:12], order[12:]):
        removals = {"inner": tuple(sorted(gone))}
        smaller = prune(network, coupling, removals)
        kept = kept_channels(coupling, removals, network)
        errors.append(_error(network, refit_network(network, smaller, kept, split), split))
    assert errors[0] < 0.5 * errors[1]


@pytest.mark.parametrize("ratio", [0.0, -1.0, 1.5])
def test_ratios_that_empty_a_layer_are_refused(problem: tuple, ratio: float) -> None:
    network, _, coupling, evidence = problem
    unit = coupling.unit("inner")
    with pytest.raises(PlanError, match="keep ratio"):
        removals_for(unit, rank_groups(network, unit, evidence), ratio)


def test_kept_channels_are_a_multiple_of_what_the_target_asks_for(problem: tuple) -> None:
    network, _, coupling, evidence = problem
    unit = coupling.unit("inner")
    ranking = rank_groups(network, unit, evidence)
    assert [24 - len(removals_for(unit, ranking, ratio, 8)) for ratio in (0.01, 0.3, 0.5, 0.9, 1.0)] == [
        8,
        8,
        16,
        24,
        24,
    ]


def test_unknown_criteria_are_refused_by_name(problem: tuple) -> None:
    network, _, coupling, evidence = problem
    with pytest.raises(PlanError, match="'luck'"):
        rank_groups(network, coupling.unit("inner"), evidence, "luck")
