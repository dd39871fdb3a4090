"""``import featherweight`` is quick and loads torch and nothing heavier; runtimes load at use."""

from __future__ import annotations

import json
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]

LIMIT_S = 1.0
TRIES = 3

TIMED = """
import json, sys, time
import torch
start = time.process_time()
from featherweight import *
print(json.dumps({"seconds": time.process_time() - start, "modules": sorted(sys.modules)}))
"""

EVERY_MODULE = """
import importlib, json, pkgutil, sys
import featherweight
names = [found.name for found in pkgutil.walk_packages(featherweight.__path__, "featherweight.")]
for name in names:
    if name != "featherweight.__main__":
        importlib.import_module(name)
print(json.dumps({"imported": names, "modules": sorted(sys.modules)}))
"""


def fresh(program: str) -> dict[str, Any]:
    """What a program prints as JSON, run in an interpreter of its own."""
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def heavy(modules: list[str]) -> set[str]:
    """Runtimes among the loaded modules (those of the import contract), and what only they bring."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    contracts = settings["tool"]["importlinter"]["contracts"]
    runtimes = next(contract["forbidden_modules"] for contract in contracts if contract["id"] == "runtimes")
    return {name.partition(".")[0] for name in modules} & {*runtimes, "jax", "sklearn", "torchao", "transformers"}


def test_importing_the_package_is_quick_and_loads_no_runtime() -> None:
    seconds = []
    for _ in range(
        TRIES
    ):  # of the processor, and the best of a few: a busy machine slows an import, nothing speeds it up
        found = fresh(TIMED)
        assert not heavy(found["modules"])
        seconds.append(found["seconds"])
        if seconds[-1] < LIMIT_S:
            return
    raise AssertionError(f"import featherweight took {min(seconds):.2f} s beyond torch; the limit is {LIMIT_S} s")


def test_no_module_loads_a_runtime_when_imported() -> None:
    found = fresh(EVERY_MODULE)
    assert "featherweight.contracts" in found["imported"]
    assert not heavy(found["modules"])


def test_a_loaded_runtime_is_noticed() -> None:
    assert heavy(["featherweight", "torch.nn", "ai_edge_litert.interpreter"]) == {"ai_edge_litert"}
