"""Output folders that can't be used, and disks without room: what was there stays, and the run goes on later."""

from __future__ import annotations

import errno
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import featherweight as fw
from featherweight.files import PARTIAL
from tests import jobs
from tests.jobs import HERE, LOOSE, files, job, refused, tell


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished run."""
    folder = tmp_path_factory.mktemp("finished") / "run"
    fw.compress(jobs.network(), jobs.data(), fw.Goal(max_drop=0.5), out=folder)
    return folder


def test_the_folder_of_another_run(capsys, finished: Path) -> None:
    before = files(finished)
    for word, words in (
        ("seed", [*job(), LOOSE, "--seed", "1"]),
        ("metric, task", [*job(), LOOSE, "--task", "regression"]),
        ("data", [*job(data="unlabelled"), LOOSE]),
    ):
        refused(capsys, 7, f"another run (other {word})", "compress", *words, "--out", finished)
    assert files(finished) == before


def test_a_folder_with_other_files(capsys, tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("mine")
    told = refused(capsys, 7, "holds other files (thesis.tex)", "compress", *job(), "--out", tmp_path)
    assert "nothing there was touched" in told
    assert files(tmp_path) == {"thesis.tex": b"mine"}


def test_an_output_that_is_a_file_or_below_one(capsys, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    refused(capsys, 7, "must be a folder", "compress", *job(), "--out", tmp_path / "file")
    refused(capsys, 7, "Not a directory", "compress", *job(), "--out", tmp_path / "file" / "run")
    refused(capsys, 7, "Not a directory", "plan", *job(), "--out", tmp_path / "file" / "run")
    assert files(tmp_path) == {"file": b"mine"}


def test_a_full_disk_at_any_file_is_told_and_the_run_goes_on(
    capsys, tmp_path: Path, monkeypatch, finished: Path
) -> None:
    """Every time one file more finds room; in the end the run's files are those of an undisturbed one."""
    words = ["compress", *job(), LOOSE, "--out", tmp_path / "run"]
    real, room = os.fsync, 0

    def fsync(handle: int) -> None:
        nonlocal left
        left -= 1
        if left < 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(handle)

    monkeypatch.setattr(os, "fsync", fsync)
    failures = 0
    while True:
        left = room
        told = tell(capsys, *words)
        assert not list(tmp_path.rglob(f"*{PARTIAL}"))
        if told.code != 7:
            break
        assert "No space left on device" in told.err
        assert "run the same command again: it continues" in told.err
        failures, room = failures + 1, room + 4
    assert failures >= 2
    assert told.code == 0
    for name in ("artefact.tflite", "original.tflite", "plan.yaml"):
        assert (tmp_path / "run" / name).read_bytes() == (finished / name).read_bytes()


LIMITED = """
import resource, sys
import torch
torch.set_num_threads(1)
from featherweight.cli import main
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]), resource.RLIM_INFINITY))
first = main(sys.argv[2:])
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
sys.exit(first if first != 7 else main(sys.argv[2:]) + 70)
"""


def test_files_that_really_find_no_room(tmp_path: Path, finished: Path) -> None:
    """The system itself refuses to let files grow: first the original's own, then, with the limit gone, nothing."""
    limit = len((finished / "original.tflite").read_bytes()) - 8
    words = ["compress", *job(), LOOSE, "--out", str(tmp_path / "run")]
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, str(limit), *words],
        cwd=HERE.parents[1],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 70, done.stderr
    assert re.fullmatch(r"featherweight: .+\n  got: .+File too large\n  try: free some space.+\n", done.stderr), (
        done.stderr
    )
    for name in ("artefact.tflite", "original.tflite", "plan.yaml"):
        assert (tmp_path / "run" / name).read_bytes() == (finished / name).read_bytes()
