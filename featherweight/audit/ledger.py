"""The ledger of test data: which artefact was shown to them, under which goal. It lies in the run's folder.

A test set proves what it says once: whoever tries several artefacts on it and keeps the best has chosen by it. So each
look is written down before it is taken, and never twice for the same artefact and goal: a run that was interrupted
while it looked may look again. There is no clock in it, since equal runs leave equal bytes; the file's own time tells.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from featherweight.contracts import RunError
from featherweight.files import write_atomically

LEDGER = "test-data.json"
_FORMAT = "featherweight-test-data"
_MOST_BYTES = 1 << 20


def note_look(folder: Path, test: str, artefact: str, goal: dict[str, Any]) -> int:
    """Write down that an artefact is about to be shown to test data.

    Args:
        folder: of the run.
        test: SHA-256 of the test split.
        artefact: SHA-256 of the file.
        goal: what is to be shown, as plain values.

    Returns:
        How many artefacts these test data were shown to, this one included.

    Raises:
        RunError: the ledger can't be read or written.
    """
    path = folder / LEDGER
    looks = _read(path)
    look = {"test": test, "artefact": artefact, "goal": goal}
    if look not in looks:
        looks.append(look)
        write_atomically(path, json.dumps({"format": _FORMAT, "version": 1, "looks": looks}, indent=1) + "\n")
    return len({one["artefact"] for one in looks if one["test"] == test})


def _read(path: Path) -> list[dict[str, Any]]:
    if not path.exists():
        return []
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise ValueError(f"{path.stat().st_size:,} bytes")
        found = json.loads(path.read_text(encoding="utf-8"))
        if found["format"] != _FORMAT or not all(set(look) == {"test", "artefact", "goal"} for look in found["looks"]):
            raise ValueError("other contents")
        return list(found["looks"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RunError(
            "The ledger of test data must say who looked at them.",
            f"{path}: {str(error).splitlines()[0] if str(error) else type(error).__name__}",
            "bring the file back, or start over with another --out; without it the proof is worth nothing",
        ) from error
