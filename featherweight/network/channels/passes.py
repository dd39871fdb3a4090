"""One pass over the graph: every node is answered by its rule, and what no rule knows is frozen.

Nodes that no output depends on are followed, too: the user's forward runs them, so their shapes must stay right.
"""

from __future__ import annotations

import operator
from collections.abc import Iterator, Mapping, Set
from dataclasses import dataclass, field
from typing import Any

import sympy
import torch
from torch import fx

from featherweight.network.channels import (
    contraction,
    convolution,
    elementwise,
    normalization,
    recurrent,
    reduction,
    slicing,
    spatial,
    views,
)
from featherweight.network.channels.trace import Call, Mode, Result, Rule, Rules, Trace
from featherweight.network.labels import MATERIAL_LIMIT, Value

RULES: Rules = {
    **elementwise.RULES,
    **views.RULES,
    **slicing.RULES,
    **contraction.RULES,
    **convolution.RULES,
    **normalization.RULES,
    **reduction.RULES,
    **spatial.RULES,
    **recurrent.RULES,
}
"""Name of the ATen operation (without overload, without the underscore of its in-place form) → its rule."""


@dataclass(eq=False)
class Sizes:
    """Integers for symbolic sizes: every symbol is a prime above all real sizes, so that products stay distinct."""

    primes: dict[Any, int] = field(default_factory=dict)

    def number(self, size: int | torch.SymInt) -> int:
        """The size itself, or the stand-in of a symbolic one."""
        if isinstance(size, int):
            return size
        expression = size.node.expr
        for symbol in sorted(expression.free_symbols, key=str):
            if symbol not in self.primes:
                last = max(self.primes.values(), default=2 * MATERIAL_LIMIT)
                self.primes[symbol] = int(sympy.nextprime(last))
        return int(expression.subs(self.primes))

    def of(self, tensor: torch.Tensor) -> tuple[int, ...]:
        """The sizes of a (fake) tensor."""
        return tuple(self.number(size) for size in tensor.shape)


def _live(graph: fx.Graph) -> set[str]:
    """Names of nodes that the outputs depend on, or that write in place."""
    wanted: set[fx.Node] = set()
    stack = [node for node in graph.nodes if node.op == "output" or _writes(node)]
    while stack:
        node = stack.pop()
        if node not in wanted:
            wanted.add(node)
            stack += node.all_input_nodes
    return {node.name for node in wanted}


def _writes(node: fx.Node) -> bool:
    return isinstance(node.target, torch._ops.OpOverload) and node.target._schema.is_mutable


def run_pass(graph: fx.GraphModule, mode: Mode, choices: Mapping[str, int], square: Set[str] = frozenset()) -> Trace:
    """Carry labels through the graph once.

    Args:
        graph: an ATen graph with fake values in ``meta["val"]``.
        mode: which part of a split axis carries labels.
        choices: candidates to take at split sites, see :class:`Trace`.
        square: linear calls whose rows are to be tied to their columns.
    """
    trace = Trace(
        mode, choices, _live(graph.graph), square, lambda name: graph_tensor(graph, name).detach().cpu().numpy()
    )
    sizes, states = Sizes(), {}
    registered = {id(tensor) for tensor in (*graph.parameters(), *graph.buffers())}
    for node in graph.graph.nodes:
        if node.op == "get_attr":
            tensor = graph_tensor(graph, str(node.target))
            trace.values[node.name] = _state(trace, tensor, states)
            if isinstance(tensor, torch.Tensor) and id(tensor) not in registered:
                _freeze_constant(trace, node)
        elif node.op == "placeholder":
            fake = node.meta.get("val")
            trace.values[node.name] = Value.plain(sizes.of(fake)) if isinstance(fake, torch.Tensor) else None
        elif node.op == "call_module":
            continue  # shape guards that an export may carry
        elif node.op == "output":
            for value in elementwise.tensors(_resolve(trace, sizes, node.args)):
                for axis in value.axes:
                    if axis is not None:
                        trace.atoms.freeze(axis.labels, "they are the network's output")
        else:
            trace.values[node.name] = _call(trace, sizes, node)
    return trace


def graph_tensor(graph: fx.GraphModule, name: str) -> Any:
    """The tensor behind a graph attribute; attributes that share one tensor give the same object."""
    found: Any = graph
    for part in name.split("."):
        found = getattr(found, part)
    return found


def _freeze_constant(trace: Trace, node: fx.Node) -> None:
    for axis in trace.values[node.name].axes:
        if axis is not None:
            trace.atoms.freeze(axis.labels, f"they meet the constant tensor {node.target}: register it as a buffer")


def _state(trace: Trace, tensor: Any, states: dict[int, Value]) -> Value | None:
    """Labels of a parameter or buffer: one atom for every index of every axis; shared tensors share them."""
    if not isinstance(tensor, torch.Tensor):
        return None
    if id(tensor) not in states:
        axes = [trace.fresh(size) if size <= MATERIAL_LIMIT else None for size in tensor.shape]
        states[id(tensor)] = Value(tuple(tensor.shape), tuple(axes))
    return states[id(tensor)]


def _call(trace: Trace, sizes: Sizes, node: fx.Node) -> Any:
    if node.target is operator.getitem:
        source = trace.values.get(node.args[0].name)  # type: ignore[union-attr]  # getitem's first argument is a node
        return source[node.args[1]] if isinstance(source, list) else None  # type: ignore[index]
    results = [tensor for tensor in _flat(node.meta.get("val")) if isinstance(tensor, torch.Tensor)]
    if not results and not _writes(node):
        return None
    call = Call(node, dict(_bind(trace, sizes, node)), tuple(sizes.of(tensor) for tensor in results))
    return _apply(trace, call, isinstance(node.meta.get("val"), (list, tuple)))


def _apply(trace: Trace, call: Call, several: bool) -> Any:
    values = elementwise.tensors(list(call.arguments.values()))
    labelled = [axis for value in values for axis in value.axes if axis is not None]
    rule = _rule(call.node)
    if rule is not None and (labelled or rule is RULES["zeros"]):
        try:
            return _checked(call, rule(trace, call))
        except (LookupError, ValueError, TypeError, AttributeError) as error:
            # A form of the call that its rule never met: what it joined so far is harmless, the rest must freeze.
            why = f"is called in a way that isn't followed ({type(error).__name__}: {error})"
    else:
        why = "is an operation whose channels aren't followed"
    for axis in labelled:
        trace.freeze(call, axis, why)
    plain = [Value.plain(sizes) for sizes in call.sizes]
    return plain if several else plain[0] if plain else None


def _checked(call: Call, result: Result) -> Result:
    for value, expected in zip(result if isinstance(result, list) else [result], call.sizes, strict=False):
        if value.sizes != expected:
            raise ValueError(f"sizes {value.sizes} instead of {expected}")
    return result


def _rule(node: fx.Node) -> Rule | None:
    target = node.target
    if not isinstance(target, torch._ops.OpOverload) or target.namespace != "aten":
        return None
    name = target._schema.name.partition("::")[2]
    known = RULES.get(name) or RULES.get(name.removesuffix("_"))
    if known is None and torch.Tag.pointwise in target.tags:
        return elementwise.broadcast
    return known


def _bind(trace: Trace, sizes: Sizes, node: fx.Node) -> Iterator[tuple[str, Any]]:
    """The call's arguments by their names in the schema."""
    schema = getattr(node.target, "_schema", None)
    if schema is None:
        for position, value in enumerate(_resolve(trace, sizes, node.args)):
            yield str(position), value
        return
    for position, argument in enumerate(schema.arguments):
        if position < len(node.args):
            yield argument.name, _resolve(trace, sizes, node.args[position])
        elif argument.name in node.kwargs:
            yield argument.name, _resolve(trace, sizes, node.kwargs[argument.name])
        elif argument.has_default_value():
            yield argument.name, argument.default_value


def _resolve(trace: Trace, sizes: Sizes, argument: Any) -> Any:
    if isinstance(argument, fx.Node):
        fake = argument.meta.get("val")
        if isinstance(fake, (int, torch.SymInt)) and not isinstance(fake, bool):
            return sizes.number(fake)
        return trace.values.get(argument.name)
    if isinstance(argument, (list, tuple)):
        return [_resolve(trace, sizes, item) for item in argument]
    return argument


def _flat(value: Any) -> list[Any]:
    return list(value) if isinstance(value, (list, tuple)) else [value]


def site_choices(trace: Trace) -> dict[str, int]:
    """Choices for another pass: the next candidate where the last one led to nothing but frozen labels.

    One wrong choice freezes everything that is tied to it, so of tied sites only the first takes its next candidate.
    """
    choices = dict(trace.choices)
    blamed: set[int] = set()
    for name, site in trace.sites.items():
        taken = choices.get(name, 0)
        roots = set(trace.atoms.find(site.labels).tolist())
        if taken + 1 < site.choices and trace.atoms.frozen(site.labels).all() and blamed.isdisjoint(roots):
            choices[name] = taken + 1
            blamed |= roots
    return choices


__all__ = ["RULES", "Sizes", "graph_tensor", "run_pass", "site_choices"]
