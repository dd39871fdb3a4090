"""Quantities as people write them: ``1pp``, ``95%``, ``2MB``."""

from __future__ import annotations

import math
import re

from featherweight.contracts import GoalError, UsageError

_NUMBER = r"([-+]?[0-9]*\.?[0-9]+(?:[eE][-+]?[0-9]+)?)"
_SHARE = re.compile(_NUMBER + r"\s*(pp|points?|%|)")
_BYTES = re.compile(_NUMBER + r"\s*(b|kb|mb|gb|kib|mib|gib|)", re.IGNORECASE)
_COUNT = re.compile(_NUMBER + r"\s*(k|m|g|)", re.IGNORECASE)
_TIME = re.compile(_NUMBER + r"\s*(us|µs|ms|s|)", re.IGNORECASE)
_DURATIONS = {"": 1.0, "us": 1e-3, "µs": 1e-3, "ms": 1.0, "s": 1e3}
_UNITS = {"": 1, "b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "kib": 2**10, "mib": 2**20, "gib": 2**30}
_MULTIPLES = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9}


def _match(pattern: re.Pattern[str], text: str, example: str) -> tuple[float, str]:
    found = pattern.fullmatch(text.strip())
    if found is None:
        raise GoalError("A quantity is a number with its unit.", repr(text), f"write it like {example}")
    return float(found[1]), found[2]


def _whole(number: float, unit: int) -> int:
    if not math.isfinite(number * unit):
        raise GoalError("A limit must be a finite number.", repr(number), "leave the limit out instead")
    return round(number * unit)


def share(text: str) -> float:
    """``1pp``, ``1%`` and ``0.01`` all mean one point: 0.01.

    Raises:
        GoalError: it isn't a quantity.
    """
    number, unit = _match(_SHARE, text, "1pp, 1% or 0.01")
    return number if unit == "" else number / 100


def byte_count(text: str) -> int:
    """``320kB``, ``2MB``, ``1MiB`` or plain bytes.

    Raises:
        GoalError: it isn't a quantity.
    """
    number, unit = _match(_BYTES, text, "320kB or 2MB")
    return _whole(number, _UNITS[unit.lower()])


def count(text: str) -> int:
    """``40M`` or a plain number.

    Raises:
        GoalError: it isn't a quantity.
    """
    number, unit = _match(_COUNT, text, "40M")
    return _whole(number, _MULTIPLES[unit.lower()])


def milliseconds(text: str) -> float:
    """A duration: ``"5ms"``, ``"800us"`` or ``"0.2 s"``; milliseconds where there is no unit.

    Raises:
        GoalError: it is none.
    """
    number, unit = _match(_TIME, text, "5ms")
    return number * _DURATIONS[unit.lower()]


def positive(text: str) -> int:
    """A whole number from 1: timed runs, threads.

    Raises:
        UsageError: it isn't one.
    """
    if not re.fullmatch(r"[0-9]{1,9}", text.strip()) or int(text.strip()) < 1:
        raise UsageError("A count is a whole number from 1.", repr(text), "write it like 100")
    return int(text.strip())


def whole(text: str) -> int:
    """A whole number from 0: trials.

    Raises:
        UsageError: it isn't one.
    """
    if not re.fullmatch(r"[0-9]{1,9}", text.strip()):
        raise UsageError("A number of trials is whole, from 0.", repr(text), "write it like 20")
    return int(text.strip())


def sizes(text: str) -> tuple[int, ...]:
    """A shape: ``3,32,32`` or ``3x32x32``.

    Raises:
        UsageError: it isn't one.
    """
    parts = re.split(r"[x,]", text)
    if not all(re.fullmatch(r"\s*[0-9]{1,9}\s*", part) and int(part) > 0 for part in parts):
        raise UsageError("A shape is whole numbers from 1, batch left out.", repr(text), "write it like 3,32,32")
    return tuple(map(int, parts))
