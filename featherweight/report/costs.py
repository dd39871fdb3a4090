"""Where the bytes and the milliseconds are, before and after."""

from __future__ import annotations

from collections.abc import Mapping

from featherweight.contracts import Side, Story
from featherweight.report import figures
from featherweight.report.charts import Show, stacked_bars, swatch
from featherweight.report.markup import Markup, cell, column, element, row, section, table


def operator_times(side: Side) -> dict[str, float]:
    """Operator → milliseconds for one sample, over all of its places in the graph."""
    times: dict[str, float] = {}
    for operator, spent in side.operators_ms:
        times[operator] = times.get(operator, 0.0) + spent
    return times


def costs(story: Story) -> Markup:
    """Both drawings, each with its table."""
    before, after = operator_times(story.original), operator_times(story.compressed)
    return section(
        "costs",
        "Where the bytes and the milliseconds are",
        element("h3", "Bytes of the file"),
        _breakdown("Bytes of the file by part", "Part", story.original.parts, story.compressed.parts, figures.size),
        element("h3", "Milliseconds by operator"),
        _breakdown("Milliseconds by operator", "Operator", before, after, figures.milliseconds),
        element(
            "p",
            "Every operator was timed alone, as a file of its own; what the runtime saves or spends between operators "
            "isn't in these figures, so that their sum isn't the time of the whole file.",
            class_="note",
        ),
    )


def _breakdown(label: str, head: str, before: Mapping[str, float], after: Mapping[str, float], show: Show) -> Markup:
    """Two stacked bars on one scale, and the same as a table that serves as legend."""
    parts = sorted({**before, **after}, key=lambda part: (-max(before.get(part, 0), after.get(part, 0)), part))
    if not parts:
        return element("p", "Nothing was measured here.", class_="note")
    image = stacked_bars(label, {"Original": before, "Artefact": after}, parts, show)

    def share(amounts: Mapping[str, float], part: str) -> list[Markup]:
        if part not in amounts:
            return [cell("–", number=True), cell("", number=True)]
        total = sum(amounts.values())
        portion = figures.percent(amounts[part] / total) if total else ""
        return [cell(show(amounts[part]), number=True), cell(portion, number=True)]

    rows = [
        row(element("span", swatch(rank), part), *share(before, part), *share(after, part))
        for rank, part in enumerate(parts)
    ]
    heads = [column(words, number=True) for words in ("Original", "Share", "Artefact", "Share")]
    legend = table(f"{label}, as a table", [column(head), *heads], rows, "legend")
    return element("figure", element("div", image, class_="drawing"), legend)
