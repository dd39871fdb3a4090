"""Coupled channels: what was asked of every unit, what was reached, and which groups mattered."""

from __future__ import annotations

from featherweight.contracts import Story, UnitStory
from featherweight.report import figures
from featherweight.report.markup import Markup, cell, column, element, row, section, table


def channels(story: Story) -> Markup | None:
    """The table of units that lost channels; nothing where none did."""
    if not story.units:
        return None
    heads = [
        column("Channels of", sortable=True),
        column("Tied layers"),
        *(column(words, number=True, sortable=True) for words in ("Had", "Asked to keep", "Kept", "Parameters gone")),
        column("Chosen by"),
        column("Predicted divergence", number=True, sortable=True),
    ]
    intro = element(
        "p",
        f"{len(story.units):,} units of coupled channels got narrower. Channels are tied where removing one means "
        "removing it everywhere; what was kept is counted on the smaller network.",
    )
    rows = [_unit(one) for one in story.units]
    made = table("Channels asked for and reached", heads, rows, "channels")
    return section("channels", "Channels", intro, made, *(_scores(one) for one in story.units if one.scores))


def _unit(one: UnitStory) -> Markup:
    tied = ", ".join(one.layers[:4]) + (f" and {len(one.layers) - 4} more" if len(one.layers) > 4 else "")
    note = element("small", one.explanation) if one.explanation else None
    return row(
        element("span", element("b", one.unit), note),
        cell(tied),
        cell(f"{one.groups:,}", value=one.groups),
        cell(f"{one.asked:,}", value=one.asked),
        cell(f"{one.reached:,}", value=one.reached),
        cell(f"{one.parameters:,}", value=one.parameters),
        cell(one.criterion),
        cell(figures.plain(one.divergence), value=one.divergence),
    )


def _scores(one: UnitStory) -> Markup:
    """The groups of a unit by what the outputs lose without them, the most important first."""
    ranked = sorted(one.scores, key=lambda score: -score.score)
    heads = [
        column("Group", number=True),
        *(column(words, number=True) for words in ("Score", "Standard error")),
        column("Kept"),
    ]
    rows = [
        row(
            f"{score.group:,}",
            cell(figures.plain(score.score), value=score.score),
            cell("–" if score.standard_error is None else figures.plain(score.standard_error), number=True),
            cell("yes" if score.kept else "no"),
        )
        for score in ranked
    ]
    words = f"{one.unit}: {len(rows)} groups by {one.criterion} score"
    return element("details", element("summary", words), table(words, heads, rows, f"scores-{one.unit}"))
