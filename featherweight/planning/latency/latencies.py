"""The latency table: milliseconds of kernels and whole networks by target and device, kept for later runs.

One JSON file for every (target, runtime with its version, device, threads), in the user's cache folder. It is a cache:
a file there that can't be read is measured anew and written over. A file that somebody names
(:func:`read_latencies`) is refused instead, in one line, where it is broken or of another device.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

from featherweight.contracts import RunError, TargetError
from featherweight.files import write_atomically
from featherweight.targets.device import device
from featherweight.targets.seam import Target

FOLDER_VARIABLE = "FEATHERWEIGHT_CACHE"
_FORMAT = 1
_LARGEST_BYTES = 16 << 20
_MOST_ENTRIES = 100_000
_LONGEST_KEY = 1000
_SLOWEST_MS = 1e7


@dataclass(frozen=True, slots=True)
class Clock:
    """What a time was taken with.

    Attributes:
        target: its name.
        runtime: name and version of what ran.
        device: the machine.
        threads: the runtime's threads.
    """

    target: str
    runtime: str
    device: str
    threads: int = 1

    @classmethod
    def here(cls, target: Target) -> Clock:
        """This machine with a target's installed runtime."""
        return cls(target.name, target.runtime(), device())


@dataclass
class Latencies:
    """A latency table that is being filled.

    Attributes:
        clock: what its times were taken with.
        path: its file; None keeps it in memory alone.
        kernels: kernel, in words → milliseconds.
        networks: SHA-256 of a network and what was done to it → milliseconds.
    """

    clock: Clock
    path: Path | None = None
    kernels: dict[str, float] = field(default_factory=dict)
    networks: dict[str, float] = field(default_factory=dict)

    def save(self) -> None:
        """Write what is known, with what another process has added since; whole or not at all.

        Of two processes that write at the same moment one may lose what it added last, and will measure it again.

        Raises:
            RunError: the file can't be written.
        """
        if self.path is None:
            return
        before = _attempted(self.path, self.clock)
        self.kernels = before.kernels | self.kernels
        self.networks = before.networks | self.networks
        document = {
            "featherweight_latencies": _FORMAT,
            **asdict(self.clock),
            "kernels": self.kernels,
            "networks": self.networks,
        }
        write_atomically(self.path, json.dumps(document, indent=1, sort_keys=True) + "\n")


def cached_latencies(target: Target) -> Latencies:
    """The table of this machine and a target's installed runtime: what earlier runs measured, or an empty one."""
    clock = Clock.here(target)
    name = hashlib.sha256(json.dumps(asdict(clock), sort_keys=True).encode()).hexdigest()[:16]
    return _attempted(_folder() / f"latency-{target.name}-{name}.json", clock)


def _folder() -> Path:
    """FEATHERWEIGHT_CACHE, else where the system wants caches."""
    own = os.environ.get(FOLDER_VARIABLE)
    if own:
        return Path(own)
    shared = os.environ.get("XDG_CACHE_HOME")
    return (Path(shared) if shared else Path.home() / ".cache") / "featherweight"


def _attempted(path: Path, clock: Clock) -> Latencies:
    try:
        return read_latencies(path, clock)
    except (RunError, TargetError):
        return Latencies(clock, path)


def read_latencies(path: Path, clock: Clock) -> Latencies:
    """A table from its file.

    Raises:
        RunError: the file is missing, too large, of another version, or no such table.
        TargetError: it was measured with another target, runtime, device or number of threads.
    """
    document = _document(path)
    found = {name: document.get(name) for name in asdict(clock)}
    other = [name for name, value in asdict(clock).items() if found[name] != value]
    if other:
        told = ", ".join(f"{name} {str(found[name])[:80]!r}" for name in other)
        wanted = ", ".join(f"{name} {getattr(clock, name)!r}" for name in other)
        raise TargetError(
            "A latency table counts for the target, runtime and device that it was measured with.",
            f"{path}: {told} instead of {wanted}",
            "leave it out: what is missing is measured here",
        )
    return Latencies(clock, path, _times(document, "kernels", path), _times(document, "networks", path))


def _document(path: Path) -> Mapping[str, object]:
    try:
        if path.stat().st_size > _LARGEST_BYTES:
            raise ValueError(f"{path.stat().st_size:,} bytes")
        document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise _unreadable(path, str(error)) from error
    if not isinstance(document, dict) or document.get("featherweight_latencies") != _FORMAT:
        raise _unreadable(path, "no latency table of this version")
    return document


def _times(document: Mapping[str, object], part: str, path: Path) -> dict[str, float]:
    rows = document.get(part)
    if not isinstance(rows, dict) or len(rows) > _MOST_ENTRIES:
        raise _unreadable(path, f"{part!r} is no mapping of at most {_MOST_ENTRIES:,} entries")
    for key, value in rows.items():
        sound = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
        if len(key) > _LONGEST_KEY or not sound or not 0 <= value <= _SLOWEST_MS:
            raise _unreadable(path, f"{part!r} says {str(value)[:40]} of {key[:80]!r}")
    return {key: float(value) for key, value in rows.items()}


def _unreadable(path: Path, got: str) -> RunError:
    return RunError(
        "A latency table is a JSON file that Featherweight wrote.",
        f"{path}: {got}",
        "remove it: it is measured anew",
    )
