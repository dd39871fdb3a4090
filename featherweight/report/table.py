"""Original and artefact side by side, for the terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from featherweight.contracts import Story
from featherweight.report.comparison import Row, comparison

if TYPE_CHECKING:
    from rich.table import Table

_HEADS = ("", "Original", "Artefact", "Change")


def summary_table(story: Story) -> Table:
    """The table with the verdict below it."""
    from rich.table import Table  # noqa: PLC0415  (a quarter of our import time, and only a terminal needs it)
    from rich.text import Text  # noqa: PLC0415

    # Text, because a str would be read as rich's markup, and a verdict may hold square brackets.
    table = Table(caption=Text(_sentence(story)), caption_justify="left", caption_style="bold")
    for index, head in enumerate(_HEADS):
        table.add_column(head, justify="right" if index in (1, 2) else "left")
    for one in _rows(story):
        table.add_row(*(Text(part) for part in _parts(one)))
    return table


def summary_lines(story: Story) -> str:
    """The same as plain text, for logs and pipes."""
    lines = [_HEADS, *(_parts(one) for one in _rows(story))]
    widths = [max(len(line[index]) for line in lines) for index in range(len(_HEADS))]
    texts = [
        f"{label:<{widths[0]}}  {before:>{widths[1]}}  {after:>{widths[2]}}  {change}".rstrip()
        for label, before, after, change in lines
    ]
    return "\n".join([*texts, "", _sentence(story)])


def _rows(story: Story) -> tuple[Row, ...]:
    """Metric, file, MACs and time: what a goal is about."""
    metric, *rest = comparison(story)
    rows = {row.label: row for row in rest}
    return metric, rows["File"], rows["MACs"], rows["Time for a sample"]


def _parts(one: Row) -> tuple[str, str, str, str]:
    return one.label, one.original, one.artefact, one.change


def _sentence(story: Story) -> str:
    return f"{'✓' if story.met else '✗'} {story.verdict}"
