"""What the analysis says: names, roles, refusals, and how long it takes."""

from __future__ import annotations

import time

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from featherweight.contracts import PlanError
from featherweight.network.capture import capture
from featherweight.network.channels import Cut, analyse
from tests.zoo.attention import ViT
from tests.zoo.classic import BasicBlock, ResNet20


class Small(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6)
        self.deep, self.point = nn.Conv2d(6, 6, 3, padding=1, groups=6), nn.Conv2d(6, 5, 1)
        self.fc = nn.Linear(5 * 16, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.deep(F.relu(self.norm(self.conv(x))))
        return self.fc(self.point(x).flatten(1))


def small():
    return analyse(capture(Small(), torch.randn(2, 3, 4, 4)).graph)


def test_a_unit_says_what_goes_where():
    unit = small().unit("conv")
    assert unit.groups == 6
    slices = {(piece.state, piece.axis): piece.indices.ravel().tolist() for piece in unit.slices}
    every = list(range(6))
    rows = ("conv.weight", "conv.bias", "norm.weight", "norm.bias", "norm.running_mean", "norm.running_var")
    assert slices == {(name, 0): every for name in (*rows, "deep.weight", "deep.bias")} | {("point.weight", 1): every}


def test_roles_tell_who_makes_and_who_reads():
    coupling = small()
    unit, flat = coupling.unit("conv"), coupling.unit("point")
    assert [item.layer for item in unit.producers] == ["conv", "deep"]
    assert [item.layer for item in unit.consumers] == ["point"]
    assert unit.consumers[0].channels.tolist() == [[k] for k in range(6)]
    assert flat.consumers[0].weight == "fc.weight"
    assert np.array_equal(flat.consumers[0].channels, np.arange(80).reshape(5, 16))


def test_a_layer_that_reads_and_feeds_a_stream_is_both():
    network = capture(BasicBlockNet(), torch.randn(2, 3, 8, 8))
    unit = analyse(network.graph).unit("stem")
    assert [item.layer for item in unit.producers] == ["stem", "block.conv2"]
    assert [item.layer for item in unit.consumers] == ["block.conv1", "fc"]


class BasicBlockNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem, self.block, self.fc = nn.Conv2d(3, 6, 3), BasicBlock(6, 6, 1, nn.Identity()), nn.Linear(6, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(self.block(self.stem(x)).mean((2, 3)))


def test_heads_and_head_width_are_two_units_of_the_same_rows():
    coupling = analyse(capture(ViT(), torch.randn(2, 3, 16, 16)).graph)
    width, heads = coupling.unit("blocks.0.attn.qkv"), coupling.unit("blocks.0.attn.qkv:groups")
    assert (width.groups, heads.groups) == (8, 3)
    rows = {name: {p.state: p.indices for p in unit.slices} for name, unit in (("width", width), ("heads", heads))}
    grid = np.arange(72).reshape(3, 3, 8)  # q, k, v; heads; width
    assert np.array_equal(rows["width"]["blocks.0.attn.qkv.weight"][5], grid[:, :, 5].ravel())
    assert np.array_equal(rows["heads"]["blocks.0.attn.qkv.weight"][1], grid[:, 1].ravel())


def test_the_padded_shortcut_ties_the_middle_of_a_wider_stage_and_fixes_its_rim():
    coupling = analyse(capture(ResNet20(), torch.randn(2, 3, 16, 16)).graph)
    stream = coupling.unit("conv1")
    rows = {piece.state: piece.indices.ravel().tolist() for piece in stream.slices}
    assert rows["layer2.0.conv2.weight"] == list(range(4, 12))
    assert rows["layer3.0.conv2.weight"] == list(range(12, 20))
    reasons = [refusal.reason for refusal in coupling.refusals if refusal.subject == "layer2.0.conv2"]
    assert len(reasons) == 1
    assert reasons[0].startswith("8 of 16 output channels stay: aten.add_ (classic.py:")


def test_an_unknown_operation_is_named_with_its_line():
    class Unknown(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(4, 6), nn.Linear(6, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.b(torch.renorm(self.a(x), 2, 0, 1.0))

    coupling = analyse(capture(Unknown(), torch.randn(2, 4)).graph)
    assert coupling.units == ()
    reason = next(refusal.reason for refusal in coupling.refusals if refusal.subject == "a")
    assert "aten.renorm (test_channels_units.py:" in reason
    assert "return self.b(torch.renorm(self.a(x), 2, 0, 1.0))" in reason


@pytest.mark.parametrize(
    ("line", "why"),
    [
        (lambda y: y.cumsum(1), "depends on the order along it"),
        (lambda y: y.roll(1, 1), "rolls it by a constant"),
        (lambda y: y + y.argmax(1, keepdim=True), "hands out positions along it"),
        (lambda y: y[:, ::2].repeat(1, 2), "takes every n-th index of it"),
        (lambda y: y + torch.arange(6.0), "ties it to values that can't be removed"),
    ],
    ids=["prefix sums", "roll", "argmax", "stride", "constant"],
)
def test_order_and_position_freeze(line, why):
    class Ordered(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(4, 6), nn.Linear(6, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.b(line(self.a(x)))

    coupling = analyse(capture(Ordered(), torch.randn(2, 4)).graph)
    assert "a" not in {unit.name for unit in coupling.units}
    assert why in next(refusal.reason for refusal in coupling.refusals if refusal.subject == "a")


def test_a_channel_that_is_spread_over_others_stays():
    class Reference(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(4, 6), nn.Linear(6, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = self.a(x)
            return self.b(y - y[:, :1])

    coupling = analyse(capture(Reference(), torch.randn(2, 4)).graph)
    assert [piece.indices.ravel().tolist() for piece in coupling.unit("a").slices] == [[1, 2, 3, 4, 5]] * 3
    assert "spreads its only index" in next(refusal.reason for refusal in coupling.refusals if refusal.subject == "a")


def test_inputs_and_outputs_stay():
    class Shortcut(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner, self.outer = nn.Linear(4, 6), nn.Linear(6, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x + self.outer(torch.relu(self.inner(x)))

    coupling = analyse(capture(Shortcut(), torch.randn(2, 4)).graph)
    assert [unit.name for unit in coupling.units] == ["inner"]
    assert [refusal.subject for refusal in coupling.refusals] == ["outer"]


@pytest.mark.parametrize(
    ("removals", "message"),
    [
        ({"nothing": [0]}, "Channels can only be removed from a unit"),
        ({"fc": [0]}, "they are the network's output"),
        ({"conv": [6]}, "numbered from 0 to 5"),
        ({"conv": [-1]}, "numbered from 0 to 5"),
        ({"conv": range(6)}, "must keep at least one"),
    ],
)
def test_a_cut_that_means_nothing_is_refused(removals, message):
    with pytest.raises(PlanError, match=message):
        Cut(small(), removals)


def test_statistics_over_channels_are_told():
    coupling = analyse(
        capture(nn.Sequential(nn.Linear(4, 6), nn.LayerNorm(6), nn.Linear(6, 2)), torch.randn(2, 4)).graph
    )
    unit = coupling.unit("0")
    assert not unit.exact
    assert unit.statistics[0].startswith("aten.layer_norm")


def test_the_analysis_is_deterministic():
    network = capture(ViT(), torch.randn(2, 3, 16, 16))
    first, second = analyse(network.graph), analyse(network.graph)
    assert [unit.name for unit in first.units] == [unit.name for unit in second.units]
    for one, two in zip(first.units, second.units, strict=True):
        assert all(np.array_equal(a.indices, b.indices) for a, b in zip(one.slices, two.slices, strict=True))


def test_a_hundred_and_fifty_layers_take_less_than_five_seconds():
    blocks = [BasicBlock(128, 128, 1, nn.Identity()) for _ in range(75)]
    network = capture(nn.Sequential(nn.Conv2d(3, 128, 1), *blocks, nn.Conv2d(128, 2, 1)), torch.randn(2, 3, 2, 2))
    start = time.perf_counter()
    coupling = analyse(network.graph)
    assert time.perf_counter() - start < 5.0
    assert len(coupling.units) == 76
