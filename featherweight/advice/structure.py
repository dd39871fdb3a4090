"""What stands in the way: layers and channels that can't change, and norms that don't fold."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

import numpy as np
import torch
from torch import fx

from featherweight.advice.survey import Advice, Survey, counted, names
from featherweight.network.capture import Layer
from featherweight.network.channels.units import Partition
from featherweight.network.labels import Labels, Value

_NOTICEABLE = 0.01


def answering(survey: Survey) -> frozenset[str]:
    """Layers whose output channels are outputs of the network: how many there are, the task says and nobody else."""
    coupled, states = survey.coupling.partitions[0], survey.coupling.states
    (output,) = (node for node in survey.network.graph.graph.nodes if node.op == "output")
    answers = np.concatenate([np.empty(0, np.int64), *(_atoms(coupled, node.name) for node in output.all_input_nodes)])
    found = set[str]()
    for layer in survey.network.layers:
        node = states.get(layer.weight)
        channels = None if node is None else coupled.axis(node, 1 if "transpose" in layer.kind else 0)
        if channels is not None and np.isin(coupled.roots[channels.labels[channels.labels >= 0]], answers).any():
            found.add(layer.name)
    return frozenset(found)


def _atoms(coupled: Partition, node: str) -> Labels:
    """Representatives of all atoms that a node's result carries on any axis."""
    value = coupled.values.get(node)
    values = value if isinstance(value, list) else [value]
    axes = [axis for one in values if isinstance(one, Value) for axis in one.axes if axis is not None]
    labels = [axis.labels[axis.labels >= 0] for axis in axes]
    return coupled.roots[np.concatenate(labels)] if labels else np.empty(0, np.int64)


def unreplaceable(survey: Survey) -> Iterator[Advice]:
    """Layers that no method can touch, with the reason that capture met."""
    layers = {layer.name: layer for layer in survey.network.layers}
    for refusal in survey.network.refusals:
        layer = layers.get(refusal.subject)
        told = ("can't be changed", refusal.reason, refusal.remedy)
        yield survey.advice(
            "blocks", refusal.subject, told,
            size_bytes=layer.cost.size_bytes if layer else 0, macs=layer.cost.macs if layer else 0,
        )  # fmt: skip


def unowned(survey: Survey) -> Iterator[Advice]:
    """Parameters of operations that aren't layers: recurrent cells, free parameters, norms that stay."""
    known = {layer.weight for layer in survey.network.layers}
    biases = {f"{layer.name}.bias" for layer in survey.network.layers}
    sizes: dict[str, int] = defaultdict(int)
    for name, parameter in survey.network.module.named_parameters():
        plain = name.partition(".parametrizations.")[0]
        if name not in known | biases and plain == name:
            sizes[name.rpartition(".")[0] or name] += 4 * parameter.numel()
    for owner, size in sizes.items():
        if size < _NOTICEABLE * survey.original.size_bytes:
            continue
        kind = type(survey.network.module.get_submodule(owner)).__name__ if _is_module(survey, owner) else "a parameter"
        told = (
            f"{size:,} bytes in {kind}",
            "it isn't a layer that methods know: its weights stay as they are",
            "spell it out in linear layers and convolutions",
        )
        yield survey.advice("blocks", owner, told, size_bytes=size)


def _is_module(survey: Survey, name: str) -> bool:
    return name in dict(survey.network.module.named_modules())


def frozen_channels(survey: Survey) -> Iterator[Advice]:
    """Channels that can't be pruned, layers with the same reason together."""
    rows: dict[tuple[str, str], list[str]] = defaultdict(list)
    for refusal in survey.coupling.refusals:
        # "16 of 16 output channels stay: reason": the count differs from layer to layer, the reason needn't
        reason = refusal.reason.partition(" stay: ")[2] or refusal.reason
        rows[reason, refusal.remedy].append(refusal.subject)
    layers = {layer.name: layer for layer in survey.network.layers}
    for (reason, remedy), subjects in rows.items():
        held = [layers[name] for name in dict.fromkeys(subjects) if name in layers]
        told = ("channels can't be pruned", reason, remedy)
        yield survey.advice(
            "blocks", names(subjects), told,
            size_bytes=sum(layer.cost.size_bytes for layer in held), macs=sum(layer.cost.macs for layer in held),
        )  # fmt: skip


def unfolded_norms(survey: Survey) -> Iterator[Advice]:
    """Batch normalisations that don't fold into a layer, and why."""
    layers = {layer.node: layer for layer in survey.network.layers}
    rows: dict[str, list[str]] = defaultdict(list)
    for node in survey.network.graph.graph.nodes:
        if node.target is torch.ops.aten.batch_norm.default:
            rows[_why_unfolded(node, layers)].append(_owner(node))
    for reason, norms in rows.items():
        told = (
            f"{counted(len(norms), 'batch normalisation')} can't be folded",
            reason,
            "put each directly behind a layer that nothing else reads",
        )
        yield survey.advice("blocks", names(norms), told)


def _owner(norm: fx.Node) -> str:
    mean = norm.args[3]
    return str(mean.target).rpartition(".")[0] if isinstance(mean, fx.Node) else norm.name


def _why_unfolded(norm: fx.Node, layers: dict[str, Layer]) -> str:
    source = norm.args[0]
    if not isinstance(source, fx.Node) or source.name not in layers:
        name = _operation(source) if isinstance(source, fx.Node) and source.op == "call_function" else "the input"
        return f"it follows {name} and not a layer"
    if len(source.users) > 1:
        return "something else reads the layer's output before it, too"
    if not layers[source.name].replaceable:
        return "the layer before it can't be replaced"
    return "it isn't a plain batch normalisation with running statistics of its own"


def _operation(node: fx.Node) -> str:
    """``aten.hardswish.default`` → "hardswish"."""
    return str(node.target).removeprefix("aten.").partition(".")[0]
