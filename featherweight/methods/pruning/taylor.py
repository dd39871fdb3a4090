"""The Taylor criterion: how strongly the outputs react to a group of channels, from gradients, without labels.

Molchanov et al. (2019, arXiv:1906.10771) score a group by ``(Σ g · w)²``, with ``g`` the gradient of the loss and ``w``
the group's weights: the squared first-order change of the loss when they become zero. Without labels the loss at hand
is the divergence from the network's own answers, and its gradient is zero there. What is left is its curvature:

    KL(p ‖ p_w+Δ) = ½ Δᵀ F Δ + O(Δ³),   F = E_x E_{y ~ p(·|x)} [g gᵀ],   g = ∇_w log p(y|x)

(the Fisher information), so with ``Δ = −w`` on a group ``S`` and 0 elsewhere

    score_S = ½ E_x E_y [(Σ_{i ∈ S} g_i w_i)²] ≈ divergence of the outputs without the group.

The square stands inside the expectation: the mean of ``g`` itself is zero. Answers are drawn from the network's own
distribution: its softmax for classification, a Gaussian around its outputs for regression, of the variance for which
½ of the square is the task's divergence. Where the samples carry labels, they take the place of the drawn answers; this
is Molchanov's score sample by sample (the empirical Fisher information), small everywhere for a network that fits.

``Σ g · w`` over the columns with which consumers read the group equals ``∂ log p / ∂α`` for a gate ``α = 1`` on what
they read, so one backward pass gives it for every group and every sample. These columns alone are summed, since taking
them away takes the group away; adding the producers' weights would count it twice. Where no weighted call reads the
group (widths of queries and keys), the gate stands behind its producers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx

from featherweight.contracts import DataError, PlanError
from featherweight.methods.pruning.ablation import channel_axis
from featherweight.network.capture import Network
from featherweight.network.channels import ChannelUnit, LayerChannels
from featherweight.progress import track
from featherweight.tasks.data import Batch, Split
from featherweight.tasks.task import Task

_DRAWS = 4
_BATCH = 32

Pull = Callable[[torch.Tensor, torch.Tensor | None, torch.Generator, float], torch.Tensor]
"""(outputs (n, …), labels or None, randomness, mean ‖outputs‖² of all samples) → ∂ log-likelihood / ∂ outputs."""


def taylor_scores(
    network: Network, unit: ChannelUnit, split: Split, task: Task, draws: int = _DRAWS, seed: int = 0
) -> torch.Tensor:
    """``½ E[(Σ g · w)²]`` of every group.

    Args:
        network: the dense network.
        unit: of its coupling.
        split: samples; their labels are used where they have any.
        task: classification or regression.
        draws: answers drawn for every sample.
        seed: of the draws.

    Returns:
        (groups,), float64; without labels in the unit of the task's divergence.

    Raises:
        PlanError: a task whose likelihood isn't known, or channels that run through a recurrent state alone.
        DataError: there is no sample, or labels that the task refuses.
    """
    if task.name not in _PULLS:
        raise PlanError(
            "Taylor scores need the likelihood of an answer.",
            f"the task {task.name!r}",
            f"choose causal, which needs its divergence alone, or one of: {', '.join(_PULLS)}",
        )
    if len(split) == 0:
        raise DataError("Taylor scores need samples.", "an empty split", "hand over at least one sample, better 256")
    if split.labels is not None:
        classes = network.output_shape[-1] if task.binary else None
        task.check_labels("calibration", split.labels, classes)
    gates = _gates(network, unit)
    generator = torch.Generator().manual_seed(seed)
    answers = _Answers(_PULLS[task.name], draws if split.labels is None else 1, generator, _energy(network, split))
    # Where samples and positions share an axis, only a batch of one tells which is which.
    size = _BATCH if all(gate.batch_first(network) for gate in gates) else 1
    total = torch.zeros(unit.groups, dtype=torch.float64)
    for batch in track(split.batches(size), f"sensing {unit.name}", total=-(-len(split) // size)):
        total += _squares(network, gates, unit.groups, batch, answers)
    return total / (2 * answers.draws * len(split))


@dataclass(frozen=True, eq=False)
class _Answers:
    """Where answers come from."""

    pull: Pull
    draws: int
    generator: torch.Generator
    energy: float

    def slope(self, outputs: torch.Tensor, labels: torch.Tensor | None) -> torch.Tensor:
        """``∂ log p / ∂ outputs`` for one answer to every sample."""
        return self.pull(outputs, labels, self.generator, self.energy)


def _energy(network: Network, split: Split) -> float:
    """Mean over samples of the outputs' squared norm."""
    with torch.no_grad():
        return sum(float(network.module(*batch.inputs).square().sum()) for batch in split.batches(_BATCH)) / len(split)


def _squares(network: Network, gates: list[_Gate], groups: int, batch: Batch, answers: _Answers) -> torch.Tensor:
    """``Σ (∂ log p / ∂α)²`` over a batch's samples and draws, (groups,)."""
    real = next(parameter.dtype for parameter in network.module.parameters() if parameter.is_floating_point())
    alpha = torch.ones(len(batch.inputs[0]), groups, dtype=real, requires_grad=True)
    with torch.enable_grad():
        outputs = _Gated(network.graph, gates, alpha).run(*batch.inputs)
    outputs = outputs[0] if isinstance(outputs, tuple) else outputs
    total = torch.zeros(groups, dtype=torch.float64)
    for draw in range(answers.draws):
        wanted = answers.slope(outputs.detach(), batch.labels)
        (slope,) = torch.autograd.grad(outputs, alpha, wanted, retain_graph=draw + 1 < answers.draws)
        total += slope.double().square().sum(0)
    return total


# -------------------------------------------------------------------------------------------------------- likelihoods


def _classification(
    outputs: torch.Tensor, labels: torch.Tensor | None, generator: torch.Generator, energy: float
) -> torch.Tensor:
    """``∂ log softmax(z)_y / ∂z = e_y − p``."""
    del energy
    chances = outputs.softmax(-1)
    answers = torch.multinomial(chances, 1, generator=generator).squeeze(1) if labels is None else labels.long()
    return torch.nn.functional.one_hot(answers, outputs.shape[-1]).to(chances) - chances


def _regression(
    outputs: torch.Tensor, labels: torch.Tensor | None, generator: torch.Generator, energy: float
) -> torch.Tensor:
    """``(y − z) / σ²`` with ``σ² = ½ E‖z‖²``, for which the KL divergence is the normalised squared error."""
    variance = max(energy / 2, 1e-30)
    if labels is not None and labels.numel() != outputs.numel():
        got = f"labels {tuple(labels.shape)} for outputs {tuple(outputs.shape)}"
        raise DataError("Regression wants labels of the outputs' shape.", got, "give one number per output and sample")
    if labels is not None:
        return (labels.reshape(outputs.shape).to(outputs) - outputs) / variance
    return torch.randn(outputs.shape, generator=generator, dtype=outputs.dtype) / variance**0.5


_PULLS: Mapping[str, Pull] = {"classification": _classification, "regression": _regression}


# -------------------------------------------------------------------------------------------------------------- gates


@dataclass(frozen=True, eq=False)
class _Gate:
    """A factor on a unit's channels.

    Attributes:
        node: the call that reads or produces them.
        channels: (groups, count), where they lie on its channel axis.
        reads: whether the gate stands before the call, on its first argument.
    """

    node: fx.Node
    channels: torch.Tensor
    reads: bool

    def batch_first(self, network: Network) -> bool:
        """Whether the first axis of the gated value is the batch and nothing else."""
        place = next(node for node in network.graph.graph.nodes if node.op == "placeholder")
        value = (self.node.args[0] if self.reads else self.node).meta["val"]  # type: ignore[union-attr]
        return str(value.shape[0]) == str(place.meta["val"].shape[0])

    def apply(self, value: torch.Tensor, alpha: torch.Tensor) -> torch.Tensor:
        """The value, every group's channels times its entry of alpha (samples, groups)."""
        axis = channel_axis(self.node)
        factor = torch.ones(len(alpha), value.shape[axis], dtype=alpha.dtype)
        factor[:, self.channels.flatten()] = alpha.repeat_interleave(self.channels.shape[1], dim=1)
        shape = [1] * value.ndim
        shape[0], shape[axis] = factor.shape
        return value * factor.view(shape)


def _gates(network: Network, unit: ChannelUnit) -> list[_Gate]:
    nodes = {node.name: node for node in network.graph.graph.nodes}
    reads = bool(unit.consumers)
    at: tuple[LayerChannels, ...] = unit.consumers if reads else unit.producers
    gates = [_Gate(nodes[one.node], torch.from_numpy(one.channels), reads) for one in at]
    if not reads and any(isinstance(gate.node.meta["val"], (tuple, list)) for gate in gates):
        raise PlanError(
            "Taylor scores need a place where the channels pass.",
            f"{unit.name!r} hands them on through a recurrent state alone",
            "rank this unit by another criterion, like obs",
        )
    return gates


class _Gated(fx.Interpreter):
    """Runs the graph with gates."""

    def __init__(self, graph: fx.GraphModule, gates: list[_Gate], alpha: torch.Tensor) -> None:
        super().__init__(graph)
        self._gates, self._alpha = {gate.node: gate for gate in gates}, alpha

    def run_node(self, n: fx.Node) -> Any:
        gate = self._gates.get(n)
        if gate is None:
            return super().run_node(n)
        if not gate.reads:
            return gate.apply(super().run_node(n), self._alpha)
        args, kwargs = self.fetch_args_kwargs_from_env(n)
        return self.call_function(n.target, (gate.apply(args[0], self._alpha), *args[1:]), kwargs)  # type: ignore[arg-type]
