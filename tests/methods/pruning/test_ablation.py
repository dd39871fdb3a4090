"""Mean replacement and Shapley values, against networks that are silenced by hand and against brute force."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from featherweight.contracts import DataError, ModelError, PlanError
from featherweight.methods.pruning.ablation import Damage, Sampling, causal, shapley, shapley_marginals
from featherweight.network import capture
from featherweight.network.capture import Network
from featherweight.network.channels import analyse
from featherweight.tasks import CLASSIFICATION, REGRESSION
from featherweight.tasks.data import Split
from tests.zoo.catalogue import ZOO


class Chain(nn.Module):
    """Channels 0 and 1 of the inner layer say the same; channel 2 says nothing; activations are in place."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Conv2d(3, 6, 3, padding=1)
        self.depth = nn.Conv2d(6, 6, 3, padding=1, groups=6)
        self.outer = nn.Conv2d(6, 4, 1)
        self.head = nn.Linear(4, 5)
        with torch.no_grad():
            for layer in (self.inner, self.depth):
                layer.weight[1], layer.bias[1] = layer.weight[0], layer.bias[0]
            self.outer.weight[:, 2] = 0.0
            self.head.weight.mul_(4.0)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.depth(torch.relu_(self.inner(x)))
        return self.head(torch.relu_(self.outer(torch.relu_(x))).mean((2, 3)))


@pytest.fixture
def problem() -> tuple[Network, Split]:
    x = torch.randn(40, 3, 6, 6)
    return capture(Chain(), x[:2]), Split.of(x)


def silenced_by_hand(network: Network, split: Split, groups: list[int]) -> np.ndarray:
    """The module with hooks that put means into both layers that produce the channels."""
    x = split.take(range(len(split))).inputs[0]
    module, means = network.module, {}
    with torch.no_grad():
        means[module.inner] = module.inner(x).mean((0, 2, 3))
        means[module.depth] = module.depth(torch.relu(module.inner(x))).mean((0, 2, 3))

        def replace(layer: nn.Module, _: object, value: torch.Tensor) -> torch.Tensor:
            value = value.clone()
            value[:, groups] = means[layer][groups].view(1, -1, 1, 1)
            return value

        hooks = [layer.register_forward_hook(replace) for layer in means]
        outputs = module(x).numpy()
    for hook in hooks:
        hook.remove()
    return outputs


# ---------------------------------------------------------------------------------------------------- mean replacement


@pytest.mark.parametrize("groups", [[], [0], [2], [0, 1], [3, 5], [0, 1, 2, 3, 4, 5]])
def test_damage_is_the_divergence_of_the_network_silenced_by_hand(problem: tuple, groups: list[int]) -> None:
    network, split = problem
    damage = Damage(network, analyse(network.graph).unit("inner"), split, CLASSIFICATION)
    reference = network.module(split.take(range(40)).inputs[0]).numpy()
    expected = CLASSIFICATION.divergence(reference, silenced_by_hand(network, split, groups))
    assert damage.of(groups) == pytest.approx(expected, rel=1e-4, abs=1e-9)


def test_a_channel_that_nobody_reads_is_worth_nothing_and_goes_first(problem: tuple) -> None:
    network, split = problem
    table = causal(network, [analyse(network.graph).unit("inner")], split, CLASSIFICATION)
    assert table.criterion == "causal"
    assert table.runs == len(table.rows) == 6
    assert [row.rank_after for row in table.rows] == list(range(6))
    assert (table.rows[0].group, table.rows[0].rank_before) == (2, 2)
    assert table.rows[0].score < 1e-9 < table.rows[1].score
    scores = [row.score for row in table.rows]
    assert scores == sorted(scores)


def test_the_standard_error_is_that_of_the_batches(problem: tuple) -> None:
    network, split = problem
    unit = analyse(network.graph).unit("inner")
    batches = Damage(network, unit, split, CLASSIFICATION).of_batches([3])
    (row,) = [row for row in causal(network, [unit], split, CLASSIFICATION).rows if row.group == 3]
    assert len(batches) == 8
    assert row.standard_error == pytest.approx(batches.std(ddof=1) / 8**0.5)
    assert row.score == pytest.approx(batches.mean())


def test_several_units_share_a_table_and_the_prior_gives_the_ranks_before(problem: tuple) -> None:
    network, split = problem
    units = [unit for unit in analyse(network.graph).units if unit.name in ("inner", "outer")]
    prior = {"outer": [3, 1, 0, 2]}
    table = causal(network, units, split, CLASSIFICATION, prior)
    assert [row.unit for row in table.rows] == ["inner"] * 6 + ["outer"] * 4
    assert {row.group: row.rank_before for row in table.rows[6:]} == {3: 0, 1: 1, 0: 2, 2: 3}
    assert len({(row.unit, row.rank_after) for row in table.rows}) == 10


@pytest.mark.parametrize("name", ["resnet20", "unet", "vit", "seq2seq", "two_tower", "shufflenet_v2", "convnext"])
def test_every_unit_of_the_zoo_can_be_silenced(name: str) -> None:
    make, example = ZOO[name]
    network = capture(make(), example())
    task = REGRESSION
    x = tuple(torch.cat([part, part]) for part in example())
    for unit in analyse(network.graph).units[:4]:
        damage = Damage(network, unit, Split.of((x, None)), task)
        assert damage.of([]) < 1e-10
        assert math.isfinite(damage.of([0, unit.groups - 1]))


def test_recurrent_states_are_refused() -> None:
    make, example = ZOO["lstm"]
    network = capture(make(), example())
    with pytest.raises(PlanError, match="recurrent state"):
        Damage(network, analyse(network.graph).unit("lstm"), Split.of(example()[0]), REGRESSION)


class ThroughAView(nn.Module):
    """A tensor that is changed through a part of it and then read as a whole."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.head = nn.Linear(4, 6), nn.Linear(6, 6), nn.Linear(6, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.second(torch.tanh(self.first(x)))
        x[:, :3].mul_(-5.0)
        return self.head(x)


def test_changes_through_a_view_are_found_and_refused() -> None:
    x = torch.randn(8, 4)
    network = capture(ThroughAView(), x[:2])
    with pytest.raises(ModelError, match="through a view") as caught:
        Damage(network, analyse(network.graph).unit("first"), Split.of(x), CLASSIFICATION)
    assert "differ by" in caught.value.got


def test_one_sample_has_no_standard_error_and_none_is_refused(problem: tuple) -> None:
    network, split = problem
    units = [analyse(network.graph).unit("outer")]
    assert all(math.isnan(row.standard_error) for row in causal(network, units, split.first(1), CLASSIFICATION).rows)
    with pytest.raises(DataError, match="needs samples"):
        causal(network, units, split.first(0), CLASSIFICATION)


def test_the_network_stays_as_it_is(problem: tuple) -> None:
    network, split = problem
    before = network.fingerprint()
    causal(network, [analyse(network.graph).unit("inner")], split, CLASSIFICATION)
    assert network.fingerprint() == before


# ------------------------------------------------------------------------------------------------------ Shapley values


def game(seed: int, players: int) -> Callable[[frozenset[int]], float]:
    """Some value for every coalition, 0 for nobody."""
    values = np.random.default_rng(seed).normal(size=2**players)
    return lambda coalition: float(values[sum(1 << player for player in coalition)]) if coalition else 0.0


def by_the_formula(value: Callable[[frozenset[int]], float], players: int) -> list[float]:
    found = []
    for one in range(players):
        others = [player for player in range(players) if player != one]
        total = 0.0
        for size in range(players):
            weight = math.factorial(size) * math.factorial(players - size - 1) / math.factorial(players)
            for coalition in map(frozenset, itertools.combinations(others, size)):
                total += weight * (value(coalition | {one}) - value(coalition))
        found.append(total)
    return found


@given(st.integers(0, 10**6), st.integers(1, 5))
def test_the_mean_over_all_orders_is_the_shapley_value(seed: int, players: int) -> None:
    value = game(seed, players)
    orders = torch.tensor(list(itertools.permutations(range(players))))
    found = shapley_marginals(value, orders).mean(0)
    assert found.tolist() == pytest.approx(by_the_formula(value, players), abs=1e-12)


@given(st.integers(0, 10**6), st.integers(1, 5), st.floats(0.0, 0.9))
def test_every_order_shares_out_the_value_of_everybody(seed: int, players: int, tolerance: float) -> None:
    value = game(seed, players)
    orders = torch.tensor([np.random.default_rng(seed).permutation(players).tolist() for _ in range(5)])
    found = shapley_marginals(value, orders, tolerance)
    everybody = value(frozenset(range(players)))
    assert found.sum(1).tolist() == pytest.approx([everybody] * 5, abs=1e-12)


def test_random_orders_are_unbiased() -> None:
    value, exact = game(3, 4), torch.tensor(by_the_formula(game(3, 4), 4))
    generator = torch.Generator().manual_seed(0)
    found = shapley_marginals(value, torch.stack([torch.randperm(4, generator=generator) for _ in range(4000)]))
    error = found.std(0) / 4000**0.5
    assert ((found.mean(0) - exact).abs() < 4 * error).all()


def test_what_is_saturated_is_not_asked_for() -> None:
    asked = []

    def value(coalition: frozenset[int]) -> float:
        asked.append(coalition)
        return 1.0

    found = shapley_marginals(value, torch.tensor([[2, 0, 1, 3]]), 0.01)
    assert found.tolist() == [[0.0, 0.0, 1.0, 0.0]]
    assert sorted(map(len, asked)) == [1, 4]


def test_on_a_network_the_values_are_those_of_brute_force(problem: tuple) -> None:
    network, split = problem
    unit = analyse(network.graph).unit("outer")
    damage = Damage(network, unit, split, CLASSIFICATION)
    exact = by_the_formula(lambda coalition: damage.of(sorted(coalition)), 4)
    table = shapley(network, unit, split, CLASSIFICATION, [3, 2, 1, 0], Sampling(200, 1.0, 0.0))
    found = {row.group: row for row in table.rows}
    assert table.runs == 2**4 - 1
    assert sum(row.score for row in table.rows) == pytest.approx(damage.of([0, 1, 2, 3]))
    assert exact[1] == found[1].score == found[1].standard_error == 0.0  # its activation is never alive
    assert all(abs(found[group].score - exact[group]) < 4 * found[group].standard_error for group in (0, 2, 3))


def test_twins_share_their_worth_where_one_alone_is_hardly_missed() -> None:
    """Either of two equal channels is backed up by the other through a saturating reader: causal scores hide both."""
    module = nn.Sequential(nn.Linear(2, 3, bias=False), nn.Linear(3, 1, bias=False), nn.Sigmoid(), nn.Linear(1, 2))
    with torch.no_grad():
        module[0].weight.copy_(torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]]))
        module[1].weight.copy_(torch.tensor([[20.0, 20.0, 2.0]]))
        module[3].weight.copy_(torch.tensor([[4.0], [-4.0]]))
    x = torch.randn(64, 2)
    network = capture(module, x[:2])
    unit = analyse(network.graph).unit("0")
    alone = {row.group: row.score for row in causal(network, [unit], Split.of(x), CLASSIFICATION).rows}
    table = shapley(network, unit, Split.of(x), CLASSIFICATION, [0, 1, 2], Sampling(20, 1.0))
    shared = {row.group: row for row in table.rows}
    assert min(shared[0].score, shared[1].score) > 3 * alone[0]
    spread = math.hypot(shared[0].standard_error, shared[1].standard_error)
    assert abs(shared[0].score - shared[1].score) < 4 * spread
    assert table.rows[0].group == 2


def test_only_the_lowest_of_the_prior_play(problem: tuple) -> None:
    network, split = problem
    unit = analyse(network.graph).unit("inner")
    table = shapley(network, unit, split, CLASSIFICATION, [5, 4, 3, 2, 1, 0], Sampling(5, 0.34))
    assert {row.group for row in table.rows} == {5, 4, 3}
    assert sorted(row.rank_after for row in table.rows) == [0, 1, 2]
    assert table == shapley(network, unit, split, CLASSIFICATION, [5, 4, 3, 2, 1, 0], Sampling(5, 0.34))


@pytest.mark.parametrize("wrong", [{"permutations": 0}, {"share": 0.0}, {"share": 1.5}, {"tolerance": -0.1}])
def test_impossible_samplings_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(PlanError, match="Shapley"):
        Sampling(**wrong)
