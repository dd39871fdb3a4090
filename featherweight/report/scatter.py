"""Points on two axes, as SVG."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from featherweight.report.axes import Axis
from featherweight.report.charts import Show, drawing, upright
from featherweight.report.markup import Markup, element

_LEFT, _RIGHT, _TOP, _BOTTOM = 64.0, 344.0, 14.0, 214.0  # of the axes


@dataclass(frozen=True, slots=True)
class Point:
    """One thing in a scatter.

    Attributes:
        x, y: where.
        name: written beside it.
        kind: its class in the style sheet.
        hint: shown under the mouse.
    """

    x: float
    y: float
    name: str
    kind: str
    hint: str


@dataclass(frozen=True, slots=True)
class Scale:
    """An axis of a scatter with its words.

    Attributes:
        axis: its values.
        title: written along it.
        show: writes a mark.
    """

    axis: Axis
    title: str
    show: Show


def scatter(
    label: str, across: Scale, upwards: Scale, points: Sequence[Point], guide: tuple[float, float, float, float]
) -> Markup:
    """Points in the order given, joined by a thin line, with a dashed line to read them against.

    Args:
        label: what the drawing shows.
        across, upwards: its axes.
        points: in order.
        guide: x and y of the dashed line's start, x and y of its end.
    """
    places = [_at(across, upwards, point.x, point.y) for point in points]
    (x1, y1), (x2, y2) = (_at(across, upwards, *end) for end in (guide[:2], guide[2:]))
    return drawing(
        360,
        262,
        label,
        *(_column(_at(across, upwards, mark, upwards.axis.low)[0], across.show(mark)) for mark in across.axis.ticks(4)),
        *(_line(_at(across, upwards, across.axis.low, mark)[1], upwards.show(mark)) for mark in upwards.axis.ticks(5)),
        _title(across.title, "translate(204 254)"),
        _title(upwards.title, "translate(12 114) rotate(-90)"),
        element("line", x1=x1, y1=y1, x2=x2, y2=y2, class_="limit"),
        element("polyline", points=" ".join(f"{x:.2f},{y:.2f}" for x, y in places), class_="path"),
        *(_marked(place, point) for place, point in zip(places, points, strict=True)),
    )


def _at(across: Scale, upwards: Scale, x: float, y: float) -> tuple[float, float]:
    """From values to the drawing's coordinates."""
    return (
        _LEFT + (_RIGHT - _LEFT) * across.axis.place(x),
        _BOTTOM - (_BOTTOM - _TOP) * upwards.axis.place(y),
    )


def _column(x: float, words: str) -> Markup:
    """A thin upright line with its value below."""
    text = element("text", words, x=x, y=_BOTTOM + 18, text_anchor="middle", class_="soft")
    return element("g", upright(x, _TOP, _BOTTOM, "grid"), text)


def _line(y: float, words: str) -> Markup:
    """A thin level line with its value on the left."""
    text = element("text", words, x=_LEFT - 8, y=y + 4, text_anchor="end", class_="soft")
    return element("g", element("line", x1=_LEFT, x2=_RIGHT, y1=y, y2=y, class_="grid"), text)


def _title(words: str, place: str) -> Markup:
    return element("text", words, transform=place, text_anchor="middle", class_="soft")


def _marked(place: tuple[float, float], point: Point) -> Markup:
    x, y = place
    circle = element("circle", element("title", point.hint), cx=x, cy=y, r=5.5, class_=f"point {point.kind}")
    return element("g", circle, element("text", point.name, x=x + 9, y=y - 7, class_="strong"))
