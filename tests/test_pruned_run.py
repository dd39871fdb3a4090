"""A plan that takes channels away, from its steps to the report, by criteria that need more than weights."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import featherweight
from featherweight import Data, Goal, Plan, Step
from featherweight.network import capture


class Small(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm = nn.Conv2d(1, 12, 3, padding=1, bias=False), nn.BatchNorm2d(12)
        self.second, self.head = nn.Conv2d(12, 8, 3, padding=1), nn.Linear(8, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.norm(self.first(x)))
        return self.head(torch.relu(self.second(x)).mean((2, 3)))


def _network() -> nn.Module:
    torch.manual_seed(0)
    network = Small()
    with torch.no_grad():
        network.norm.weight.copy_(torch.linspace(0.2, 1.5, 12))
    return network.eval()


def _data() -> Data:
    generator = torch.Generator().manual_seed(1)
    sizes = {"train": 96, "validation": 48, "test": 120}
    return Data.of({name: (torch.randn(n, 1, 6, 6, generator=generator), None) for name, n in sizes.items()})


@pytest.mark.parametrize("criterion", ["causal", "bn-scale"])
def test_the_report_tells_what_was_asked_what_was_reached_and_why(tmp_path: Path, criterion: str) -> None:
    network, data = _network(), _data()
    fingerprint = capture(network, data.train.take(range(2)).inputs).fingerprint()
    steps = (
        Step("pruning", {"keep": 8, "criterion": criterion}),
        Step("quantization", {"weights": "int8", "activations": "int8"}),
    )
    plan = Plan(fingerprint, "litert", {"first": steps})
    outcome = featherweight.apply(network, data, plan, Goal(max_drop=0.9), out=tmp_path / "run")
    (unit,) = outcome.story.units
    assert (unit.unit, unit.groups, unit.asked, unit.reached) == ("first", 12, 8, 8)
    assert unit.parameters == 4 * 9 + 4 + 4 * 8 * 9  # rows and, folded in, biases of the first; columns of the second
    assert unit.layers == ("first", "second")
    (gone,) = json.loads((tmp_path / "run/stages/4-attempt-01-network/removals.json").read_text()).values()
    if criterion == "bn-scale":
        assert gone == [0, 1, 2, 3]
        assert unit.scores == ()
    else:
        assert sorted(score.group for score in unit.scores) == list(range(12))
        worst_kept = min(score.score for score in unit.scores if score.kept)
        assert max(score.score for score in unit.scores if not score.kept) <= worst_kept
        assert "12 groups by causal score" in (tmp_path / "run/report.html").read_text()
    assert outcome.story.compressed.macs < 0.75 * outcome.story.original.macs

    again = featherweight.apply(network, data, plan, Goal(max_drop=0.9), out=tmp_path / "run")
    assert again.story.units == outcome.story.units
    assert again.artefact.read_bytes() == outcome.artefact.read_bytes()


def test_the_smaller_network_computes_what_its_file_computes(tmp_path: Path) -> None:
    network, data = _network(), _data()
    fingerprint = capture(network, data.train.take(range(2)).inputs).fingerprint()
    plan = Plan(fingerprint, "litert", {"first": (Step("pruning", {"keep": 4}),)})
    outcome = featherweight.apply(network, data, plan, Goal(max_drop=0.9), out=tmp_path / "run")
    x = data.test.take(range(8)).inputs[0].numpy()
    file = featherweight.target_by_name("litert").load(outcome.artefact)((x,))
    original = featherweight.target_by_name("litert").load(outcome.original)((x,))
    assert outcome.story.compressed.parity.largest < 1e-4
    assert np.abs(file - original).mean() < 0.6 * original.std()
