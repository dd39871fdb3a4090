"""``kill -9`` anywhere, then the same call: the run ends in the bytes of an undisturbed one.

One process imports everything once and forks a child for every call, so that each call is a process of its own that
can be killed for good. A child is killed at a rename: just before it, just after it, or while the file is written.
Every file and every stage of a run comes into being by a rename, so these are all the moments that matter.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from featherweight.audit.ledger import LEDGER
from featherweight.files import PARTIAL

ROOT = Path(__file__).parents[1]

SERVER = r"""
import json, os, re, signal, sys

import ai_edge_litert.interpreter
import litert_torch
import pydantic.type_adapter
import torch

import featherweight as fw
from tests import jobs

torch.set_num_threads(1)
fw.capture(jobs.network(), torch.rand(2, 6))  # imports what is imported at use; threads of a runtime couldn't be forked
rename, sync = os.replace, os.fsync


def name_of(path, folder):
    # stages/.1-reference.k3x8.partial/parity.json -> stages/.1-reference/parity.json
    return re.sub(r"^(stages/[.][^/]+?)[.]\w+[.]partial", r"\1", os.path.relpath(path, folder))


def call(folder, moment, place):
    names = []

    def fall(how, name):
        if (moment, place) == (how, name):
            os.kill(os.getpid(), signal.SIGSTOP if how == "stop" else signal.SIGKILL)

    def replace(source, target):
        name = name_of(target, folder)
        fall("stop", name)
        fall("before", name)
        rename(source, target)
        names.append(name)
        fall("after", name)

    def fsync(handle):
        written = os.path.basename(os.readlink(f"/proc/self/fd/{handle}"))
        half = re.escape("." + os.path.basename(place)) + r"[.]\w+[.]partial"
        if moment == "within" and re.fullmatch(half, written):
            os.ftruncate(handle, os.fstat(handle).st_size // 2)
            os.kill(os.getpid(), signal.SIGKILL)
        sync(handle)

    os.replace, os.fsync = replace, fsync
    try:
        fw.compress(jobs.network(), jobs.data(), fw.Goal(max_drop=0.5), out=folder)
    except fw.FeatherweightError as error:
        return {"error": type(error).__name__, "got": error.got}
    return {"renamed": names}


for line in sys.stdin:
    order = json.loads(line)
    channel, reply = os.pipe()
    child = os.fork()
    if not child:
        os.write(reply, json.dumps(call(*order)).encode())
        os._exit(0)
    os.close(reply)
    status = os.waitpid(child, os.WUNTRACED)[1]
    if os.WIFSTOPPED(status):
        told = {"stopped": child}
    elif os.WIFSIGNALED(status):
        told = {"killed by": os.WTERMSIG(status)}
    else:
        told = json.loads(os.read(channel, 1 << 16))
    os.close(channel)
    print(json.dumps(told), flush=True)
"""

MOMENTS = ("within", "after")
Call = Callable[..., dict]


@pytest.fixture(scope="module")
def call(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Call]:
    """Compress in a process of its own: what became of it."""
    log = tmp_path_factory.mktemp("server") / "log"
    with log.open("w") as errors:
        server = subprocess.Popen(
            [sys.executable, "-c", SERVER],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        )

        def order(folder: Path, moment: str = "", place: str = "") -> dict:
            print(json.dumps([str(folder), moment, place]), file=server.stdin, flush=True)
            line = server.stdout.readline() if server.stdout else ""
            assert line, log.read_text()
            return json.loads(line)

        yield order
        server.communicate()


@pytest.fixture(scope="module")
def undisturbed(call: Call, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """The folder of a run that nobody disturbed, and what it renamed into place, in order."""
    folder = tmp_path_factory.mktemp("undisturbed") / "run"
    return folder, call(folder)["renamed"]


def stages_of(renamed: list[str]) -> list[str]:
    return [name for name in renamed if re.fullmatch(r"stages/[^./][^/]*", name)]


def results(folder: Path) -> dict[str, bytes | dict]:
    """Every file of a finished run but wall-clock times: those are in one stage, the card's "timings" and the page."""
    assert not list(folder.rglob(f"*{PARTIAL}"))
    found: dict[str, bytes | dict] = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if path.is_file() and not name.startswith("stages/6-timing/") and name not in ("report.html", "card.json"):
            found[name] = path.read_bytes()
    card = json.loads((folder / "card.json").read_text())
    assert card.pop("timings")
    return {**found, "card.json": card}


def test_every_stage_and_every_result_is_renamed_into_place(undisturbed: tuple[Path, list[str]]) -> None:
    folder, renamed = undisturbed
    assert [re.sub(r"stages/(\d)-.*", r"\1", name) for name in stages_of(renamed)] == list("12334445677")
    assert {path.name for path in folder.iterdir()} - {"stages", ".lock"} <= set(renamed)
    assert renamed[0] == "run.json"
    assert {"artefact.tflite", "original.tflite", "plan.yaml", "card.json", "report.html"} <= set(renamed)


def test_two_undisturbed_runs_give_the_same_bytes(
    call: Call, undisturbed: tuple[Path, list[str]], tmp_path: Path
) -> None:
    assert call(tmp_path / "run") == {"renamed": undisturbed[1]}
    assert results(tmp_path / "run") == results(undisturbed[0])


@pytest.mark.parametrize("stage", range(11))
def test_killed_in_a_stage(call: Call, undisturbed: tuple[Path, list[str]], tmp_path: Path, stage: int) -> None:
    """All its files are there and only the rename is missing: the stage is made again, and nothing before it."""
    finished, renamed = undisturbed
    name = stages_of(renamed)[stage]
    assert call(tmp_path / "run", "before", name) == {"killed by": signal.SIGKILL}
    assert list((tmp_path / "run" / "stages").glob(f"*{PARTIAL}"))
    again = call(tmp_path / "run")["renamed"]
    assert stages_of(again) == stages_of(renamed)[stage:]
    assert results(tmp_path / "run") == results(finished)


def test_killed_again_and_again(call: Call, undisturbed: tuple[Path, list[str]], tmp_path: Path) -> None:
    """One run that is killed in and right after every stage, and at every file that it hands over."""
    finished, renamed = undisturbed
    moments = []
    for stage in stages_of(renamed):
        first = next(name for name in renamed if name.startswith(stage.replace("stages/", "stages/.") + "/"))
        if stage == "stages/5-certificate":  # the ledger is written before the first test sample is run
            moments += [(moment, LEDGER) for moment in MOMENTS]
        moments += [("within", first), ("after", stage)]
    identity, *handed_over = [name for name in renamed if "/" not in name and name != LEDGER]
    moments = [(moment, identity) for moment in MOMENTS] + moments
    moments += [(moment, name) for name in handed_over for moment in MOMENTS]
    assert len(moments) == 2 * (1 + 11 + 1 + 6)
    for moment, place in moments:
        assert call(tmp_path / "run", moment, place) == {"killed by": signal.SIGKILL}, (moment, place)
    assert call(tmp_path / "run")["renamed"] == handed_over
    assert results(tmp_path / "run") == results(finished)


def test_a_second_process_is_sent_away_until_the_first_is_gone(
    call: Call, undisturbed: tuple[Path, list[str]], tmp_path: Path
) -> None:
    finished, renamed = undisturbed
    waiting = call(tmp_path / "run", "stop", stages_of(renamed)[1])["stopped"]
    try:
        told = call(tmp_path / "run")
        assert told == {"error": "RunError", "got": f"{tmp_path / 'run'} is in use"}
    finally:
        os.kill(waiting, signal.SIGKILL)
    assert stages_of(call(tmp_path / "run")["renamed"]) == stages_of(renamed)[1:]
    assert results(tmp_path / "run") == results(finished)


@pytest.mark.parametrize(
    "name",
    [
        "stages/1-reference/original.tflite",
        "stages/1-reference/validation.npy",
        "stages/2-evidence/evidence.safetensors",
        "stages/4-attempt-01-network/state.safetensors",
        "stages/4-attempt-01-artefact/artefact.tflite",
        "stages/5-certificate/certificate.json",
        "artefact.tflite",
        "plan.yaml",
    ],
)
def test_a_damaged_file_is_never_used(
    call: Call, undisturbed: tuple[Path, list[str]], tmp_path: Path, name: str
) -> None:
    """One bit of it flips on the disk: the stage that it belongs to is made again, and only that."""
    finished = results(undisturbed[0])
    folder = shutil.copytree(undisturbed[0], tmp_path / "run")
    content = bytearray((folder / name).read_bytes())
    content[len(content) // 2] ^= 1
    (folder / name).write_bytes(content)
    told = call(folder)
    if name == "plan.yaml":  # a person may have edited this one: it is kept, and the run says so
        assert told["error"] == "PlanError"
        assert (folder / name).read_bytes() == content
        return
    assert stages_of(told["renamed"]) == ([name.rpartition("/")[0]] if "/" in name else [])
    assert results(folder) == finished
