"""The command answers Ctrl-C from its first moment on, and loads nothing before it can."""

from __future__ import annotations

import importlib.metadata
import json
import signal
import subprocess
import sys
import tomllib
from collections.abc import Sequence
from pathlib import Path

import pytest

from featherweight.contracts import EXIT_STOPPED, STOPPED

ROOT = Path(__file__).parents[1]
MODULE = ["-m", "featherweight"]
SCRIPT = ["-c", "import sys; from featherweight.__main__ import main; sys.exit(main())"]
# Sets what the signal does before the command starts: a hook between fork and exec would meet threads of other tests.
LAUNCH = (
    "import os, signal, sys\nsignal.signal(signal.SIGINT, int(sys.argv[1]))\nos.execv(sys.executable, sys.argv[2:])\n"
)
SIGNAL = "import os, signal\nos.kill(os.getpid(), signal.SIGINT)\n"
SWALLOWED = (
    f"try:\n    {SIGNAL.strip().replace(chr(10), '; ')}\nexcept BaseException:\n    pass\nraise ImportError('torch')\n"
)


def run(
    words: Sequence[str], torch: str | None, folder: Path, usual: signal.Handlers = signal.SIG_DFL
) -> tuple[int, str, str]:
    """Exit code and output of a command in a process of its own, where torch's import does what is said."""
    (folder / "stub").mkdir(exist_ok=True)
    if torch is not None:
        (folder / "stub" / "torch.py").write_text(torch)
    done = subprocess.run(
        [sys.executable, "-I", "-c", LAUNCH, str(int(usual)), sys.executable, *words],
        cwd=ROOT,
        env={"PYTHONPATH": f"{folder / 'stub'}:{ROOT}", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize("way", [MODULE, SCRIPT], ids=["module", "script"])
@pytest.mark.parametrize("torch", [SIGNAL, SWALLOWED, "raise KeyboardInterrupt"], ids=["signal", "swallowed", "raised"])
def test_an_interruption_while_it_loads_is_one_line(tmp_path: Path, way: list[str], torch: str) -> None:
    assert run([*way, "targets", "--json"], torch, tmp_path) == (EXIT_STOPPED, "", STOPPED)


def test_later_ones_are_the_commands_again(tmp_path: Path) -> None:
    model = tmp_path / "model.py"
    model.write_text(f"def network():\n    {SIGNAL.strip().replace(chr(10), '; ')}\n")
    words = [*MODULE, "inspect", f"{model}:network", "--data", f"{model}:network"]
    assert run(words, None, tmp_path) == (EXIT_STOPPED, "", STOPPED)


def test_a_signal_that_is_ignored_stays_so(tmp_path: Path) -> None:
    code, told, _ = run([*MODULE, "targets"], f"{SIGNAL}raise SystemExit(7)", tmp_path, signal.SIG_IGN)
    assert (code, told) == (7, "")


def test_nothing_is_loaded_before_the_signal_is_answered(tmp_path: Path) -> None:
    program = "import json, sys, featherweight.__main__; print(json.dumps(sorted(sys.modules)))"
    code, told, problem = run(["-c", program], None, tmp_path)
    assert code == 0, problem
    loaded = json.loads(told)
    assert [name for name in loaded if name.partition(".")[0] == "featherweight"] == [
        "featherweight", "featherweight.__main__", "featherweight.contracts",
    ]  # fmt: skip
    assert not {"torch", "numpy", "numba", "scipy", "yaml"} & set(loaded)


def test_the_installed_command_is_this_one() -> None:
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    assert declared == {"featherweight": "featherweight.__main__:main"}
    entry = importlib.metadata.EntryPoint("featherweight", declared["featherweight"], "console_scripts")
    assert callable(entry.load())
