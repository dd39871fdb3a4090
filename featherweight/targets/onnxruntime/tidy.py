"""An edited graph written as a model: in order, without what nothing reads, equal constants once, without notes.

The same graph gives the same bytes. Names are short: inputs keep theirs, outputs are called so, all else is numbered.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from featherweight.targets.onnxruntime.graph import Graph, digest

# Of 2022 and 2023: runtimes from 1.14 on take files with them.
OPSET, IR_VERSION = 18, 8


def finished(graph: Graph) -> Any:
    """The model of an edited graph (``ModelProto``)."""
    from onnx import ModelProto, helper, numpy_helper  # noqa: PLC0415

    nodes = _ordered(_needed(graph))
    names = _short_names(graph, nodes)
    read = {name for node in nodes for name in node.input} | set(graph.outputs)
    kept = {names[name]: value for name, value in graph.constants.items() if name in read}
    made = helper.make_graph(
        [_renamed(node, names) for node in nodes],
        "main",
        [_plain(one, names) for one in graph.model.graph.input],
        [_plain(one, names) for one in graph.model.graph.output],
        [numpy_helper.from_array(np.asarray(value, order="C"), name) for name, value in kept.items()],
    )
    model = ModelProto(ir_version=IR_VERSION, producer_name="featherweight", graph=made)
    model.opset_import.extend([helper.make_opsetid("", OPSET)])
    return model


def _needed(graph: Graph) -> list[Any]:
    """The operations that the outputs need, as they stood."""
    makers = {name: node for node in graph.nodes for name in node.output if name}
    found: set[int] = set()
    ahead = list(graph.outputs)
    while ahead:
        node = makers.get(ahead.pop())
        if node is not None and id(node) not in found:
            found.add(id(node))
            ahead += list(node.input)
    return [node for node in graph.nodes if id(node) in found]


def _ordered(nodes: list[Any]) -> list[Any]:
    """The operations so that each comes after those that it reads from; otherwise as they stood."""
    makers = {name: node for node in nodes for name in node.output if name}
    ordered: list[Any] = []
    placed: set[int] = set()
    for first in nodes:
        ahead = [first]
        while ahead:
            node = ahead[-1]
            waiting = [makers[name] for name in node.input if name in makers and id(makers[name]) not in placed]
            if waiting:
                ahead += reversed(waiting)
                continue
            ahead.pop()
            if id(node) not in placed:
                placed.add(id(node))
                ordered.append(node)
    return ordered


def _short_names(graph: Graph, nodes: list[Any]) -> Mapping[str, str]:
    """Old name → new name; equal constants share one."""
    short = {name: name for name in graph.inputs}
    for number, name in enumerate(graph.outputs):
        short.setdefault(name, _free(f"output{number or ''}", set(short.values())))
    taken, number = set(short.values()), 0
    shared: dict[bytes, str] = {}
    for node in nodes:
        for name in [*node.input, *node.output]:
            if not name or name in short:
                continue
            key = digest(graph.constants[name]) if name in graph.constants else None
            if key is not None and key in shared:
                short[name] = shared[key]
                continue
            while str(number) in taken:
                number += 1
            short[name] = str(number)
            taken.add(short[name])
            if key is not None:
                shared[key] = short[name]
    return short


def _free(name: str, taken: set[str]) -> str:
    while name in taken:
        name += "_"
    return name


def _renamed(node: Any, names: Mapping[str, str]) -> Any:
    """The operation under short names, without notes."""
    from onnx import NodeProto  # noqa: PLC0415

    made = NodeProto(op_type=node.op_type, domain=node.domain)
    made.input.extend(names.get(name, "") for name in node.input)
    made.output.extend(names.get(name, "") for name in node.output)
    made.attribute.extend(sorted(_told(node), key=lambda one: one.name))
    for attribute in made.attribute:
        attribute.doc_string = ""
    return made


def _told(node: Any) -> list[Any]:
    """The attributes that say something: not those that the operator has anyhow."""
    from onnx import defs, helper  # noqa: PLC0415

    described = defs.get_schema(node.op_type, OPSET, node.domain).attributes
    kept = []
    for one in node.attribute:
        value, default = helper.get_attribute_value(one), described[one.name].default_value
        usual = bool(default.name) and helper.get_attribute_value(default) == value
        if not usual and not _usual(node, one.name, value):
            kept.append(one)
    return kept


def _usual(node: Any, name: str, value: Any) -> bool:
    """Whether an attribute has the value that the operator's description gives it in words."""
    if name in ("strides", "dilations"):
        return set(value) == {1}
    if name == "pads":
        return set(value) == {0}
    return name == "kernel_shape" and node.op_type == "Conv"  # the weight has it


def _plain(value: Any, names: Mapping[str, str]) -> Any:
    """An input or output with its type and shape alone; the free dimension is called so."""
    from onnx import ValueInfoProto  # noqa: PLC0415

    made = ValueInfoProto(name=names[value.name])
    made.type.CopyFrom(value.type)
    for position, dimension in enumerate(made.type.tensor_type.shape.dim):
        if dimension.WhichOneof("value") != "dim_value":
            dimension.dim_param = "batch" if position == 0 else f"dim{position}"
    return made
