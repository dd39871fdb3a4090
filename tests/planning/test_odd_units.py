"""Units that cut a layer on both sides, grouped convolutions, attention, tied weights: from table to network."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn import functional

from featherweight.contracts import Choice
from featherweight.methods import METHODS
from featherweight.methods.apply import apply
from featherweight.methods.pruning import Grounds, Prunable, Pruning, prune, select
from featherweight.network import capture
from featherweight.network.grids import with_grids
from featherweight.network.surgery import Slim
from featherweight.observation import observe
from featherweight.planning.plans import plan_of
from featherweight.planning.table import build_table
from featherweight.planning.units import with_keeps
from featherweight.planning.widths import narrowed
from featherweight.recovery import recover
from featherweight.targets.litert import LiteRT
from featherweight.tasks import CLASSIFICATION
from featherweight.tasks.data import Split
from featherweight.testing import ANY_TARGET


class BothSides(nn.Module):
    """One layer reads and writes the same channels."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.inner, self.head = nn.Linear(6, 16), nn.Linear(16, 16), nn.Linear(16, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = torch.relu(self.stem(x))
        return self.head(h + self.inner(h))


class Grouped(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem, self.grouped = nn.Conv2d(3, 16, 3, padding=1), nn.Conv2d(16, 32, 3, padding=1, groups=4)
        self.head = nn.Linear(32, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.grouped(torch.relu(self.stem(x.view(-1, 3, 1, 2)))))
        return self.head(x.mean((2, 3)))


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed, self.attention = nn.Linear(3, 16), nn.MultiheadAttention(16, 4, batch_first=True)
        self.head = nn.Linear(16, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = self.embed(x.view(-1, 2, 3))
        return self.head((h + self.attention(h, h, h, need_weights=False)[0]).mean(1))


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.book, self.mix = nn.Linear(6, 16, bias=False), nn.Linear(16, 16)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return functional.linear(torch.relu(self.mix(torch.relu(self.book(x)))), self.book.weight.t())


@pytest.mark.parametrize("kind", [BothSides, Grouped, Attention, Tied])
def test_every_keep_can_be_made_and_costs_what_was_said(kind: type[nn.Module]) -> None:
    torch.manual_seed(0)
    x = torch.randn(48, 6)
    network, split = capture(kind(), x[:2]), Split.of(x)
    seen, prunable = observe(network, split), Prunable.of(network, Pruning())
    table = build_table(
        network, seen, split, CLASSIFICATION, ANY_TARGET, (), whole=replace(network.cost, size_bytes=10_000)
    )
    table = with_keeps(table, network, prunable, Grounds(seen, split), CLASSIFICATION, ANY_TARGET)
    assert table.keeps
    for unit, row in table.keeps.items():
        keeps = {name: other[0] for name, other in table.keeps.items()} | {unit: row[-1]}
        choice = Choice({name: one[0] for name, one in narrowed(table, keeps).options.items()}, keeps)
        plan = plan_of("n", "t", choice, table.fixed)
        slim = prune(network, prunable.coupling, select(network, prunable.coupling, plan, Grounds(seen)).removals)
        predicted = choice.cost + table.fixed
        assert predicted.parameters == slim.network.cost.parameters, unit
        if kind is not Attention:  # products of activations belong to no layer
            assert predicted.macs == slim.network.cost.macs, unit
        made = recover(slim, apply(slim, plan, split, ANY_TARGET, METHODS), split, LiteRT())
        assert torch.isfinite(with_grids(made)(x)).all()


def test_parts_of_a_parameter_are_no_constant_to_settle() -> None:
    class Parts(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.both = nn.Parameter(torch.randn(8, 6))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            first, second = self.both.chunk(2)
            return functional.linear(x, first) + functional.linear(x, second)

    x = torch.randn(4, 6)
    network = capture(Parts(), x)
    made = recover(Slim.whole(network), network, Split.of(x), LiteRT())
    assert torch.allclose(with_grids(made)(x), network.module(x))
