"""Recurrent networks and recommenders."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn


class LSTMClassifier(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(30, 12)
        self.lstm = nn.LSTM(12, 10, num_layers=2, batch_first=True, bidirectional=True)
        self.fc = nn.Linear(20, 4)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        output, _ = self.lstm(self.embed(tokens))
        return self.fc(output.mean(1))


class GRUClassifier(nn.Module):
    """The last state of every direction, joined."""

    def __init__(self) -> None:
        super().__init__()
        self.project = nn.Linear(5, 12)
        self.gru = nn.GRU(12, 10, batch_first=True, bidirectional=True)
        self.fc1, self.fc2 = nn.Linear(20, 12), nn.Linear(12, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        _, state = self.gru(torch.tanh(self.project(x)))
        x = torch.cat([state[0], state[1]], dim=-1)
        return self.fc2(F.relu(self.fc1(x)))


class TwoTower(nn.Module):
    """A user's and an item's tower, scored by their inner product."""

    def __init__(self) -> None:
        super().__init__()
        self.users, self.items = nn.Embedding(20, 16), nn.Embedding(30, 12)
        self.user = nn.Sequential(nn.Linear(16 + 4, 24), nn.ReLU(), nn.Linear(24, 10))
        self.item = nn.Sequential(nn.Linear(12, 20), nn.ReLU(), nn.Linear(20, 10))

    def forward(self, user: torch.Tensor, item: torch.Tensor, context: torch.Tensor) -> torch.Tensor:
        u = self.user(torch.cat([self.users(user), context], dim=-1))
        v = self.item(self.items(item))
        return (F.normalize(u, dim=-1) * F.normalize(v, dim=-1)).sum(-1)
