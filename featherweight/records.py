"""Contract values as JSON and back: every value of :mod:`featherweight.contracts`, checked on the way in."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeVar

from featherweight.contracts import RunError
from featherweight.files import write_atomically

Value = TypeVar("Value")


def to_json(value: object, kind: Any = None) -> str:
    """The value as indented JSON; ``kind`` is its type where that is generic (``tuple[Option, ...]``)."""
    from pydantic import TypeAdapter  # noqa: PLC0415  (a fifth of our import time, and only runs need it)

    return TypeAdapter(kind or type(value)).dump_json(value, indent=1).decode() + "\n"


def from_json(kind: type[Value], text: str) -> Value:
    """The value of that type.

    Raises:
        ValueError: the text isn't one.
    """
    from pydantic import TypeAdapter  # noqa: PLC0415

    return TypeAdapter(kind).validate_json(text)


def write_record(value: object, path: Path) -> None:
    """Write a value as JSON, whole or not at all."""
    write_atomically(path, to_json(value))


def read_record(kind: type[Value], path: Path) -> Value:
    """Read a value back.

    Raises:
        RunError: the file is missing or says something else.
    """
    try:
        return from_json(kind, path.read_text())
    except (OSError, ValueError) as error:
        raise RunError(
            f"{path.name} must hold a {getattr(kind, '__name__', kind)}.",
            f"{path}: {str(error).splitlines()[0]}",
            "it was edited or cut short; remove that stage's folder and run again",
        ) from error
