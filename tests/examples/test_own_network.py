"""The example is what it says: a network, three splits without leaks, and a training that works."""

from __future__ import annotations

import runpy
from pathlib import Path

import torch

from featherweight.api import inspect
from featherweight.tasks import CLASSIFICATION, Data, validate

EXAMPLE = runpy.run_path(str(Path(__file__).parents[2] / "examples" / "own_network.py"))


def test_the_data_are_fit_for_the_work() -> None:
    data = Data.of(EXAMPLE["data"]())
    validate(data, 10, CLASSIFICATION)
    assert sum(len(split) for split in data.splits().values()) == 1797


def test_all_layers_of_the_network_can_be_changed() -> None:
    network = inspect(EXAMPLE["model"](), EXAMPLE["data"]()).network
    assert [layer.name for layer in network.layers] == ["strokes", "hidden", "scores"]
    assert network.refusals == ()


def test_training_works_and_can_be_repeated() -> None:
    first, second = EXAMPLE["train"](), EXAMPLE["train"]()
    images, labels = map(torch.as_tensor, EXAMPLE["data"]()["validation"])
    with torch.no_grad():
        right = first(images).argmax(1) == labels
    assert right.float().mean() > 0.9
    assert all(torch.equal(value, second.state_dict()[name]) for name, value in first.state_dict().items())
