"""Random networks, random cuts: pruned equals masked."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from torch import nn

from featherweight.network.capture import capture
from featherweight.network.channels import analyse
from featherweight.network.surgery import confirm, remove, silence
from tests.network.cutting import lively, random_removals, relative_error, zeroed


class Residual(nn.Module):
    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.a, self.norm = nn.Conv2d(width, inner, 3, padding=1), nn.BatchNorm2d(inner)
        self.b = nn.Conv2d(inner, width, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.relu(x + self.b(F.silu(self.norm(self.a(x)))))


class Dense(nn.Module):
    def __init__(self, width: int, growth: int) -> None:
        super().__init__()
        self.norm, self.conv = nn.BatchNorm2d(width), nn.Conv2d(width, growth, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cat([x, self.conv(F.relu(self.norm(x)))], 1)


class Gated(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.gate = nn.Linear(width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * torch.sigmoid(self.gate(x.mean((2, 3)))).unflatten(1, (-1, 1, 1))


class Halves(nn.Module):
    """One half goes through a convolution, then the halves are interleaved."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width // 2, width // 2, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        u, v = x.chunk(2, 1)
        x = torch.cat([u, F.relu(self.conv(v))], 1)
        return x.unflatten(1, (2, -1)).transpose(1, 2).flatten(1, 2)


def grouped(width: int, out: int) -> nn.Module:
    return nn.Sequential(nn.Conv2d(width, 2 * out, 3, padding=1, groups=2), nn.PReLU(2 * out))


BLOCKS = {
    "convolution": lambda w, n: (nn.Sequential(nn.Conv2d(w, n, 3, padding=1), nn.BatchNorm2d(n), nn.ReLU()), n),
    "strided": lambda w, n: (nn.Sequential(nn.Conv2d(w, n, 3, 2, 1), nn.Sigmoid()), n),
    "depthwise": lambda w, n: (nn.Conv2d(w, 2 * w, 3, padding=1, groups=w), 2 * w),
    "grouped": lambda w, n: (grouped(w, n), 2 * n) if w % 2 == 0 else (nn.Identity(), w),
    "residual": lambda w, n: (Residual(w, n), w),
    "dense": lambda w, n: (Dense(w, n), w + n),
    "gated": lambda w, n: (Gated(w), w),
    "halves": lambda w, n: (Halves(w), w) if w % 2 == 0 else (nn.Identity(), w),
    "transposed": lambda w, n: (nn.ConvTranspose2d(w, n, 2, 2), n),
    "group norm": lambda w, n: (nn.GroupNorm(2, w), w) if w % 2 == 0 else (nn.GroupNorm(1, w), w),
}


def build(plan: list[tuple[str, int]], flat: bool) -> nn.Module:
    """A stem, the planned blocks, and a classifier behind a flattened or an averaged map."""
    layers: list[nn.Module] = [nn.Conv2d(2, 6, 3, padding=1)]
    width = 6
    for name, size in plan:
        layer, width = BLOCKS[name](width, size)
        layers.append(layer)
    layers += [nn.AdaptiveAvgPool2d(2 if flat else 1), nn.Flatten(), nn.Linear(width * (4 if flat else 1), 3)]
    return nn.Sequential(*layers)


plans = st.lists(st.tuples(st.sampled_from(sorted(BLOCKS)), st.sampled_from([2, 3, 4, 6])), min_size=1, max_size=4)


@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 1e-5)], ids=["double", "float"]
)
@settings(max_examples=12, suppress_health_check=[HealthCheck.too_slow])
@given(plan=plans, flat=st.booleans(), ratio=st.floats(0.1, 0.9), seed=st.integers(0, 99))
def test_pruned_equals_masked(dtype, tolerance, plan, flat, ratio, seed):
    torch.manual_seed(seed)
    network = capture(lively(build(plan, flat), seed).to(dtype), torch.randn(2, 2, 8, 8, dtype=dtype))
    coupling = confirm(network, analyse(network.graph))
    assume(coupling.units)  # interleaving and group norm can tie all channels into one group
    removals = random_removals(coupling, ratio, seed)
    output = remove(network, coupling, removals)(*network.example)
    assert relative_error(output, silence(network.graph, coupling, removals)(*network.example)) <= tolerance
    if all(coupling.unit(name).exact for name in removals):
        assert relative_error(output, zeroed(network, coupling, removals)(*network.example)) <= tolerance


@settings(max_examples=8, suppress_health_check=[HealthCheck.too_slow])
@given(plan=plans, seed=st.integers(0, 99))
def test_removing_twice_is_removing_both(plan, seed):
    """What is left can be analysed and cut again, with the same result as cutting at once."""
    torch.manual_seed(seed)
    network = capture(lively(build(plan, False), seed).double(), torch.randn(2, 2, 8, 8, dtype=torch.float64))
    coupling = analyse(network.graph)
    assume(coupling.units)
    unit = max(coupling.units, key=lambda unit: unit.groups)
    at_once = remove(network, coupling, {unit.name: [0, unit.groups - 1]}) if unit.groups > 2 else None
    first = capture(remove(network, coupling, {unit.name: [0]}), network.example)
    again = analyse(first.graph)
    if at_once is not None:
        second = remove(first, again, {unit.name: [unit.groups - 2]})
        assert relative_error(second(*network.example), at_once(*network.example)) < 1e-10
    else:
        assert unit.name not in {other.name for other in again.units}
