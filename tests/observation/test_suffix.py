"""From a layer on, the rest of the graph gives what the whole network with that layer replaced gives."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from featherweight.contracts import Cost
from featherweight.network.capture import capture
from featherweight.network.modules import copied, replace_module
from featherweight.observation.suffix import Suffix, anchor_samples


class _Branches(nn.Module):
    """A residual sum, a concatenation and both outputs of a chunk; sums and activations in place where asked."""

    def __init__(self, in_place: bool) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3, padding=1)
        self.inner = nn.Conv2d(8, 8, 3, padding=1, bias=False)
        self.left, self.right = nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 3, padding=1, groups=4)
        self.last = nn.Linear(16, 5)
        self.relu = nn.ReLU(in_place)
        self.in_place = in_place

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(n, 3, 6, 6) → (n, 5)."""
        shortcut = self.relu(self.first(x))
        y = self.inner(shortcut)
        y = shortcut.add_(y) if self.in_place else shortcut + y
        one, other = y.chunk(2, 1)
        one, other = self.left(one), self.right(self.relu(other))
        return self.last(torch.cat([one, other, y], 1).mean((2, 3)))


def _problem(in_place: bool) -> tuple[nn.Module, torch.Tensor]:
    with torch.random.fork_rng():
        torch.manual_seed(3)
        return _Branches(in_place).double(), torch.randn(7, 3, 6, 6).double()


def _changed(module: nn.Module) -> nn.Module:
    other = copied(module)
    other.weight = nn.Parameter(module.weight.detach() * 0.5 + 0.1)
    return nn.Sequential(other)


@pytest.mark.parametrize("in_place", [False, True])
@pytest.mark.parametrize("backwards", [False, True])
def test_the_rest_gives_what_the_whole_gives(in_place: bool, backwards: bool) -> None:
    module, x = _problem(in_place)
    network, before = capture(module, x[:2]), x.clone()
    suffix = Suffix(network.graph, (x,))
    dense = network.module(x)
    names = [layer.name for layer in network.layers]
    assert names == ["first", "inner", "left", "right", "last"]
    for name in names[::-1] if backwards else names:
        changed, whole = _changed(network.module.get_submodule(name)), copied(network.module)
        replace_module(whole, name, changed)
        with torch.no_grad():
            expected = whole(x)
        for _ in range(2):  # a second measurement starts from the same values
            found = suffix.outputs(network.layer(name).node, changed)
            assert torch.allclose(found, expected, rtol=0, atol=1e-12)
        assert (expected - dense).abs().max() > 1e-3
    assert torch.equal(x, before)


def test_only_what_comes_after_the_layer_is_run() -> None:
    module, x = _problem(False)
    network = capture(module, x[:2])
    suffix = Suffix(network.graph, (x,))
    suffix.outputs(network.layer("last").node, nn.Identity())
    calls: list[int] = []
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        calls.append(len(suffix.outputs(network.layer("last").node, nn.Identity())))
    assert calls == [7]
    assert not any("conv" in event.key for event in profile.key_averages())


@pytest.mark.parametrize(
    ("macs", "available", "expected"),
    [(0, 500, 128), (40_000_000, 500, 128), (125_000_000, 500, 80), (10**10, 500, 32), (10**10, 5, 5), (1, 90, 90)],
)
def test_samples_are_bounded_by_work(macs: int, available: int, expected: int) -> None:
    assert anchor_samples(Cost(0, macs, 0), available) == expected
