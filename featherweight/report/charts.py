"""Drawings as SVG: every figure of a drawing stands in a table or sentence beside it too.

Colours are classes of the page's style sheet, so that a drawing follows light and dark mode and prints.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from featherweight.report.axes import Axis
from featherweight.report.markup import Markup, element

COLOURS = 8  # classes c0 … c7 of the style sheet; the last is for everything that came too late for one of its own
_CHARACTER = 6.8  # width of a character of a drawing's text, about
_LEFT, _RIGHT = 16.0, 704.0  # of the interval's scale
_THINNEST = 1.2  # of the 100 that a pair of bars is wide: something is there, however little
_NAMES, _LONGEST = 76.0, 520.0  # room for the names of bars, and for the longest bar

Show = Callable[[float], str]


def drawing(width: int, height: int, label: str, *shapes: Markup) -> Markup:
    """An SVG image with its name, which screen readers speak and which shows under the mouse."""
    box = f"0 0 {width} {height}"
    return element("svg", element("title", label), *shapes, viewBox=box, role="img", aria_label=label, width=width)


def pair_bar(before: float, after: float, largest: float) -> Markup:
    """Two thin bars, one above the other, on the scale of a column; the numbers stand beside them."""
    scale = 100.0 / largest if largest > 0 else 0.0
    widths = [max(amount * scale, _THINNEST) if amount > 0 else 0.0 for amount in (before, after)]
    bars = (
        element("rect", width=widths[0], height=4, y=0, class_="was"),
        element("rect", width=widths[1], height=4, y=5, class_="is"),
    )
    attributes = {"viewBox": "0 0 100 9", "preserveAspectRatio": "none", "aria_hidden": "true", "class_": "pair"}
    return element("svg", *bars, **attributes)


def colour_of(rank: int) -> str:
    """The style sheet's class for the part of that rank."""
    return f"c{min(rank, COLOURS - 1)}"


def swatch(rank: int) -> Markup:
    """A small square in the colour of a part."""
    square = element("rect", width=12, height=12, rx=2, class_=colour_of(rank))
    return element("svg", square, width=12, height=12, aria_hidden="true", class_="swatch")


def stacked_bars(label: str, bars: Mapping[str, Mapping[str, float]], parts: Sequence[str], show: Show) -> Markup:
    """Horizontal bars made of parts, all on one scale, with their totals.

    Args:
        label: what the drawing shows.
        bars: name of a bar → part → amount.
        parts: every part, in the order in which it is stacked and coloured.
        show: writes a total.
    """
    largest = max((sum(bar.values()) for bar in bars.values()), default=0.0)
    scale = _LONGEST / largest if largest > 0 else 0.0
    shapes = [
        shape
        for index, (name, bar) in enumerate(bars.items())
        for shape in _stack(name, [(part, bar.get(part, 0.0)) for part in parts], 6.0 + 38 * index, scale, show)
    ]
    return drawing(720, 6 + 38 * len(bars), label, *shapes)


def _stack(name: str, parts: list[tuple[str, float]], top: float, scale: float, show: Show) -> list[Markup]:
    """One bar: its name, its parts from left to right, its total."""
    x = _NAMES
    shapes = [element("text", name, x=x - 10, y=top + 17, text_anchor="end")]
    for rank, (part, amount) in enumerate(parts):
        width = amount * scale
        if width > 0:
            hint = element("title", f"{name}, {part}: {show(amount)}")
            shown = width - min(1.5, width / 3)  # the gap shows where a part ends, without colour
            shapes.append(element("rect", hint, x=x, y=top, width=shown, height=26, class_=colour_of(rank)))
            x += width
    total = show(sum(amount for _, amount in parts))
    return [*shapes, element("text", total, x=x + 8, y=top + 17, class_="strong")]


def interval(label: str, marks: tuple[float, float, float], words: tuple[str, str, str], factor: float) -> Markup:
    """A drop with its upper bound against the limit: point, interval, and the zone that the goal forbids.

    Args:
        label: what the drawing shows.
        marks: the estimate, its upper bound, and the largest drop that the goal allows.
        words: the same, written out.
        factor: from a drop to the unit of the scale below (100 for percentage points).
    """
    drop, bound, limit = marks
    low, high = min(0.0, *marks), max(0.0, *marks)
    span = (high - low) or 1e-6
    axis = Axis((low - 0.08 * span) * factor, (high + 0.16 * span) * factor)

    def at(value: float) -> float:
        return _LEFT + (_RIGHT - _LEFT) * axis.place(value * factor)

    kind = "met" if bound <= limit else "unmet"
    border = at(limit)
    return drawing(
        720,
        130,
        label,
        element("rect", x=border, y=26, width=_RIGHT - border, height=76, class_="forbidden"),
        upright(at(0.0), 26, 102, "grid"),
        upright(border, 26, 102, "limit"),
        _words(f"the goal's limit: {words[2]}", border, 18),
        element("line", x1=_LEFT, x2=at(bound), y1=66, y2=66, class_="reach"),
        element("line", x1=at(drop), x2=at(bound), y1=66, y2=66, class_=f"span {kind}"),
        upright(at(bound), 57, 75, f"cap {kind}"),
        element("circle", cx=at(drop), cy=66, r=7, class_=f"point {kind}"),
        _words(f"measured: {words[0]}", at(drop), 48, border),
        _words(f"at most {words[1]}", at(bound), 92, border),
        element("line", x1=_LEFT, x2=_RIGHT, y1=102, y2=102, class_="axis"),
        *(part for value in axis.ticks() for part in _tick(at(value / factor), value)),
    )


def upright(x: float, top: float, bottom: float, kind: str) -> Markup:
    """A vertical line."""
    return element("line", x1=x, x2=x, y1=top, y2=bottom, class_=kind)


def _tick(x: float, value: float) -> tuple[Markup, Markup]:
    words = element("text", f"{value:g}", x=x, y=122, text_anchor="middle", class_="soft")
    return upright(x, 102, 107, "axis"), words


def _words(words: str, x: float, y: float, border: float | None = None) -> Markup:
    """Text centred on a place, moved aside where it would cross a border or leave the drawing."""
    half = len(words) * _CHARACTER / 2
    place = x
    if border is not None:
        place = min(x, border - half) if x <= border else max(x, border + half)
    inside = min(max(place, _LEFT + half), _RIGHT - half)
    return element("text", words, x=inside, y=y, text_anchor="middle", class_="soft" if border is None else "strong")
