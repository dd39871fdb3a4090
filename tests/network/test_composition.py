"""Chains of convolutions: one kernel, counted positions and what each part reads, all against running them."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional

from featherweight.network.capture import capture
from featherweight.network.composition import (
    composed,
    index_bytes,
    means_within,
    moments_within,
    positions,
    stored_values,
)
from featherweight.network.grouped import PermutedConvolution
from featherweight.observation.rows import input_rows, sample_positions

LINEAR = [nn.Linear(6, 3, bias=False), nn.Linear(3, 5)]
SPATIAL = [
    nn.Conv2d(3, 4, (3, 1), (2, 1), (1, 0), bias=False),
    nn.Conv2d(4, 5, (1, 3), (1, 2), (0, 1)),
]
TUCKER = [
    nn.Conv2d(3, 2, 1, bias=False),
    nn.Conv2d(2, 4, 3, stride=2, padding=2, dilation=2, bias=False),
    nn.Conv2d(4, 5, 1),
]
PAIR = [nn.Conv2d(3, 4, 3, padding="same", bias=False), nn.Conv2d(4, 5, 1)]
WHOLE = {
    "linear": (LINEAR, nn.Linear(6, 5), (6,)),
    "spatial": (SPATIAL, nn.Conv2d(3, 5, 3, 2, 1), (3, 9, 8)),
    "tucker": (TUCKER, nn.Conv2d(3, 5, 3, 2, 2, 2), (3, 9, 8)),
    "pair": (PAIR, nn.Conv2d(3, 5, 3, padding="same"), (3, 9, 8)),
}


@pytest.fixture(params=WHOLE)
def chain(request: pytest.FixtureRequest):
    parts, whole, shape = WHOLE[request.param]
    return [part.double() for part in parts], whole.double(), torch.randn(16, *shape).double()


def test_the_composed_kernel_computes_what_the_chain_does(chain) -> None:
    parts, whole, x = chain
    whole.weight = nn.Parameter(composed(parts))
    whole.bias = parts[-1].bias
    assert torch.allclose(nn.Sequential(*parts)(x), whole(x), atol=1e-12)


def test_positions_give_the_macs_that_capture_counts(chain) -> None:
    parts, whole, x = chain
    (layer,) = capture(whole, x).layers
    counts = positions(layer, parts)
    built = capture(nn.Sequential(*parts), x)
    assert [n * stored_values(part) for n, part in zip(counts, parts, strict=True)] == [
        la.cost.macs for la in built.layers
    ]


def test_what_a_part_reads_is_measured_away_from_borders(chain) -> None:
    """Moments of every part's rows, from those of the layer's rows; compared where no patch hangs over the border."""
    parts, whole, x = chain
    if x.ndim == 4:
        wide = torch.randn(400, *x.shape[1:]).double().cumsum(2) * 0.3
        x = functional.pad(wide, (4, 4, 4, 4), mode="circular")  # the same statistics everywhere
    network = capture(whole, x[:2])
    rows = _inner_rows(network.layers[0], x)
    found = moments_within(parts, rows.T @ rows / len(rows))
    inputs, given = [], x
    for part in parts:
        inputs.append(given)
        given = part(given).detach()
    for part, seen, moments in zip(parts, inputs, found, strict=True):
        (layer,) = capture(part, seen[:2]).layers
        own = _inner_rows(layer, seen)
        measured = own.T @ own / len(own)
        assert moments.shape == measured.shape
        assert float((moments - measured).norm()) < 0.25 * float(measured.norm())


def _inner_rows(layer, x: torch.Tensor) -> torch.Tensor:
    at = sample_positions(layer, len(x), 10**9, torch.Generator())
    rows = input_rows(layer, x, at)[0].view(len(x), layer.positions, -1)
    if layer.geometry is None:
        return rows.flatten(0, 1)
    height, width = layer.output_shape[1:]
    return rows.view(len(x), height, width, -1)[:, 2:-2, 2:-2].flatten(0, 2)


def test_last_parts_read_exactly_what_the_patch_says() -> None:
    parts = [part.double() for part in TUCKER]
    moments = torch.randn(27, 27).double()
    moments = moments @ moments.T
    found = moments_within(parts, moments)
    inner = composed(parts[:2]).flatten(1)
    assert torch.allclose(found[2], inner @ moments @ inner.T)
    first = parts[0].weight.flatten(1)
    spread = torch.einsum("pc,ts->ptcs", first, torch.eye(9).double()).reshape(18, 27)
    assert torch.allclose(found[1], spread @ moments @ spread.T)


def test_means_and_moments_agree(chain) -> None:
    """A patch that never varies: every part's moments are its mean's products, where it is applied at one place."""
    parts, whole, _ = chain
    mean = torch.randn(whole.weight[0].numel()).double()
    moments, means = moments_within(parts, mean.outer(mean)), means_within(parts, mean)
    assert torch.allclose(moments[-1], means[-1].outer(means[-1]))
    for part, second, first in zip(parts, moments, means, strict=True):
        assert first.shape == (part.weight[0].numel(),)
        assert float(torch.linalg.eigvalsh(second - first.outer(first)).min()) > -1e-9
    fitted = composed(parts).flatten(1) @ mean
    assert torch.allclose(parts[-1].weight.flatten(1) @ means[-1], fitted)


def test_a_permuted_convolution_is_its_dense_weight() -> None:
    plain = nn.Conv2d(8, 12, 3, 2, 1).double()
    inputs, outputs = torch.randperm(8).view(2, 4), torch.randperm(12).view(2, 6)
    grouped = PermutedConvolution(plain, torch.randn(12, 4, 3, 3).double(), inputs, outputs)
    x = torch.randn(3, 8, 9, 9).double()
    dense = functional.conv2d(x, grouped.weight, plain.bias, 2, 1)
    assert torch.allclose(grouped(x), dense, atol=1e-12)
    assert int((grouped.weight != 0).sum()) == 12 * 4 * 9 == stored_values(grouped)
    assert index_bytes(grouped) == 4 * (8 + 12)
    assert index_bytes(plain) == 0
    assert positions(capture(plain, x).layers[0], [grouped]) == [25]
    built = capture(grouped, x)
    assert built.cost.macs == 25 * stored_values(grouped)
    assert torch.allclose(built.graph(x), dense)
