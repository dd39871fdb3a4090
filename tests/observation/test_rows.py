"""Rows of a layer's input times its weight are the layer's output, for every kind and geometry."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from featherweight.network import capture
from featherweight.observation.rows import input_rows, output_rows, sample_positions, weight_rows

CASES = {
    "linear": (nn.Linear(5, 3), (4, 5)),
    "linear on tokens": (nn.Linear(5, 3), (4, 7, 5)),
    "conv1d": (nn.Conv1d(3, 4, 3, stride=2, padding=1), (4, 3, 9)),
    "conv2d": (nn.Conv2d(3, 4, 3, padding=1), (4, 3, 6, 5)),
    "strided, dilated": (nn.Conv2d(2, 4, (3, 2), stride=(2, 1), padding=(2, 0), dilation=(2, 3)), (4, 2, 9, 8)),
    "same, even kernel": (nn.Conv2d(2, 3, 2, padding="same"), (4, 2, 5, 5)),
    "grouped": (nn.Conv2d(4, 6, 3, groups=2), (4, 4, 6, 6)),
    "depthwise": (nn.Conv2d(4, 8, 3, padding=1, groups=4), (4, 4, 6, 6)),
    "conv3d": (nn.Conv3d(2, 3, 2, padding=1), (4, 2, 3, 4, 3)),
}


@pytest.mark.parametrize("count", [10_000, 3])
@pytest.mark.parametrize("case", CASES)
def test_rows_times_weight_are_the_output(case: str, count: int) -> None:
    module, shape = CASES[case]
    module = module.double()
    x = torch.randn(*shape, dtype=torch.float64)
    (layer,) = capture(module, x).layers
    positions = sample_positions(layer, len(x), count, torch.Generator().manual_seed(0))
    rows = input_rows(layer, x, positions)
    outputs = output_rows(layer, module(x).detach(), positions)
    bias = module.bias.detach().view(layer.groups, 1, -1)
    computed = rows @ weight_rows(layer, module.weight.detach()).transpose(1, 2) + bias
    assert torch.allclose(computed, outputs, atol=1e-12)


@given(st.integers(1, 3), st.integers(1, 2), st.integers(0, 2), st.integers(1, 2))
@settings(max_examples=20)
def test_all_rows_are_pytorchs_unfold(kernel: int, stride: int, padding: int, dilation: int) -> None:
    module = nn.Conv2d(2, 1, kernel, stride, padding, dilation)
    x = torch.randn(3, 2, 7, 8)
    (layer,) = capture(module, x).layers
    rows = input_rows(layer, x, sample_positions(layer, 3, 10_000, torch.Generator()))
    unfolded = nn.functional.unfold(x, kernel, dilation, padding, stride).transpose(1, 2).reshape(1, -1, 2 * kernel**2)
    assert torch.equal(rows, unfolded)
