"""The house's import contracts hold, and a planted violation of each is caught."""

from __future__ import annotations

import ast
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "featherweight"
SETTINGS = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"]
CONTRACTS = {contract["id"]: contract["name"] for contract in SETTINGS["contracts"]}


class Violation(NamedTuple):
    """Lines appended to files of the package, the contract that they break, and the words that name the culprit."""

    label: str
    contract: str
    lines: dict[str, str]
    culprit: str


VIOLATIONS = (
    Violation(
        "upwards",
        "layers",
        {"numerics/planted.py": "import featherweight.network"},
        "featherweight.numerics is not allowed to import featherweight.network",
    ),
    Violation(
        "upwards, inside a function",
        "layers",
        {"network/planted.py": "def late():\n    import featherweight.observation"},
        "featherweight.network is not allowed to import featherweight.observation",
    ),
    Violation(
        "contracts import ours",
        "layers",
        {"contracts.py": "from featherweight import numerics"},
        "featherweight.contracts is not allowed to import featherweight.numerics",
    ),
    Violation(
        "a method knows a target",
        "layers",
        {"methods/planted.py": "import featherweight.targets"},
        "featherweight.methods is not allowed to import featherweight.targets",
    ),
    Violation(
        "a target knows a method",
        "layers",
        {"targets/planted.py": "import featherweight.methods"},
        "featherweight.targets is not allowed to import featherweight.methods",
    ),
    Violation("a module without a layer", "layers", {"utils.py": ""}, "featherweight.utils"),
    Violation(
        "a cycle",
        "acyclic",
        {
            "network/planted_one.py": "import featherweight.network.planted_two",
            "network/planted_two.py": "import featherweight.network.planted_one",
        },
        "planted_one",
    ),
    Violation(
        "a family knows another",
        "families",
        {"methods/planted_one.py": "import featherweight.methods.planted_two", "methods/planted_two.py": ""},
        "featherweight.methods.planted_one is not allowed to import featherweight.methods.planted_two",
    ),
    Violation(
        "the audit knows a method",
        "audit",
        {"audit/planted.py": "import featherweight.methods"},
        "featherweight.audit.planted",
    ),
    Violation(
        "a runtime outside its module",
        "runtimes",
        {"numerics/planted.py": "def late():\n    import ai_edge_litert.interpreter"},
        "featherweight.numerics.planted -> ai_edge_litert",
    ),
)


def lint(folder: Path) -> tuple[int, str]:
    """Import-linter's exit code and its words on the package in a folder."""
    command = [Path(sys.executable).with_name("lint-imports"), "--no-cache", "--no-logo"]
    environment = {"COLUMNS": "400", "NO_COLOR": "1"}  # whole lines, plain words
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout + done.stderr


def copy_of_the_house(folder: Path) -> None:
    shutil.copytree(PACKAGE, folder / "featherweight", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", folder)


def test_the_contracts_hold(tmp_path: Path) -> None:
    copy_of_the_house(tmp_path)
    code, words = lint(tmp_path)
    assert code == 0, words
    assert all(f"{name} KEPT" in words for name in CONTRACTS.values()), words


@pytest.mark.parametrize("violation", VIOLATIONS, ids=lambda violation: violation.label)
def test_a_planted_violation_is_caught(violation: Violation, tmp_path: Path) -> None:
    copy_of_the_house(tmp_path)
    for name, lines in violation.lines.items():
        with (tmp_path / "featherweight" / name).open("a", encoding="utf-8") as file:
            file.write(f"\n{lines}\n")
    code, words = lint(tmp_path)
    assert code != 0
    assert f"{CONTRACTS[violation.contract]} BROKEN" in words, words
    assert violation.culprit in words, words


def test_every_contract_has_a_planted_violation() -> None:
    assert {violation.contract for violation in VIOLATIONS} == set(CONTRACTS)


def test_every_folder_is_a_package() -> None:
    """Without ``__init__.py`` a folder is invisible to import-linter, and left out of the wheel."""
    folders = {path.parent for path in PACKAGE.rglob("*.py")}
    assert [str(folder) for folder in sorted(folders) if not (folder / "__init__.py").exists()] == []


# What import-linter can't see: parts of other packages, and where inside a file an import stands.


def uses_of_torch_nn(tree: ast.AST) -> Iterator[int]:
    """The lines that import ``torch.nn`` or reach it as an attribute."""
    for node in ast.walk(tree):
        match node:
            case ast.Import(names=names) if any(f"{alias.name}.".startswith("torch.nn.") for alias in names):
                yield node.lineno
            case ast.ImportFrom(module=str(module)) if f"{module}.".startswith("torch.nn."):
                yield node.lineno
            case ast.ImportFrom(module="torch", names=names) if any(alias.name == "nn" for alias in names):
                yield node.lineno
            case ast.Attribute(value=ast.Name(id="torch"), attr="nn"):
                yield node.lineno


def own_imports_inside_functions(tree: ast.AST) -> Iterator[int]:
    """The lines inside functions that import Featherweight's own modules."""
    for function in ast.walk(tree):
        if not isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        for node in ast.walk(function):
            match node:
                case ast.Import(names=names) if any(alias.name.startswith("featherweight") for alias in names):
                    yield node.lineno
                case ast.ImportFrom(level=level, module=module) if level or (module or "").startswith("featherweight"):
                    yield node.lineno


def found_in(folder: Path, search: Callable[[ast.AST], Iterator[int]]) -> list[str]:
    return [
        f"{path.relative_to(ROOT)}:{line}"
        for path in sorted(folder.rglob("*.py"))
        for line in search(ast.parse(path.read_text(encoding="utf-8")))
    ]


def test_numerics_never_sees_a_module() -> None:
    assert found_in(PACKAGE / "numerics", uses_of_torch_nn) == []


def test_own_imports_stand_at_the_top() -> None:
    assert found_in(PACKAGE, own_imports_inside_functions) == []


@pytest.mark.parametrize(
    "line",
    [
        "import torch.nn",
        "import torch.nn.functional as functional",
        "from torch import nn",
        "from torch.nn import Module",
        "from torch.nn.utils import parametrize",
        "x: torch.nn.Module",
    ],
)
def test_torch_nn_is_found(line: str) -> None:
    assert list(uses_of_torch_nn(ast.parse(line))) == [1]


@pytest.mark.parametrize("line", ["import torch", "from torch import Tensor", "import torch.nnx", "torch.linalg.qr(x)"])
def test_other_parts_of_torch_are_let_through(line: str) -> None:
    assert list(uses_of_torch_nn(ast.parse(line))) == []


@pytest.mark.parametrize("line", ["import featherweight.network", "from featherweight import cli", "from . import cli"])
def test_own_imports_inside_functions_are_found(line: str) -> None:
    assert list(own_imports_inside_functions(ast.parse(f"def late():\n    {line}"))) == [2]
    assert list(own_imports_inside_functions(ast.parse(line))) == []
