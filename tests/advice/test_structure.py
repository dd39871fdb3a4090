"""What stands in the way: shared weights, norms that don't fold, fixed channels, parameters without a layer."""

from __future__ import annotations

import torch
from torch import nn

from featherweight.advice import structure
from featherweight.advice.survey import counted, names
from tests.advice.surveyed import surveyed


class _Shared(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.twice, self.norm, self.other = nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4), nn.BatchNorm2d(4)
        self.before = nn.BatchNorm2d(4)
        self.once = nn.Conv2d(4, 4, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.twice(torch.relu(self.twice(self.before(x))))
        z = self.once(y)
        return (self.norm(y + x) + self.other(z) * z).mean((2, 3))


def test_layers_that_can_t_change_are_told_with_reason_and_cost() -> None:
    found = list(structure.unreplaceable(surveyed(_Shared(), 4, 6, 6)))
    assert found
    assert {(one.subject, one.kind, one.reason) for one in found} == {("twice", "blocks", "its weight is used 2 times")}
    assert found[0].size_bytes == 80
    assert found[0].remedy == "give every use its own module"


def test_norms_that_don_t_fold_are_told_with_the_reason() -> None:
    found = {one.reason: one for one in structure.unfolded_norms(surveyed(_Shared(), 4, 6, 6))}
    assert found["it follows the input and not a layer"].subject == "before"
    assert found["it follows add and not a layer"].subject == "norm"
    assert found["something else reads the layer's output before it, too"].subject == "other"
    assert len(found) == 3
    assert all(one.kind == "blocks" and "1 batch normalisation " in one.finding for one in found.values())


def test_norms_that_fold_are_no_matter() -> None:
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU())
    assert list(structure.unfolded_norms(surveyed(module, 3, 6, 6))) == []


def test_channels_that_can_t_be_pruned_are_told_together() -> None:
    module = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3))
    (one,) = structure.frozen_channels(surveyed(module, 6))
    assert (one.subject, one.kind, one.size_bytes) == ("2", "blocks", 4 * 27)
    assert "output" in one.reason


class _Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.cell, self.head = nn.LSTM(8, 16, batch_first=True), nn.Linear(16, 3)
        self.shift = nn.Parameter(torch.zeros(16))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.cell(x)[0][:, -1] + self.shift)


def test_parameters_that_belong_to_no_layer_are_told() -> None:
    known = surveyed(_Recurrent(), 5, 8)
    found = {one.subject: one for one in structure.unowned(known)}
    assert found["cell"].size_bytes == 4 * sum(p.numel() for p in known.network.module.cell.parameters())
    assert "LSTM" in found["cell"].finding
    assert "head" not in found


def test_words_for_several() -> None:
    assert names(["a", "b", "a"]) == "a, b"
    assert names("abcde") == "a, b, c and 2 more"
    assert (counted(1, "layer"), counted(0, "layer"), counted(2, "layer")) == ("1 layer", "0 layers", "2 layers")
