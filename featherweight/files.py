"""Files written whole or not at all."""

from __future__ import annotations

import errno
import os
import tempfile
from pathlib import Path

from featherweight.contracts import RunError


def write_atomically(path: Path, content: bytes | str) -> None:
    """Write a file through a temporary neighbour and a rename: a reader sees the old file or the new one, whole.

    Raises:
        RunError: the disk is full, or the folder can't be written; an earlier file stays as it was.
    """
    data = content.encode() if isinstance(content, str) else content
    temporary: str | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        if temporary is not None:
            Path(temporary).unlink(missing_ok=True)
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        raise RunError(
            "The output folder must take what is written.",
            f"{path}: {error.strerror}",
            f"free {len(data):,} bytes there and run the same command again: it continues"
            if full
            else "choose a folder that you may write to with --out",
        ) from error
