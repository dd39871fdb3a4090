"""Exported programs (``.pt2``), read as data.

``torch.export.load`` trusts its file. Read in torch 2.13's sources, these parts of an archive reach code there, and a
file that uses them is refused before torch sees it:

- entries that are unpickled: custom and opaque objects, tensors marked ``use_pickle``, weights of the old format, and
  sample inputs (unpickled freely where reading them as plain tensors fails);
- compiled libraries, which are loaded;
- ``expr_str``, the size expressions, which go through ``sympy.sympify`` and so through ``eval``;
- ``target``, the operators, which may name any attribute of ``torch``, ``operator`` or ``math``;
- names, which are pasted into the generated ``forward``; and tree specs, whose context may import modules.

``guards_code`` is only run when guards are asked for, and they aren't. Kernels of the permitted operators are trusted.
"""

from __future__ import annotations

import ast
import io
import json
import re
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from featherweight.contracts import ModelError
from featherweight.frontends.layers import with_layers
from featherweight.frontends.weights import check_stored, read_checkpoint

_WRITTEN_BY = "write the file with torch.export.save, or give the model as file.py:function"

_MODEL = "models/model.json"
_SAMPLE_INPUTS = "data/sample_inputs/model.pt"
_CONFIGS = ("data/weights/model_weights_config.json", "data/constants/model_constants_config.json")
_READ = frozenset({_MODEL, _SAMPLE_INPUTS, *_CONFIGS})
_ENTRY = re.compile(
    r"archive_format|archive_version|byteorder|version|\.data/\w+|\.format_version|extra/.+"
    r"|models/model\.json|data/sample_inputs/model\.pt|data/weights/model_weights_config\.json"
    r"|data/constants/model_constants_config\.json|data/weights/weight_\d+|data/constants/tensor_\d+"
)

_NAMESPACES = ("aten", "prims", "quantized_decomposed", "torchvision")
_HIGHER_ORDER = ("cond", "wrap_with_set_grad_enabled", "wrap_with_autocast")
_PYTHON_OPERATORS = re.compile(
    r"_operator\.(add|sub|mul|truediv|floordiv|mod|pow|neg|pos|eq|ne|lt|le|gt|ge|and_|or_|not_|getitem)"
    r"|math\.(ceil|floor|trunc)|torch\.(sym_float|sym_int|sym_max|sym_min|sym_not|sym_ite|_sym_sqrt)"
)

_EXPRESSIONS = re.compile(
    "Symbol|Integer|Rational|Float|Add|Mul|Pow|Max|Min|Mod|Abs|ceiling|floor|And|Or|Not"
    "|Equality|Unequality|GreaterThan|LessThan|StrictGreaterThan|StrictLessThan"
    "|FloorDiv|ModularIndexing|Where|PythonMod|CleanDiv|CeilToInt|FloorToInt|CeilDiv|LShift|RShift|PowByNatural"
    "|FloatTrueDiv|IntTrueDiv|TruncToFloat|TruncToInt|RoundToInt|ToFloat|Identity"
    r"|[a-z]{1,4}\d{1,6}"  # a symbol by its name alone
)
_EXPRESSION_NODES = (ast.Expression, ast.Call, ast.keyword, ast.Name, ast.Load, ast.Constant, ast.UnaryOp, ast.USub)
_POWERS = ("Pow", "PowByNatural", "LShift")
_LONGEST_EXPRESSION, _MOST_POWERS, _LARGEST_EXPONENT = 10_000, 4, 16

_TREES = ("builtins.tuple", "builtins.list", "builtins.dict", "collections.OrderedDict")

# Fields of torch's schema whose value maps names of the file's own choice to records, to be told from the fields.
_MAPS = frozenset(
    {"tensor_values", "sym_int_values", "sym_bool_values", "sym_float_values", "custom_obj_values", "opset_version"}
    | {"range_constraints", "as_string_to_argument", "config", "treespec_namedtuple_fields"}
)
_TEXTS = frozenset({"metadata", "guards_code", "torch_version", "as_string", "as_strings"})
_PATHS = frozenset({"parameter_name", "buffer_name", "tensor_constant_name", "user_input_name", "fqn", "config"})
_REFUSED = frozenset({"as_custom_obj", "custom_obj", "custom_obj_name"})


def load_exported(path: Path) -> torch.fx.GraphModule:
    """The module in a ``.pt2`` file.

    Returns:
        A module for inference, in evaluation mode and without input guards. Its layers are modules of PyTorch's own
        classes where they can be; ``train`` and ``eval`` act on those alone.

    Raises:
        ModelError: no such file, no exported program, one that could only be read by running code from the file, or
            one that was exported in training mode.
    """
    if not path.is_file():
        raise ModelError("The model's file must exist.", str(path), "check the path; it is relative to here")
    content = path.read_bytes()
    _check_archive(content, path.name)
    try:
        program = torch.export.load(io.BytesIO(content))
        module = program.module(check_guards=False)
    except Exception as failure:  # whatever a broken program raises inside torch
        last = (str(failure).strip().splitlines() or [""])[-1]
        got = f"{path.name}: {type(failure).__name__}: {last}"
        raise ModelError("torch must be able to load the exported program.", got, _WRITTEN_BY) from failure
    _check_inference(module, path.name)
    # torch forbids both calls on exported programs. Nothing here depends on the mode, so they may do what they do.
    for method in ("train", "eval"):
        vars(module).pop(method, None)
    return with_layers(module)


def _check_archive(content: bytes, name: str) -> None:
    """Refuses everything but a plain archive whose every entry is data."""
    # Imported at use: it takes most of a second, and few models come as .pt2.
    from torch.export.pt2_archive import PT2ArchiveReader  # noqa: PLC0415

    file = io.BytesIO(content)
    if not zipfile.is_zipfile(file):
        raise ModelError("A .pt2 file is an archive written by torch.export.save.", f"{name} is none", _WRITTEN_BY)
    check_stored(file, name)
    listed = zipfile.ZipFile(file).namelist()
    # A second folder, or a "version" outside the folder, could send torch down its old, unpickling way.
    if len(set(listed)) != len(listed) or len({entry.partition("/")[0] for entry in listed}) != 1:
        raise ModelError("A .pt2 file holds one folder, every entry once.", f"{name} doesn't", _WRITTEN_BY)
    try:
        with PT2ArchiveReader(io.BytesIO(content)) as reader:  # the reader that torch.export.load uses itself
            names = set(reader.get_file_names())
            entries = {entry: reader.read_bytes(entry) for entry in names if entry in _READ}
            empty = {entry for entry in names if reader.archive_file.get_record_size(entry) == 0}
    except (RuntimeError, AssertionError, ValueError) as failure:
        got = f"{name} is cut short or another kind of archive; a checkpoint goes with --weights"
        raise ModelError("A .pt2 file holds an exported program.", got, _WRITTEN_BY) from failure
    strange = sorted(entry for entry in names if not _ENTRY.fullmatch(entry))
    if strange:
        raise _unsafe(name, f"the entry {strange[0]}, which torch would unpickle or run")
    if entries.keys() != _READ:
        raise ModelError("A .pt2 file holds an exported program.", f"{name} lacks it", _WRITTEN_BY)
    _check_entries(entries, empty, name)


def _check_entries(entries: Mapping[str, bytes], empty: set[str], name: str) -> None:
    """Checks what torch reads: the sample inputs, the lists of tensors and the program."""
    read_checkpoint(io.BytesIO(entries[_SAMPLE_INPUTS]), f"{name}: {_SAMPLE_INPUTS}")
    try:
        for config in _CONFIGS:
            folder = config.rpartition("/")[0]
            _check_payloads(json.loads(entries[config].decode()), folder, empty, name)
        _check_value(json.loads(entries[_MODEL].decode()), "", name)
    except (ValueError, KeyError, TypeError, AttributeError, SyntaxError, RecursionError) as failure:
        got = f"{name}: {type(failure).__name__}: {failure}"
        raise ModelError("The exported program must be whole.", got, _WRITTEN_BY) from failure


def _check_payloads(config: Any, folder: str, empty: set[str], name: str) -> None:
    """Refuses weights and constants that would be unpickled, or that claim a size without having bytes."""
    _check_value(config, "", name)
    for tensor, payload in config["config"].items():
        stored = payload["path_name"]
        if payload["use_pickle"] is not False or not re.fullmatch(r"(weight|tensor)_\d+", stored):
            raise _unsafe(name, f"the tensor {tensor}, stored as a pickle")
        sizes = [size.get("as_int") for size in payload["tensor_meta"]["sizes"]]
        if f"{folder}/{stored}" in empty and 0 not in sizes:  # torch would allocate whatever size is claimed
            raise _unsafe(name, f"the tensor {tensor} of sizes {sizes} without a byte")


def _check_value(value: Any, field: str, name: str) -> None:
    """Checks every string of a JSON value by the field of torch's schema that it fills."""
    if field in _REFUSED:
        raise _unsafe(name, "a custom object, which is stored as a pickle")
    if field in _TEXTS:
        if not _is_text(value):
            raise ValueError(f"{field} is no text")
    elif isinstance(value, str):
        _RULES.get(field, _check_name)(value, name)
    elif isinstance(value, list):
        for entry in value:
            _check_value(entry, field, name)
    elif isinstance(value, dict) and field in _MAPS:
        for key, entry in value.items():
            (_check_path if field in _PATHS else _check_name)(key, name)
            _check_value(entry, "", name)
    elif isinstance(value, dict):
        for key, entry in value.items():
            _check_value(entry, key, name)


def _is_text(value: Any) -> bool:
    values = value.values() if isinstance(value, dict) else value if isinstance(value, list) else [value]
    return all(isinstance(entry, str) for entry in values)


def _check_name(value: str, name: str) -> None:
    if not re.fullmatch(r"[A-Za-z0-9_]*", value):
        raise _unsafe(name, f"the name {value[:60]!r}")
    if re.fullmatch(r"[a-z]+\d{7,}", value):  # torch counts up to the numbers of its symbols
        raise _unsafe(name, f"the symbol {value[:60]!r}")


def _check_path(value: str, name: str) -> None:
    """Permits dotted attribute names, but none of Python's own, by which torch would set a class's attributes."""
    if not re.fullmatch(r"[A-Za-z0-9_.\-]*", value) or re.search(r"(^|\.)__", value):
        raise _unsafe(name, f"the name {value[:60]!r}")


def _check_operator(target: str, name: str) -> None:
    """Permits operators that compute: ATen's and its kin, arithmetic on sizes, and control flow."""
    if _PYTHON_OPERATORS.fullmatch(target) or target in {f"torch.ops.higher_order.{kind}" for kind in _HIGHER_ORDER}:
        return
    found = re.fullmatch(r"torch\.ops\.(\w+)\.(\w+)\.(\w+)", target)
    overload = None
    if found and found[1] in _NAMESPACES:
        packet = getattr(getattr(torch.ops, found[1]), found[2], None)
        overload = getattr(packet, found[3], None)
    if not isinstance(overload, torch._ops.OpOverload):
        raise _unsafe(name, f"the operator {target[:80]!r}")
    if any(argument.name == "filename" for argument in overload._schema.arguments):
        raise _unsafe(name, f"the operator {target!r}, which touches files")


def _check_expression(text: str, name: str) -> None:
    """Permits sums, products, quotients and comparisons of sizes, written as calls, with small powers only."""
    if not re.fullmatch(r"[A-Za-z0-9_(),.'= \-]+", text) or len(text) > _LONGEST_EXPRESSION:
        raise _unsafe(name, f"the size expression {text[:80]!r} ({len(text):,} characters)")
    nodes = list(ast.walk(ast.parse(text, mode="eval")))
    calls = [node for node in nodes if isinstance(node, ast.Call)]
    powers = [node for node in calls if isinstance(node.func, ast.Name) and node.func.id in _POWERS]
    plain = (
        all(isinstance(node, _EXPRESSION_NODES) for node in nodes)
        and all(isinstance(call.func, ast.Name) for call in calls)
        and all(_EXPRESSIONS.fullmatch(node.id) for node in nodes if isinstance(node, ast.Name))
        and all(_is_plain(node.value) for node in nodes if isinstance(node, ast.Constant))
        and len(powers) <= _MOST_POWERS
        and all(len(power.args) == 2 and _exponent(power.args[1]) <= _LARGEST_EXPONENT for power in powers)
    )
    if not plain:
        raise _unsafe(name, f"the size expression {text[:80]!r}")


def _is_plain(value: object) -> bool:
    """Whether a constant in an expression is a number of common size, or a symbol's name or a number as text."""
    if isinstance(value, str):
        return bool(re.fullmatch(r"[a-z]{0,4}[\d.e+\-]{1,40}", value))
    return isinstance(value, bool | int | float) and abs(value) < 2**63


def _exponent(node: ast.expr) -> float:
    """The size of an exponent that is written out, like ``Integer(2)``; infinite for any other."""
    inner = node.args[0] if isinstance(node, ast.Call) and len(node.args) == 1 else node
    inner = inner.operand if isinstance(inner, ast.UnaryOp) else inner
    value = inner.value if isinstance(inner, ast.Constant) else None
    return abs(value) if isinstance(value, int | float) else float("inf")


def _check_tree(text: str, name: str) -> None:
    """Permits nested tuples, lists and dicts with plain keys."""

    def check(spec: Any) -> None:
        if spec["type"] is not None and spec["type"] not in _TREES:
            raise _unsafe(name, f"an input or output of type {spec['type']!r}")
        keys = json.loads(spec["context"]) if spec["context"] is not None else None
        if keys is not None and not (isinstance(keys, list) and all(isinstance(key, str | int) for key in keys)):
            raise _unsafe(name, f"the tree context {spec['context'][:80]!r}")
        for key in keys or ():
            _check_path(str(key), name)
        for child in spec["children_spec"]:
            check(child)

    _protocol, root = json.loads(text)
    check(root)


def _check_inference(module: torch.fx.GraphModule, name: str) -> None:
    """Refuses a program exported in training mode: dropout and batch statistics are baked into it."""
    for node in module.graph.nodes:
        if not isinstance(node.target, torch._ops.OpOverload) or not re.search("batch_norm|dropout", str(node.target)):
            continue
        names = [argument.name for argument in node.target._schema.arguments]
        given = dict(zip(names, node.args, strict=False)) | node.kwargs
        if given.get("training") is True or given.get("train") is True:
            got = f"{name}: {node.target} in training mode at {node.name}"
            raise ModelError("The program must be exported for inference.", got, "call model.eval() before exporting")


def _unsafe(name: str, what: str) -> ModelError:
    return ModelError(
        "A .pt2 file must hold plain data: operators that compute, tensors and names, and nothing that can run code.",
        f"{name} holds {what}",
        "give the model as file.py:function with its weights in a safetensors file",
    )


_RULES: Mapping[str, Callable[[str, str], None]] = {
    "target": _check_operator,
    "as_operator": _check_operator,
    "expr_str": _check_expression,
    "in_spec": _check_tree,
    "out_spec": _check_tree,
    **dict.fromkeys(_PATHS, _check_path),
    "class_fqn": _check_path,
}
