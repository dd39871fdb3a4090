"""The criteria, each against its formula; obs against brute force."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import nn
from torch.nn import functional

from featherweight.contracts import PlanError
from featherweight.methods.pruning.ablation import AblationTable, RankedGroup, causal
from featherweight.methods.pruning.ranking import CRITERIA, explain, rank_groups, reranked
from featherweight.methods.pruning.taylor import taylor_scores
from featherweight.network import Network, capture
from featherweight.network.channels import ChannelUnit, analyse
from featherweight.network.folding import fold_batch_norm
from featherweight.numerics.elimination import Elimination
from featherweight.numerics.gram import refit
from featherweight.observation import Evidence, observe
from featherweight.tasks import CLASSIFICATION
from featherweight.tasks.data import Split
from tests.network.cutting import lively
from tests.zoo.catalogue import ZOO


class Residual(nn.Module):
    """A unit of two producers (a depthwise layer is one) and one reader, with batch norms on the way."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 3, padding=1)
        self.inner = nn.Conv2d(6, 8, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(8)
        self.depth = nn.Conv2d(8, 8, 3, padding=1, groups=8)
        self.outer = nn.Conv2d(8, 6, 1)
        self.head = nn.Linear(6, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = functional.relu(self.stem(x))
        inner = functional.relu(self.depth(functional.relu(self.norm(self.inner(x)))))
        return self.head(functional.relu(self.outer(inner) + x).mean((2, 3)))


Problem = tuple[Network, Network, ChannelUnit, Evidence, Split]


@pytest.fixture
def problem() -> Problem:
    """The captured network, the folded one with its unit and evidence, and samples."""
    x = torch.randn(48, 3, 6, 6)
    captured = capture(lively(Residual()), x[:2])
    folded = fold_batch_norm(captured)
    return captured, folded, analyse(folded.graph).unit("inner"), observe(folded, Split.of(x)), Split.of(x)


def is_a_ranking(found: Elimination, groups: int) -> bool:
    rising = bool((found.errors.diff() >= 0).all()) and float(found.errors[0]) == 0.0
    return sorted(found.order.tolist()) == list(range(groups)) and found.errors.shape == (groups + 1,) and rising


@pytest.mark.parametrize("criterion", CRITERIA)
def test_every_criterion_gives_an_order_and_rising_errors_again_and_again(problem: Problem, criterion: str) -> None:
    captured, folded, unit, evidence, split = problem
    network = captured if criterion == "bn-scale" else folded
    unit = analyse(network.graph).unit("inner")
    first, again = (rank_groups(network, unit, evidence, criterion, split=split, task=CLASSIFICATION) for _ in range(2))
    assert is_a_ranking(first, 8)
    assert torch.equal(first.order, again.order)
    assert torch.equal(first.errors, again.errors)


# ------------------------------------------------------------------------------------------------------- each formula


def test_obs_takes_first_what_the_refit_reader_misses_least(problem: Problem) -> None:
    _, folded, unit, evidence, _ = problem
    found = rank_groups(folded, unit, evidence)
    weight = folded.module.outer.weight.detach().flatten(1).double()
    covariance = evidence.layers["outer"].covariance[0]

    def missed(gone: tuple[int, ...]) -> float:
        keep = [group for group in range(8) if group not in gone]
        prior, cross = weight[:, keep], weight @ covariance[:, keep]
        fitted = refit(prior.unsqueeze(0), covariance[keep][:, keep].unsqueeze(0), cross.unsqueeze(0), 1e-9)[0]
        difference = -weight.clone()
        difference[:, keep] += fitted
        return float(((difference @ covariance) * difference).sum())

    singles = {group: missed((group,)) for group in range(8)}
    assert int(found.order[0]) == min(singles, key=singles.__getitem__)
    chosen = missed(tuple(found.order[:3].tolist()))
    assert chosen <= 1.5 * min(missed(gone) for gone in itertools.combinations(range(8), 3))
    energy = float(((weight @ covariance) * weight).sum())
    assert float(found.errors[3]) == pytest.approx(chosen / energy, rel=0.1)


def test_magnitude_is_the_share_of_squared_weights_in_both_producers(problem: Problem) -> None:
    _, folded, unit, evidence, _ = problem
    found = rank_groups(folded, unit, evidence, "magnitude")
    parts = [layer.weight.square().sum((1, 2, 3)) for layer in (folded.module.inner, folded.module.depth)]
    scores = sum(part / part.sum() for part in parts).detach().double()
    assert found.order.tolist() == scores.argsort().tolist()
    assert torch.allclose(found.errors[1:], scores.sort().values.cumsum(0) / scores.sum())


def test_fpgm_is_the_distance_to_all_other_filters(problem: Problem) -> None:
    _, folded, unit, evidence, _ = problem
    found = rank_groups(folded, unit, evidence, "fpgm")
    scores = torch.zeros(8)
    for layer in (folded.module.inner, folded.module.depth):
        rows = layer.weight.detach().flatten(1)
        scores += torch.stack([sum((row - other).norm() for other in rows) for row in rows])
    assert found.order.tolist() == scores.argsort().tolist()


def test_bn_scale_reads_the_size_of_the_scale_and_not_its_sign(problem: Problem) -> None:
    captured, _, _, evidence, _ = problem
    with torch.no_grad():
        captured.module.norm.weight.copy_(torch.tensor([0.5, -2.0, 0.1, 1.0, -0.2, 3.0, -0.05, 0.7]))
    found = rank_groups(captured, analyse(captured.graph).unit("inner"), evidence, "bn-scale")
    assert found.order.tolist() == [6, 2, 4, 0, 7, 3, 1, 5]


def test_a_folded_batch_norm_is_told_of_with_the_way_out(problem: Problem) -> None:
    _, folded, unit, evidence, _ = problem
    with pytest.raises(PlanError, match="folded") as caught:
        rank_groups(folded, unit, evidence, "bn-scale")
    assert "before folding" in caught.value.remedy


def test_taylor_ranks_by_its_scores(problem: Problem) -> None:
    _, folded, unit, evidence, split = problem
    found = rank_groups(folded, unit, evidence, "taylor", split=split, task=CLASSIFICATION)
    assert found.order.tolist() == taylor_scores(folded, unit, split, CLASSIFICATION).argsort().tolist()


def test_transposed_weights_are_read_along_their_outputs() -> None:
    module = nn.Sequential(nn.ConvTranspose2d(3, 5, 2), nn.ReLU(), nn.Conv2d(5, 2, 1))
    with torch.no_grad():
        module[0].weight[:, 3] *= 0.01
    x = torch.randn(8, 3, 4, 4)
    network = capture(module, x[:2])
    unit = analyse(network.graph).unit("0")
    found = rank_groups(network, unit, observe(network, Split.of(x)), "magnitude")
    energies = network.module[0].weight.square().sum((0, 2, 3))
    assert found.order.tolist() == energies.argsort().tolist()


# --------------------------------------------------------------------------------------------------------- re-ranking


def test_causal_orders_by_measured_divergence_and_keeps_the_priors_total(problem: Problem) -> None:
    _, folded, unit, evidence, split = problem
    prior = rank_groups(folded, unit, evidence)
    found = rank_groups(folded, unit, evidence, "causal", split=split, task=CLASSIFICATION)
    table = causal(folded, [unit], split, CLASSIFICATION)
    scores = {row.group: row.score for row in table.rows}
    assert found.order.tolist() == sorted(scores, key=scores.__getitem__)
    assert float(found.errors[-1]) == pytest.approx(float(prior.errors[-1]))


def test_shapley_moves_the_lowest_only(problem: Problem) -> None:
    _, folded, unit, evidence, split = problem
    prior = rank_groups(folded, unit, evidence)
    found = rank_groups(folded, unit, evidence, "shapley", split=split, task=CLASSIFICATION)
    assert set(found.order[:3].tolist()) == set(prior.order[:3].tolist())
    assert torch.equal(found.order[3:], prior.order[3:])
    assert torch.allclose(found.errors[3:], prior.errors[3:])


def test_the_table_tells_the_ranks_before_and_after(problem: Problem) -> None:
    _, folded, unit, evidence, split = problem
    prior = rank_groups(folded, unit, evidence).order.tolist()
    table = explain(folded, unit, evidence, "causal", split, CLASSIFICATION)
    assert [prior[row.rank_before] for row in table.rows] == [row.group for row in table.rows]
    found = rank_groups(folded, unit, evidence, "causal", split=split, task=CLASSIFICATION)
    assert found.order.tolist() == [row.group for row in table.rows]


def test_negative_scores_keep_errors_rising() -> None:
    prior = Elimination(torch.tensor([0, 1, 2, 3]), torch.tensor([0.0, 1.0, 2.0, 4.0, 8.0]).double())
    rows = [
        RankedGroup("u", 2, -0.5, 0.1, 2, 0),
        RankedGroup("u", 0, 0.5, 0.1, 0, 1),
        RankedGroup("u", 1, 1.5, 0.1, 1, 2),
    ]
    found = reranked(prior, AblationTable("shapley", tuple(rows), 9))
    assert found.order.tolist() == [2, 0, 1, 3]
    assert found.errors.tolist() == [0.0, 0.0, 1.0, 4.0, 8.0]


# ----------------------------------------------------------------------------------------------------------- the zoo


@pytest.mark.parametrize(
    "name", ["unet", "shufflenet_v2", "mobilenet_v3", "vit", "seq2seq", "lstm", "gru", "two_tower"]
)
def test_weights_alone_rank_every_unit_of_the_zoo(name: str) -> None:
    make, example = ZOO[name]
    network = capture(make(), example())
    evidence = Evidence({}, torch.empty(0), 0)  # nothing observed: obs has its magnitude to go by
    for unit in analyse(network.graph).units:
        for criterion in ("obs", "magnitude", "fpgm"):
            assert is_a_ranking(rank_groups(network, unit, evidence, criterion), unit.groups)


# -------------------------------------------------------------------------------------------------------- bad requests


def test_unknown_criteria_are_refused_by_name(problem: Problem) -> None:
    _, folded, unit, evidence, split = problem
    with pytest.raises(PlanError, match="'luck'"):
        rank_groups(folded, unit, evidence, "luck")
    with pytest.raises(PlanError, match="'obs'"):
        explain(folded, unit, evidence, "obs", split, CLASSIFICATION)


@pytest.mark.parametrize("criterion", ["taylor", "causal", "shapley"])
def test_criteria_that_run_the_network_ask_for_samples_and_the_task(problem: Problem, criterion: str) -> None:
    _, folded, unit, evidence, split = problem
    with pytest.raises(PlanError, match="no samples"):
        rank_groups(folded, unit, evidence, criterion, task=CLASSIFICATION)
    with pytest.raises(PlanError, match="no task"):
        rank_groups(folded, unit, evidence, criterion, split=split)
