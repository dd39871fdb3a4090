"""A small job from end to end, and spoiled ones: models and data as a user's functions, ``jobs.py:network``.

The good network has two linear layers and answers its own test data without a mistake, so that a goal is reached, or
shown to be out of reach, at the first attempt.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
from torch import nn

from featherweight.cli import main

HERE = Path(__file__)
LOOSE = "--max-drop=50pp"  # a goal that the small network's artefact meets at once
SPLITS = {"train": 48, "validation": 64, "test": 400}

Parts = dict[str, tuple[np.ndarray, np.ndarray]]


def job(model: str = "network", data: str = "data") -> list[str]:
    """The words of the command line that name a model and data of this file."""
    return [f"{HERE}:{model}", "--data", f"{HERE}:{data}"]


class Told(NamedTuple):
    """What a command ended with and printed."""

    code: int
    out: str
    err: str


def tell(capsys: pytest.CaptureFixture[str], *words: object) -> Told:
    """Run a command of the command line in this process."""
    capsys.readouterr()
    code = main([str(word) for word in words])
    return Told(code, *capsys.readouterr())


def refused(capsys, code: int, phrase: str, *words: object) -> str:
    """Run a command that must be refused, in words and as JSON; what was told."""
    told = tell(capsys, *words)
    assert (told.code, told.out) == (code, ""), told
    parts = re.fullmatch(r"featherweight: (.+)\n  got: (.+)\n  try: (.+)\n", told.err)
    assert parts, told.err  # three lines, and nothing else: no warning, no trace
    assert phrase in told.err, told.err
    machine = tell(capsys, *words, "--json")
    document = json.loads(machine.out)
    assert (machine.code, machine.err) == (code, ""), machine
    assert (document["rule"], document["got"], document["try"]) == parts.groups()
    assert document["error"].endswith("Error")
    return told.err


def files(folder: Path) -> dict[str, bytes]:
    """Every file below a folder, with its content."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def network() -> nn.Sequential:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 3)).eval()


def image_network() -> nn.Sequential:
    """For grey images of 8 by 8, in two classes."""
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 2))


def data() -> Parts:
    own = network()
    parts = {}
    for seed, (name, size) in enumerate(SPLITS.items()):
        x = np.random.default_rng(seed).normal(size=(size, 6)).astype(np.float32)
        with torch.no_grad():
            parts[name] = (x, own(torch.from_numpy(x)).argmax(1).numpy())
    return parts


# ------------------------------------------------------------------------------------------------- spoiled models


class _Odd(nn.Module):
    """A linear layer and a forward of its own."""

    def __init__(self) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(1)
            self.linear = nn.Linear(6, 3)


class _FixedBatch(_Odd):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.linear(x.reshape(2, 6))


class _DataDependent(_Odd):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.linear(x) if x.sum().item() > 0.0 else -self.linear(x)


class _Unliftable(_Odd):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.linear(torch.linalg.svd(x.reshape(-1, 2, 3))[2].reshape(-1, 9)[:, :6])


class _TwoOutputs(_Odd):
    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return self.linear(x), x


class _NaNOutputs(_Odd):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.linear(x) / (x.sum(1, keepdim=True) > 9.0)


def fixed_batch() -> nn.Module:
    return _FixedBatch()


def data_dependent() -> nn.Module:
    return _DataDependent()


def unliftable() -> nn.Module:
    return _Unliftable()


def two_outputs() -> nn.Module:
    return _TwoOutputs()


def nan_outputs() -> nn.Module:
    return _NaNOutputs()


def nan_weights() -> nn.Module:
    spoiled = network()
    spoiled[2].weight.data[1, 4] = float("nan")
    return spoiled


def no_module() -> dict[str, torch.Tensor]:
    return network().state_dict()


def raising() -> nn.Module:
    raise RuntimeError("the checkpoint server is down")


# --------------------------------------------------------------------------------------------------- spoiled data


def _with(name: str, x: np.ndarray | None = None, y: np.ndarray | None = None) -> Parts:
    parts = data()
    old = parts[name]
    return {**parts, name: (old[0] if x is None else x, old[1] if y is None else y)}


def no_training() -> Parts:
    return _with("train", np.zeros((0, 6), np.float32), np.zeros(0, np.int64))


def no_test() -> Parts:
    return _with("test", np.zeros((0, 6), np.float32), np.zeros(0, np.int64))


def one_class() -> Parts:
    return _with("test", y=np.ones(SPLITS["test"], np.int64))


def beyond_the_classes() -> Parts:
    labels = data()["test"][1].copy()
    labels[7] = 3
    return _with("test", y=labels)


def negative_labels() -> Parts:
    return _with("validation", y=data()["validation"][1] - 1)


def real_labels() -> Parts:
    return _with("train", y=data()["train"][1] + 0.5)


def nan_first() -> Parts:
    x = data()["train"][0].copy()
    x[0, 2] = np.nan
    return _with("train", x)


def infinite_last() -> Parts:
    x = data()["test"][0].copy()
    x[-1, 5] = np.inf
    return _with("test", x)


def narrow() -> Parts:
    return {name: (x[:, :5].copy(), y) for name, (x, y) in data().items()}


def narrow_test() -> Parts:
    return _with("test", data()["test"][0][:, :5].copy())


def double() -> Parts:
    return {name: (x.astype(np.float64), y) for name, (x, y) in data().items()}


def leaking() -> Parts:
    return _with("test", np.concatenate([data()["train"][0][:1], data()["test"][0][1:]]))


def two_splits() -> Parts:
    parts = data()
    return {name: parts[name] for name in ("train", "test")}


def talkative() -> Parts:
    print("reading the data")  # noqa: T201
    return data()


def unlabelled() -> dict[str, np.ndarray]:
    return {name: x for name, (x, _) in data().items()}
