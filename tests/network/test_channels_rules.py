"""One small network for every operation: what is tied, and that removing it equals silencing it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from featherweight.network.capture import capture
from featherweight.network.channels import analyse
from featherweight.network.surgery import confirm, remove, silence
from tests.network.cutting import lively, parameters, random_removals, relative_error, zeroed


class Body(nn.Module):
    """Named layers and a function of them."""

    def __init__(self, run: Callable, **layers: nn.Module | torch.Tensor) -> None:
        super().__init__()
        for name, layer in layers.items():
            if isinstance(layer, nn.Module):
                setattr(self, name, layer)
            elif layer.is_floating_point():
                self.register_parameter(name, nn.Parameter(layer))
            else:
                self.register_buffer(name, layer)
        self.run = run

    def forward(self, x: torch.Tensor, y: torch.Tensor | None = None) -> torch.Tensor:
        return self.run(self, x) if y is None else self.run(self, x, y)


@dataclass(frozen=True)
class Case:
    module: Callable[[], nn.Module]
    example: Callable[[], tuple[torch.Tensor, ...]]
    units: dict[str, int]
    exact: bool = True


def image(channels: int = 3, size: int = 8) -> Callable[[], tuple[torch.Tensor, ...]]:
    return lambda: (torch.randn(2, channels, size, size),)


def vectors(*sizes: int) -> Callable[[], tuple[torch.Tensor, ...]]:
    return lambda: (torch.randn(2, *sizes),)


def conv(width: int, out: int, kernel: int = 3, **more: int) -> nn.Conv2d:
    return nn.Conv2d(width, out, kernel, padding=kernel // 2, **more)


def pooled(m: nn.Module, x: torch.Tensor) -> torch.Tensor:
    return m.out(x.mean((2, 3)))


def two(middle: nn.Module, before: int, after: int) -> nn.Module:
    """A convolution, something between, and a classifier."""
    return Body(lambda m, x: pooled(m, m.mid(m.a(x))), a=conv(3, before), mid=middle, out=nn.Linear(after, 3))


def gather(m: nn.Module, x: torch.Tensor) -> torch.Tensor:
    return m.out(F.relu(m.a(x))[:, m.order])


def gated(m: nn.Module, x: torch.Tensor) -> torch.Tensor:
    value, gate = m.a(x).chunk(2, 1)
    return pooled(m, value * torch.sigmoid(gate))


def apart(m: nn.Module, x: torch.Tensor) -> torch.Tensor:
    one, two = m.a(x).chunk(2, 1)
    return m.out(one) + m.two(two)


def halved(m: nn.Module, x: torch.Tensor) -> torch.Tensor:
    y = m.a(x)
    half = y.shape[1] // 2
    return m.out(y[:, :half] + y[:, half:])


def there_and_back(m: nn.Module, x: torch.Tensor) -> torch.Tensor:
    y = m.a(x)
    return m.out(y.flatten(1).view(y.shape))


def attended(m: nn.Module, x: torch.Tensor) -> torch.Tensor:
    x = m.a(x)
    return m.out(x + m.mha(x, x, x)[0])


def crossed(m: nn.Module, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    return m.out(m.mha(m.a(x), m.b(y), m.b(y), need_weights=False)[0])


def recurred(m: nn.Module, x: torch.Tensor) -> torch.Tensor:
    output, (state, cell) = m.rnn(m.a(x))
    return m.out(output[:, -1]) + m.two(state[0] + cell[-1])


def stepped(m: nn.Module, x: torch.Tensor) -> torch.Tensor:
    h = c = x.new_zeros(x.shape[0], m.one.hidden_size)
    g = x.new_zeros(x.shape[0], m.two.hidden_size)
    for t in range(x.shape[1]):
        h, c = m.one(x[:, t], (h, c))
        g = m.two(h, g)
    return m.out(g)


def shuffle(x: torch.Tensor, groups: int) -> torch.Tensor:
    b, c, h, w = x.shape
    return x.view(b, groups, c // groups, h, w).transpose(1, 2).reshape(b, c, h, w)


def excite(m: nn.Module, x: torch.Tensor) -> torch.Tensor:
    x = m.a(x)
    return pooled(m, x * torch.sigmoid(m.up(F.relu(m.down(F.adaptive_avg_pool2d(x, 1))))))


CASES = {
    "linear": Case(
        lambda: nn.Sequential(nn.Linear(5, 8), nn.Sigmoid(), nn.Linear(8, 6), nn.Tanh(), nn.Linear(6, 2)),
        vectors(5),
        {"0": 8, "2": 6},
    ),
    "matrix products": Case(
        lambda: Body(lambda m, x: torch.addmm(m.b, torch.relu(x @ m.w), m.v), w=torch.ones(5, 8), v=torch.ones(8, 2),
                     b=torch.ones(2)),
        vectors(5),
        {"w": 8},
    ),
    "einsum": Case(
        lambda: Body(lambda m, x: torch.einsum("bnh,ho->bno", m.a(x), m.w), a=nn.Linear(4, 6), w=torch.ones(6, 2)),
        vectors(3, 4),
        {"a": 6},
    ),
    "convolution 1-d": Case(
        lambda: nn.Sequential(nn.Conv1d(2, 6, 3), nn.BatchNorm1d(6), nn.ReLU(), nn.Conv1d(6, 3, 3, padding="same")),
        vectors(2, 9),
        {"0": 6},
    ),
    "convolution 3-d": Case(
        lambda: nn.Sequential(nn.Conv3d(1, 4, 3), nn.BatchNorm3d(4), nn.MaxPool3d(2), nn.Flatten(), nn.Linear(32, 3)),
        vectors(1, 6, 6, 6),
        {"0": 4},
    ),
    "transposed": Case(
        lambda: nn.Sequential(conv(3, 6), nn.ConvTranspose2d(6, 4, 2, 2), nn.ReLU(), conv(4, 2)),
        image(),
        {"0": 6, "1": 4},
    ),
    "grouped": Case(
        lambda: two(conv(8, 12, groups=4), 8, 12),
        image(),
        {"a": 2, "mid": 3, "a:groups": 4},
    ),
    "transposed, grouped": Case(
        lambda: two(nn.ConvTranspose2d(8, 12, 2, 2, groups=4), 8, 12),
        image(),
        {"a": 2, "mid": 3, "a:groups": 4},
    ),
    "depthwise": Case(lambda: two(conv(6, 6, groups=6), 6, 6), image(), {"a": 6}),
    "depthwise, multiplied": Case(lambda: two(conv(6, 18, groups=6), 6, 18), image(), {"a": 6}),
    "transposed, depthwise, multiplied": Case(
        lambda: two(nn.ConvTranspose2d(6, 12, 2, 2, groups=6), 6, 12), image(), {"a": 6}
    ),
    "batch norm before": Case(lambda: two(nn.Sequential(nn.BatchNorm2d(6), nn.ReLU()), 6, 6), image(), {"a": 6}),
    "instance norm": Case(lambda: two(nn.InstanceNorm2d(6, affine=True), 6, 6), image(), {"a": 6}),
    "group norm": Case(
        lambda: two(nn.Sequential(nn.GroupNorm(3, 12), nn.SiLU()), 12, 12), image(), {"a": 4, "a:groups": 3}, False
    ),
    "group norm of one group": Case(lambda: two(nn.GroupNorm(1, 6), 6, 6), image(), {"a": 6}, False),
    "layer norm": Case(
        lambda: nn.Sequential(nn.Linear(5, 8), nn.LayerNorm(8), nn.Linear(8, 2)), vectors(4, 5), {"0": 8}, False
    ),
    "layer norm over an image": Case(
        lambda: nn.Sequential(conv(3, 6), nn.LayerNorm([6, 8, 8]), nn.Flatten(), nn.Linear(384, 2)),
        image(),
        {"0": 6},
        False,
    ),
    "layer norm without weights": Case(
        lambda: nn.Sequential(nn.Linear(5, 8), nn.LayerNorm(8, elementwise_affine=False), nn.Linear(8, 2)),
        vectors(5),
        {"0": 8},
        False,
    ),
    "RMS norm": Case(
        lambda: nn.Sequential(nn.Linear(5, 8), nn.RMSNorm(8), nn.Linear(8, 2)), vectors(5), {"0": 8}, False
    ),
    "PReLU": Case(lambda: two(nn.Sequential(nn.PReLU(6), conv(6, 4), nn.PReLU()), 6, 4), image(), {"a": 6, "mid.1": 4}),
    "residual": Case(
        lambda: Body(lambda m, x: pooled(m, m.a(x) - 2 * m.c(F.relu(m.b(m.a(x))))), a=conv(3, 6), b=conv(6, 5),
                     c=conv(5, 6), out=nn.Linear(6, 3)),
        image(),
        {"a": 6, "b": 5},
    ),
    "broadcasting": Case(
        lambda: Body(lambda m, x: pooled(m, m.a(x) * m.g(x.mean((2, 3)))[:, :, None, None] + m.s), a=conv(3, 6),
                     g=nn.Linear(3, 6), s=torch.ones(1, 6, 1, 1), out=nn.Linear(6, 3)),
        image(),
        {"a": 6},
    ),
    "cat": Case(
        lambda: Body(lambda m, x: m.out(torch.cat([m.a(x), x, m.b(m.a(x))], 1)), a=conv(3, 4), b=conv(4, 5),
                     out=conv(12, 2)),
        image(),
        {"a": 4, "b": 5},
    ),
    "cat of flat maps": Case(
        lambda: Body(lambda m, x: m.out(torch.cat([m.a(x).flatten(1), m.b(x).flatten(1)], 1)), a=conv(3, 4),
                     b=conv(3, 2), out=nn.Linear(6 * 64, 2)),
        image(),
        {"a": 4, "b": 2},
    ),
    "stack": Case(
        lambda: Body(lambda m, x: pooled(m, torch.stack([m.a(x), m.b(x)], 1).amax(1)), a=conv(3, 4), b=conv(3, 4),
                     out=nn.Linear(4, 2)),
        image(),
        {"a": 4},
    ),
    "chunk": Case(
        lambda: Body(gated, a=conv(3, 8), out=nn.Linear(4, 2)),
        image(),
        {"a": 4},
    ),
    "chunk, used apart": Case(
        lambda: Body(apart, a=conv(3, 8), out=conv(4, 2), two=conv(4, 2)),
        image(),
        {"a": 4},
    ),
    "glu": Case(lambda: two(nn.Sequential(conv(6, 8), nn.GLU(1)), 6, 4), image(), {"a": 6, "mid.0": 4}),
    "slices": Case(
        lambda: Body(halved, a=conv(3, 8), out=conv(4, 2)),
        image(),
        {"a": 4},
    ),
    "unbind": Case(
        lambda: Body(lambda m, x: m.out(sum(m.a(x).unbind(1))), a=nn.Linear(4, 6), out=nn.Linear(6, 2)),
        vectors(3, 4),
        {"a": 6},
    ),
    "index_select": Case(
        lambda: Body(lambda m, x: m.out(torch.index_select(F.relu(m.a(x)), 1, m.order)), a=nn.Linear(5, 4),
                     order=torch.tensor([2, 0, 3, 1, 1]), out=nn.Linear(5, 2)),
        vectors(5),
        {"a": 3, "a:2": 1},
    ),
    "indexing": Case(
        lambda: Body(gather, a=nn.Linear(5, 4), order=torch.tensor([2, 0, 3, 1]), out=nn.Linear(4, 2)),
        vectors(5),
        {"a": 4},
    ),
    "flip": Case(
        lambda: Body(lambda m, x: m.out(m.a(x) + m.a(x).flip(1)), a=nn.Linear(5, 6), out=nn.Linear(6, 2)),
        vectors(5),
        {"a": 3},
    ),
    "constant pad": Case(
        lambda: Body(lambda m, x: pooled(m, F.pad(m.a(x), (1, 1, 1, 1, 1, 2))), a=conv(3, 5), out=nn.Linear(8, 2)),
        image(),
        {"a": 5},
    ),
    "padded shortcut": Case(
        lambda: Body(lambda m, x: pooled(m, F.pad(m.a(x), (0, 0, 0, 0, 2, 2)) + m.b(x)), a=conv(3, 4), b=conv(3, 8),
                     out=nn.Linear(8, 2)),
        image(),
        {"a": 4},
    ),
    "flatten, view and back": Case(
        lambda: Body(there_and_back, a=conv(3, 6), out=conv(6, 2)),
        image(),
        {"a": 6},
    ),
    "permute": Case(
        lambda: Body(lambda m, x: m.out(m.a(x).permute(0, 2, 3, 1).reshape(x.shape[0], 64, -1)), a=conv(3, 6),
                     out=nn.Linear(6, 2)),
        image(),
        {"a": 6},
    ),
    "pixel shuffle": Case(lambda: two(nn.PixelShuffle(2), 12, 3), image(), {"a": 3}),
    "pixel unshuffle": Case(lambda: two(nn.PixelUnshuffle(2), 3, 12), image(), {"a": 3}),
    "channel shuffle": Case(lambda: two(nn.ChannelShuffle(3), 12, 12), image(), {"a": 4}),
    "channel shuffle by views": Case(
        lambda: Body(lambda m, x: pooled(m, shuffle(m.a(x), 3)), a=conv(3, 12), out=nn.Linear(12, 2)),
        image(),
        {"a": 4, "a:groups": 3},
    ),
    "pooling and upsampling": Case(
        lambda: two(nn.Sequential(nn.MaxPool2d(2), nn.Upsample(None, 2, "bilinear"), nn.AvgPool2d(2)), 6, 6),
        image(),
        {"a": 6},
    ),
    "squeeze and excitation": Case(
        lambda: Body(excite, a=conv(3, 8), down=nn.Conv2d(8, 4, 1), up=nn.Conv2d(4, 8, 1), out=nn.Linear(8, 2)),
        image(),
        {"a": 8, "down": 4},
    ),
    "mean and maximum over channels": Case(
        lambda: Body(lambda m, x: m.out(torch.cat([m.a(x).mean(1, True), m.a(x).max(1, True)[0]], 1)), a=conv(3, 6),
                     out=conv(2, 2)),
        image(),
        {"a": 6},
        False,
    ),
    "unfold": Case(
        lambda: Body(lambda m, x: m.out(F.unfold(m.a(x), 3).transpose(1, 2)), a=conv(3, 4), out=nn.Linear(36, 2)),
        image(),
        {"a": 4},
    ),
    "embedding": Case(
        lambda: nn.Sequential(nn.Embedding(9, 6), nn.Linear(6, 2)), lambda: (torch.randint(0, 9, (2, 5)),), {"0": 6}
    ),
    "embedding bag": Case(
        lambda: nn.Sequential(nn.EmbeddingBag(9, 6), nn.Linear(6, 2)), lambda: (torch.randint(0, 9, (2, 5)),), {"0": 6}
    ),
    "cosine similarity": Case(
        lambda: Body(lambda m, x: F.cosine_similarity(m.a(x), m.b(x), dim=-1), a=nn.Linear(5, 6), b=nn.Linear(5, 6)),
        vectors(5),
        {"a": 6},
    ),
    "multi-head attention": Case(
        lambda: Body(attended, a=nn.Linear(4, 12), mha=nn.MultiheadAttention(12, 3, batch_first=True),
                     out=nn.Linear(12, 2)),
        vectors(5, 4),
        {"a": 12, "mha": 4, "mha:groups": 3},
    ),
    "attention across": Case(
        lambda: Body(crossed, a=nn.Linear(4, 12), b=nn.Linear(3, 6), out=nn.Linear(12, 2),
                     mha=nn.MultiheadAttention(12, 3, kdim=6, vdim=6, batch_first=True)),
        lambda: (torch.randn(2, 5, 4), torch.randn(2, 7, 3)),
        {"a": 12, "b": 6, "mha": 4, "mha:groups": 3, "mha.out_proj": 12},
    ),
    "LSTM": Case(
        lambda: Body(recurred, a=nn.Linear(4, 6), rnn=nn.LSTM(6, 5, 2, batch_first=True, bidirectional=True),
                     out=nn.Linear(10, 3), two=nn.Linear(5, 3)),
        vectors(6, 4),
        {"a": 6, "rnn": 5},
    ),
    "GRU without biases": Case(
        lambda: Body(lambda m, x: m.out(m.rnn(m.a(x))[0]), a=nn.Linear(4, 6), out=nn.Linear(5, 3),
                     rnn=nn.GRU(6, 5, bias=False, batch_first=True)),
        vectors(6, 4),
        {"a": 6, "rnn": 5},
    ),
    "plain recurrent": Case(
        lambda: Body(lambda m, x: m.out(m.rnn(x)[0]), rnn=nn.RNN(4, 5, 2, nonlinearity="relu", batch_first=True),
                     out=nn.Linear(5, 3)),
        vectors(6, 4),
        {"rnn": 5},
    ),
    "cells": Case(
        lambda: Body(stepped, one=nn.LSTMCell(4, 6), two=nn.GRUCell(6, 5), out=nn.Linear(5, 3)),
        vectors(3, 4),
        {"one": 6, "two": 5},
    ),
    "dead branch": Case(
        lambda: Body(lambda m, x: (m.dead(m.a(x)), m.out(m.a(x)))[1], a=nn.Linear(5, 6), dead=nn.Linear(6, 4),
                     out=nn.Linear(6, 2)),
        vectors(5),
        {"a": 6, "dead": 4},
    ),
    "shared layer": Case(
        lambda: Body(lambda m, x, y: m.out(m.a(x) * m.a(y)), a=nn.Linear(5, 6), out=nn.Linear(6, 2)),
        lambda: (torch.randn(2, 5), torch.randn(2, 5)),
        {"a": 6},
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_operation(name):
    case = CASES[name]
    network = capture(lively(case.module()).double(), tuple(_double(tensor) for tensor in case.example()))
    coupling = analyse(network.graph)
    assert {unit.name: unit.groups for unit in coupling.units} == {k: v for k, v in case.units.items() if v > 1}
    assert all(unit.exact for unit in coupling.units if unit.name != "a:groups") == case.exact
    coupling = confirm(network, coupling)
    assert coupling.units, "every case has something to remove"
    for seed in range(2):
        removals = random_removals(coupling, 0.4, seed)
        smaller = remove(network, coupling, removals)
        output = smaller(*network.example)
        assert relative_error(output, silence(network.graph, coupling, removals)(*network.example)) < 1e-10
        if all(coupling.unit(unit).exact for unit in removals):
            assert relative_error(output, zeroed(network, coupling, removals)(*network.example)) < 1e-10
        assert relative_error(output, network.module(*network.example)) > 1e-6
        assert parameters(smaller) < parameters(network.module)


def _double(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.double() if tensor.is_floating_point() else tensor
