"""A run's folder: every finished stage is kept, and a run that was stopped anywhere goes on from there.

A stage writes its files into a temporary folder, which is renamed into place when all is on disk; the rename is what
makes the stage finished. The stage's folder carries the key of what it was made from, so a changed input is never
answered with an old result. One run holds the folder at a time.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from featherweight.contracts import RunError
from featherweight.files import write_atomically

Value = TypeVar("Value")
_IDENTITY = "run.json"
_KEY = "key.json"


def key_of(parts: Mapping[str, object]) -> str:
    """SHA-256 of plain values, the same in every process."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()


class Run:
    """The folder of one run.

    Args:
        folder: made where it is missing.
        identity: what makes this run this run (hashes of model and data, goal, target, versions): plain values.

    Raises:
        RunError: the folder holds another run, or something else, or can't be written.
    """

    def __init__(self, folder: Path, identity: Mapping[str, object]) -> None:
        self.folder = folder
        self.identity = key_of(identity)
        path = folder / _IDENTITY
        if folder.exists() and not folder.is_dir():
            raise RunError("The output must be a folder.", f"{folder} is a file", "choose another --out")
        if path.exists():
            self._check(path, identity)
        elif folder.exists() and any(entry for entry in folder.iterdir() if not entry.name.startswith(".")):
            raise RunError(
                "The output folder must be empty, or hold this very run.",
                f"{folder} holds other files",
                "choose another --out; nothing there was touched",
            )
        else:
            write_atomically(path, json.dumps({"key": self.identity, **identity}, indent=1, default=str) + "\n")

    def _check(self, path: Path, identity: Mapping[str, object]) -> None:
        try:
            found = json.loads(path.read_text())
        except (OSError, ValueError) as error:
            raise RunError(
                "A run's folder must say whose it is.", f"{path}: {error}", "choose another --out"
            ) from error
        if found.get("key") != self.identity:
            changed = [name for name, value in identity.items() if found.get(name) != _plain(value)]
            raise RunError(
                "The output folder must be empty, or hold this very run.",
                f"{path.parent} holds another run (other {', '.join(changed) or 'version'})",
                "choose another --out; nothing there was touched",
            )

    @contextmanager
    def held(self) -> Iterator[None]:
        """Hold the folder while the block runs, and sweep up what a killed process left half done.

        Raises:
            RunError: another process holds it.
        """
        with (self.folder / ".lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                raise RunError(
                    "One process at a time works on a run.",
                    f"{self.folder} is in use",
                    "wait for the other one, or choose another --out",
                ) from error
            for left in (self.folder / "stages").glob(".*.partial"):
                shutil.rmtree(left)
            yield

    def stage(
        self, name: str, parts: Mapping[str, object], make: Callable[[Path], None], load: Callable[[Path], Value]
    ) -> Value:
        """The value of a stage: made now, or loaded where an earlier run finished it from the same inputs.

        Args:
            name: the stage's folder name.
            parts: what the stage is made from, as plain values (hashes, settings); it is kept beside the result.
            make: writes the stage's files into the folder that it is given.
            load: reads the value back from the stage's folder; both a fresh and an old result come through here.
        """
        place = self.folder / "stages" / name
        key = key_of(parts)
        if not self._finished(place, key):
            place.parent.mkdir(parents=True, exist_ok=True)
            partial = Path(tempfile.mkdtemp(prefix=f".{name}.", suffix=".partial", dir=place.parent))
            try:
                make(partial)
                write_atomically(partial / _KEY, json.dumps({"key": key}) + "\n")
                if place.exists():
                    shutil.rmtree(place)
                os.replace(partial, place)
            except OSError as error:
                shutil.rmtree(partial, ignore_errors=True)
                raise RunError(
                    "The run's folder must take what a stage writes.",
                    f"{place}: {error.strerror or error}",
                    "free some space there and run the same command again: it continues with this stage",
                ) from error
            except BaseException:
                shutil.rmtree(partial, ignore_errors=True)
                raise
        return load(place)

    @staticmethod
    def _finished(place: Path, key: str) -> bool:
        try:
            return json.loads((place / _KEY).read_text()).get("key") == key
        except (OSError, ValueError):
            return False


def _plain(value: object) -> object:
    return json.loads(json.dumps(value, default=str))
