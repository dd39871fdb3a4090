"""Inputs made up from batch-norm statistics: they come near what they stand for, the same every time."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from featherweight.contracts import DataError
from featherweight.network.capture import Network, capture
from featherweight.network.folding import fold_batch_norm
from featherweight.observation.synthesis import synthesize


def _trained(dtype: torch.dtype = torch.float32) -> tuple[Network, torch.Tensor]:
    """A network that has seen smooth images with a mean of their own, and those images."""
    torch.manual_seed(0)
    module = nn.Sequential(
        nn.Conv2d(2, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.BatchNorm2d(8), nn.ReLU()
    )
    images = nn.functional.avg_pool2d(torch.randn(200, 2, 18, 18) + torch.tensor([1.0, -2.0]).view(1, 2, 1, 1), 9, 1)
    for norm in (module[1], module[4]):
        norm.momentum = None
    with torch.no_grad():
        module.train()(images)
    return capture(module.eval().to(dtype), images[:2].to(dtype)), images


def _grams(network: Network, x: torch.Tensor) -> torch.Tensor:
    rows = nn.functional.unfold(x.float(), 3).transpose(1, 2).flatten(0, 1)
    return rows.T @ rows / len(rows)


def test_made_up_inputs_have_the_statistics_that_the_network_remembers() -> None:
    network, _ = _trained()
    made = synthesize(network, 40, steps=150)
    (x,) = made.split.take(range(40)).inputs
    assert x.shape == (40, 2, 10, 10)
    assert x.dtype == torch.float32
    assert made.warning == ""
    assert made.split.labels is None
    assert made.loss[1] < 0.02 * made.loss[0]
    features = network.module[0](x)
    assert torch.allclose(features.mean((0, 2, 3)), network.module[1].running_mean, atol=0.1)
    assert torch.allclose(features.var((0, 2, 3)), network.module[1].running_var, rtol=0.3, atol=0.02)


def test_they_observe_more_of_the_truth_than_noise_does() -> None:
    network, images = _trained()
    (made,), (noise,) = (synthesize(network, 64, steps=n).split.take(range(64)).inputs for n in (150, 0))
    truth = _grams(network, images)
    found, plain = (float((_grams(network, x) - truth).norm() / truth.norm()) for x in (made, noise))
    assert found < 0.5 * plain


def test_same_seed_same_inputs_and_another_seed_others() -> None:
    network, _ = _trained()
    one, two, other = (synthesize(network, 3, seed, steps=3).split.take(range(3)).inputs[0] for seed in (1, 1, 2))
    assert torch.equal(one, two)
    assert not torch.equal(one, other)


@pytest.mark.parametrize("gradients", [True, False])
def test_the_network_and_the_gradient_mode_stay_as_they_are(gradients: bool) -> None:
    network, _ = _trained()
    before = copy.deepcopy(network.module.state_dict())
    with torch.set_grad_enabled(gradients):
        (x,) = synthesize(network, 2, steps=2).split.take(range(2)).inputs
        assert torch.is_grad_enabled() == gradients
    assert not x.requires_grad
    assert all(torch.equal(value, before[name]) for name, value in network.module.state_dict().items())
    assert not any(p.requires_grad for p in network.module.parameters())
    assert not any(child._forward_pre_hooks for child in network.module.modules())


def test_without_batch_norm_there_is_noise_and_a_warning() -> None:
    network, _ = _trained()
    made = synthesize(fold_batch_norm(network), 5)
    assert "noise" in made.warning
    assert made.loss == (0.0, 0.0)
    assert len(made.split) == 5
    stateless = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3, track_running_stats=False))
    assert synthesize(capture(stateless, torch.randn(3, 4)), 5).warning


@pytest.mark.parametrize("dtype", [torch.float16, torch.float64])
@pytest.mark.parametrize("count", [1, 33])
def test_other_precisions_one_input_and_a_second_batch(dtype: torch.dtype, count: int) -> None:
    network, _ = _trained(dtype)
    made = synthesize(network, count, steps=5)
    (x,) = made.split.take(range(count)).inputs
    assert x.dtype == dtype
    assert len(x) == count
    assert bool(torch.isfinite(x).all())
    assert made.loss[1] < made.loss[0]


def test_several_inputs_are_made_together() -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm = nn.BatchNorm1d(7)

        def forward(self, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
            return self.norm(torch.cat([a, b], 1))

    module = Two()
    module.norm.running_mean += 3.0
    made = synthesize(capture(module.eval(), (torch.randn(2, 3), torch.randn(2, 4))), 32, steps=100)
    a, b = made.split.take(range(32)).inputs
    assert (a.shape, b.shape) == ((32, 3), (32, 4))
    assert float(torch.cat([a, b], 1).mean()) == pytest.approx(3.0, abs=0.1)


@pytest.mark.parametrize("count", [0, -3])
def test_no_inputs_at_all_are_refused(count: int) -> None:
    with pytest.raises(DataError, match="at least one"):
        synthesize(_trained()[0], count)


def test_whole_numbers_can_not_be_synthesized() -> None:
    network = capture(nn.Sequential(nn.Embedding(5, 3), nn.Linear(3, 2)), torch.zeros(2, 4, dtype=torch.int64))
    with pytest.raises(DataError, match="real numbers"):
        synthesize(network, 4)
