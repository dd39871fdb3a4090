"""Capture: from any ``nn.Module`` to a :class:`Network`.

The user's module is copied, put into evaluation mode and exported with ``torch.export`` under a free batch dimension.
What comes back holds both halves of the house rule "graphs for analysis, modules for surgery": the copied module and
its ATen graph, with every weighted call tied to the module that owns its weight.
"""

from __future__ import annotations

import contextlib
import hashlib
import inspect
import io
import logging
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import fx, nn

from featherweight.contracts import Cost, ModelError, Refusal
from featherweight.network.checks import check_module, checked_inputs, without_fast_paths
from featherweight.network.cost import macs_of_node
from featherweight.network.encodings import ENCODINGS
from featherweight.network.geometry import Geometry, geometry_of
from featherweight.network.modules import copied

_aten = torch.ops.aten

# ATen operation → (kind, position of the weight, position of the bias).
_WEIGHTED: Mapping[object, tuple[str, int, int | None]] = {
    _aten.linear.default: ("linear", 1, 2),
    _aten.conv1d.default: ("conv1d", 1, 2),
    _aten.conv1d.padding: ("conv1d", 1, 2),
    _aten.conv2d.default: ("conv2d", 1, 2),
    _aten.conv2d.padding: ("conv2d", 1, 2),
    _aten.conv3d.default: ("conv3d", 1, 2),
    _aten.conv3d.padding: ("conv3d", 1, 2),
    _aten.conv_transpose1d.default: ("conv_transpose1d", 1, 2),
    _aten.conv_transpose2d.input: ("conv_transpose2d", 1, 2),
    _aten.conv_transpose3d.input: ("conv_transpose3d", 1, 2),
    _aten.embedding.default: ("embedding", 0, None),
}

# What a method may replace: the owner must be exactly such a module, since a subclass may do more than its base.
_REPLACEABLE: Mapping[str, type[nn.Module]] = {
    "linear": nn.Linear,
    "conv1d": nn.Conv1d,
    "conv2d": nn.Conv2d,
    "conv3d": nn.Conv3d,
    "conv_transpose1d": nn.ConvTranspose1d,
    "conv_transpose2d": nn.ConvTranspose2d,
    "conv_transpose3d": nn.ConvTranspose3d,
    "embedding": nn.Embedding,
}


@dataclass(frozen=True, slots=True)
class Layer:
    """One weighted call of the network.

    Attributes:
        name: path of the module that owns the weight ("layer1.0.conv1").
        node: name of the graph node that calls it.
        kind: "linear", "conv2d", "depthwise_conv2d", "embedding", ...
        weight: the weight's name in the module's state ("layer1.0.conv1.weight").
        weight_shape: its shape.
        has_bias: whether the call adds a bias.
        input_shape, output_shape: of one sample, batch left out.
        cost: parameters and MACs for one sample; ``size_bytes`` as float32.
        activation_bytes: bytes of the output of one sample, as captured.
        geometry: of a convolution, else None.
        replaceable: whether the owner is a plain PyTorch module that surgery can replace.
    """

    name: str
    node: str
    kind: str
    weight: str
    weight_shape: tuple[int, ...]
    has_bias: bool
    input_shape: tuple[int, ...]
    output_shape: tuple[int, ...]
    cost: Cost
    activation_bytes: int
    geometry: Geometry | None = None
    replaceable: bool = True

    @property
    def groups(self) -> int:
        """Channel groups of a convolution; 1 for everything else."""
        return self.geometry.groups if self.geometry else 1

    @property
    def positions(self) -> int:
        """How often the weight is applied to one sample: output positions."""
        count = 1
        for size in self.output_shape[1:] if self.geometry else self.output_shape[:-1]:
            count *= size
        return count


@dataclass(frozen=True)
class Network:
    """A captured module with its example input, its graph, its layers and its cost.

    Attributes:
        module: our own copy, in evaluation mode. Treat it as frozen; methods hand back new modules.
        example: example inputs, batch first, at least two samples.
        graph: the ATen graph (``torch.export`` with a free batch dimension); parameters are ``get_attr`` nodes.
        layers: the weighted calls in execution order.
        output_shape: of one sample.
        cost: of the whole network for one sample, float32; MACs include products of activations.
        peak_activation_bytes: largest sum of live activations of one sample while the graph runs in its own order.
        refusals: weighted calls that no method can touch, with the reason.
    """

    module: nn.Module
    example: tuple[torch.Tensor, ...]
    graph: fx.GraphModule
    layers: tuple[Layer, ...]
    output_shape: tuple[int, ...]
    cost: Cost
    peak_activation_bytes: int
    refusals: tuple[Refusal, ...] = ()

    def layer(self, name: str) -> Layer:
        """The layer of that name.

        Raises:
            ModelError: there is none.
        """
        for layer in self.layers:
            if layer.name == name:
                return layer
        known = ", ".join(layer.name for layer in self.layers[:8])
        raise ModelError("A layer must exist in the network.", f"layer {name!r}", f"one of: {known}, ...")

    def fingerprint(self) -> str:
        """SHA-256 over the graph's text and every parameter and buffer; the same in every process."""
        digest = hashlib.sha256(str(self.graph.graph).encode())
        for name, tensor in sorted(self.module.state_dict().items()):
            digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
            digest.update(tensor.detach().contiguous().cpu().view(-1).view(torch.uint8).numpy().tobytes())
        return digest.hexdigest()


def _export(module: nn.Module, example: tuple[torch.Tensor, ...]) -> fx.GraphModule:
    shapes: tuple[object, ...] = tuple({0: torch.export.Dim.DYNAMIC} for _ in example)
    takes = list(inspect.signature(module.forward).parameters.values())
    if takes and takes[0].kind is inspect.Parameter.VAR_POSITIONAL:
        shapes = (shapes,)
    logging.getLogger("torch.export").setLevel(logging.ERROR)
    try:
        # torch prints the graph on its way to an error, which says it in one line
        with warnings.catch_warnings(), torch.no_grad(), contextlib.redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")  # notes of torch's own about recurrent layers; nothing a user can act on
            graph = torch.export.export(module, example, dynamic_shapes=shapes).module()
    except Exception as error:
        raise _export_failure(error) from error
    changed = sorted(_written_state(graph))
    if changed:
        raise ModelError(
            "Forward must leave its buffers as they are: the same input must give the same output, however often.",
            f"it writes to {', '.join(changed[:8])}",
            "keep such state outside, or write it only while self.training is true",
        )
    for node in [node for node in graph.graph.nodes if node.op == "call_module"]:
        graph.graph.erase_node(node)  # shape guards: our stages check shapes themselves, with clearer words
    graph.recompile()
    return graph


def writes(node: fx.Node) -> bool:
    """Whether a node's operation writes into one of its arguments."""
    return isinstance(node.target, torch._ops.OpOverload) and node.target._schema.is_mutable


def _written_state(graph: fx.GraphModule) -> set[str]:
    """Parameters and buffers that an operation of the graph writes to."""
    writing = (node.args[0] for node in graph.graph.nodes if writes(node) and node.args)
    return {str(one.target) for one in writing if isinstance(one, fx.Node) and one.op == "get_attr"}


def _export_failure(error: Exception) -> ModelError:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    text = lines[0] if lines else type(error).__name__
    if "marked" in str(error) and "dynamic" in str(error) and "special" in str(error):
        return ModelError(
            "The first dimension of every input must be a free batch dimension.",
            f"the network fixes it: {text}",
            "replace the constant batch in view/reshape/expand by -1 or by x.shape[0]",
        )
    return ModelError(
        "The network must be traceable by torch.export.",
        f"{type(error).__name__}: {text}",
        "take data-dependent control flow, .item(), numpy calls and custom C++ operations out of forward; "
        "`torch.export.export(module, example)` shows the line",
    )


def _owner(node: fx.Node) -> str | None:
    """The state name that a weight argument comes from, through parametrizations; None for computed weights."""
    seen = node
    while seen.op == "call_function" and seen.all_input_nodes:
        seen = seen.all_input_nodes[0]
    return str(seen.target) if seen.op == "get_attr" else None


def _state_name(name: str) -> tuple[str, str]:
    """``fc.parametrizations.weight.original`` → (``fc``, ``fc.weight``)."""
    owner, parametrized, rest = name.partition(".parametrizations.")
    plain = f"{owner}.{rest.partition('.')[0]}" if parametrized else name
    return plain.rpartition(".")[0], plain


class _Shapes(fx.Interpreter):
    """Runs the graph once and notes every value's shape, its MACs, and the peak of live activations."""

    def __init__(self, graph: fx.GraphModule) -> None:
        super().__init__(graph)
        self.values: dict[str, torch.Tensor] = {}
        self.macs: Counter[str] = Counter()
        self.peak_bytes = 0

    def run_node(self, n: fx.Node) -> object:
        result = super().run_node(n)
        first = result[0] if isinstance(result, tuple) else result
        if isinstance(first, torch.Tensor):
            self.values[n.name] = first.to("meta") if n.op != "get_attr" else first
            if n.op == "call_function":
                args, _ = self.fetch_args_kwargs_from_env(n)
                self.macs[n.name] = macs_of_node(n.target, args, first)
        live = {
            value.data_ptr(): value.numel() * value.element_size()
            for node, value in self.env.items()
            if isinstance(value, torch.Tensor) and node.op != "get_attr"
        }
        if isinstance(result, torch.Tensor) and n.op != "get_attr":
            live[result.data_ptr()] = result.numel() * result.element_size()
        self.peak_bytes = max(self.peak_bytes, sum(live.values()))
        return result


def _layers(graph: fx.GraphModule, shapes: _Shapes, batch: int) -> Iterator[Layer]:
    for node in graph.graph.nodes:
        entry = _WEIGHTED.get(node.target) if node.op == "call_function" else None
        if entry is None:
            continue
        kind, at, bias_at = entry
        state = _owner(node.args[at])
        if state is None:
            continue
        name, weight_name = _state_name(state)
        weight = shapes.values[node.args[at].name]
        geometry = geometry_of(node, weight) if "conv" in kind else None
        if geometry and geometry.groups > 1 and weight.shape[1] == 1:
            kind = f"depthwise_{kind}"
        bias = node.args[bias_at] if bias_at is not None and len(node.args) > bias_at else None
        source = node.args[1] if kind == "embedding" else node.args[0]
        output = shapes.values[node.name]
        parameters = weight.numel() + (weight.shape[0] if bias is not None else 0)
        yield Layer(
            name=name,
            node=node.name,
            kind=kind,
            weight=weight_name,
            weight_shape=tuple(weight.shape),
            has_bias=bias is not None,
            input_shape=tuple(shapes.values[source.name].shape[1:]),
            output_shape=tuple(output.shape[1:]),
            cost=Cost(4 * parameters, shapes.macs[node.name] // batch, parameters),
            activation_bytes=output.numel() * output.element_size() // batch,
            geometry=geometry,
        )


def _encoded_by_us(owner: nn.Module) -> bool:
    """Whether all parametrizations of a module are encodings, which replacing it keeps or replaces knowingly."""
    if not nn.utils.parametrize.is_parametrized(owner):
        return True
    chains = owner.parametrizations.values()  # type: ignore[union-attr]
    return all(isinstance(one, ENCODINGS) for chain in chains for one in chain)


def _settle(layers: list[Layer], module: nn.Module) -> tuple[tuple[Layer, ...], tuple[Refusal, ...]]:
    """Layers whose weight is called once by a plain module stay replaceable; the others get a reason."""
    calls = Counter(layer.weight for layer in layers)
    refusals: list[Refusal] = []
    settled: list[Layer] = []
    for layer in layers:
        reason = remedy = ""
        owner = module.get_submodule(layer.name)
        plain = _REPLACEABLE[layer.kind.removeprefix("depthwise_")]
        if calls[layer.weight] > 1:
            reason, remedy = f"its weight is used {calls[layer.weight]} times", "give every use its own module"
        elif not _encoded_by_us(owner):
            reason, remedy = (
                "its weight is computed anew at every call",
                "bake it in: remove_parametrizations or remove_weight_norm",
            )
        elif type(owner) is not plain and not nn.utils.parametrize.is_parametrized(owner):
            reason = f"its weight belongs to {type(owner).__name__}, which is more than a plain {plain.__name__}"
            remedy = f"put the weight into an nn.{plain.__name__} of its own"
        if reason:
            refusals.append(Refusal(layer.name, "replace", reason, remedy))
        settled.append(replace(layer, replaceable=not reason))
    return tuple(settled), tuple(refusals)


def capture(module: nn.Module, example: torch.Tensor | Sequence[torch.Tensor]) -> Network:
    """Capture a module: copy it, export it, find its weighted layers and count what they cost.

    Args:
        module: any module that ``torch.export`` takes; it is copied, never changed.
        example: one batch of inputs, batch first (one tensor, or a tuple of tensors).

    Raises:
        ModelError: weights or inputs aren't finite, a part's name is taken, forward fails, export fails, or the batch
            isn't free.
    """
    check_module(module)
    inputs = checked_inputs(example)
    own = without_fast_paths(copied(module).eval().requires_grad_(False))
    try:
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the user has seen what their own network warns of
            expected = own(*inputs)
    except Exception as error:
        shapes = ", ".join(str(tuple(tensor.shape)) for tensor in inputs)
        raise ModelError(
            "The network must run on the example input.",
            f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''} (input {shapes})",
            "check shape, type and normalisation of the data against what forward takes",
        ) from error
    if not isinstance(expected, torch.Tensor):
        raise ModelError(
            "The network must return one tensor.",
            f"forward returned {type(expected).__name__}",
            "wrap it in a module whose forward returns the tensor that is scored",
        )
    return _describe(own, inputs, expected)


def _describe(own: nn.Module, inputs: tuple[torch.Tensor, ...], expected: torch.Tensor) -> Network:
    graph = _export(own, inputs)
    shapes = _Shapes(graph)
    with torch.no_grad():
        result = shapes.run(*inputs)
    if not torch.allclose(result, expected, rtol=1e-3, atol=1e-4, equal_nan=True):
        raise ModelError(
            "The exported graph must compute what the module computes.",
            f"outputs differ by up to {(result - expected).abs().max().item():.3g}",
            "remove randomness and state that changes between calls from forward",
        )
    batch = len(inputs[0])
    layers, refusals = _settle(list(_layers(graph, shapes, batch)), own)
    parameters = sum(parameter.numel() for parameter in own.parameters())
    size = sum(p.numel() * p.element_size() for p in own.parameters())
    return Network(
        module=own,
        example=inputs,
        graph=graph,
        layers=layers,
        output_shape=tuple(expected.shape[1:]),
        cost=Cost(size, sum(shapes.macs.values()) // batch, parameters),
        peak_activation_bytes=shapes.peak_bytes // batch,
        refusals=refusals,
    )
