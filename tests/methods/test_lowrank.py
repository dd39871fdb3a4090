"""The low-rank family."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from featherweight.contracts import PlanError
from featherweight.methods.lowrank import LowRank
from featherweight.methods.seam import predicted_error
from featherweight.numerics.gram import output_error
from featherweight.testing import MethodContract, contract_problem, subjects


class TestLowRank(MethodContract):
    method = LowRank()


def test_ranks_are_multiples_below_where_two_layers_cost_as_much() -> None:
    network, split = contract_problem()
    settings, refusals = LowRank().options(subjects(network, split)["wide"])
    ranks = [choice["rank"] for choice in settings]
    assert not refusals
    assert ranks == sorted(set(ranks))
    assert all(rank % 4 == 0 and rank * (48 + 256) < 0.7 * 48 * 256 for rank in ranks)


def test_grouped_and_tiny_layers_are_refused_with_the_reason() -> None:
    network, split = contract_problem()
    all_subjects = subjects(network, split)
    for name, word in (("depth", "depthwise"), ("grouped", "grouped"), ("narrow", "too small")):
        settings, (refusal,) = LowRank().options(all_subjects[name])
        assert not settings
        assert word in refusal.reason


def test_the_factors_keep_geometry_bias_and_type() -> None:
    network, split = contract_problem()
    built = LowRank().apply(subjects(network, split)["full"], {"rank": 8})
    assert isinstance(built, nn.Sequential)
    assert built[0].kernel_size == (3, 3)
    assert built[0].padding == (1, 1)
    assert built[0].bias is None
    assert built[1].kernel_size == (1, 1)
    assert built[1].weight.dtype == torch.float64
    assert torch.equal(built[1].bias, network.module.full.bias)


def test_it_never_loses_to_the_plain_svd() -> None:
    network, split = contract_problem()
    subject = subjects(network, split)["wide"]
    for rank in (4, 16, 28):
        built = LowRank().apply(subject, {"rank": rank})
        u, s, v = torch.linalg.svd(subject.weight[0], full_matrices=False)
        plain = ((u[:, :rank] * s[:rank]) @ v[:rank]).unsqueeze(0) - subject.weight
        found = predicted_error(type(subject)(**{**vars(subject), "module": built}))
        assert found <= output_error(plain, subject.covariance)


@pytest.mark.parametrize("rank", [0, 49, 2.5, "8", None])
def test_impossible_ranks_are_refused(rank: object) -> None:
    network, split = contract_problem()
    with pytest.raises(PlanError, match="rank"):
        LowRank().apply(subjects(network, split)["wide"], {"rank": rank})
