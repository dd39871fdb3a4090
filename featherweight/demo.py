"""The demo: a small network for handwritten digits, trained here and made small for LiteRT.

The 1,797 digits are real scans that scikit-learn ships (8 by 8 pixels, 43 writers). 800 of them are kept for the test:
with 360, a single lost answer would already break a bound of one point.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save
from torch import nn
from torch.nn import functional

from featherweight.contracts import DataError, Goal
from featherweight.files import write_atomically
from featherweight.frontends.weights import load_weights
from featherweight.pipeline import Outcome, prepare, run_job
from featherweight.progress import track
from featherweight.targets import target_by_name
from featherweight.tasks import CLASSIFICATION
from featherweight.tasks.data import Data

_SEED = 0
_TEST, _VALIDATION = 800, 300
_EPOCHS, _BATCH = 60, 64


class DigitNet(nn.Module):
    """Three convolutions and two linear layers for 8 by 8 grey digits: (n, 1, 8, 8) → (n, 10)."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(1, 32, 3, padding=1, bias=False),
            nn.BatchNorm2d(32),
            nn.ReLU(),
            nn.Conv2d(32, 64, 3, padding=1, bias=False),
            nn.BatchNorm2d(64),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(64, 64, 3, padding=1, bias=False),
            nn.BatchNorm2d(64),
            nn.ReLU(),
        )
        self.hidden = nn.Linear(64 * 4 * 4, 192)
        self.classify = nn.Linear(192, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Scores of the ten digits."""
        return self.classify(functional.relu(self.hidden(self.features(x).flatten(1))))


def digits() -> Data:
    """Scikit-learn's digits in three seeded splits: 697 to train, 300 to validate, 800 to test.

    Raises:
        DataError: scikit-learn isn't installed.
    """
    try:
        from sklearn.datasets import load_digits  # noqa: PLC0415  (the demo's extra)
    except ImportError as error:
        raise DataError(
            "The demo's digits come with scikit-learn.", "it isn't installed", 'pip install -e ".[demo]"'
        ) from error
    pixels, labels = load_digits(return_X_y=True)
    images = (pixels / 16.0).astype(np.float32).reshape(-1, 1, 8, 8)
    order = np.random.default_rng(_SEED).permutation(len(images))
    test, validation, train = np.split(order, [_TEST, _TEST + _VALIDATION])
    parts = {"train": train, "validation": validation, "test": test}
    return Data.of({name: (images[at], labels[at]) for name, at in parts.items()}, name="digits")


def _shifted(x: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """The images moved by up to one pixel each way, all of a batch alike."""
    right, down = torch.randint(-1, 2, (2,), generator=generator).tolist()
    return functional.pad(x, (1 + right, 1 - right, 1 + down, 1 - down))[:, :, 1:-1, 1:-1]


@contextmanager
def _reproducible() -> Iterator[None]:
    """One thread and a seed of our own; afterwards both are as before.

    One thread, because sums depend on how they are split, and because two that wait for each other on a busy machine
    take minutes for seconds of work.
    """
    threads = torch.get_num_threads()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(_SEED)
        torch.set_num_threads(1)
        try:
            yield
        finally:
            torch.set_num_threads(threads)


@_reproducible()
def train(data: Data, epochs: int = _EPOCHS) -> DigitNet:
    """Train the demo's network; the same bytes every time on the same machine."""
    generator = torch.Generator().manual_seed(_SEED)
    network = DigitNet().train()
    batch = data.train.take(range(len(data.train)))
    x, y = batch.inputs[0], torch.as_tensor(batch.labels)
    steps = epochs * (len(x) // _BATCH)
    optimizer = torch.optim.AdamW(network.parameters(), lr=2e-3, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 4e-3, total_steps=steps)
    for _ in track(range(steps), "training the demo's network", total=steps):
        at = torch.randint(len(x), (_BATCH,), generator=generator)
        loss = functional.cross_entropy(network(_shifted(x[at], generator)), y[at], label_smoothing=0.05)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return network.eval()


def demo(out: Path) -> Outcome:
    """Train, compress for LiteRT under "at most 1 point, 95 % sure, smallest file", and prove it.

    Args:
        out: a folder for the trained weights and the run; running again continues there.

    Raises:
        ModelError: the folder holds other weights under the demo's name.
    """
    target = target_by_name("litert")
    data = digits()
    weights = out / "trained.safetensors"
    if weights.exists():
        network = DigitNet().eval()
        load_weights(network, weights)
    else:
        network = train(data)
        write_atomically(weights, save(network.state_dict()))
    goal = Goal(max_drop=0.01, confidence=0.95, minimize="size")
    return run_job(prepare(network, data, goal, target, CLASSIFICATION), out / "run")
