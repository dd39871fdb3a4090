"""Grouped convolution as an approximation: a block-diagonal map between permuted channels.

Split the input channels into ``G`` sets ``I_1 … I_G`` and the output channels into as many ``O_1 … O_G``, and let every
output read the inputs of its own set alone. For given sets the least-squares best weights under the covariance ``C``
are ``W̃_{O,I} = W_O C_{:,I} C_{II}⁻¹``, and output ``n`` in set ``g`` then costs exactly
``e_{ng} = w_n C w_nᵀ − (w_n C_{:,I}) C_{II}⁻¹ (C_{I,:} w_nᵀ)``: what the kept inputs can't tell about it. So for given
input sets the best output sets are an assignment problem, solved exactly; input sets come from a spectral embedding of
the energies ``W² diag C`` and are improved in turns. Finding the best input sets is a hard problem: this is a descent
from two starts, never worse than leaving the channels where they are.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from featherweight.contracts import UsageError

_TURNS = 8
_RIDGE = 1e-9


@dataclass(frozen=True, slots=True)
class BlockDiagonal:
    """A block-diagonal map between permuted channels.

    Attributes:
        inputs: (G, c / G) int64, the input channels of every set, rising.
        outputs: (G, n / G) int64, its output channels, rising.
        blocks: (G, n / G, c / G · k), their weights, float64.
        error: mean squared error of the outputs, summed over them.
    """

    inputs: torch.Tensor
    outputs: torch.Tensor
    blocks: torch.Tensor
    error: float

    def dense(self) -> torch.Tensor:
        """The map in the original order of channels, (n, c · k), with its zeros."""
        groups, rows, width = self.blocks.shape
        kernel = width // self.inputs.shape[1]
        weight = self.blocks.new_zeros(groups * rows, self.inputs.numel() * kernel)
        weight[self.outputs.unsqueeze(2), _columns(self.inputs, kernel).unsqueeze(1)] = self.blocks
        return weight


def fit_block_diagonal(
    weight: torch.Tensor, covariance: torch.Tensor, groups: int, *, kernel: int = 1
) -> BlockDiagonal:
    """The block-diagonal map that comes near a weight on its data.

    Args:
        weight: (n, c · k), ordered as a convolution's rows.
        covariance: (c · k, c · k), positive semidefinite.
        groups: ``G``; it divides ``n`` and ``c``.
        kernel: ``k``, columns of one input channel.

    Raises:
        UsageError: groups that don't divide both sides.
    """
    rows, width = weight.shape
    if groups < 1 or width % kernel or rows % groups or (width // kernel) % groups:
        raise UsageError(
            "The number of groups must divide input and output channels.",
            f"{groups} groups for {width / kernel:g} inputs and {rows} outputs",
            "choose a common divisor",
        )
    weight, covariance = weight.double(), covariance.double()
    importance = covariance.diagonal()
    energy = (weight.square() * importance).view(rows, -1, kernel).sum(2)
    as_they_are = torch.arange(width // kernel).view(groups, -1)
    starts = [as_they_are] if groups == 1 else [as_they_are, _spectral_sets(energy, groups)]
    fits = [_descended(weight, covariance, energy, start, kernel) for start in starts]
    return min([_in_place(weight, covariance, as_they_are, kernel), *fits], key=lambda fit: fit.error)


def _columns(inputs: torch.Tensor, kernel: int) -> torch.Tensor:
    """Columns of the weight that belong to channels: (G, c) → (G, c · k)."""
    return (inputs.unsqueeze(2) * kernel + torch.arange(kernel)).flatten(1)


def _parts(
    weight: torch.Tensor, covariance: torch.Tensor, inputs: torch.Tensor, kernel: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """For every set of inputs the best weights of all outputs, (G, n, c · k), and their errors, (G, n)."""
    at = _columns(inputs, kernel)
    own = covariance[at.unsqueeze(2), at.unsqueeze(1)]
    seen = weight @ covariance
    cross = seen[:, at].transpose(0, 1)
    size = own.diagonal(dim1=1, dim2=2).mean(1)
    ridge = torch.where(size > 0, _RIDGE * size, 1.0).view(-1, 1, 1)
    prior = weight[:, at].transpose(0, 1)  # where inputs tell nothing, the weight stays what it was
    eye = torch.eye(at.shape[1], dtype=torch.float64, device=weight.device)
    best = torch.linalg.solve(own + ridge * eye, (cross + ridge * prior).transpose(1, 2)).transpose(1, 2)
    errors = (seen * weight).sum(1) - 2 * (best * cross).sum(2) + ((best @ own) * best).sum(2)
    return best, errors.clamp(min=0.0)


def _built(best: torch.Tensor, errors: torch.Tensor, inputs: torch.Tensor, outputs: torch.Tensor) -> BlockDiagonal:
    at = torch.arange(len(inputs)).unsqueeze(1)
    return BlockDiagonal(inputs, outputs, best[at, outputs], float(errors[at, outputs].sum()))


def _in_place(weight: torch.Tensor, covariance: torch.Tensor, inputs: torch.Tensor, kernel: int) -> BlockDiagonal:
    """The best without moving a channel."""
    outputs = torch.arange(len(weight)).view(len(inputs), -1)
    return _built(*_parts(weight, covariance, inputs, kernel), inputs, outputs)


def _descended(
    weight: torch.Tensor, covariance: torch.Tensor, energy: torch.Tensor, inputs: torch.Tensor, kernel: int
) -> BlockDiagonal:
    """Turns of exact output sets for given inputs, and input sets of most energy for given outputs, while it helps."""
    fit = _with_best_outputs(weight, covariance, inputs, kernel)
    for _ in range(_TURNS):
        inputs = _balanced(-torch.stack([energy[rows].sum(0) for rows in fit.outputs]))
        again = _with_best_outputs(weight, covariance, inputs, kernel)
        if again.error >= fit.error * (1 - 1e-12):
            break
        fit = again
    return fit


def _with_best_outputs(
    weight: torch.Tensor, covariance: torch.Tensor, inputs: torch.Tensor, kernel: int
) -> BlockDiagonal:
    best, errors = _parts(weight, covariance, inputs, kernel)
    return _built(best, errors, inputs, _balanced(errors))


def _balanced(costs: torch.Tensor) -> torch.Tensor:
    """Members in sets of equal size at the least total cost: (G, m) costs → (G, m / G) indices, rising."""
    groups, members = costs.shape
    slots = np.repeat(costs.cpu().numpy(), members // groups, axis=0)
    from scipy.optimize import linear_sum_assignment  # noqa: PLC0415  (slow to import, and seldom needed)

    _, chosen = linear_sum_assignment(slots)
    return torch.from_numpy(chosen).view(groups, -1).sort(1).values


def _spectral_sets(energy: torch.Tensor, groups: int) -> torch.Tensor:
    """Balanced sets of input channels by the leading singular vectors of the normalised energies.

    Dhillon 2001, "Co-clustering documents and words using bipartite spectral graph partitioning": (n, c) → (G, c / G).
    """
    if not bool(energy.sum() > 0):
        return torch.arange(energy.shape[1]).view(groups, -1)
    floor = energy.mean() * 1e-9
    rows, columns = energy.sum(1, keepdim=True) + floor, energy.sum(0, keepdim=True) + floor
    _, _, right = torch.linalg.svd(energy / (rows * columns).sqrt(), full_matrices=False)
    points = right[:groups].T / columns.T.sqrt()
    points = points / points.norm(dim=1, keepdim=True).clamp(min=1e-300)
    centres = [points[int(columns.argmax())]]
    for _ in range(groups - 1):  # the next centre is the point that lies least along those before
        along = torch.stack([(points @ centre).abs() for centre in centres]).amax(0)
        centres.append(points[int(along.argmin())])
    return _balanced(-(torch.stack(centres) @ points.T))
