"""Who pays: every class or group with what it loses, the worst first."""

from __future__ import annotations

from featherweight.contracts import GroupProof, Story
from featherweight.report import figures
from featherweight.report.comparison import Unit, ways
from featherweight.report.markup import Markup, cell, column, element, row, table

_OPEN = 12  # groups up to which the table stands open


def who_pays(story: Story) -> Markup | None:
    """The groups' table, sorted by drop; None where there are no groups."""
    groups = story.certificate.groups
    if not groups:
        return None
    worse = ways(story)[0]
    limited = story.goal.max_group_drop is not None
    heads = ("Samples", "Original", "Artefact", worse.capitalize(), "At most", "Claim")
    columns = [column("Group"), *(column(head, number=head != "Claim") for head in heads)]
    made = table(
        f"Classes or groups by what they {'lose' if worse == 'lost' else 'add'}, the worst first",
        columns,
        [_row(one, Unit(one.points, Unit.of(story).digits), limited) for one in groups],
    )
    failed = sum(not one.holds for one in groups)
    sure = figures.confidence(story.certificate.confidence)
    note = f"Measured by {groups[0].metric}. All bounds hold together, with {sure} confidence."
    if limited and failed:
        note += f" The goal for every group can't be shown for {failed:,} of {len(groups):,}."
    return element(
        "details",
        element("summary", "Who pays"),
        element("p", note, class_="note"),
        made,
        open=True if len(groups) <= _OPEN or failed else None,
    )


def _row(one: GroupProof, unit: Unit, limited: bool) -> Markup:
    bound = "no claim" if one.drop_bound is None else unit.above(one.drop_bound)
    mark = ("✓ " if one.holds else "✗ ") if limited else ""
    numbers = (f"{one.samples:,}", unit.level(one.original), unit.level(one.artefact), unit.near(one.drop), bound)
    return row(one.group, *(cell(number, number=True) for number in numbers), cell(mark + one.statement))
