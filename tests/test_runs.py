"""A run's folder: whose it is, what stays of a stage, and what happens to damaged, half-made and foreign files."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

from featherweight.contracts import LoweringError, RunError
from featherweight.files import PARTIAL
from featherweight.runs import Run, key_of

IDENTITY = {"model": "abc", "goal": {"max_drop": 0.01}, "seed": 0}


class Stage:
    """A stage that counts how often it is made."""

    def __init__(self, text: str = "made") -> None:
        self.text, self.made = text, 0

    def make(self, folder: Path) -> None:
        self.made += 1
        (folder / "value.txt").write_text(self.text)
        (folder / "more").mkdir()
        (folder / "more" / "bytes.bin").write_bytes(b"\x00\x01")

    def value(self, run: Run, parts: dict[str, object] | None = None) -> str:
        with run.held():
            return run.stage("1-first", parts or {}, self.make, lambda folder: (folder / "value.txt").read_text())


def tree(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


# --------------------------------------------------------------------------------------------------- whose it is


def test_a_new_folder_says_whose_it_is(tmp_path: Path) -> None:
    with Run(tmp_path / "deep" / "run", IDENTITY).held():
        told = json.loads((tmp_path / "deep" / "run" / "run.json").read_text())
    assert told == {"key": key_of(IDENTITY), **IDENTITY}


def test_asking_touches_nothing(tmp_path: Path) -> None:
    Run(tmp_path / "run", IDENTITY)
    assert not (tmp_path / "run").exists()


def test_hidden_files_are_no_other_files(tmp_path: Path) -> None:
    (tmp_path / ".gitignore").write_text("*")
    with Run(tmp_path, IDENTITY).held():
        assert (tmp_path / "run.json").exists()
    assert (tmp_path / ".gitignore").read_text() == "*"


def test_other_files_are_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("mine")
    before = tree(tmp_path)
    with pytest.raises(RunError, match=r"empty, or hold this very run") as failure:
        Run(tmp_path, IDENTITY)
    assert "thesis.tex" in failure.value.got
    assert tree(tmp_path) == before


@pytest.mark.parametrize(
    ("other", "word"),
    [
        ({**IDENTITY, "model": "xyz"}, "model"),
        ({**IDENTITY, "goal": {"max_drop": 0.02}}, "goal"),
        ({**IDENTITY, "plan": "units: {}"}, "plan"),
        ({name: value for name, value in IDENTITY.items() if name != "seed"}, "seed"),
    ],
)
def test_another_run_is_refused_by_name_and_left_alone(tmp_path: Path, other: dict[str, object], word: str) -> None:
    assert Stage().value(Run(tmp_path, IDENTITY)) == "made"
    before = tree(tmp_path)
    with pytest.raises(RunError, match=rf"another run \(other {word}\)"):
        Run(tmp_path, other)
    assert tree(tmp_path) == before


def test_the_same_run_goes_on_whatever_the_order_of_its_identity(tmp_path: Path) -> None:
    with Run(tmp_path, IDENTITY).held():
        told = (tmp_path / "run.json").read_bytes()
    with Run(tmp_path, dict(reversed(IDENTITY.items()))).held():
        assert (tmp_path / "run.json").read_bytes() == told


@pytest.mark.parametrize("content", ["", "{", "[1]", "null", '"key"', b"\xff\xfe"])
def test_a_broken_identity_is_refused_and_left_alone(tmp_path: Path, content: str | bytes) -> None:
    (tmp_path / "run.json").write_bytes(content if isinstance(content, bytes) else content.encode())
    before = tree(tmp_path)
    with pytest.raises(RunError, match="say whose it is"):
        Run(tmp_path, IDENTITY)
    assert tree(tmp_path) == before


def test_an_output_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(RunError, match="must be a folder"):
        Run(tmp_path / "file", IDENTITY)
    with pytest.raises(RunError, match="Not a directory"), Run(tmp_path / "file" / "run", IDENTITY).held():
        pass
    assert (tmp_path / "file").read_text() == "mine"


def test_a_folder_that_cannot_be_read_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def denied(_: Path) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(Path, "iterdir", denied)  # root may read everything, so a mode would prove nothing
    with pytest.raises(RunError, match="Permission denied"):
        Run(tmp_path, IDENTITY)


# ------------------------------------------------------------------------------------------------ one at a time


def test_one_at_a_time(tmp_path: Path) -> None:
    first, second = Run(tmp_path, IDENTITY), Run(tmp_path, IDENTITY)
    with first.held():
        with pytest.raises(RunError, match="One process at a time") as failure, second.held():
            pass
        assert "in use" in failure.value.got
    with second.held():
        pass


def test_the_folder_is_free_again_after_a_failure(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="mine"), Run(tmp_path, IDENTITY).held():
        raise ValueError("mine")
    with Run(tmp_path, IDENTITY).held():
        pass


def test_who_comes_second_to_an_empty_folder_finds_it_taken(tmp_path: Path) -> None:
    late = Run(tmp_path, {**IDENTITY, "seed": 1})  # both saw it empty
    with Run(tmp_path, IDENTITY).held():
        pass
    with pytest.raises(RunError, match="another run"), late.held():
        pass
    assert json.loads((tmp_path / "run.json").read_text())["seed"] == 0


def test_the_lock_never_empties_a_file_that_it_is_linked_to(tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("mine")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / ".lock").symlink_to(tmp_path / "precious")
    with Run(tmp_path / "run", IDENTITY).held():
        pass
    assert (tmp_path / "precious").read_text() == "mine"


# ------------------------------------------------------------------------------------------------------- stages


def test_a_stage_is_made_once_and_loaded_afterwards(tmp_path: Path) -> None:
    stage = Stage()
    assert [stage.value(Run(tmp_path, IDENTITY)) for _ in range(3)] == ["made"] * 3
    assert stage.made == 1


def test_the_key_tells_inputs_and_hashes(tmp_path: Path) -> None:
    Stage().value(Run(tmp_path, IDENTITY), {"seed": 3})
    kept = json.loads((tmp_path / "stages" / "1-first" / "key.json").read_text())
    assert kept == {
        "key": key_of({"seed": 3}),
        "files": {
            "more/bytes.bin": hashlib.sha256(b"\x00\x01").hexdigest(),
            "value.txt": hashlib.sha256(b"made").hexdigest(),
        },
    }


def test_other_inputs_are_never_answered_with_an_old_result(tmp_path: Path) -> None:
    run = Run(tmp_path, IDENTITY)
    assert Stage("old").value(run, {"seed": 0}) == "old"
    assert Stage("new").value(run, {"seed": 1}) == "new"
    assert [path.name for path in (tmp_path / "stages").iterdir()] == ["1-first"]


def _rewrite(place: Path) -> None:
    (place / "value.txt").write_text("mad3")


def _cut(place: Path) -> None:
    (place / "value.txt").write_text("ma")


def _remove(place: Path) -> None:
    (place / "more" / "bytes.bin").unlink()


def _add(place: Path) -> None:
    (place / "more" / "stranger").write_text("")


def _forget(place: Path) -> None:
    (place / "key.json").unlink()


def _break_key(place: Path) -> None:
    (place / "key.json").write_text("[]")


def _empty(place: Path) -> None:
    shutil.rmtree(place)
    place.mkdir()


@pytest.mark.parametrize("damage", [_rewrite, _cut, _remove, _add, _forget, _break_key, _empty])
def test_a_damaged_stage_is_noticed_and_made_again(tmp_path: Path, damage: Callable[[Path], None]) -> None:
    stage, run = Stage(), Run(tmp_path, IDENTITY)
    stage.value(run)
    before = tree(tmp_path)
    damage(tmp_path / "stages" / "1-first")
    assert tree(tmp_path) != before
    assert stage.value(run) == "made"
    assert stage.made == 2
    assert tree(tmp_path) == before


def test_what_a_killed_process_left_is_swept_and_nothing_else(tmp_path: Path) -> None:
    run = Run(tmp_path, IDENTITY)
    Stage().value(run)
    before = tree(tmp_path)
    (tmp_path / "stages" / f".2-second.abc{PARTIAL}").mkdir()
    (tmp_path / "stages" / f".2-second.abc{PARTIAL}" / "half").write_text("ha")
    (tmp_path / f".report.html.xyz{PARTIAL}").write_text("ha")
    (tmp_path / ".mine").write_text("kept")
    with run.held():
        assert tree(tmp_path) == {**before, ".mine": b"kept"}


def test_a_failing_stage_leaves_nothing_and_keeps_its_own_error(tmp_path: Path) -> None:
    def refuse(folder: Path) -> None:
        (folder / "half").write_text("ha")
        raise LoweringError("a", "b", "c")

    run = Run(tmp_path, IDENTITY)
    with run.held(), pytest.raises(LoweringError):
        run.stage("1-first", {}, refuse, lambda _: None)
    assert list((tmp_path / "stages").iterdir()) == []


def test_a_full_disk_in_a_stage_is_told_and_the_run_goes_on_afterwards(tmp_path: Path) -> None:
    def full(folder: Path) -> None:
        (folder / "half").write_text("ha")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(folder / "value.txt"))

    run, stage = Run(tmp_path, IDENTITY), Stage()
    with run.held(), pytest.raises(RunError, match="No space left") as failure:
        run.stage("1-first", {}, full, lambda _: None)
    assert "1-first" in failure.value.got
    assert "free some space" in failure.value.remedy
    assert list((tmp_path / "stages").iterdir()) == []
    assert stage.value(run) == "made"


@pytest.mark.parametrize("module", [(tempfile, "mkdtemp"), (os, "replace"), (os, "fsync")])
def test_a_full_disk_between_the_files_of_a_stage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, module: tuple[object, str]
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    run, stage = Run(tmp_path, IDENTITY), Stage()
    with run.held():
        monkeypatch.setattr(*module, full)
        with pytest.raises(RunError, match="No space left"):
            run.stage("1-first", {}, stage.make, lambda _: None)
        monkeypatch.undo()
    assert list((tmp_path / "stages").iterdir()) == []
    assert stage.value(run) == "made"


def test_a_stage_that_cannot_be_replaced_keeps_the_old_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = Run(tmp_path, IDENTITY)
    Stage("old").value(run, {"seed": 0})

    def denied(*_: object, **__: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    with run.held(), monkeypatch.context() as patch:
        patch.setattr(os, "fsync", denied)
        with pytest.raises(RunError, match="Permission denied"):
            run.stage("1-first", {"seed": 1}, Stage("new").make, lambda _: None)
    assert Stage("never").value(run, {"seed": 0}) == "old"


# --------------------------------------------------------------------------------------------------------- keys


def test_keys_are_the_same_in_every_process_and_differ_with_every_part() -> None:
    assert key_of({"b": 1, "a": [1, 2]}) == key_of({"a": [1, 2], "b": 1})
    expected = hashlib.sha256(b'{"a": [1, 2], "b": 1}').hexdigest()
    assert key_of({"b": 1, "a": [1, 2]}) == expected
    assert len({key_of({"a": value}) for value in (1, 2, "1", None, True, [1], {"a": 1})}) == 7
