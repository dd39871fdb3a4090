"""HTML and SVG put together from values: everything that isn't :class:`Markup` already is escaped."""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence

_VOID = {"meta"}


class Markup(str):
    """Text that is HTML already; only :func:`element` and its kin make it."""

    __slots__ = ()


def escaped(value: object) -> Markup:
    """Any value as HTML text; what UTF-8 can't hold (lone surrogates of odd file names) is spelled out."""
    if isinstance(value, Markup):
        return value
    return Markup(html.escape(str(value).encode("utf-8", "backslashreplace").decode()))


def element(tag: str, *children: object, **attributes: object) -> Markup:
    """``<tag attributes>children</tag>``.

    Args:
        tag: the element's name.
        children: markup is taken as it is, everything else is escaped; None is left out.
        attributes: ``class_`` is written ``class``, ``aria_label`` is written ``aria-label``; None is left out, True
            stands alone, reals are written with two decimals.
    """
    words = "".join(_attribute(name, value) for name, value in attributes.items() if value is not None)
    if tag in _VOID:
        return Markup(f"<{tag}{words}>")
    return Markup(f"<{tag}{words}>{joined(children)}</{tag}>")


def joined(children: Iterable[object]) -> Markup:
    """Markup and text in a row; None is left out."""
    return Markup("".join(escaped(child) for child in children if child is not None))


def _attribute(name: str, value: object) -> str:
    name = name.rstrip("_").replace("_", "-")
    if value is True:
        return f" {name}"
    return f' {name}="{escaped(f"{value:.2f}" if isinstance(value, float) else value)}"'


def section(anchor: str, title: str, *children: object) -> Markup:
    """A part of the page with its heading."""
    heading = element("h2", title, id=f"{anchor}-title")
    return element("section", heading, *children, id=anchor, aria_labelledby=f"{anchor}-title")


def column(*children: object, number: bool = False, sortable: bool = False) -> Markup:
    """The header of a column.

    Args:
        children: what stands in it.
        number: aligned to the right.
        sortable: the page's script lets readers sort by it.
    """
    kind = "number" if number else None
    return element("th", *children, scope="col", class_=kind, data_sort=sortable or None)


def cell(*children: object, value: float | None = None, number: bool = False, span: int | None = None) -> Markup:
    """A table's cell.

    Args:
        children: what stands in it.
        value: what it is sorted by, where that isn't its text; makes it a number.
        number: aligned to the right.
        span: columns that it covers.
    """
    kind = "number" if number or value is not None else None
    return element("td", *children, class_=kind, colspan=span, data_value=None if value is None else repr(value))


def row(header: object, *cells: Markup, kind: str | None = None) -> Markup:
    """A table's row: its header, and cells from :func:`cell`."""
    return element("tr", element("th", header, scope="row"), *cells, class_=kind)


def table(caption: str, columns: Sequence[Markup], rows: Iterable[Markup], kind: str | None = None) -> Markup:
    """A table in a frame that scrolls sideways on narrow screens.

    Args:
        caption: what it shows, for those who listen to the page.
        columns: from :func:`column`.
        rows: from :func:`row`.
        kind: the table's class.
    """
    parts = (
        element("caption", caption),
        element("thead", element("tr", *columns)),
        element("tbody", *rows),
    )
    made = element("table", *parts, class_=kind)
    return element("div", made, class_="scroll", tabindex=0, role="region", aria_label=caption)
