"""Numbers written for people: ``1,106,448 B (1.1 MB)``, ``41.2 M MACs``, ``0.36 ms``, ``91.73 %``, ``3.45× less``."""

from __future__ import annotations

import math

_PREFIXES = ("", "k", "M", "G", "T", "P", "E")
_UNKNOWN = "–"


def short_bytes(value: float) -> str:
    """Bytes with a decimal prefix: ``1.1 MB``."""
    number, prefix = _scaled(value)
    return f"{number} {prefix}B"


def size(value: float) -> str:
    """Bytes, exactly and in short: ``1,106,448 B (1.1 MB)``."""
    return f"{value:,.0f} B ({short_bytes(value)})" if abs(value) >= 1000 else f"{value:.0f} B"


def macs(value: float) -> str:
    """Multiply-accumulates: ``41.2 M MACs``."""
    return " ".join(part for part in (*_scaled(value), "MACs") if part)


def milliseconds(value: float) -> str:
    """A duration given in milliseconds: ``0.36 ms``, ``0.054 ms``; ``1.25 s`` from a second on."""
    if not math.isfinite(value):
        return plain(value)
    if abs(value) >= 1000:
        return f"{value / 1000:,.2f} s"
    return f"{value:.2f} ms" if abs(value) >= 0.1 else f"{value:.3g} ms"


def percent(fraction: float) -> str:
    """A fraction as percent with two decimals: ``91.73 %``."""
    return f"{decimal(100 * fraction, 2)} %"


def decimal(value: float, digits: int) -> str:
    """A number with that many digits after the point, a true minus, and never a negative zero."""
    if not math.isfinite(value):
        return plain(value)
    text = f"{abs(value):,.{digits}f}"
    return f"−{text}" if value < 0 and text.strip("0.") else text


def confidence(fraction: float) -> str:
    """A probability as short as it goes: ``95 %``, ``99.9 %``."""
    return f"{100 * fraction:.10g} %"


def plain(value: float) -> str:
    """A figure without a unit, to three digits: ``0.0123``, ``1.2e-7``; infinity as ∞."""
    if math.isnan(value):
        return "not a number"
    if math.isinf(value):
        return "∞" if value > 0 else "−∞"
    digits, _, exponent = (f"{value:.2e}" if 0 < abs(value) < 0.001 else f"{value:.3g}").partition("e")
    text = f"{digits}e{int(exponent)}" if exponent else digits
    return text.replace("-", "−", 1) if value < 0 else text


def change(before: float, after: float, less: str, more: str) -> str:
    """How many times less or more: ``3.45× smaller``; ``unchanged`` where both are equal.

    ``about the same`` where three digits tell no difference.

    Args:
        before, after: amounts of the same thing.
        less, more: the words for it ("smaller", "larger").
    """
    if before == after:
        return "unchanged"
    if not (before > 0 and after > 0 and math.isfinite(before) and math.isfinite(after)):
        return _UNKNOWN
    ratio = max(before / after, after / before)
    if times(ratio) == times(1.0):
        return "about the same"
    return f"{times(ratio)} {less if after < before else more}"


def times(ratio: float) -> str:
    """A ratio of at least 1 to three digits: ``3.45×``, ``12.3×``, ``1,204×``."""
    return f"{ratio:,.{2 if ratio < 9.995 else 1 if ratio < 99.95 else 0}f}×"


def about(count: int) -> str:
    """A count to three digits, upwards: ``1,480``."""
    step = 10 ** max(0, len(str(count)) - 3)
    return f"{-(-count // step) * step:,}"


def shape(sizes: tuple[int, ...]) -> str:
    """A tensor's shape: ``1 × 32 × 32 × 3``; ``scalar`` where it has no axes."""
    return " × ".join(str(one) for one in sizes) or "scalar"


def _scaled(value: float) -> tuple[str, str]:
    """A number and its decimal prefix: one decimal from 1,000 on, whole below."""
    if not math.isfinite(value):
        return plain(value), ""
    power = 0
    while round(abs(value), 1 if power else 0) >= 1000 and power < len(_PREFIXES) - 1:
        value, power = value / 1000, power + 1
    return f"{value:,.{1 if power else 0}f}", _PREFIXES[power]
