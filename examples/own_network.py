"""A network and data of one's own: what Featherweight needs from you is the two functions below.

Run this file once to train the network; it writes ``own_network.safetensors`` into the current folder. Then compress
it, from Python or on the command line, as the README shows.
"""

from __future__ import annotations

import numpy as np
import torch
from safetensors.torch import save_file
from sklearn.datasets import load_digits
from torch import nn
from torch.nn import functional

WEIGHTS = "own_network.safetensors"


class DigitClassifier(nn.Module):
    """Images of digits (n, 1, 8, 8) → one score a digit (n, 10)."""

    def __init__(self) -> None:
        super().__init__()
        self.strokes = nn.Conv2d(1, 24, 3, padding=1)
        self.norm = nn.BatchNorm2d(24)
        self.hidden = nn.Linear(24 * 4 * 4, 256)
        self.scores = nn.Linear(256, 10)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """One score a digit."""
        strokes = functional.max_pool2d(functional.relu(self.norm(self.strokes(images))), 2)
        return self.scores(functional.relu(self.hidden(strokes.flatten(1))))


def model() -> nn.Module:
    """The network, untrained: its weights come from a file."""
    return DigitClassifier()


def data() -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Samples and labels in three splits; no sample may be in two of them.

    The larger the test split, the smaller the loss that it can rule out: even if not one answer changes, n test samples
    leave a loss of about 3 / n possible at 95 % confidence.
    """
    pixels, labels = load_digits(return_X_y=True)
    images = (pixels / 16).astype(np.float32).reshape(-1, 1, 8, 8)
    order = np.random.default_rng(7).permutation(len(images))
    parts = {"train": order[:700], "validation": order[700:1000], "test": order[1000:]}
    return {name: (images[rows], labels[rows]) for name, rows in parts.items()}


def train() -> nn.Module:
    """The network, trained on the training split as you would train yours: any loop will do."""
    torch.manual_seed(7)
    network = model()
    images, labels = map(torch.as_tensor, data()["train"])
    optimizer = torch.optim.AdamW(network.parameters(), lr=2e-3, weight_decay=1e-2)
    for _ in range(30):
        for rows in torch.randperm(len(images)).split(50):
            optimizer.zero_grad()
            functional.cross_entropy(network(images[rows]), labels[rows]).backward()
            optimizer.step()
    return network.eval()


if __name__ == "__main__":
    save_file(train().state_dict(), WEIGHTS)
