"""Files written whole or not at all."""

from __future__ import annotations

import errno
import os
import tempfile
from pathlib import Path

from featherweight.contracts import RunError

PARTIAL = ".partial"  # ends the name of everything that isn't finished yet
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, None)  # None: numpy's word for a write that was cut short


def _usual_mode() -> int:
    """What the system gives a new file."""
    mask = os.umask(0)
    os.umask(mask)
    return 0o666 & ~mask


_MODE = _usual_mode()  # asked once, at import: asking changes it for a moment, which other threads could see


def write_atomically(path: Path, content: bytes | str) -> None:
    """Write a file through a temporary neighbour and a rename: a reader sees the old file or the new one, whole.

    Raises:
        RunError: the disk is full, or the folder can't be written; an earlier file stays as it was.
    """
    data = content.encode() if isinstance(content, str) else content
    temporary: str | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", suffix=PARTIAL, dir=path.parent)
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).chmod(_MODE)  # a temporary file is its owner's alone
        os.replace(temporary, path)
    except OSError as error:
        raise file_failure(path, error) from error
    finally:
        if temporary is not None:
            Path(temporary).unlink(missing_ok=True)


def file_failure(place: Path | str, error: OSError) -> RunError:
    """What the system said about a file or folder, with the way out: room, or rights."""
    return RunError(
        "The files of a run must be readable and writable.",
        f"{place}: {error.strerror or error}",
        "free some space there and run the same command again: it continues where it was"
        if error.errno in _FULL
        else "choose a folder that you may write to with --out",
    )
