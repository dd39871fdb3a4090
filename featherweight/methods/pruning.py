"""Structured pruning: which channels of a coupled unit go, and the network without them.

Within a unit the choice is by optimal-brain-surgeon elimination over all its consumers together (default), or by a
named criterion: the producers' magnitude, or their distance to the geometric median (FPGM). Removal is surgery on the
user's own classes; what remains is refit to the dense network (see ``featherweight.recovery.refit``). Not in the
catalogue of the table yet: a unit's cost depends on its neighbours', which the table's rows can't say.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch

from featherweight.contracts import PlanError
from featherweight.network.capture import Network, capture
from featherweight.network.channels import ChannelUnit, Coupling
from featherweight.network.channels.units import LayerChannels
from featherweight.network.modules import weight_of
from featherweight.network.surgery import remove
from featherweight.numerics.elimination import Consumer, Elimination, eliminate
from featherweight.observation.evidence import Evidence

CRITERIA = ("obs", "magnitude", "fpgm")


def _columns(consumer: LayerChannels, weight: torch.Tensor) -> torch.Tensor:
    """The columns of a consumer's flattened weight that go with every group, (groups, c)."""
    kernel = math.prod(weight.shape[2:])
    channels = torch.from_numpy(consumer.channels)
    return (channels.unsqueeze(2) * kernel + torch.arange(kernel)).flatten(1)


def _consumers(network: Network, unit: ChannelUnit, evidence: Evidence) -> list[Consumer]:
    """The unit's consumers that were observed, each weighed by one over its output's energy."""
    found = []
    for consumer in unit.consumers:
        layer = next((one for one in network.layers if one.node == consumer.node), None)
        if layer is None or layer.groups > 1 or layer.name not in evidence.layers:
            continue
        weight = weight_of(network.module.get_submodule(layer.name))
        covariance = evidence.layers[layer.name].covariance[0]
        rows = weight.flatten(1).double()
        energy = float(((rows @ covariance) * rows).sum())
        found.append(Consumer(rows, covariance, _columns(consumer, weight), 1.0 / max(energy, 1e-30)))
    return found


def _producer_rows(network: Network, unit: ChannelUnit) -> list[torch.Tensor]:
    """For every producer the weights of every group, (groups, values)."""
    rows = []
    for producer in unit.producers:
        weight = network.module.get_parameter(producer.weight).detach().double().flatten(1)
        rows.append(weight[torch.from_numpy(producer.channels)].flatten(1))
    return rows


def _scores(network: Network, unit: ChannelUnit, criterion: str) -> torch.Tensor:
    """A score for every group, low goes first, (groups,)."""
    rows = _producer_rows(network, unit)
    if criterion == "magnitude":
        return torch.stack([row.square().sum(1) / row.square().sum() for row in rows]).sum(0)
    return torch.stack([torch.cdist(row, row).sum(1) for row in rows]).sum(0)


def rank_groups(network: Network, unit: ChannelUnit, evidence: Evidence, criterion: str = "obs") -> Elimination:
    """The unit's groups in the order in which they should go.

    Args:
        network: the dense network.
        unit: of its coupling.
        evidence: of calibration samples; only ``obs`` looks at it.
        criterion: "obs", "magnitude" or "fpgm" (He et al. 2019, arXiv:1811.00250, equation 4).

    Returns:
        The order. With ``obs`` the errors are those of the consumers' outputs after a refit, relative to their energy;
        with other criteria, or where no consumer was observed, they are shares of the scores, to compare within a unit.

    Raises:
        PlanError: an unknown criterion.
    """
    if criterion not in CRITERIA:
        raise PlanError(
            "The criterion must be one of the catalogue.", repr(criterion), f"one of: {', '.join(CRITERIA)}"
        )
    consumers = _consumers(network, unit, evidence) if criterion == "obs" else []
    if consumers:
        return eliminate(consumers)
    scores = _scores(network, unit, "magnitude" if criterion == "obs" else criterion)
    order = scores.argsort()
    shares = torch.cumsum(scores[order], 0) / scores.sum().clamp(min=1e-30)
    return Elimination(order, torch.cat([torch.zeros(1, dtype=torch.float64), shares.double()]))


def removals_for(unit: ChannelUnit, ranking: Elimination, keep_ratio: float, multiple: int = 1) -> tuple[int, ...]:
    """The groups to remove so that this share of them stays, rounded to the target's multiple of channels.

    Raises:
        PlanError: the ratio would empty the unit, or keep more than there is.
    """
    if not 0.0 < keep_ratio <= 1.0:
        raise PlanError(
            "A keep ratio lies above 0 and at most at 1: a layer without channels computes nothing.",
            f"{keep_ratio} for {unit.name!r}",
            "0.5 keeps half of the channels",
        )
    kept = max(1, round(unit.groups * keep_ratio / multiple)) * multiple
    gone = max(unit.groups - kept, 0)
    return tuple(sorted(ranking.order[:gone].tolist()))


def prune(network: Network, coupling: Coupling, removals: Mapping[str, tuple[int, ...]]) -> Network:
    """The network without these groups, captured anew; nothing is refit."""
    wanted = {name: groups for name, groups in removals.items() if groups}
    return capture(remove(network, coupling, wanted), network.example) if wanted else network


def kept_channels(
    coupling: Coupling, removals: Mapping[str, tuple[int, ...]], network: Network
) -> dict[str, torch.Tensor]:
    """Layer → output channels that stay, for layers that lose some."""
    gone: dict[str, set[int]] = {}
    for name, groups in removals.items():
        for producer in coupling.unit(name).producers:
            gone.setdefault(producer.node, set()).update(producer.channels[list(groups)].ravel().tolist())
    kept = {}
    for layer in network.layers:
        if gone.get(layer.node):
            kept[layer.name] = torch.tensor([c for c in range(layer.weight_shape[0]) if c not in gone[layer.node]])
    return kept
