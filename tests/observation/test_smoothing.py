"""Scale moves from activations into weights where int8 then errs less, and the function stays."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional

from featherweight.contracts import Plan, Step
from featherweight.methods import METHODS
from featherweight.methods.apply import apply
from featherweight.network import Network, capture
from featherweight.network.grids import with_grids
from featherweight.network.smoothing import Site, scaled, sites_of
from featherweight.network.surgery import Slim
from featherweight.observation.smoothing import smoothed
from featherweight.recovery import recover
from featherweight.targets.litert import LiteRT
from featherweight.tasks.data import Split

INT8 = (Step("quantization", {"weights": "int8", "activations": "int8"}),)


class Attends(nn.Module):
    """Two layers read one normalisation, a sum reads another, and outliers sit in a few of its channels."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.query, self.key = nn.LayerNorm(24), nn.Linear(24, 24), nn.Linear(24, 24, bias=False)
        self.last_norm, self.hidden, self.answer = nn.LayerNorm(24), nn.Linear(24, 48), nn.Linear(48, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.norm(x)
        x = self.query(y) * torch.sigmoid(self.key(y))
        y = self.last_norm(x)
        return self.answer(functional.relu(self.hidden(y))).mean(1) + y.mean((1, 2)).unsqueeze(1)


def _outlying(module: nn.Module) -> nn.Module:
    with torch.no_grad():
        module.norm.weight[::6] *= 80.0
        module.norm.bias[::6] += 5.0
    return module.eval()


@pytest.fixture
def network() -> Network:
    return capture(_outlying(Attends()), torch.randn(2, 3, 24))


@pytest.fixture
def split() -> Split:
    return Split.of(torch.randn(96, 3, 24))


def test_sites_are_values_that_layers_alone_read(network: Network) -> None:
    assert sites_of(network) == (Site("norm", ("query", "key")), Site("hidden", ("answer",)))


@pytest.mark.parametrize(
    ("module", "shape", "sites"),
    [
        (nn.Sequential(nn.Conv2d(2, 4, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(4, 3, 1)), (2, 8, 8), 1),
        (nn.Sequential(nn.BatchNorm2d(2), nn.ReLU(), nn.Conv2d(2, 3, 3)), (2, 8, 8), 1),
        (nn.Sequential(nn.BatchNorm1d(6), nn.Linear(6, 3)), (6,), 1),
        (nn.Sequential(nn.BatchNorm1d(6), nn.Conv1d(6, 3, 3)), (6, 8), 1),
        (nn.Sequential(nn.BatchNorm1d(6), nn.Linear(8, 3)), (6, 8), 0),  # channels and features are other axes
        (nn.Sequential(nn.Linear(6, 6), nn.GELU(), nn.Linear(6, 3)), (6,), 0),
        (nn.Sequential(nn.LayerNorm(6, elementwise_affine=False), nn.Linear(6, 3)), (6,), 0),
        (nn.Sequential(nn.LayerNorm((4, 6)), nn.Linear(6, 3)), (4, 6), 0),
        (nn.Sequential(nn.Conv2d(2, 4, 3), nn.Conv2d(4, 4, 1, groups=2)), (2, 8, 8), 0),
        (nn.Sequential(nn.Conv2d(2, 4, 3), nn.Linear(6, 3)), (2, 8, 8), 0),
    ],
    ids=str,
)
def test_scale_moves_where_it_can_and_the_function_stays(module: nn.Module, shape: tuple[int, ...], sites: int) -> None:
    network = capture(module.double(), torch.randn(2, *shape).double())
    found = sites_of(network)
    assert len(found) == sites
    scales = {}
    for site in found:
        channels = network.module.get_submodule(site.producer).weight.shape[0]
        scales[site.producer] = torch.rand(channels).double() * 5 + 0.1
    x = torch.randn(4, *shape).double()
    assert torch.allclose(scaled(network, scales).module(x), network.module(x), rtol=1e-9, atol=1e-12)


def test_outliers_move_into_weights_and_int8_gains(network: Network, split: Split) -> None:
    before = copy.deepcopy(network.module.state_dict())
    changed, decided = smoothed(network, split)
    assert all(torch.equal(value, before[name]) for name, value in network.module.state_dict().items())
    norm, hidden = decided
    assert norm.alpha > 0
    assert norm.after < 0.5 * norm.before
    assert hidden.after <= hidden.before
    x = torch.randn(200, 3, 24)
    wanted = network.module(x)
    assert torch.allclose(changed.module(x), wanted, rtol=1e-3, atol=1e-4)
    errors = []
    for one in (network, changed):
        plan = Plan("", "litert", dict.fromkeys(("query", "key"), INT8))
        built = recover(Slim.whole(one), apply(one, plan, split, LiteRT().capability, METHODS), split, LiteRT())
        errors.append(float((with_grids(built)(x) - wanted).square().mean()))
    assert errors[1] < 0.7 * errors[0]  # outputs lie on grids too, which scale leaves alone


def test_what_gains_nothing_stays(split: Split) -> None:
    even = capture(nn.Sequential(nn.Linear(24, 24), nn.GELU(), nn.Linear(24, 3)).eval(), torch.randn(2, 3, 24))
    assert smoothed(even, split) == (even, ())
    network = capture(Attends().eval(), torch.randn(2, 3, 24))
    changed, decided = smoothed(network, split)
    assert all(one.after <= one.before for one in decided)
    assert torch.equal(changed.module.query.weight, network.module.query.weight) == (decided[0].alpha == 0)


def test_dead_channels_and_one_sample_stay_finite() -> None:
    module = Attends().eval()
    with torch.no_grad():
        module.norm.weight[3] = module.norm.bias[3] = 0.0
        module.query.weight[:, 5] = module.key.weight[:, 5] = 0.0
        module.hidden.weight.zero_()
    network = capture(module, torch.randn(2, 3, 24))
    changed, decided = smoothed(network, Split.of(torch.randn(1, 3, 24)))
    assert all(torch.isfinite(torch.tensor([one.before, one.after])).all() for one in decided)
    assert all(bool(torch.isfinite(value).all()) for value in changed.module.state_dict().values())


def test_the_same_call_decides_the_same(network: Network, split: Split) -> None:
    first, again = (smoothed(network, split) for _ in range(2))
    assert first[1] == again[1]
    assert first[0].fingerprint() == again[0].fingerprint()
