"""Equalization: moving scale between layers, or from inputs to weights, so that grids fit better.

What changes is how a function is written down, never the function. ``ReLU(s x) = s ReLU(x)`` for ``s > 0``, so a
channel may be made smaller in one layer and larger in the next (Nagel et al. 2019, arXiv:1906.04721, section 4.1).

Shapes: weights (out, in, …) as PyTorch's modules have them; a depthwise weight is (channels, 1, …).
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import torch

_FLOOR = 1e-12
_DAMAGE = 1e6  # scales beyond this, or below its inverse, would trade range for rounding in float32


@dataclass(frozen=True, slots=True)
class Stage:
    """A layer of a chain without branches, followed by ReLU, or nothing, or a function that scales as they do.

    Attributes:
        weight: (out, in, …); (channels, 1, …) where it is depthwise.
        bias: (out,), or None.
        depthwise: whether channel ``i`` reads channel ``i`` alone.
    """

    weight: torch.Tensor
    bias: torch.Tensor | None = None
    depthwise: bool = False


def output_ranges(weight: torch.Tensor) -> torch.Tensor:
    """Largest magnitude that each output channel's weights reach: (out,)."""
    return weight.abs().flatten(1).amax(1)


def input_ranges(weight: torch.Tensor, *, depthwise: bool = False) -> torch.Tensor:
    """Largest magnitude of the weights that read each input channel: (in,)."""
    return output_ranges(weight if depthwise else weight.transpose(0, 1))


def equalizing_scales(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    """``s_i = r1_i / √(r1_i r2_i)``: after ``W1 / s`` and ``W2 · s`` both ranges are ``√(r1_i r2_i)``, the best pair.

    The paper writes ``s_i = √(r1_i r2_i) / r2_i``, which is the same number. Dead channels keep their scale.

    Args:
        first: (channels,) ranges of the weights that write a channel.
        second: (channels,) ranges of the weights that read it.
    """
    first, second = first.double(), second.double()
    alive = (first > _FLOOR) & (second > _FLOOR)
    scales = torch.sqrt(torch.where(alive, first, 1.0) / torch.where(alive, second, 1.0))
    return scales.clamp(1 / _DAMAGE, _DAMAGE)


def _scaled_outputs(stage: Stage, scales: torch.Tensor) -> Stage:
    """The layer with every output channel divided by its scale."""
    shape = (-1, *[1] * (stage.weight.ndim - 1))
    weight = (stage.weight.double() / scales.view(shape)).to(stage.weight.dtype)
    bias = None if stage.bias is None else (stage.bias.double() / scales).to(stage.bias.dtype)
    return Stage(weight, bias, stage.depthwise)


def _scaled_inputs(stage: Stage, scales: torch.Tensor) -> Stage:
    """The layer for inputs that were divided by these scales."""
    axis = 0 if stage.depthwise else 1
    shape = [1] * stage.weight.ndim
    shape[axis] = -1
    weight = (stage.weight.double() * scales.view(shape)).to(stage.weight.dtype)
    return Stage(weight, stage.bias, stage.depthwise)


def equalize(chain: Sequence[Stage], sweeps: int = 20, tolerance: float = 1e-3) -> tuple[Stage, ...]:
    """The chain with the ranges of neighbours made equal, channel by channel; it computes what it did.

    One pair has a closed solution; a chain's pairs share layers, so pairs are solved in turn until no scale moves by
    more than the tolerance.

    Args:
        chain: layers in order, each reading exactly the one before it, through ReLU or nothing.
        sweeps: at most this often through the pairs.
        tolerance: of ``|s − 1|``.

    Raises:
        ValueError: neighbours whose channels don't fit.
    """
    stages = list(chain)
    for first, second in itertools.pairwise(stages):
        inputs = second.weight.shape[0 if second.depthwise else 1]
        if first.weight.shape[0] != inputs:
            raise ValueError(f"Layers of a chain must fit: {first.weight.shape[0]} channels into {inputs}.")
    for _ in range(sweeps):
        largest = 0.0
        for index in range(len(stages) - 1):
            first, second = stages[index], stages[index + 1]
            ranges = (output_ranges(first.weight), input_ranges(second.weight, depthwise=second.depthwise))
            scales = equalizing_scales(*ranges)
            largest = max(largest, float((scales - 1).abs().max()))
            stages[index], stages[index + 1] = _scaled_outputs(first, scales), _scaled_inputs(second, scales)
        if largest <= tolerance:
            break
    return tuple(stages)


def smoothing_scales(inputs: torch.Tensor, weights: torch.Tensor, alpha: float = 0.5) -> torch.Tensor:
    """``s_j = max|x_j|^α / max|w_j|^(1 − α)``: outliers of inputs moved into weights.

    Divide input ``j`` by ``s_j`` and multiply the weights that read it. Xiao et al. 2023, arXiv:2211.10438, equation 4.

    Args:
        inputs: (in,) largest magnitude of every input.
        weights: (in,) largest magnitude of the weights that read it.
        alpha: 1 makes all inputs reach equally far, 0 all the weights that read them.

    Returns:
        (in,), float64, positive; 1 where an input or its weights are zero.

    Raises:
        ValueError: alpha outside [0, 1].
    """
    if not 0.0 <= alpha <= 1.0:
        raise ValueError(f"SmoothQuant's alpha lies in [0, 1]; got {alpha}.")
    inputs, weights = inputs.double().abs(), weights.double().abs()
    alive = (inputs > _FLOOR) & (weights > _FLOOR)
    scales = torch.where(alive, inputs, 1.0) ** alpha / torch.where(alive, weights, 1.0) ** (1 - alpha)
    return scales.clamp(1 / _DAMAGE, _DAMAGE)


def bias_correction(difference: torch.Tensor, mean: torch.Tensor) -> torch.Tensor:
    """What to add to the bias so that outputs keep their mean: ``−D E[x]`` (Nagel et al. 2019, section 4.2).

    Args:
        difference: (g, n, d), rounded minus original weight.
        mean: (g, d), of the inputs.

    Returns:
        (g · n,), float64.
    """
    return -(difference.double() @ mean.double().unsqueeze(-1)).flatten()


def rectified_mean(mean: torch.Tensor, deviation: torch.Tensor) -> torch.Tensor:
    """``E[ReLU(x)] = σ φ(μ/σ) + μ Φ(μ/σ)`` of a normal ``x``: a layer's mean input without data, from batch norm.

    ``μ`` and ``σ`` are batch norm's shift and scale; Nagel et al. 2019, equation 19 and appendix C.

    Args:
        mean, deviation: (channels,), ``σ ≥ 0``.

    Returns:
        (channels,), float64.
    """
    mean, deviation = mean.double(), deviation.double()
    normal = torch.distributions.Normal(0.0, 1.0)
    ratio = mean / deviation.clamp(min=_FLOOR)
    density = torch.exp(normal.log_prob(ratio))
    return torch.where(deviation > _FLOOR, deviation * density + mean * normal.cdf(ratio), mean.clamp(min=0.0))
