"""Chains are found where scale may pass, and equalizing them leaves the function alone."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional

from featherweight.network import capture, fold_batch_norm
from featherweight.network.equalizing import chains_of, equalized
from featherweight.network.modules import weight_of
from featherweight.numerics.equalization import input_ranges, output_ranges


class _Mixed(nn.Module):
    """A depthwise chain, a branch, a ReLU6, and a linear chain behind a flatten."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(2, 6, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(6)
        self.depth = nn.Conv2d(6, 6, 3, padding=1, groups=6)
        self.point = nn.Conv2d(6, 4, 1)
        self.branch = nn.Conv2d(4, 4, 3, padding=1)
        self.bounded = nn.Conv2d(4, 4, 1)
        self.hidden = nn.Linear(4 * 9, 8)
        self.answer = nn.Linear(8, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = functional.relu(self.norm(self.first(x)))
        x = self.point(functional.max_pool2d(functional.relu(self.depth(x)), 2))
        x = x + self.branch(x)
        x = functional.relu6(self.bounded(x)).flatten(1)
        return self.answer(functional.dropout(functional.relu(self.hidden(x)), training=self.training))


def _uneven(module: nn.Module, seed: int, spread: float) -> nn.Module:
    """The module with channels whose weights differ by orders of magnitude."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            scale = torch.randn(len(parameter), generator=generator).mul(spread).exp()
            parameter.mul_(scale.view(-1, *[1] * (parameter.ndim - 1)))
    return module.eval()


def test_chains_stop_at_branches_bounded_functions_and_changes_of_axes() -> None:
    network = fold_batch_norm(capture(_Mixed().eval(), torch.randn(2, 2, 6, 6)))
    assert chains_of(network) == (("first", "depth", "point"), ("hidden", "answer"))


@settings(max_examples=8)
@given(seed=st.integers(0, 10**6), spread=st.floats(0.0, 3.0))
def test_the_function_stays(seed: int, spread: float) -> None:
    torch.manual_seed(seed)
    network = fold_batch_norm(capture(_uneven(_Mixed(), seed, spread).double(), torch.randn(2, 2, 6, 6).double()))
    before = {name: value.clone() for name, value in network.module.state_dict().items()}
    changed, chains = equalized(network)
    x = torch.randn(16, 2, 6, 6).double()
    with torch.no_grad():
        wanted, found = network.module(x), changed.module(x)
    assert len(chains) == 2
    assert torch.allclose(found, wanted, rtol=1e-9, atol=1e-9 * float(wanted.abs().max()))
    assert all(torch.equal(value, before[name]) for name, value in network.module.state_dict().items())


def test_neighbours_reach_equally_far() -> None:
    module = _uneven(nn.Sequential(nn.Linear(5, 7), nn.ReLU(), nn.Linear(7, 3)), 1, 2.0)
    changed, _ = equalized(capture(module, torch.randn(2, 5)))
    first, second = (weight_of(changed.module.get_submodule(name)) for name in ("0", "2"))
    assert torch.allclose(output_ranges(first), input_ranges(second), rtol=1e-3)


@pytest.mark.parametrize(
    "between",
    [nn.ReLU6(), nn.Sigmoid(), nn.GELU(), nn.Softmax(1), nn.LayerNorm(7), nn.Tanh()],
    ids=lambda module: type(module).__name__,
)
def test_what_scale_does_not_pass_ends_a_chain(between: nn.Module) -> None:
    network = capture(nn.Sequential(nn.Linear(5, 7), between, nn.Linear(7, 3)).eval(), torch.randn(2, 5))
    same, chains = equalized(network)
    assert chains == ()
    assert same is network


def test_a_layer_that_is_called_twice_and_an_output_that_is_read_twice_stay() -> None:
    class Shared(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.twice, self.once, self.last = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = self.once(functional.relu(self.twice(functional.relu(self.twice(x)))))
            return self.last(functional.relu(x)) + x

    assert chains_of(capture(Shared().eval(), torch.randn(2, 4))) == ()


def test_grouped_convolutions_end_a_chain_and_dead_channels_do_no_harm() -> None:
    grouped = nn.Sequential(nn.Conv2d(4, 4, 1), nn.ReLU(), nn.Conv2d(4, 4, 1, groups=2))
    assert chains_of(capture(grouped.eval(), torch.randn(2, 4, 3, 3))) == ()
    plain = nn.Sequential(nn.Conv1d(4, 4, 3), nn.ReLU(), nn.Conv1d(4, 4, 3)).eval()
    with torch.no_grad():
        plain[0].weight[1] = 0.0
        plain[2].weight[:, 2] = 0.0
    network = capture(plain, torch.randn(2, 4, 9))
    changed, chains = equalized(network)
    x = torch.randn(5, 4, 9)
    assert chains == (("0", "2"),)
    assert torch.allclose(changed.module(x), network.module(x), rtol=1e-4, atol=1e-6)
