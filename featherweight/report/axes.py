"""Axes of drawings: from values to places, and the round numbers to mark."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Axis:
    """A range of values, laid out from 0 to 1.

    Attributes:
        low, high: its ends; low < high, and 0 < low where it is logarithmic.
        logarithmic: equal ratios are equally far apart.
    """

    low: float
    high: float
    logarithmic: bool = False

    def place(self, value: float) -> float:
        """Where a value lies: 0 at the low end, 1 at the high end."""
        if self.logarithmic:
            return math.log(value / self.low) / math.log(self.high / self.low)
        return (value - self.low) / (self.high - self.low)

    def ticks(self, most: int = 6) -> list[float]:
        """Round numbers within the range, few enough to read."""
        return _ratio_ticks(self.low, self.high, most) if self.logarithmic else _even_ticks(self.low, self.high, most)


def axis_around(values: Iterable[float], *, logarithmic: bool = False) -> Axis:
    """An axis that holds all values with some air at both ends; one value alone stands in the middle.

    Args:
        values: finite, at least one; positive where the axis is logarithmic.
        logarithmic: of the axis.
    """
    values = list(values)
    low, high = min(values), max(values)
    if logarithmic:
        air = max((high / low) ** 0.12, 1.3)
        return Axis(low / air, high * air, True)
    air = 0.12 * (high - low) or 0.5 * abs(high) or 1.0
    return Axis(low - air, high + air)


def _even_ticks(low: float, high: float, most: int) -> list[float]:
    """Multiples of 1, 2 or 5 times a power of ten."""
    rough = (high - low) / most
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1.0, 2.0, 5.0, 10.0, 20.0) if factor * power >= rough)
    digits = max(0, 1 - math.floor(math.log10(step)))
    return [round(index * step, digits) for index in range(math.ceil(low / step), math.floor(high / step) + 1)]


def _ratio_ticks(low: float, high: float, most: int) -> list[float]:
    """1, 2 and 5 times powers of ten, or as much of that as fits."""
    exponents = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for factors in ((1, 2, 5), (1, 3), (1,)):
        found = [value for e in exponents for factor in factors if low <= (value := float(f"{factor}e{e}")) <= high]
        if len(found) <= most:
            break
    return found[:: -(-len(found) // most) or 1]
