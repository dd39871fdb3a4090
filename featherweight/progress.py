"""Progress bars for long work: on a terminal's standard error, and nowhere else."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from typing import TypeVar

Item = TypeVar("Item")


def track(items: Iterable[Item], what: str, total: int | None = None) -> Iterator[Item]:
    """Hand on every item; where a person watches, show how far it is.

    Args:
        items: what is worked through.
        what: a few words ("observing calibration samples").
        total: how many there are, where ``len(items)`` doesn't tell.
    """
    if not sys.stderr.isatty():
        yield from items
        return
    from rich.console import Console  # noqa: PLC0415  (a quarter of our import time; only a terminal needs it)
    from rich.progress import track as rich_track  # noqa: PLC0415

    yield from rich_track(items, what, total=total, console=Console(stderr=True), transient=True)
