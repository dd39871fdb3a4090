"""The plan mixes families where that is better: a network with one wide linear layer, down to the files."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from featherweight.contracts import Goal, Step
from featherweight.methods import METHODS
from featherweight.methods.apply import apply
from featherweight.network import capture
from featherweight.network.grids import Compressed
from featherweight.network.surgery import Slim
from featherweight.observation import observe
from featherweight.planning import allocate, build_table
from featherweight.planning.plans import plan_of
from featherweight.recovery import recover
from featherweight.targets.litert import LiteRT
from featherweight.tasks import CLASSIFICATION, Split


class Wide(nn.Module):
    """A wide linear layer whose weight is nearly of rank 12, between two small layers."""

    def __init__(self) -> None:
        super().__init__()
        self.start, self.wide, self.end = nn.Linear(16, 256), nn.Linear(256, 256), nn.Linear(256, 6)
        low = torch.randn(256, 12) @ torch.randn(12, 256) / 40
        self.wide.weight.data = low + 0.002 * torch.randn(256, 256)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.end(torch.relu(self.wide(torch.relu(self.start(x)))))


@pytest.fixture(scope="module")
def sizes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[int, tuple[Step, ...], float]]:
    """Family → bytes of the file, steps of the wide layer, and how far the file's outputs lie from the original's."""
    torch.manual_seed(0)
    target, folder = LiteRT(), tmp_path_factory.mktemp("joint")
    x = torch.randn(256, 16)
    network, split = capture(Wide(), x[:2]), Split.of(x)
    whole = target.lower(Compressed(network), folder / "whole.tflite").size_bytes
    families = {"both": METHODS, **{method.name: (method,) for method in METHODS}}
    found = {}
    reference = network.module(x).numpy()
    for name, methods in families.items():
        seen = observe(network, split)
        table = build_table(
            network,
            seen,
            split,
            CLASSIFICATION,
            target.capability,
            methods,
            whole=replace(network.cost, size_bytes=whole),
        )
        choice = allocate(table, Goal(), 0.002)
        assert choice is not None
        plan = plan_of("n", "litert", choice, table.fixed)
        made = recover(Slim.whole(network), apply(network, plan, split, target.capability, METHODS), split, target)
        path = folder / f"{name}.tflite"
        size = target.lower(made, path).size_bytes
        found[name] = (
            size,
            plan.choices["wide"],
            CLASSIFICATION.divergence(reference, target.load(path)((x.numpy(),))),
        )
    return found


def test_the_joint_table_gives_a_smaller_file_than_either_family_alone(sizes: dict) -> None:
    assert sizes["both"][0] < 0.6 * sizes["quantization"][0]
    assert sizes["both"][0] < 0.6 * sizes["lowrank"][0]


def test_the_wide_layer_is_factorised_and_then_quantized(sizes: dict) -> None:
    assert [step.method for step in sizes["both"][1]] == ["lowrank", "quantization"]


def test_every_file_keeps_the_budget_in_kind(sizes: dict) -> None:
    assert all(divergence < 0.02 for _, _, divergence in sizes.values()), sizes
    assert np.all([size > 0 for size, _, _ in sizes.values()])
