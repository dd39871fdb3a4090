"""A run's folder: every finished stage is kept, and a run that was stopped anywhere goes on from there.

A stage writes its files into a temporary folder, which is renamed into place when all is on disk; the rename is what
makes the stage finished. The stage's folder carries the key of what it was made from and the hashes of its files, so
neither a changed input nor a damaged file is ever answered with an old result. One run holds the folder at a time.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO, TypeVar

from featherweight.contracts import RunError
from featherweight.files import PARTIAL, file_failure, write_atomically

Value = TypeVar("Value")
_IDENTITY = "run.json"
_KEY = "key.json"
_LOCK = ".lock"


def key_of(parts: Mapping[str, object]) -> str:
    """SHA-256 of plain values, the same in every process."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()


class Run:
    """The folder of one run.

    Args:
        folder: made when the run is held first.
        identity: what makes this run this run (hashes of model and data, goal, target, versions): plain values.

    Raises:
        RunError: the folder holds another run, or something else, or can't be read.
    """

    def __init__(self, folder: Path, identity: Mapping[str, object]) -> None:
        self.folder = folder
        self.identity = json.loads(json.dumps(identity, default=str))
        self.key = key_of(identity)
        self._holds_this_run()

    def _holds_this_run(self) -> bool:
        """Whether the folder holds this run; False where it is free. Nothing there is touched.

        Raises:
            RunError: it holds anything else.
        """
        try:
            if not self.folder.exists():
                return False
            foreign = [entry.name for entry in self.folder.iterdir() if not entry.name.startswith(".")]
        except NotADirectoryError as error:
            raise RunError(
                "The output must be a folder.", f"{self.folder} is a file", "choose another --out"
            ) from error
        except OSError as error:
            raise file_failure(self.folder, error) from error
        if _IDENTITY in foreign:
            self._compare(_read_identity(self.folder / _IDENTITY))
            return True
        if foreign:
            raise RunError(
                "The output folder must be empty, or hold this very run.",
                f"{self.folder} holds other files ({foreign[0]})",
                "choose another --out; nothing there was touched",
            )
        return False

    def _compare(self, found: Mapping[str, object]) -> None:
        if found.get("key") == self.key:
            return
        names = sorted({*found, *self.identity} - {"key"})
        changed = [name for name in names if found.get(name) != self.identity.get(name)]
        raise RunError(
            "The output folder must be empty, or hold this very run.",
            f"{self.folder} holds another run (other {', '.join(changed) or 'key'})",
            "choose another --out; nothing there was touched",
        )

    @contextmanager
    def held(self) -> Iterator[None]:
        """Hold the folder while the block runs, and sweep up what a killed process left half done.

        Raises:
            RunError: another process holds it, or it can't be written.
        """
        with self._locked():
            # Asked again: until the lock was ours, another process could have begun a run of its own here.
            if not self._holds_this_run():
                identity = json.dumps({"key": self.key, **self.identity}, indent=1)
                write_atomically(self.folder / _IDENTITY, identity + "\n")
            self._sweep()
            yield

    def _locked(self) -> TextIO:
        """The lock's file, locked; closing it, or the end of the process, gives the folder free."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            lock = (self.folder / _LOCK).open("a")  # never emptied: it could be a link
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                lock.close()
                raise
        except BlockingIOError as error:
            raise RunError(
                "One process at a time works on a run.",
                f"{self.folder} is in use",
                "wait for the other one, or choose another --out",
            ) from error
        except OSError as error:
            raise file_failure(self.folder, error) from error
        return lock

    def _sweep(self) -> None:
        try:
            for left in self.folder.glob(f".*{PARTIAL}"):
                left.unlink()
            for left in (self.folder / "stages").glob(f".*{PARTIAL}"):
                shutil.rmtree(left)
        except OSError as error:
            raise file_failure(self.folder, error) from error

    def stage(
        self, name: str, parts: Mapping[str, object], make: Callable[[Path], None], load: Callable[[Path], Value]
    ) -> Value:
        """The value of a stage: made now, or loaded where an earlier run finished it from the same inputs.

        Args:
            name: the stage's folder name.
            parts: what the stage is made from, as plain values (hashes, settings); it is kept beside the result.
            make: writes the stage's files into the folder that it is given.
            load: reads the value back from the stage's folder; both a fresh and an old result come through here.

        Raises:
            RunError: the folder can't take the stage's files, or they can't be read.
        """
        place, key = self.folder / "stages" / name, key_of(parts)
        partial: Path | None = None
        try:
            if not _finished(place, key):
                place.parent.mkdir(parents=True, exist_ok=True)
                partial = Path(tempfile.mkdtemp(prefix=f".{name}.", suffix=PARTIAL, dir=place.parent))
                make(partial)
                write_atomically(partial / _KEY, json.dumps({"key": key, "files": _hashes(partial)}, indent=1) + "\n")
                if place.exists():
                    shutil.rmtree(place)
                os.replace(partial, place)
            return load(place)
        except OSError as error:
            raise file_failure(error.filename or place, error) from error
        finally:
            if partial is not None:
                shutil.rmtree(partial, ignore_errors=True)

    def numbered(self, prefix: str, suffix: str, parts: Mapping[str, object]) -> str:
        """``prefix-NN`` for stages that are many: the number under which these parts were made, or the next free one.

        Args:
            prefix: of the stages' names.
            suffix: of the first stage that carries a number ("network").
            parts: what that stage is made from.
        """
        key, numbers = key_of(parts), [0]
        for place in sorted((self.folder / "stages").glob(f"{prefix}-*-{suffix}")):
            found = re.fullmatch(rf"{re.escape(prefix)}-(\d{{2,4}})-{re.escape(suffix)}", place.name)
            if found is None:
                continue
            if _key_in(place) == key:  # damaged or not: the stage itself will see
                return f"{prefix}-{found[1]}"
            numbers.append(int(found[1]))
        return f"{prefix}-{max(numbers) + 1:02d}"


def _read_identity(path: Path) -> Mapping[str, object]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(found, dict):
            raise ValueError(f"a {type(found).__name__}")
    except (OSError, ValueError) as error:
        raise RunError(
            "A run's folder must say whose it is.", f"{path}: {error}", "choose another --out; nothing was touched"
        ) from error
    return found


def _key_in(place: Path) -> str | None:
    """What a stage says that it was made from; None where it doesn't."""
    try:
        return json.loads((place / _KEY).read_text(encoding="utf-8"))["key"]
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _finished(place: Path, key: str) -> bool:
    """Whether a stage stands complete, undamaged, and made from the same inputs."""
    try:
        kept = json.loads((place / _KEY).read_text(encoding="utf-8"))
        return kept["key"] == key and kept["files"] == _hashes(place)
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _hashes(folder: Path) -> dict[str, str]:
    """File → SHA-256, of everything in a stage's folder but its key."""
    hashes = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path != folder / _KEY:
            with path.open("rb") as file:
                hashes[path.relative_to(folder).as_posix()] = hashlib.file_digest(file, "sha256").hexdigest()
    return hashes
