"""Names of what a ``.tflite`` file holds as numbers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def names_of(enumeration: type) -> Mapping[int, str]:
    """Value → name of a schema enumeration."""
    return {value: name for name, value in vars(enumeration).items() if isinstance(value, int)}


def operator_names(model: Any) -> list[str]:
    """The name of every operator of the main graph, in execution order."""
    from ai_edge_litert import schema_py_generated as schema  # noqa: PLC0415

    names = names_of(schema.BuiltinOperator)
    codes = [names[max(code.builtinCode, code.deprecatedBuiltinCode)] for code in model.operatorCodes]
    return [codes[operator.opcodeIndex] for operator in model.subgraphs[0].operators]
