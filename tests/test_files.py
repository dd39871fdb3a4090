"""Files are written whole or not at all."""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

from featherweight.contracts import RunError
from featherweight.files import file_failure, write_atomically


def failing(number: int) -> Callable[..., None]:
    def fail(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    return fail


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("content", ["grüße\n", b"\x00\xff", "", b"x" * 3_000_000])
def test_what_is_written_is_there_and_nothing_else(tmp_path: Path, content: str | bytes) -> None:
    write_atomically(tmp_path / "new" / "folder" / "file", content)
    raw = (tmp_path / "new" / "folder" / "file").read_bytes()
    assert raw == (content.encode() if isinstance(content, str) else content)
    assert names(tmp_path / "new" / "folder") == ["file"]


def test_an_earlier_file_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("old, and longer than the new one")
    write_atomically(tmp_path / "file", "new")
    assert (tmp_path / "file").read_text() == "new"


@pytest.mark.parametrize("place", ["fsync", "replace"])
@pytest.mark.parametrize(
    ("number", "remedy"),
    [
        (errno.ENOSPC, "free some space"),
        (errno.EDQUOT, "free some space"),
        (errno.EFBIG, "free some space"),
        (errno.EACCES, "--out"),
        (errno.EROFS, "--out"),
    ],
)
def test_a_failure_keeps_the_earlier_file_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str, number: int, remedy: str
) -> None:
    (tmp_path / "file").write_text("old")
    monkeypatch.setattr(os, place, failing(number))
    with pytest.raises(RunError) as failure:
        write_atomically(tmp_path / "file", "new")
    monkeypatch.undo()
    assert str(tmp_path / "file") in failure.value.got
    assert os.strerror(number) in failure.value.got
    assert remedy in failure.value.remedy
    assert (tmp_path / "file").read_text() == "old"
    assert names(tmp_path) == ["file"]


def test_no_room_for_even_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "mkstemp", failing(errno.ENOSPC))
    with pytest.raises(RunError, match="No space left"):
        write_atomically(tmp_path / "file", "new")
    assert names(tmp_path) == []


def test_a_place_below_a_file_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(RunError, match="Not a directory") as failure:
        write_atomically(tmp_path / "file" / "below" / "new", "new")
    assert "--out" in failure.value.remedy
    assert (tmp_path / "file").read_text() == "mine"


def test_an_interruption_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(_: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", stop)
    with pytest.raises(KeyboardInterrupt):
        write_atomically(tmp_path / "file", "new")
    assert names(tmp_path) == []


def test_a_write_that_numpy_calls_cut_short_counts_as_a_full_disk() -> None:
    failure = file_failure("run/stages/1", OSError("4096 requested and 1024 written"))
    assert failure.got == "run/stages/1: 4096 requested and 1024 written"
    assert "free some space" in failure.remedy
