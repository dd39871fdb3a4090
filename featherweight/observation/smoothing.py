"""How much scale to move from activations into weights: whatever errs least on calibration samples.

SmoothQuant's scales ``max|x_j|^α / max|w_j|^(1 − α)`` (Xiao et al. 2023, arXiv:2211.10438) trade the rounding of
activations, which share one grid, against that of the weights that read them. For every place where scale can move, a
few ``α`` and not moving at all are compared by the error of the outputs that both roundings make together,

    ε(s) ‖W_s‖² + tr(D_s C_s D_sᵀ),        W_s = W diag(s),   C_s = diag(s)⁻¹ C diag(s)⁻¹,

with ``ε(s)`` the mean squared rounding of ``x / s`` on its best int8 grid and ``D_s`` what GPTQ leaves. The least is
kept where it is half of what it was or less, so no place ends worse. Nor do weights alone: scales under which the
second term grows are out, since a plan may leave activations real, or give weights fewer bits.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from featherweight.network.capture import Layer, Network
from featherweight.network.modules import weight_of
from featherweight.network.smoothing import Site, scaled
from featherweight.numerics.affine import fit_asymmetric, fit_symmetric, rounding_noise
from featherweight.numerics.equalization import smoothing_scales
from featherweight.numerics.gptq import RowGrids, gptq
from featherweight.numerics.gram import covariance_of, output_error
from featherweight.observation.evidence import VALUES_PER_TENSOR, batches
from featherweight.observation.inputs import InputWatch
from featherweight.observation.rows import input_rows, sample_positions, weight_rows
from featherweight.tasks.data import Split

ALPHAS = (0.25, 0.5, 0.75)
_ROWS = 4096
_WORTH = 0.5  # at most this share of the error must be left: a file doesn't show less (docs/concepts/quantization.md)


@dataclass(frozen=True, slots=True)
class Smoothing:
    """What was decided at one place.

    Attributes:
        site: the value, and who writes and reads it.
        alpha: of the scales; 0 where scale stays.
        before, after: squared error of the readers' outputs by int8 rounding, for one position.
        scale: what each channel is divided by; empty where scale stays.
    """

    site: Site
    alpha: float
    before: float
    after: float
    scale: tuple[float, ...] = ()


@dataclass
class _Reads:
    """What one layer reads: rows, and every channel's extremes."""

    rows: list[torch.Tensor]
    low: torch.Tensor
    high: torch.Tensor


class _Watch(InputWatch):
    def __init__(self, network: Network, layers: Sequence[Layer], each: int, seed: int) -> None:
        super().__init__(network, layers, seed)
        self.each = each
        self.seen: dict[str, _Reads] = {}

    def see(self, layer: Layer, x: torch.Tensor) -> None:
        at = sample_positions(layer, len(x), self.each, self.generator)
        channel = 1 if layer.geometry else x.ndim - 1
        flat = x.transpose(0, channel).flatten(1)
        low, high = flat.amin(1), flat.amax(1)
        kept = self.seen.setdefault(layer.name, _Reads([], low, high))
        kept.rows.append(input_rows(layer, x, at)[0])
        kept.low, kept.high = torch.minimum(kept.low, low), torch.maximum(kept.high, high)


@dataclass(frozen=True)
class _Reader:
    """A layer that reads a site: its weight and what it reads, float64.

    Attributes:
        weight: (n, d).
        covariance: (d, d).
        sample: (m, d), some of the rows.
        low, high: (channels,).
        taps: columns of the weight for each channel.
    """

    weight: torch.Tensor
    covariance: torch.Tensor
    sample: torch.Tensor
    low: torch.Tensor
    high: torch.Tensor
    taps: int

    @classmethod
    def of(cls, network: Network, layer: Layer, reads: _Reads) -> _Reader:
        weight = weight_rows(layer, weight_of(network.module.get_submodule(layer.name)))[0].double()
        rows = torch.cat(reads.rows).double()
        mean = rows.mean(0)
        covariance = covariance_of((rows.T @ rows / len(rows)).unsqueeze(0), mean.unsqueeze(0))[0]
        few = rows[torch.linspace(0, len(rows) - 1, min(len(rows), 1 + VALUES_PER_TENSOR // rows.shape[1])).long()]
        return cls(weight, covariance, few, reads.low.double(), reads.high.double(), weight.shape[1] // len(reads.low))

    def lost_by_input(self, scale: torch.Tensor) -> float:
        """Squared error of the outputs by int8 rounding of what is read, divided by (channels,) scales."""
        columns = scale.repeat_interleave(self.taps)
        sample = (self.sample / columns).flatten()
        grid = fit_asymmetric(sample, float((self.low / scale).min()), float((self.high / scale).max()))
        return rounding_noise(sample, grid) * float((self.weight * columns).square().sum())

    def lost_by_weight(self, scale: torch.Tensor) -> float:
        """Squared error of the outputs by int8 rounding of the weight, multiplied by (channels,) scales."""
        columns = scale.repeat_interleave(self.taps)
        weight, covariance = self.weight * columns, self.covariance / columns / columns.unsqueeze(1)
        importance = covariance.diagonal().clamp(min=0.0)
        rows = RowGrids.of(fit_symmetric(weight, 8, importance + importance.mean() * 1e-6 + 1e-30), 1)
        rounded = gptq(weight.unsqueeze(0), covariance.unsqueeze(0), rows)
        return output_error(rounded - weight, covariance.unsqueeze(0))


def decide(network: Network, split: Split, sites: Sequence[Site], *, seed: int = 0) -> tuple[Smoothing, ...]:
    """How much scale leaves each site, so that int8 errs least; none where nothing is gained.

    Args:
        network: with batch normalisation folded; it stays as it is.
        split: unlabelled calibration samples; one pass.
        sites: of the network.
        seed: of the sampled positions.
    """
    layers = [network.layer(name) for name in dict.fromkeys(name for site in sites for name in site.readers)]
    if not layers:
        return ()
    watch = _Watch(network, layers, -(-_ROWS // len(split)), seed)
    with torch.no_grad():
        for inputs in batches(split, 32, "looking for outliers"):
            watch.run(*inputs)
    readers = {layer.name: _Reader.of(network, layer, watch.seen[layer.name]) for layer in layers}
    return tuple(_decide(site, [readers[name] for name in site.readers]) for site in sites)


def smoothed(network: Network, decisions: Sequence[Smoothing]) -> Network:
    """The network with scale moved as decided; the very same where none moves.

    It computes what it did, so this may stand before anything else; layers that stay real lose nothing.
    """
    return scaled(
        network, {one.site.producer: torch.tensor(one.scale, dtype=torch.float64) for one in decisions if one.scale}
    )


def _decide(site: Site, readers: Sequence[_Reader]) -> Smoothing:
    """The best of a few scales for one site, none among them."""
    reach = torch.stack([torch.maximum(one.low.abs(), one.high.abs()) for one in readers]).amax(0)
    weights = torch.stack([one.weight.abs().amax(0).view(-1, one.taps).amax(1) for one in readers]).amax(0)
    none = torch.ones_like(reach)
    by_weights = sum(one.lost_by_weight(none) for one in readers)
    before = by_weights + sum(one.lost_by_input(none) for one in readers)
    best = Smoothing(site, 0.0, before, before)
    for alpha in ALPHAS:
        scale = smoothing_scales(reach, weights, alpha)
        by_inputs, most = sum(one.lost_by_input(scale) for one in readers), min(best.after, _WORTH * before)
        if by_inputs >= most:
            continue  # GPTQ, which takes nearly all the time, can't change that
        now = sum(one.lost_by_weight(scale) for one in readers)
        if by_inputs + now < most and now <= by_weights:
            best = Smoothing(site, alpha, before, by_inputs + now, tuple(scale.tolist()))
    return best
