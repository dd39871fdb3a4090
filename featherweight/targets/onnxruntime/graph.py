"""An ONNX graph that can be edited: who makes a value, who reads it, which values are constants."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Iterable
from typing import Any

import numpy as np


class Graph:
    """The main graph of a model, open for editing; the model stays as it is.

    Attributes:
        model: what it was read from.
        nodes: the operations, in any order.
        constants: name → value, of initializers and of Constant nodes.
        inputs, outputs: names of what goes in and comes out.
    """

    def __init__(self, model: Any) -> None:
        from onnx import numpy_helper  # noqa: PLC0415

        self.model = model
        self.nodes: list[Any] = []
        self.constants: dict[str, np.ndarray] = {
            one.name: numpy_helper.to_array(one) for one in model.graph.initializer
        }
        self.inputs = [one.name for one in model.graph.input]
        self.outputs = [one.name for one in model.graph.output]
        self._fresh = 0
        for node in model.graph.node:
            value = _constant_value(node)
            if value is None:
                self.nodes.append(copy.deepcopy(node))
            else:
                self.constants[node.output[0]] = value

    def producer(self, name: str) -> Any | None:
        """The operation that makes a value; None for inputs and constants."""
        return next((node for node in self.nodes if name in node.output), None)

    def readers(self, name: str) -> list[Any]:
        """The operations that read a value."""
        return [node for node in self.nodes if name in node.input]

    def only_reader(self, name: str) -> Any | None:
        """The one operation that reads a value which is no output of the graph."""
        readers = self.readers(name)
        return readers[0] if len(readers) == 1 and name not in self.outputs else None

    def constant_of(self, node: Any, position: int) -> np.ndarray | None:
        """The constant that a node reads at a position; None where there is none."""
        return self.constants.get(node.input[position]) if len(node.input) > position else None

    def add_constant(self, value: np.ndarray | np.generic) -> str:
        """The name of a new constant."""
        name = self._name()
        self.constants[name] = np.asarray(value)
        return name

    def add(self, operator: str, inputs: Iterable[str], outputs: int | str = 1, **attributes: Any) -> Any:
        """A new operation, whose outputs get names of their own unless one is given."""
        from onnx import helper  # noqa: PLC0415

        names = [outputs] if isinstance(outputs, str) else [self._name() for _ in range(outputs)]
        node = helper.make_node(operator, list(inputs), names, **attributes)
        self.nodes.append(node)
        return node

    def remove(self, node: Any) -> None:
        """Take an operation out."""
        self.nodes = [one for one in self.nodes if one is not node]

    def replace(self, old: str, new: str) -> None:
        """Let every operation that read one value read another; outputs of the graph keep their names."""
        for node in self.nodes:
            for position, name in enumerate(node.input):
                if name == old:
                    node.input[position] = new

    def _name(self) -> str:
        self._fresh += 1
        return f"fresh_{self._fresh}"


def digest(value: np.ndarray) -> bytes:
    """SHA-256 over type, shape and content; −0 and 0 differ."""
    return hashlib.sha256(f"{value.dtype} {value.shape} ".encode() + np.ascontiguousarray(value).tobytes()).digest()


def attributes_of(node: Any) -> dict[str, Any]:
    """A node's attributes as plain values."""
    from onnx import helper  # noqa: PLC0415

    return {one.name: helper.get_attribute_value(one) for one in node.attribute}


def _constant_value(node: Any) -> np.ndarray | None:
    from onnx import numpy_helper  # noqa: PLC0415

    if node.op_type != "Constant" or node.domain:
        return None
    (attribute,) = node.attribute
    kinds = {"value_float": np.float32, "value_floats": np.float32, "value_int": np.int64, "value_ints": np.int64}
    if attribute.name == "value":
        return numpy_helper.to_array(attribute.t)
    return np.array(attributes_of(node)[attribute.name], kinds[attribute.name]) if attribute.name in kinds else None
