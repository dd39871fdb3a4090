"""A stranger runs the artefact: a script that imports nothing of Featherweight finds exactly what is certified.

The script is ``benchmarks/demo_check.py``; here it checks a small network on the demo's digits.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional

import featherweight as fw
from featherweight import demo

SCRIPT = Path(__file__).parents[1] / "benchmarks" / "demo_check.py"


def trained(data: fw.Data) -> nn.Module:
    """A small convolutional network that reads most digits right, and some wrong."""
    batch = data.train.take(range(len(data.train)))
    assert batch.labels is not None
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = nn.Sequential(
            nn.Conv2d(1, 12, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(192, 64),
            nn.ReLU(),
            nn.Linear(64, 10),
        )
        optimizer = torch.optim.Adam(network.parameters(), lr=5e-3)
        for _ in range(60):
            optimizer.zero_grad()
            functional.cross_entropy(network(batch.inputs[0]), batch.labels).backward()
            optimizer.step()
    return network.eval()


@pytest.fixture(scope="module")
def outcome(tmp_path_factory: pytest.TempPathFactory) -> fw.Outcome:
    folder = tmp_path_factory.mktemp("digits")
    data = demo.digits()
    return fw.compress(trained(data), data, fw.Goal(max_drop=0.03), out=folder / "run")


def checked(folder: Path, *words: str) -> tuple[int, str]:
    """What the script ends with and prints, in a process of its own that can't see Featherweight."""
    done = subprocess.run(
        [sys.executable, "-I", str(SCRIPT), str(folder), *words],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


def copied(outcome: fw.Outcome, folder: Path) -> Path:
    shutil.copytree(outcome.artefact.parent, folder / "run", ignore=shutil.ignore_patterns("stages"))
    return folder


def test_the_script_names_nothing_of_featherweight() -> None:
    imports = re.findall(r"^\s*(?:from|import)\s+(\w+)", SCRIPT.read_text(), re.MULTILINE)
    allowed = {
        "argparse",
        "hashlib",
        "json",
        "subprocess",
        "sys",
        "pathlib",
        "__future__",
        "numpy",
        "ai_edge_litert",
        "sklearn",
    }
    assert set(imports) <= allowed


def test_a_stranger_finds_exactly_what_is_certified(outcome: fw.Outcome) -> None:
    code, told = checked(outcome.artefact.parents[1], "--ratio", "2.5")
    assert code == 0, told
    certificate = outcome.certificate
    for side in ("original", "artefact"):
        claim = getattr(certificate, side)
        assert 0.8 < claim < 1.0
        assert re.search(
            rf"^accuracy of the {side} +{re.escape(str(claim))} +{re.escape(str(claim))}  ✓$", told, re.MULTILINE
        )
    assert re.search(rf"^answers lost +{certificate.lost} +{certificate.lost}  ✓$", told, re.MULTILINE)
    assert "✗" not in told
    assert "loaded of Featherweight: nothing" in told


def test_a_stranger_notices_a_false_claim_and_another_file(outcome: fw.Outcome, tmp_path: Path) -> None:
    folder = copied(outcome, tmp_path)
    card = json.loads((folder / "run" / "card.json").read_text())
    card["certificate"]["artefact"] += 1 / 800
    (folder / "run" / "card.json").write_text(json.dumps(card))
    (folder / "run" / "original.tflite").write_bytes((folder / "run" / "artefact.tflite").read_bytes())
    code, told = checked(folder, "--ratio", "0.5")
    assert code == 1
    wrong = re.findall(r"^(.+?)  .+✗$", told, re.MULTILINE)
    assert {"SHA-256 of the original", "accuracy of the artefact"} <= {line.strip() for line in wrong}
    assert "SHA-256 of the artefact" not in wrong


def test_a_stranger_notices_a_file_that_is_not_small_enough(outcome: fw.Outcome) -> None:
    sizes = [path.stat().st_size for path in (outcome.original, outcome.artefact)]
    code, told = checked(outcome.artefact.parents[1], "--ratio", str(sizes[0] / sizes[1] + 0.01))
    assert code == 1
    assert re.findall(r"^(.+?) .+✗$", told, re.MULTILINE) == ["times"]
