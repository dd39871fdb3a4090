"""Criteria: the order in which a coupled unit's groups go.

========== ==================================================================== ============================
criterion  what makes a group go first                                          needs
========== ==================================================================== ============================
obs        its consumers, refit, miss it least (the default)                    evidence
magnitude  its producers' weights are small                                     nothing
fpgm       its producers' weights are like the others' (He et al. 2019,         nothing
           arXiv:1811.00250, equation 4)
bn-scale   its batch norms scale it by little (Liu et al. 2017,                 batch norms, not yet folded
           arXiv:1708.06519)
taylor     the outputs hardly react to it (:mod:`featherweight.methods.pruning.taylor`) samples, task
causal     the outputs hardly move without it                                   samples, task
shapley    causal, averaged over the orders of going                            samples, task
========== ==================================================================== ============================

Causal and Shapley scores (:mod:`featherweight.methods.pruning.ablation`) re-rank what obs found; their table says why.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import nn

from featherweight.contracts import PlanError
from featherweight.methods.pruning.ablation import AblationTable, causal, shapley
from featherweight.methods.pruning.taylor import taylor_scores
from featherweight.network.capture import Network
from featherweight.network.channels import ChannelUnit, LayerChannels
from featherweight.network.channels.units import layer_of
from featherweight.numerics.elimination import Elimination, eliminate
from featherweight.observation.evidence import Evidence
from featherweight.observation.readers import readers_of
from featherweight.tasks.data import Split
from featherweight.tasks.task import Task

CRITERIA = ("obs", "magnitude", "fpgm", "bn-scale", "taylor", "causal", "shapley")

EXPLAINING = ("causal", "shapley")
_MEASURED = ("taylor", *EXPLAINING)
_OUTPUTS_SECOND = ("transpose", "embedding", "matmul", ".mm", "addmm")  # calls whose weights are (inputs, outputs)
_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


def rank_groups(
    network: Network,
    unit: ChannelUnit,
    evidence: Evidence,
    criterion: str = "obs",
    *,
    split: Split | None = None,
    task: Task | None = None,
) -> Elimination:
    """The unit's groups in the order in which they should go.

    Args:
        network: the dense network. For ``bn-scale`` the captured one whose batch norms aren't folded; units and groups
            are the same there.
        unit: of its coupling.
        evidence: of calibration samples; ``obs`` looks at it, and what re-ranks it.
        criterion: one of ``CRITERIA``.
        split, task: calibration samples and what their outputs mean, for ``taylor``, ``causal`` and ``shapley``.

    Returns:
        The order. With ``obs`` the errors are those of the consumers' outputs after a refit, relative to their energy;
        re-ranking shares these errors out anew. With other criteria, and where no consumer was observed, so that
        ``obs`` ranks by magnitude, the errors are shares of the scores, to compare within a unit.

    Raises:
        PlanError: an unknown criterion, or one that can't be had for this unit or without samples.
    """
    if criterion not in CRITERIA:
        raise PlanError(
            "The criterion must be one of the catalogue.", repr(criterion), f"one of: {', '.join(CRITERIA)}"
        )
    if criterion == "obs":
        return _by_surgeon(network, unit, evidence)
    if criterion not in _MEASURED:
        return _by_scores(_OF_WEIGHTS[criterion](network, unit))
    if split is None or task is None:
        raise PlanError(
            f"The criterion {criterion} runs the network on samples.",
            "no samples, or no task" if split is None else "no task",
            "hand over calibration samples and the task, or choose obs",
        )
    if criterion == "taylor":
        return _by_scores(taylor_scores(network, unit, split, task))
    return reranked(_by_surgeon(network, unit, evidence), explain(network, unit, evidence, criterion, split, task))


def explain(
    network: Network, unit: ChannelUnit, evidence: Evidence, criterion: str, split: Split, task: Task
) -> AblationTable:
    """The table behind ``causal`` or ``shapley``, with the ranks that ``obs`` gave before: why groups go.

    Args:
        network, unit, evidence, split, task: as for :func:`rank_groups`.
        criterion: "causal" or "shapley".

    Raises:
        PlanError: another criterion, or a unit that can't be silenced.
    """
    prior: Sequence[int] = _by_surgeon(network, unit, evidence).order.tolist()
    if criterion == "causal":
        return causal(network, [unit], split, task, {unit.name: prior})
    if criterion == "shapley":
        return shapley(network, unit, split, task, prior)
    raise PlanError("Only causal and shapley explain themselves group by group.", repr(criterion), "choose one of them")


def reranked(prior: Elimination, table: AblationTable) -> Elimination:
    """The prior's order with the groups of one unit's table first, in the table's order.

    The prior's summed error of these groups is shared out by their scores, so that errors still rise from 0 to what the
    prior told for all.
    """
    ahead = torch.tensor([row.group for row in table.rows])
    count = len(ahead)
    rest = prior.order[~torch.isin(prior.order, ahead)]
    shares = _rising(torch.tensor([row.score for row in table.rows], dtype=torch.float64))
    return Elimination(torch.cat([ahead, rest]), torch.cat([shares * prior.errors[count], prior.errors[count + 1 :]]))


def _by_surgeon(network: Network, unit: ChannelUnit, evidence: Evidence) -> Elimination:
    readers = list(readers_of(network, unit, evidence).values())
    return eliminate(readers) if readers else _by_scores(_magnitude(network, unit))


def _by_scores(scores: torch.Tensor) -> Elimination:
    """Low scores go first; errors are shares of their sum."""
    order = scores.argsort(stable=True)
    return Elimination(order, _rising(scores[order]))


def _rising(scores: torch.Tensor) -> torch.Tensor:
    """Shares of the sum after the first 0, 1, … scores; negative ones count as 0, and the last share is 1 or 0."""
    sums = torch.cat([torch.zeros(1, dtype=torch.float64), scores.double().clamp(min=0.0).cumsum(0)])
    return sums / sums[-1].clamp(min=1e-30)


# ------------------------------------------------------------------------------------------------- from weights alone


def _producer_rows(network: Network, unit: ChannelUnit) -> list[torch.Tensor]:
    """For every producer the weights of every group, (groups, values)."""
    return [_rows_of(network, unit, producer) for producer in unit.producers]


def _rows_of(network: Network, unit: ChannelUnit, producer: LayerChannels) -> torch.Tensor:
    """What a group takes away from a producer's weight along the axis of its outputs."""
    target = next(str(node.target) for node in network.graph.graph.nodes if node.name == producer.node)
    axis = int(any(word in target for word in _OUTPUTS_SECOND))
    pieces = [piece for piece in unit.slices if piece.state == producer.weight]
    piece = next((piece for piece in pieces if piece.axis == axis), pieces[0])
    weight = network.module.state_dict()[producer.weight].double().movedim(piece.axis, 0)
    return weight[torch.from_numpy(piece.indices)].flatten(1)


def _magnitude(network: Network, unit: ChannelUnit) -> torch.Tensor:
    """Squared weights of a group, relative to those of the whole producer, summed over producers; (groups,)."""
    energies = [row.square().sum(1) for row in _producer_rows(network, unit)]
    return torch.stack([energy / energy.sum().clamp(min=1e-30) for energy in energies]).sum(0)


def _fpgm(network: Network, unit: ChannelUnit) -> torch.Tensor:
    """Summed distance of a group's weights to those of all others, (groups,)."""
    return torch.stack([torch.cdist(row, row).sum(1) for row in _producer_rows(network, unit)]).sum(0)


def _bn_scale(network: Network, unit: ChannelUnit) -> torch.Tensor:
    """``|γ|`` of a group in every batch norm, relative to the norm's mean, summed; (groups,)."""
    owners, state, found = dict(network.module.named_modules()), network.module.state_dict(), []
    for piece in unit.slices:
        if isinstance(owners.get(layer_of(piece.state)), _NORMS) and piece.state.endswith(".weight"):
            scale = state[piece.state].double().abs()[torch.from_numpy(piece.indices)].mean(1)
            found.append(scale / scale.mean().clamp(min=1e-30))
    if not found:
        raise PlanError(
            "bn-scale reads the scales of batch norms on the unit's channels.",
            f"{unit.name!r} has none; where there was one, it is folded into the layer before it by now",
            "rank with the network as it was captured, before folding, or choose another criterion, like obs",
        )
    return torch.stack(found).sum(0)


_OF_WEIGHTS: Mapping[str, Callable[[Network, ChannelUnit], torch.Tensor]] = {
    "magnitude": _magnitude,
    "fpgm": _fpgm,
    "bn-scale": _bn_scale,
}
