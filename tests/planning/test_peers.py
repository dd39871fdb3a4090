"""Whatever the goal, the plan is at least as good as that of any family by itself, and as greedy.

The peers are those of ``benchmarks/allocation.py``, which compares them on real networks; here it is a network with
coupled channels, and the table has package bytes too.
"""

from __future__ import annotations

import importlib.util
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest
import torch

from featherweight.contracts import Cost, Goal, Table
from featherweight.methods import FOR_PACKAGES
from featherweight.methods.pruning import Grounds
from featherweight.observation import observe
from featherweight.planning import allocate, build_table
from featherweight.planning.units import with_keeps
from featherweight.targets.litert import LiteRT
from featherweight.tasks import CLASSIFICATION, Split
from tests.planning.bare import small

PEERS = Path(__file__).parents[2] / "benchmarks" / "_peers.py"
BUDGETS = (1e-4, 1e-3, 1e-2, 1e-1)


def _loaded() -> ModuleType:
    spec = importlib.util.spec_from_file_location("peers", PEERS)
    assert spec is not None
    assert spec.loader is not None
    made = sys.modules["peers"] = importlib.util.module_from_spec(spec)  # where dataclasses look
    spec.loader.exec_module(made)
    return made


peers = _loaded()


@pytest.fixture(scope="module")
def table() -> Table:
    network, prunable = small()
    torch.manual_seed(0)
    split, capability = Split.of(torch.randn(96, 3, 16, 16)), LiteRT().capability
    seen = observe(network, split)
    whole = replace(network.cost, size_bytes=80_000, package_bytes=70_000.0)
    made = build_table(network, seen, split, CLASSIFICATION, capability, FOR_PACKAGES, whole=whole)
    grounds = Grounds(seen, split, CLASSIFICATION, network)
    return with_keeps(made, network, prunable, grounds, CLASSIFICATION, capability)


def _goals(table: Table) -> list[Goal]:
    whole = sum((row[0].cost for row in table.options.values()), Cost(0, 0, 0)) + table.fixed
    return [
        *(Goal(minimize=quantity) for quantity in ("size", "package", "macs")),
        Goal(minimize="size", max_macs=round(0.9 * whole.macs)),
        Goal(minimize="macs", max_size_bytes=round(0.4 * whole.size_bytes)),
        Goal(minimize="package", max_size_bytes=round(0.5 * whole.size_bytes), max_macs=round(0.95 * whole.macs)),
    ]


def test_there_is_something_to_choose(table: Table) -> None:
    assert {"pruning", "quantization", "lowrank", "entropy"} <= set(peers.families(table))
    assert all(len(row) > 1 for row in table.keeps.values())


@pytest.mark.parametrize("number", range(6))
@pytest.mark.parametrize("budget", BUDGETS)
def test_no_family_by_itself_does_better(table: Table, number: int, budget: float) -> None:
    goal = _goals(table)[number]
    ours = allocate(table, goal, budget)
    for family in peers.families(table):
        alone = allocate(peers.alone(table, family), goal, budget)
        if alone is not None:
            assert ours is not None, family
            assert ours.cost.of(goal.minimize) <= alone.cost.of(goal.minimize) * (1 + 1e-9), family


@pytest.mark.parametrize("quantity", ["size", "package", "macs"])
@pytest.mark.parametrize("budget", BUDGETS)
def test_greedy_does_no_better(table: Table, quantity: str, budget: float) -> None:
    goal = Goal(minimize=quantity)
    ours = allocate(table, goal, budget)
    assert ours is not None
    assert ours.cost.of(goal.minimize) <= peers.greedy(table, quantity, budget) * (1 + 1e-9)


def test_greedy_spends_no_more_than_it_may(table: Table) -> None:
    """A peer that cheats would prove nothing: what it finds is between ours and doing nothing."""
    nothing = sum((row[0].cost for row in table.options.values()), Cost(0, 0, 0)).size_bytes
    found = [peers.greedy(table, "size", budget) for budget in (0.0, *BUDGETS)]
    assert found == sorted(found, reverse=True)
    assert found[0] <= nothing
    assert found[-1] < 0.5 * nothing
