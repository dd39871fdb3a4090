"""Coupled units beside layers: exact costs at any width, and choices against brute force."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from featherweight.contracts import Choice, Cost, CostForm, Goal, Keep, Option, Step, Table
from featherweight.methods import METHODS
from featherweight.methods.pruning import Grounds, Prunable, Pruning, prune, select
from featherweight.methods.seam import cost_of
from featherweight.network import Network, capture
from featherweight.observation import Evidence, observe
from featherweight.planning.allocate import allocate, cheapest, gentlest
from featherweight.planning.plans import parse_plan, plan_of, plan_text
from featherweight.planning.table import build_table
from featherweight.planning.units import cuttings, independent_units, with_keeps
from featherweight.planning.widths import candidates, narrowed
from featherweight.tasks import CLASSIFICATION
from featherweight.tasks.data import Split
from featherweight.testing import ANY_TARGET


def _chain(layers: list[list[tuple[int, float]]], keeps: list[list[tuple[int, float]]]) -> Table:
    """Layers in a row, ten channels between each two; an option divides bytes, a keep takes channels away."""
    options, widths = {}, {}
    for number, row in enumerate(layers):
        name = f"layer{number}"
        forms = [CostForm((weight, 0, 0, 0), (1, 0, 0, 0), (1, 0, 0, 0)) for weight in (4, *(w for w, _ in row))]
        errors = [0.0, *(error for _, error in row)]
        options[name] = tuple(
            Option(name, (Step("m", {"n": at}),) if at else (), form.at(10, 10), error, error, form)
            for at, (form, error) in enumerate(zip(forms, errors, strict=True))
        )
        widths[name] = (10, 10)
    units = {}
    for number, row in enumerate(keeps):
        name = f"unit{number}"
        units[name] = tuple(
            Keep(
                name, (Step("pruning", {"keep": 10 - gone}),) if gone else (),
                {f"layer{number}": gone}, {f"layer{number + 1}": gone}, Cost(3 * gone, 0, gone), error, error,
            )
            for gone, error in [(0, 0.0), *row]
        )  # fmt: skip
    return Table(options, (), Cost(7, 7, 7), widths, units)


def _brute(table: Table, budget: float) -> int:
    best = None
    for keeps in itertools.product(*table.keeps.values()):
        narrow = narrowed(table, {keep.unit: keep for keep in keeps})
        for chosen in itertools.product(*narrow.options.values()):
            choice = Choice({o.unit: o for o in chosen}, {keep.unit: keep for keep in keeps})
            if choice.divergence <= budget * (1 + 1e-12):
                size = choice.cost.size_bytes
                best = size if best is None else min(best, size)
    assert best is not None
    return best


options = st.lists(st.tuples(st.integers(1, 3), st.floats(0.001, 1.0)), max_size=2)
cuts = st.lists(st.tuples(st.integers(1, 9), st.floats(0.001, 1.0)), max_size=3)


@given(st.lists(options, min_size=3, max_size=3), st.lists(cuts, min_size=2, max_size=2), st.floats(0.01, 3.0))
@settings(max_examples=60, deadline=None)
def test_choices_keep_the_budget_and_come_near_the_best(layers: list, keeps: list, budget: float) -> None:
    table = _chain(layers, keeps)
    choice = allocate(table, Goal(), budget)
    assert choice is not None
    assert choice.divergence <= budget * (1 + 1e-9)
    best, unpruned = _brute(table, budget), allocate(_chain(layers, [[], []]), Goal(), budget)
    assert unpruned is not None
    assert best <= choice.cost.size_bytes <= unpruned.cost.size_bytes
    # What a sweep of prices can't reach lies between two points of the trade's lower hull.
    assert choice.cost.size_bytes - best <= 0.5 * (cheapest(_chain([[], [], []], [[], []]), Goal()).cost.size_bytes)


def test_a_trade_without_gaps_is_solved_exactly() -> None:
    layers = [[(1, 0.010)], [(1, 0.012)], [(1, 0.5)]]
    keeps = [[(2, 0.02), (5, 0.2)], [(2, 0.3), (5, 0.9)]]
    table = _chain(layers, keeps)
    for budget in (0.0, 0.03, 0.05, 0.3, 0.6, 3.0):
        choice = allocate(table, Goal(), budget)
        assert choice is not None
        assert choice.cost.size_bytes == _brute(table, budget), budget


def test_every_candidate_set_has_one_keep_for_every_unit_and_the_first_keeps_all() -> None:
    table = _chain([[(1, 0.1)], [(2, 0.2)], []], [[(3, 0.1)], [(6, 0.01)]])
    found = candidates(table, "size")
    assert all(set(keeps) == {"unit0", "unit1"} for keeps in found)
    assert [keep.steps for keep in found[0].values()] == [(), ()]
    assert len({str([keep.steps for keep in keeps.values()]) for keeps in found}) == len(found) > 1


def test_limits_on_macs_are_met_by_taking_channels() -> None:
    table = _chain([[], [], []], [[(5, 0.1)], [(5, 0.2)]])
    whole = 300 + 7
    goal = Goal(minimize="size", max_macs=whole - 90)
    choice = gentlest(table, goal)
    assert choice is not None
    assert choice.cost.macs + table.fixed.macs <= whole - 90
    assert choice.keeps["unit0"].steps
    assert not choice.keeps["unit1"].steps
    assert gentlest(table, Goal(max_macs=20)) is None


def test_a_limit_on_macs_is_met_where_bytes_alone_would_look_elsewhere() -> None:
    form = {"big": CostForm((1000, 0, 0, 0), (0, 0, 0, 0), (1, 0, 0, 0)),
            "early": CostForm((0, 0, 0, 0), (1000, 0, 0, 0), (1, 0, 0, 0))}  # fmt: skip
    options = {name: (Option(name, (), one.at(10, 10), 0.0, 0.0, one),) for name, one in form.items()}
    step = (Step("pruning", {"keep": 5}),)
    keeps = {
        name: (
            Keep(name, (), {}, {}, Cost(0, 0, 0), 0.0, 0.0),
            Keep(name, step, {name: 5}, {}, Cost(0, 0, 0), 1.0, 1.0),
        )
        for name in form
    }
    table = Table(options, (), Cost(0, 0, 0), dict.fromkeys(form, (10, 10)), keeps)
    choice = allocate(table, Goal(max_macs=60_000), 1.5)
    assert choice is not None
    assert choice.keeps["early"].steps
    assert not choice.keeps["big"].steps


def test_limits_hold_for_what_no_option_touches() -> None:
    assert allocate(Table({}, (), Cost(1000, 0, 0)), Goal(max_size_bytes=10), 1.0) is None


class Branches(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, padding=1)
        self.depth = nn.Conv2d(16, 16, 3, padding=1, groups=16)
        self.left, self.right = nn.Conv2d(16, 12, 3, padding=1, bias=False), nn.Conv2d(16, 20, 1)
        self.wide, self.head = nn.Linear(32 * 4, 24), nn.Linear(24, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.depth(torch.relu(self.stem(x))))
        x = torch.nn.functional.avg_pool2d(torch.relu(torch.cat([self.left(x), self.right(x)], 1)), 4)
        return self.head(torch.relu(self.wide(x.flatten(1))))


Problem = tuple[Network, Split, Evidence, Prunable, Table]


@pytest.fixture(scope="module")
def problem() -> Problem:
    torch.manual_seed(0)
    x = torch.randn(64, 3, 8, 8)
    network, split = capture(Branches(), x[:2]), Split.of(x)
    seen, prunable = observe(network, split), Prunable.of(network, Pruning())
    table = build_table(
        network, seen, split, CLASSIFICATION, ANY_TARGET, METHODS, whole=replace(network.cost, size_bytes=100_000)
    )
    return (
        network,
        split,
        seen,
        prunable,
        with_keeps(table, network, prunable, Grounds(seen, split), CLASSIFICATION, ANY_TARGET),
    )


def test_every_unit_is_priced_and_its_divergence_rises_as_channels_go(problem: Problem) -> None:
    table = problem[-1]
    assert set(table.keeps) == {"stem", "left", "right", "wide"}
    for keeps in table.keeps.values():
        assert keeps[0].steps == ()
        assert keeps[0].divergence == 0.0
        counts = [int(keep.steps[0].settings["keep"]) for keep in keeps[1:]]
        assert counts == sorted(counts, reverse=True)
        assert all(a.divergence <= b.divergence for a, b in itertools.pairwise(keeps)), [
            (k.error, k.divergence) for k in keeps
        ]
        assert all(a.error <= b.error * (1 + 1e-9) for a, b in itertools.pairwise(keeps))


@pytest.mark.parametrize("seed", range(4))
def test_predicted_costs_of_any_widths_are_the_built_networks(problem: Problem, seed: int) -> None:
    network, _, seen, prunable, table = problem
    generator = torch.Generator().manual_seed(seed)
    keeps = {unit: row[int(torch.randint(len(row), (), generator=generator))] for unit, row in table.keeps.items()}
    narrow = narrowed(table, keeps)
    choice = Choice({name: row[0] for name, row in narrow.options.items()}, keeps)
    plan = parse_plan(plan_text(plan_of("n", "t", choice, table.fixed)))
    removals = select(network, prunable.coupling, plan, Grounds(seen)).removals
    smaller = prune(network, prunable.coupling, removals).network
    for layer in smaller.layers:
        built = cost_of(layer, smaller.module.get_submodule(layer.name), ANY_TARGET)
        assert narrow.options[layer.name][0].cost == built, layer.name
    total = choice.cost + table.fixed
    assert (total.macs, total.parameters) == (smaller.cost.macs, smaller.cost.parameters)


def test_units_that_share_a_slice_are_not_both_offered(problem: Problem) -> None:
    units = independent_units(problem[3].coupling)
    slices = [
        (piece.state, piece.axis, int(index)) for unit in units for piece in unit.slices for index in piece.indices.flat
    ]
    assert len(slices) == len(set(slices))


def test_the_predicted_error_of_a_keep_is_the_consumers_measured_one(problem: Problem) -> None:
    """In float64, on the very rows that the evidence was made from."""
    _, split, _, _, _ = problem
    torch.manual_seed(0)
    network = capture(Branches().double(), problem[0].example[0].double())
    x = split.take(range(len(split))).inputs[0].double()
    every = Split.of(x)
    seen, prunable = observe(network, every, rows_per_layer=10**9), Prunable.of(network, Pruning())
    unit = prunable.coupling.unit("left")
    (cut,) = cuttings(network, unit, Grounds(seen), Pruning(), [8])
    wide = network.module.wide
    with torch.no_grad():
        taken = network.module
        inner = torch.relu(taken.depth(torch.relu(taken.stem(x))))
        rows = torch.relu(torch.cat([taken.left(inner), taken.right(inner)], 1))
        rows = torch.nn.functional.avg_pool2d(rows, 4).flatten(1)
        error = rows @ (cut.weights["wide"] - wide.weight).T
    measured = float((error - error.mean(0)).square().sum(1).mean())
    assert cut.error == pytest.approx(measured, rel=0.01)
    gone = torch.tensor(cut.removals)
    assert not cut.weights["wide"].reshape(24, 32, 4)[:, gone].any()
