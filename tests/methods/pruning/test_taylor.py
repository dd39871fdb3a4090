"""Taylor scores against gradients of single samples, and against the divergence that they predict."""

from __future__ import annotations

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from featherweight.contracts import DataError, PlanError
from featherweight.methods.pruning.taylor import taylor_scores
from featherweight.network import Network, capture
from featherweight.network.channels import analyse
from featherweight.tasks import CLASSIFICATION, REGRESSION, Task
from featherweight.tasks.data import Split
from tests.zoo.catalogue import ZOO


class Small(nn.Module):
    """Two readers of one unit's channels, and a depthwise layer inside it; in place where it can be."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Conv2d(2, 5, 3, padding=1)
        self.depth = nn.Conv2d(5, 5, 3, padding=1, groups=5)
        self.left = nn.Conv2d(5, 4, 3)
        self.right = nn.Conv2d(5, 4, 1, stride=2, padding=0)
        self.head = nn.Linear(8, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu_(self.depth(torch.relu(self.inner(x))))
        pooled = [torch.relu(branch(x)).mean((2, 3)) for branch in (self.left, self.right)]
        return self.head(torch.cat(pooled, 1))


@pytest.fixture
def problem() -> tuple[Network, torch.Tensor]:
    x = torch.randn(12, 2, 6, 6).double()
    return capture(Small().double(), x[:2]), x


def products(network: Network, x: torch.Tensor, pull: torch.Tensor) -> torch.Tensor:
    """``Σ g · w`` of every group over both readers' columns, for the gradient of ``⟨pull, outputs⟩`` of one sample."""
    module = copy.deepcopy(network.module).requires_grad_(True)
    module.zero_grad()
    (module(x.unsqueeze(0)) * pull).sum().backward()
    left, right = ((layer.weight.grad * layer.weight).sum((0, 2, 3)) for layer in (module.left, module.right))
    return (left + right).detach()


def test_with_labels_it_is_the_squared_product_of_gradient_and_weight_sample_by_sample(problem: tuple) -> None:
    network, x = problem
    labels = np.arange(12) % 3
    expected = torch.zeros(5).double()
    for sample, label in zip(x, labels, strict=True):
        pull = nn.functional.one_hot(torch.tensor(label), 3) - network.module(sample.unsqueeze(0)).softmax(1)
        expected += products(network, sample, pull).square() / 24
    unit = analyse(network.graph).unit("inner")
    assert torch.allclose(taylor_scores(network, unit, Split.of((x, labels)), CLASSIFICATION), expected)


def test_without_labels_it_is_the_expectation_over_the_networks_own_answers(problem: tuple) -> None:
    network, x = problem
    expected = torch.zeros(5).double()
    for sample in x:
        chances = network.module(sample.unsqueeze(0)).softmax(1)[0]
        for answer, chance in enumerate(chances):
            pull = nn.functional.one_hot(torch.tensor(answer), 3) - chances
            expected += chance * products(network, sample, pull).square() / 24
    unit = analyse(network.graph).unit("inner")
    found = taylor_scores(network, unit, Split.of(x), CLASSIFICATION, draws=3000)
    assert torch.allclose(found, expected, rtol=0.1)


@pytest.mark.parametrize("task", [CLASSIFICATION, REGRESSION], ids=lambda task: task.name)
def test_it_predicts_the_divergence_without_the_group(task: Task) -> None:
    """A network that is linear in the unit, and small steps of it: second order is all there is."""
    module = nn.Sequential(nn.Linear(6, 8), nn.Linear(8, 4)).double()
    with torch.no_grad():
        module[0].weight.mul_(0.1)
        module[0].bias.mul_(0.1)
    x = torch.randn(32, 6).double()
    network = capture(module, x[:2])
    found = taylor_scores(network, analyse(network.graph).unit("0"), Split.of(x), task, draws=2000)
    reference = network.module(x).numpy()
    for group in range(8):
        without = copy.deepcopy(network.module)
        without[1].weight.data[:, group] = 0.0
        assert float(found[group]) == pytest.approx(task.divergence(reference, without(x).numpy()), rel=0.15)


def test_the_same_seed_gives_the_same_scores_and_the_network_stays(problem: tuple) -> None:
    network, x = problem
    unit, before = analyse(network.graph).unit("inner"), network.fingerprint()
    first, again, other = (taylor_scores(network, unit, Split.of(x), CLASSIFICATION, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert network.fingerprint() == before
    assert all(parameter.grad is None for parameter in network.module.parameters())


@pytest.mark.parametrize("name", ["unet", "vit", "seq2seq", "two_tower", "lstm", "super_resolution"])
def test_batches_tell_the_samples_apart_in_the_zoo(name: str) -> None:
    """One sample after the other gives what all together give, whatever axis the batch lies on."""
    make, example = ZOO[name]
    torch.manual_seed(0)
    network = capture(make(), example())
    x = example()
    labels = torch.randn(2, *network.output_shape).numpy()
    for unit in analyse(network.graph).units[:4]:
        both = taylor_scores(network, unit, Split.of((x, labels)), REGRESSION)
        energy = float(network.module(*x).square().sum()) / 2
        single = torch.zeros_like(both)
        for row in range(2):
            one = Split.of((tuple(part[row : row + 1] for part in x), labels[row : row + 1]))
            own = float(network.module(*(part[row : row + 1] for part in x)).square().sum())
            single += taylor_scores(network, unit, one, REGRESSION) * (own / energy) ** 2 / 2
        assert torch.allclose(both, single, rtol=1e-3)


def test_what_it_cant_score_is_refused(problem: tuple) -> None:
    network, x = problem
    unit = analyse(network.graph).unit("inner")
    with pytest.raises(PlanError, match="likelihood"):
        taylor_scores(network, unit, Split.of(x), replace(REGRESSION, name="detection"))
    with pytest.raises(DataError, match="need samples"):
        taylor_scores(network, unit, Split.of(x).first(0), CLASSIFICATION)
    with pytest.raises(DataError, match="Labels run from 0"):
        taylor_scores(network, unit, Split.of((x, np.arange(12))), CLASSIFICATION)
    with pytest.raises(DataError, match="outputs' shape"):
        taylor_scores(network, unit, Split.of((x, np.arange(12.0))), REGRESSION)


def test_queries_and_keys_are_sensed_where_they_come_from() -> None:
    """Nothing weighted reads them; their product makes the gate count twice, for all of them alike."""

    class Scores(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.query, self.key = nn.Linear(4, 6), nn.Linear(4, 6)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return (self.query(x) @ self.key(x).transpose(1, 2)).flatten(1)

    x = torch.randn(16, 3, 4)
    network = capture(Scores(), x[:2])
    (unit,) = analyse(network.graph).units
    assert not unit.consumers
    found = taylor_scores(network, unit, Split.of(x), REGRESSION, draws=1000)
    reference = network.module(x).numpy()
    for group in range(6):
        without = copy.deepcopy(network.module)
        without.query.weight.data[group], without.query.bias.data[group] = 0.0, 0.0
        predicted = float(found[group]) / 4
        assert predicted == pytest.approx(REGRESSION.divergence(reference, without(x).numpy()), rel=0.25)


class Averaged(nn.Module):
    """A hidden state that no weighted call reads."""

    def __init__(self) -> None:
        super().__init__()
        self.cell = nn.GRU(3, 6, batch_first=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.cell(x)[0].mean(2)


def test_recurrent_states_without_a_reader_are_refused() -> None:
    x = torch.randn(4, 5, 3)
    network = capture(Averaged(), x[:2])
    (unit,) = analyse(network.graph).units
    with pytest.raises(PlanError, match="recurrent state"):
        taylor_scores(network, unit, Split.of(x), REGRESSION)
