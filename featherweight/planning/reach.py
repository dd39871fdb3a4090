"""What the table shows before anything is made: limits that no plan can meet, and the nearest that one can."""

from __future__ import annotations

import math

from featherweight.contracts import Goal, OutOfReachError, Quantity, Table
from featherweight.planning.allocate import Peak, gentlest, least

_WORDS: dict[Quantity, tuple[str, str]] = {
    "size": ("--max-size", "bytes in the file"),
    "package": ("--max-package", "bytes to download"),
    "macs": ("--max-macs", "multiply-accumulates"),
    "latency": ("--max-latency", "milliseconds"),
    "memory": ("--max-memory", "bytes of activations at the peak"),
}


def check_reach(table: Table, goal: Goal, peak: Peak | None = None) -> None:
    """Stop early where the limits can't be met, whatever would be lost.

    Raises:
        OutOfReachError: with the nearest limit in reach for each one that is too tight.
    """
    if not goal.limits or gentlest(table, goal, peak) is not None:
        return
    told, remedies = [], []
    for quantity, limit in goal.limits.items():
        flag, unit = _WORDS[quantity]
        nearest = least(table, quantity, goal, peak)
        if not math.isfinite(nearest):  # the others alone are too tight: what would be the least without them
            nearest = least(table, quantity, Goal(minimize=quantity), peak)
        if nearest > limit:
            told.append(f"at most {_number(limit)} {unit}, where the least in reach is {_number(nearest, up=True)}")
            remedies.append(f"{flag} {_number(nearest, up=True).replace(',', '')}")
    raise OutOfReachError(
        "The goal's limits must be in reach of some plan, whatever it loses.",
        "; ".join(told) or "limits that can't be met together",
        " ".join(remedies) or "loosen two limits or more",
    )


def _number(value: float, *, up: bool = False) -> str:
    """A limit: whole where it is, or large; milliseconds to three digits and more. What is in reach is rounded up."""
    if value >= 1000 or value == round(value):
        return f"{math.ceil(value) if up else round(value):,}"
    digits = max(3, 2 - math.floor(math.log10(value)))
    return f"{math.ceil(value * 10**digits) / 10**digits if up else value:.{digits}f}"
