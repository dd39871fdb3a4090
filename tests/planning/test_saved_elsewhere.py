"""Parameters of no layer on the table that go with channels: what that saves in a file and in a package."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from featherweight import stages
from featherweight.contracts import Choice, Cost, Goal
from featherweight.pipeline import prepare
from featherweight.planning.plans import plan_of
from featherweight.planning.units import rate_elsewhere
from featherweight.planning.widths import narrowed
from featherweight.runs import Run
from featherweight.story import identity_of
from featherweight.targets import target_by_name
from featherweight.tasks import Data, task_by_name


class Text(nn.Module):
    """The mean of words, which no method handles, and two layers."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.hidden, self.end = nn.Embedding(800, 64), nn.Linear(64, 48), nn.Linear(48, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.end(self.hidden(self.words(x).mean(1)).relu())


def data() -> dict[str, tuple[np.ndarray, np.ndarray]]:
    random = np.random.default_rng(0)
    sizes = {"train": 64, "validation": 64, "test": 200}
    return {name: (random.integers(0, 800, (size, 6)), random.integers(0, 3, size)) for name, size in sizes.items()}


def test_a_narrow_embedding_takes_as_much_in_a_package_as_is_promised(tmp_path: Path) -> None:
    torch.manual_seed(0)
    goal, target = Goal(max_drop=0.5, minimize="package"), target_by_name("litert")
    job = prepare(Text().eval(), Data.of(data()), goal, target, task_by_name("classification"))
    run = Run(tmp_path / "run", identity_of(job))
    with run.held():
        original = stages.reference(run, job)
        table = stages.table(run, job, stages.evidence(run, job), original)
        row = table.keeps["words"]
        assert row[0].saved == Cost(0, 0, 0)
        keeps = {unit: row[0] for unit, row in table.keeps.items()} | {"words": row[len(row) // 2]}
        # What is chosen, and what layers and the rest take at these widths, tell the same.
        narrow = narrowed(table, keeps)
        choice = Choice({layer: options[0] for layer, options in narrow.options.items()}, keeps)
        rest = narrow.fixed + sum((option.cost for option in choice.layers.values()), Cost(0, 0, 0))
        plan = plan_of(job.captured.fingerprint(), "litert", choice, table.fixed)
        assert plan.predicted["package_bytes"] == pytest.approx(rest.package_bytes)
        made = stages.made(run, job, "narrow", plan)
        found = stages.packed(run, made.path, made.artefact.sha256).stat().st_size
        whole = stages.packed(run, original.path, original.artefact.sha256).stat().st_size
    assert plan.predicted["size_bytes"] == made.artefact.size_bytes
    assert found < 0.8 * whole
    assert plan.predicted["package_bytes"] == pytest.approx(found, rel=0.02)


def test_without_packages_and_without_parameters_elsewhere_nothing_is_saved() -> None:
    assert rate_elsewhere(Cost(5000, 0, 1000)) == 0.0
    assert rate_elsewhere(Cost(1000, 0, 0, 300.0)) == 0.0


def test_the_rate_is_that_of_the_parameters_and_never_beyond_their_bytes() -> None:
    fixed = Cost(5000, 0, 1000, 0.3 * 1000 + 3600)
    assert rate_elsewhere(fixed) == pytest.approx(0.9)
    assert rate_elsewhere(replace(fixed, package_bytes=9000.0)) == 1.0
    assert rate_elsewhere(replace(fixed, package_bytes=-50.0)) == 0.0
