"""What weights tell by themselves, against brute force and against networks with planted faults."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from featherweight.advice import weights
from featherweight.advice.weights import dead_rows, duplicate_rows, effective_rank
from tests.advice.surveyed import surveyed

seeds = st.integers(0, 2**31)


# ------------------------------------------------------------------------------------------------------------ numbers


@given(seeds, st.integers(1, 24), st.integers(1, 24), st.floats(0.3, 0.999))
def test_the_effective_rank_is_that_of_the_singular_values(seed: int, rows: int, columns: int, energy: float) -> None:
    generator = np.random.default_rng(seed)
    scales = 10.0 ** -generator.integers(0, 4, columns)
    matrix = generator.normal(size=(rows, columns)) * scales
    squares = np.linalg.svd(matrix, compute_uv=False) ** 2
    shares = np.cumsum(squares) / squares.sum()
    rank = effective_rank(torch.from_numpy(matrix), energy)
    assert 1 <= rank <= min(rows, columns)
    assert shares[rank - 1] >= energy - 1e-9
    assert rank == 1 or shares[rank - 2] < energy + 1e-9


def test_the_rank_of_products_and_of_nothing() -> None:
    left, right = torch.randn(40, 3), torch.randn(3, 30)
    assert effective_rank(left @ right, 1 - 1e-9) == 3
    assert effective_rank(torch.zeros(4, 5)) == 0


def brute_duplicates(weight: torch.Tensor, bias: torch.Tensor) -> int:
    """Row by row and pair by pair, float64."""
    count = 0
    for rows, shifts in zip(weight.double(), bias.double().view(weight.shape[:2]), strict=True):
        whole = torch.cat([rows, shifts.unsqueeze(1)], 1)
        live = [
            row / row.norm()
            for row, own in zip(whole, rows, strict=True)
            if own.abs().max() > 1e-6 * weight.abs().max()
        ]
        for number, row in enumerate(live):
            count += any(float((row - earlier).norm()) < weights.SAME for earlier in live[:number])
    return count


@given(seeds, st.integers(1, 3), st.integers(1, 12), st.integers(1, 8), st.booleans())
def test_duplicates_are_those_of_brute_force(seed: int, groups: int, rows: int, columns: int, scaled: bool) -> None:
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(groups, rows, columns, generator=generator)
    bias = torch.randn(groups, rows, generator=generator)
    copied = torch.randint(rows, (rows,), generator=generator)
    factor = torch.rand(rows, generator=generator) + 0.5 if scaled else torch.ones(rows)
    mix = torch.rand(rows, generator=generator) < 0.5  # rows that become copies of others
    weight[:, mix] = (weight[:, copied] * factor[:, None])[:, mix]
    bias[:, mix] = (bias[:, copied] * factor)[:, mix]
    assert duplicate_rows(weight, bias.flatten()) == brute_duplicates(weight, bias.flatten())


def test_duplicates_across_blocks_of_many_rows_are_found() -> None:
    weight = torch.randn(1, 1300, 6)
    weight[0, 1299], weight[0, 600], weight[0, 1] = 2 * weight[0, 0], weight[0, 0], -weight[0, 0]
    assert duplicate_rows(weight, None) == 2  # a negative multiple is none: the activation behind tells them apart


def test_the_same_weights_with_another_bias_are_no_duplicates() -> None:
    weight = torch.ones(1, 2, 3)
    assert duplicate_rows(weight, torch.tensor([0.0, 0.5])) == 0
    assert duplicate_rows(weight, torch.tensor([0.5, 0.5])) == 1


def test_dead_rows_are_measured_beside_the_largest_weight() -> None:
    weight = torch.tensor([[[1e3, 1.0], [1e-4, 0.0], [0.0, 0.0], [1.0, 1.0]]])
    assert dead_rows(weight).tolist() == [False, True, True, False]
    assert duplicate_rows(weight, None) == 0  # the dead aren't counted twice


# ----------------------------------------------------------------------------------------------------- planted findings


def planted() -> nn.Module:
    module = nn.Sequential(nn.Conv2d(3, 16, 3), nn.ReLU(), nn.Conv2d(16, 32, 3), nn.Flatten(), nn.Linear(32 * 16, 10))
    with torch.no_grad():
        module[0].weight[3:7] = 0.0
        module[2].weight[5], module[2].bias[5] = 3 * module[2].weight[4], 3 * module[2].bias[4]
    return module


def test_dead_and_duplicate_channels_are_told_with_what_they_cost() -> None:
    found = list(weights.redundant_channels(surveyed(planted(), 3, 8, 8)))
    assert [(one.subject, one.kind, one.finding) for one in found] == [
        ("0", "helps", "4 of 16 output channels are dead"),
        ("2", "helps", "1 of 32 output channels are duplicates"),
    ]
    assert found[0].size_bytes == pytest.approx(4 * (27 + 1) * 4)
    assert found[0].macs == pytest.approx(4 * 27 * 36)


def test_outputs_of_the_network_are_not_said_to_be_too_many() -> None:
    module = nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 10))
    with torch.no_grad():
        module[2].weight[3] = module[2].bias[3] = 0.0
        module[2].weight[5], module[2].bias[5] = module[2].weight[4], module[2].bias[4]
    assert list(weights.redundant_channels(surveyed(module, 6))) == []


def test_low_rank_is_told_where_a_pair_pays() -> None:
    module = nn.Sequential(nn.Linear(64, 48), nn.ReLU(), nn.Linear(48, 48))
    with torch.no_grad():
        module[0].weight.copy_(torch.randn(48, 4) @ torch.randn(4, 64))
        module[2].weight.copy_(torch.linalg.qr(torch.randn(48, 48))[0])  # all singular values alike
    (one,) = weights.low_rank(surveyed(module, 64))
    assert (one.subject, one.kind) == ("0", "helps")
    assert one.finding == "rank 4 of 48 holds 99% of its weights' energy"
    assert one.macs == pytest.approx(48 * 64 - 4 * (48 + 64))


def test_zeros_help_no_runtime_here() -> None:
    module = nn.Sequential(nn.Linear(20, 30), nn.ReLU(), nn.Linear(30, 5))
    with torch.no_grad():
        module[0].weight[:, ::2] = 0.0
        module[2].weight[0] = 0.0  # a fifth: less than what counts as sparse
    (one,) = weights.zeros(surveyed(module, 20))
    assert (one.kind, one.subject, one.size_bytes) == ("does not help", "0", 4 * 300)
    assert "300 weights are zero" in one.finding
    assert "float32, float16, int8" in one.reason
    assert list(weights.zeros(surveyed(nn.Linear(8, 3), 8))) == []


def test_a_layer_that_holds_the_file_is_named() -> None:
    module = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(), nn.Linear(2 * 36, 100))
    (one,) = weights.dominating(surveyed(module, 1, 8, 8))
    assert (one.subject, one.kind) == ("2", "helps")
    assert one.size_bytes == pytest.approx(0.75 * 4 * 7300)


class _Words(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.table, self.head = nn.Embedding(1000, 8), nn.Linear(8, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.table(x.abs().long().clamp(max=9)).mean(1))


def test_a_table_without_a_smaller_type_stands_in_the_way() -> None:
    known = surveyed(_Words(), 6)
    (one,) = weights.dominating(known)
    assert (one.subject, one.kind, one.size_bytes) == ("table", "blocks", 32_000)
    assert "no smaller type" in one.reason
    assert list(weights.redundant_channels(known)) == []  # words aren't channels
