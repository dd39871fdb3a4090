"""Optimal-brain-surgeon elimination of groups of columns, with the least-squares repair after every one.

For ``y = W x`` with centred inputs of covariance ``C``, removing the columns ``S`` and refitting the rest exactly costs
``tr(W_S (P_SS)⁻¹ W_Sᵀ)`` with ``P = C⁻¹``; the refit is ``W ← W − W_S (P_SS)⁻¹ P_S:``, and the inverse follows as
``P ← P − P_:S (P_SS)⁻¹ P_S:`` (Hassibi & Stork 1993; in blocks: Frantar & Alistarh 2022, arXiv:2208.11580, equations 3
to 5). One run by rising cost ranks all groups and tells the error of every prefix: all keep-ratios at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch


@dataclass(frozen=True, slots=True)
class Consumer:
    """A linear map that reads the groups.

    Attributes:
        weight: (n, d).
        covariance: of its inputs, (d, d).
        columns: (groups, c), the columns that go with every group; −1 where a group has fewer than c.
        scale: weight of its error among several consumers.
    """

    weight: torch.Tensor
    covariance: torch.Tensor
    columns: torch.Tensor
    scale: float = 1.0


@dataclass(frozen=True, slots=True)
class Elimination:
    """Groups in the order in which they go.

    Attributes:
        order: (groups,), the first to go first.
        errors: (groups + 1,), summed error of all consumers after the first 0, 1, … groups are gone and the rest refit.
    """

    order: torch.Tensor
    errors: torch.Tensor


def _inverse(covariance: torch.Tensor, damping: float) -> torch.Tensor:
    return torch.cholesky_inverse(_factor(covariance, _strength(covariance, damping))[0])


def _strength(covariance: torch.Tensor, damping: float) -> float:
    return max(damping * float(covariance.diagonal().mean()), 1e-12)


def _factor(covariance: torch.Tensor, strength: float) -> tuple[torch.Tensor, float]:
    """The Cholesky factor of ``C + λ I`` and the ``λ`` that it took."""
    eye = torch.eye(len(covariance), dtype=torch.float64)
    factor, info = torch.linalg.cholesky_ex(covariance + strength * eye)
    if bool(info.any()):  # rounding can leave a tiny negative eigenvalue: more damping always mends it
        return _factor(covariance, strength * 10)
    return factor, strength


class _State:
    """One consumer while groups go: its refit weight and the inverse of what is left of its covariance."""

    def __init__(self, consumer: Consumer, damping: float) -> None:
        covariance = consumer.covariance.double()
        self.inverse = _inverse(covariance, damping)
        self.weight = consumer.weight.double().clone()
        self.columns, self.scale = consumer.columns, consumer.scale

    def costs(self) -> torch.Tensor:
        """``tr(W_S (P_SS)⁻¹ W_Sᵀ)`` of every group, (groups,)."""
        columns = self.columns.clamp(min=0)
        absent = (self.columns < 0).double()
        block = self.inverse[columns.unsqueeze(2), columns.unsqueeze(1)]
        present = (1 - absent).unsqueeze(2) * (1 - absent).unsqueeze(1)
        block = block * present + torch.diag_embed(absent)
        part = self.weight[:, columns].permute(1, 2, 0) * (1 - absent).unsqueeze(2)
        return self.scale * (part * torch.linalg.solve(block, part)).sum((1, 2))

    def remove(self, group: int) -> None:
        """Take a group's columns out and refit the others."""
        at = self.columns[group]
        at = at[at >= 0]
        solved = torch.linalg.solve(self.inverse[at][:, at], self.inverse[at])
        self.weight -= self.weight[:, at] @ solved
        self.inverse -= self.inverse[:, at] @ solved
        # What is gone stays gone: rounding must not bring it back, and its block stays solvable.
        self.weight[:, at] = 0.0
        self.inverse[at], self.inverse[:, at] = 0.0, 0.0
        self.inverse[at, at] = 1.0


def compensated(
    weight: torch.Tensor, covariance: torch.Tensor, gone: torch.Tensor, damping: float = 1e-4
) -> torch.Tensor:
    """The map without some of its columns that stays closest to the whole one on the data.

    ``W' = (W C)_{:,K} (C_KK + λ I)⁻¹`` on the columns that stay, zero elsewhere, with ``λ = damping · mean diag C``.

    Args:
        weight: (n, d).
        covariance: of its inputs, (d, d).
        gone: columns to remove, (c,).
        damping: relative to the mean of the covariance's diagonal; pulls towards the weight itself.

    Returns:
        (n, d), float64; its output differs by ``tr(D C Dᵀ)`` with ``D`` the difference to the weight.
    """
    weight, covariance = weight.double(), covariance.double()
    stay = torch.ones(weight.shape[1], dtype=torch.bool)
    stay[gone] = False
    factor, strength = _factor(covariance[stay][:, stay], _strength(covariance, damping))
    right = weight @ covariance[:, stay] + strength * weight[:, stay]
    fitted = torch.zeros_like(weight)
    fitted[:, stay] = torch.cholesky_solve(right.T, factor).T
    return fitted


def eliminate(consumers: Sequence[Consumer], keep: int = 1, damping: float = 1e-3) -> Elimination:
    """Rank groups by greedy elimination over all their consumers together.

    Args:
        consumers: at least one; all know the same groups.
        keep: how many groups stay in any case; their order is by cost.
        damping: added to every covariance's diagonal, relative to its mean.
    """
    states = [_State(consumer, damping) for consumer in consumers]
    groups = len(consumers[0].columns)
    gone = torch.zeros(groups, dtype=torch.bool)
    order: list[int] = []
    errors = [0.0]
    for _ in range(groups - keep):
        costs = torch.stack([state.costs() for state in states]).sum(0)
        costs[gone] = torch.inf
        group = int(costs.argmin())
        errors.append(errors[-1] + max(float(costs[group]), 0.0))
        for state in states:
            state.remove(group)
        gone[group] = True
        order.append(group)
    costs = torch.stack([state.costs() for state in states]).sum(0)
    rest = [group for group in costs.argsort().tolist() if not gone[group]]
    for group in rest:
        errors.append(errors[-1] + max(float(costs[group]), 0.0))
    return Elimination(torch.tensor(order + rest), torch.tensor(errors, dtype=torch.float64))
