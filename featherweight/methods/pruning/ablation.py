"""Criteria that explain: how far the network's outputs move when a group of channels has nothing more to say.

A group is silenced by *mean replacement*: where its channels are produced, every value becomes the channel's mean over
the calibration samples. What the rest of the network can learn from the channel is gone then, and what a bias could
hold is not. The score is the task's divergence between the original's outputs and those, which is nats for
classification: a number with a meaning of its own, comparable between units.

*Causal* scores take one group at a time. They can't see that two groups say the same: either alone is missed by nobody.
*Shapley values* (Shapley 1953; for networks Ghorbani & Zou 2020, arXiv:2002.09815) take groups away in random order and
average what each one adds to the damage; together they make up the damage of all exactly. With ``v(S)`` the divergence
when the groups ``S`` are silenced and ``n`` players

    φ_i = Σ_{S ∌ i} |S|! (n − |S| − 1)! / n! · (v(S ∪ i) − v(S)),   Σ φ_i = v(all).

The mean over random permutations is unbiased. A permutation ends early when the damage is that of all players but for
``tolerance`` (Ghorbani & Zou 2019, arXiv:1904.02868); what little is left is shared among the rest, which keeps the
sum, and biases no value by more than that.

No labels and no gradients are needed. Only what lies behind the unit's producers is computed anew.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import fx
from torch.fx.node import map_aggregate

from featherweight.contracts import DataError, ModelError, PlanError
from featherweight.network.capture import Network
from featherweight.network.channels import ChannelUnit, LayerChannels
from featherweight.progress import track
from featherweight.tasks.data import Split
from featherweight.tasks.task import Task

_BATCHES = 8
_LARGEST_BATCH = 64
_BROKEN = 1e9  # stands for outputs that aren't finite, so that sums and ranks stay defined
_AGREES = 1e-3

Replacement = Callable[[torch.Tensor], torch.Tensor]


@dataclass(frozen=True, slots=True)
class RankedGroup:
    """One row of the table.

    Attributes:
        unit, group: which channels.
        score: divergence of the outputs that they are worth.
        standard_error: of the score; over batches of samples (causal) or over permutations (Shapley); NaN where there
            is but one.
        rank_before, rank_after: place among the unit's groups, 0 goes first.
    """

    unit: str
    group: int
    score: float
    standard_error: float
    rank_before: int
    rank_after: int


@dataclass(frozen=True, slots=True)
class AblationTable:
    """What groups are worth, in words that a report can show.

    Attributes:
        criterion: "causal" or "shapley".
        rows: unit by unit, the first to go first. Shapley's hold the players alone.
        runs: how often outputs were computed anew for all samples.
    """

    criterion: str
    rows: tuple[RankedGroup, ...]
    runs: int


@dataclass(frozen=True, slots=True)
class Sampling:
    """How Shapley values are estimated.

    Attributes:
        permutations: how many random orders.
        share: of a unit's groups that play, those that the prior ranks lowest; at least two.
        tolerance: share of the damage of all players that isn't worth going on for.
        seed: of the orders.
    """

    permutations: int = 30
    share: float = 0.3
    tolerance: float = 0.01
    seed: int = 0

    def __post_init__(self) -> None:
        if not (self.permutations >= 1 and 0.0 < self.share <= 1.0 and 0.0 <= self.tolerance < 1.0):
            raise PlanError(
                "Shapley values need at least one permutation, a share in (0, 1] and a tolerance in [0, 1).",
                str(self),
                "Sampling() is a fair start",
            )


# ------------------------------------------------------------------------------------------------- what can be asked


def causal(
    network: Network,
    units: Sequence[ChannelUnit],
    split: Split,
    task: Task,
    prior: Mapping[str, Sequence[int]] | None = None,
) -> AblationTable:
    """What the outputs lose when one group is silenced, for every group of some units.

    Args:
        network: the dense network.
        units: of its coupling.
        split: calibration samples; 256 do. What the units' followers read of all of them is held in memory.
        task: its divergence is the score.
        prior: unit → its groups in another criterion's order, for the table; else the network's own order.

    Raises:
        DataError: there is no sample.
        PlanError: a unit whose channels run through a recurrent state.
        ModelError: the graph changes values that were stored.
    """
    rows: list[RankedGroup] = []
    runs = 0
    for unit in units:
        damage = Damage(network, unit, split, task)
        groups = track(range(unit.groups), f"silencing {unit.name}", total=unit.groups)
        found = [damage.of_batches([group]) for group in groups]
        scores = [(float(batches @ damage.weights), _spread(batches, damage.weights)) for batches in found]
        before = list((prior or {}).get(unit.name, range(unit.groups)))
        rows += _rows(unit.name, before, dict(enumerate(scores)))
        runs += unit.groups
    return AblationTable("causal", tuple(rows), runs)


def shapley(
    network: Network,
    unit: ChannelUnit,
    split: Split,
    task: Task,
    prior: Sequence[int],
    sampling: Sampling = Sampling(),
) -> AblationTable:
    """What each of a unit's lowest groups adds to the damage, averaged over the orders in which they could go.

    Args:
        network: the dense network.
        unit: of its coupling.
        split, task: as for :func:`causal`.
        prior: the unit's groups in a cheap criterion's order; the first of them play.
        sampling: how many of them, and how often.

    Raises:
        DataError, PlanError, ModelError: as for :func:`causal`.
    """
    damage = Damage(network, unit, split, task)
    count = min(unit.groups, max(2, math.ceil(sampling.share * unit.groups)))
    players = [int(group) for group in prior[:count]]
    generator = torch.Generator().manual_seed(sampling.seed)
    orders = torch.stack([torch.randperm(count, generator=generator) for _ in range(sampling.permutations)])
    marginals = shapley_marginals(
        lambda coalition: damage.of([players[one] for one in sorted(coalition)]), orders, sampling.tolerance
    )
    errors = marginals.std(0, correction=1) / len(marginals) ** 0.5 if len(marginals) > 1 else marginals[0] * math.nan
    scores = zip(marginals.mean(0).tolist(), errors.tolist(), strict=True)
    rows = _rows(unit.name, list(prior), dict(zip(players, scores, strict=True)))
    return AblationTable("shapley", tuple(rows), damage.runs)


def shapley_marginals(
    value: Callable[[frozenset[int]], float], orders: torch.Tensor, tolerance: float = 0.0
) -> torch.Tensor:
    """What every player adds in every order.

    Args:
        value: of a coalition of players, 0 for nobody; asked once for each coalition.
        orders: (t, n), permutations of ``range(n)``.
        tolerance: an order ends when the rest is worth at most this share of everybody's value.

    Returns:
        (t, n), float64, rows sum to the value of everybody; their mean over all n! orders are the Shapley values.
    """
    known = {frozenset(): 0.0}
    count = orders.shape[1]

    def worth(coalition: frozenset[int]) -> float:
        if coalition not in known:
            known[coalition] = value(coalition)
        return known[coalition]

    everybody = worth(frozenset(range(count)))
    marginals = torch.zeros(orders.shape, dtype=torch.float64)
    for row, order in enumerate(track(orders.tolist(), "permuting groups", total=len(orders))):
        coalition: frozenset[int] = frozenset()
        for place, player in enumerate(order):
            missing = everybody - worth(coalition)
            if abs(missing) <= tolerance * abs(everybody):
                marginals[row, order[place:]] = missing / (count - place)
                break
            grown = coalition | {player}
            marginals[row, player] = worth(grown) - worth(coalition)
            coalition = grown
    return marginals


def _rows(unit: str, before: Sequence[int], scores: Mapping[int, tuple[float, float]]) -> Iterator[RankedGroup]:
    """The rows by rising score, ties as they were. Those who aren't scored stand behind, as before."""
    place = {int(group): rank for rank, group in enumerate(before)}
    order = sorted(scores, key=lambda group: (scores[group][0], place[group]))
    for rank, group in enumerate(order):
        yield RankedGroup(unit, group, *scores[group], place[group], rank)


def _spread(batches: np.ndarray, weights: np.ndarray) -> float:
    """Standard error of a weighted mean of independent batches."""
    if len(batches) < 2:
        return math.nan
    squares = (weights * (batches - batches @ weights)) ** 2
    return float(math.sqrt(squares.sum() * len(batches) / (len(batches) - 1)))


# ---------------------------------------------------------------------------------------------- how it is computed


@dataclass(frozen=True, eq=False)
class _Stored:
    """A batch: what lies before the unit's producers, their own outputs, and the network's."""

    values: Mapping[fx.Node, Any]
    outputs: np.ndarray
    samples: int


class Damage:
    """The divergence of the outputs when some of a unit's groups are silenced.

    Attributes:
        weights: every batch's share of the samples, (batches,).
        runs: how often outputs were computed anew for all samples.
    """

    def __init__(self, network: Network, unit: ChannelUnit, split: Split, task: Task) -> None:
        if len(split) == 0:
            raise DataError("Ablation needs samples.", "an empty split", "hand over at least one sample, better 256")
        self._graph, self._task = network.graph, task
        nodes = {node.name: node for node in network.graph.graph.nodes}
        self._sites = {nodes[producer.node]: producer for producer in unit.producers}
        self._behind = _followers(network.graph, self._sites)
        self._means: dict[fx.Node, torch.Tensor] = {}
        size = max(1, min(_LARGEST_BATCH, -(-len(split) // _BATCHES)))
        self._batches = [self._store(batch.inputs) for batch in split.batches(size)]
        counts = np.array([batch.samples for batch in self._batches], dtype=np.float64)
        self.weights = counts / counts.sum()
        self._means = {node: total / counts.sum() for node, total in self._means.items()}
        self.runs = 0
        self._check(next(split.batches(size)).inputs)

    def of(self, groups: Sequence[int]) -> float:
        """For all samples: the mean over batches, weighted by their size."""
        return float(self.of_batches(groups) @ self.weights)

    def of_batches(self, groups: Sequence[int]) -> np.ndarray:
        """For every batch, (batches,)."""
        self.runs += 1
        found = [self._task.divergence(batch.outputs, self._silenced(batch, groups)) for batch in self._batches]
        return np.clip(np.array(found, dtype=np.float64), 0.0, _BROKEN)

    def _store(self, inputs: tuple[torch.Tensor, ...]) -> _Stored:
        """Run a batch through the original and keep what later runs start from."""
        whole = _Functional(self._graph, {}, keep_values=True)
        with torch.no_grad():
            outputs = whole.run(*inputs)
        for node, producer in self._sites.items():
            value = whole.env[node]
            if not isinstance(value, torch.Tensor):
                raise PlanError(
                    "Ablation replaces channels where a layer puts them out.",
                    f"{producer.layer!r} hands its channels on through a recurrent state, too",
                    "rank this unit by another criterion, like obs",
                )
            total = value.double().movedim(channel_axis(node), -1).flatten(0, -2).mean(0) * len(inputs[0])
            self._means[node] = self._means.get(node, 0.0) + total
        kept = {node: None for node in self._graph.graph.nodes if node not in self._behind}
        needed = {source for node in self._behind for source in node.all_input_nodes} - self._behind
        kept |= {node: whole.env[node] for node in needed | (set(self._sites) - self._behind)}
        return _Stored(kept, _array(outputs), len(inputs[0]))

    def _silenced(self, batch: _Stored, groups: Sequence[int]) -> np.ndarray:
        values = dict(batch.values)
        replaced = {node: self._replacement(node, groups) for node in self._sites}
        for node in set(self._sites) - self._behind:  # these don't run again
            values[node] = replaced[node](values[node])
        with torch.no_grad():
            return _array(_Functional(self._graph, replaced).run(initial_env=values, enable_io_processing=False))

    def _replacement(self, node: fx.Node, groups: Sequence[int]) -> Replacement:
        """Puts the means where the groups' channels are."""
        channels = torch.from_numpy(self._sites[node].channels[list(groups)]).flatten()
        means = self._means[node][channels]
        axis = channel_axis(node)

        def replace(value: torch.Tensor) -> torch.Tensor:
            value = value.clone()
            value.movedim(axis, -1)[..., channels.to(value.device)] = means.to(value)
            return value

        return replace

    def _check(self, inputs: tuple[torch.Tensor, ...]) -> None:
        """A run from what was stored gives the network's own outputs of the first batch again."""
        with torch.no_grad():
            own = _array(self._graph(*(part.clone() for part in inputs)))
        again = self._silenced(self._batches[0], [])
        if not np.allclose(again, own, rtol=_AGREES, atol=_AGREES * np.abs(own).max()):
            raise ModelError(
                "The part of a network behind a layer must give the same outputs when it is run by itself.",
                f"they differ by up to {np.abs(again - own).max():.3g}",
                "take operations that change a tensor in place through a view of it out of forward",
            )


class _Functional(fx.Interpreter):
    """Runs in-place operations on copies, so that what is stored stays what it was, and replaces some results."""

    def __init__(
        self, graph: fx.GraphModule, replaced: Mapping[fx.Node, Replacement], keep_values: bool = False
    ) -> None:
        super().__init__(graph, garbage_collect_values=not keep_values)
        self._replaced = replaced

    def run_node(self, n: fx.Node) -> Any:
        result = super().run_node(n)
        return self._replaced[n](result) if n in self._replaced else result

    def call_function(self, target: Any, args: Any, kwargs: Any) -> Any:
        if isinstance(target, torch._ops.OpOverload) and target._schema.is_mutable:
            args = map_aggregate(args, lambda one: one.clone() if isinstance(one, torch.Tensor) else one)
        return super().call_function(target, args, kwargs)


def _followers(graph: fx.GraphModule, sites: Mapping[fx.Node, LayerChannels]) -> set[fx.Node]:
    """Every node that some producer's output reaches, without those producers that none reaches."""
    behind: set[fx.Node] = set()
    for node in graph.graph.nodes:
        if any(source in behind or source in sites for source in node.all_input_nodes):
            behind.add(node)
    return behind


def channel_axis(node: fx.Node) -> int:
    """The axis of a weighted call's input and output that holds its channels."""
    return 1 if "conv" in str(node.target) else -1


def _array(outputs: Any) -> np.ndarray:
    first = outputs[0] if isinstance(outputs, (tuple, list)) else outputs
    return first.float().numpy()
