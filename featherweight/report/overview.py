"""The top of the page: the verdict, the claim word for word, and both files side by side."""

from __future__ import annotations

import math

from featherweight.contracts import Churn, Parity, Story
from featherweight.report import figures
from featherweight.report.charts import interval, pair_bar
from featherweight.report.comparison import (
    Row,
    Unit,
    bounded_drop,
    comparison,
    goal_in_words,
    limit_of,
    measured_drop,
    titled,
    ways,
)
from featherweight.report.markup import Markup, cell, column, element, row, section, table
from featherweight.report.who_pays import who_pays

_TICK = "M5 12.5 L10 17.5 L19 7"
_CROSS = "M7 7 L17 17 M17 7 L7 17"


def verdict(story: Story) -> Markup:
    """Met or not, the verdict with the certificate's statement set apart, and the goal."""
    statement = story.certificate.statement
    before, found, after = story.verdict.partition(statement)
    if not found:
        before, after = story.verdict, ""
    mark = "Goal met" if story.met else "Goal not met"
    return element(
        "header",
        element("div", _mark(mark, story.met), element("h1", before.strip() or f"{mark}."), class_="mark"),
        element("blockquote", element("p", statement)) if statement else None,
        element("p", after.strip(), class_="lead") if after.strip() else None,
        element("p", element("b", "The goal: "), f"{goal_in_words(story)}.", class_="goal"),
        _headline(story),
        class_="met" if story.met else "unmet",
        id="verdict",
    )


def _mark(words: str, met: bool) -> Markup:
    """A tick or a cross in a circle: told by shape, not by colour alone."""
    path = element("path", d=_TICK if met else _CROSS)
    circle = element("circle", cx=12, cy=12, r=12)
    return element("svg", element("title", words), circle, path, viewBox="0 0 24 24", role="img", aria_label=words)


def _headline(story: Story) -> Markup:
    """The three figures that people ask for first."""
    one, files = story.certificate, (story.original.artefact.size_bytes, story.compressed.artefact.size_bytes)
    rows = {row.label: row for row in comparison(story)}
    file, time = rows["File"], rows["Time for a sample"]
    tiles = [
        _tile(f"{file.change} file", " → ".join(map(figures.short_bytes, files))),
        _tile(time.change, f"{time.original} → {time.artefact} for a sample"),
        _tile(bounded_drop(story), f"{figures.confidence(one.confidence)} sure; measured: {measured_drop(story)}"),
    ]
    return element("ul", *tiles, class_="tiles")


def _tile(claim: str, words: str) -> Markup:
    """A claim with its figure in large, and where it comes from."""
    parts = [element("b", part) if part[:1].isdigit() else part for part in claim.split(" ")]
    spaced = [piece for part in parts for piece in (part, " ")]
    return element("li", element("strong", *spaced[:-1]), element("span", words))


def side_by_side(story: Story) -> Markup:
    """Every measure of the original and of the artefact."""
    columns = [column("Measure"), column("Original", number=True), column("Artefact", number=True)]
    made = table(
        "Original and artefact side by side",
        [*columns, column("Change"), column()],
        [_compared(one) for one in comparison(story)],
        "compare",
    )
    before, after = story.original.timing, story.compressed.timing
    threads = f"{after.threads} thread{'s' if after.threads != 1 else ''}"
    note = element(
        "p",
        f"Times are medians of {after.runs:,} runs in {story.compressed.artefact.target} on {threads} of "
        f"{story.device}, both files in turns; nine of ten runs took at most {figures.milliseconds(before.p90_ms)} and "
        f"{figures.milliseconds(after.p90_ms)}. Activation memory is what is live at once, read off each file.",
        class_="note",
    )
    return section("compare", "Before and after", made, note)


def _compared(one: Row) -> Markup:
    both = cell(one.original, number=True), cell(one.artefact, number=True)
    if one.amounts is None:
        return row(one.label, *both, cell(one.change, span=2))
    return row(one.label, *both, cell(one.change), cell(pair_bar(*one.amounts, max(one.amounts))))


def proof(story: Story) -> Markup:
    """The drop with its bound against the limit, and what was counted."""
    one, unit, limit = story.certificate, Unit.of(story), limit_of(story)
    label = f"{measured_drop(story)}; {bounded_drop(story)}; the goal allows {unit.exact(limit)}"
    marks = (one.drop, one.drop_bound, limit)
    if all(map(math.isfinite, marks)):
        texts = unit.near(one.drop), unit.above(one.drop_bound), unit.exact(limit)
        image = interval(label, marks, texts, unit.factor)
        points = ", in points" if unit.counted else ""
        words = f"{titled(one.metric)} {ways(story)[0]}{points}; left of zero the artefact is better than the original."
        picture = element("figure", element("div", image, class_="drawing"), element("figcaption", words))
    else:
        picture = element("p", f"There is no drawing, since the loss or its bound is no finite number: {label}.")
    return section("certificate", "The certificate", picture, _facts(story), who_pays(story), _parity(story))


def _facts(story: Story) -> Markup:
    """What was counted, as a list of terms."""
    one, unit = story.certificate, Unit.of(story)
    source = "labels" if story.labelled else "the original's own answers, since there were no labels"
    facts = [
        ("Test samples", _touched(story)),
        ("Measured against", source),
        (titled(one.metric), f"{unit.level(one.original)} before, {unit.level(one.artefact)} after"),
    ]
    if one.lost is not None and one.gained is not None:
        facts.append(("Answers", f"{one.lost:,} turned wrong, {one.gained:,} turned right"))
    if one.churn is not None:
        share = figures.percent(one.churn.changed / max(1, one.churn.samples))
        facts.append(("Answers changed in all", f"{one.churn.changed:,} ({share}): {_churned(one.churn)}"))
    if one.smallest_provable is not None:
        least = f"{unit.above(one.smallest_provable)}, if not a single answer is lost"
        facts.append(("Smallest drop that this test set can prove", least))
    if one.tested:
        facts.append(("What was tested", one.tested))
    facts.append(("Bound", f"{one.bound_method}, one-sided, paired, {figures.confidence(one.confidence)} confidence"))
    if not one.holds:
        needed = one.samples_needed
        more = "more would not help" if needed is None else f"about {figures.about(needed)}"
        facts.append(("Samples that would do at these rates", more))
    items = [element("div", element("dt", term), element("dd", meaning)) for term, meaning in facts]
    return element("dl", *items)


def _touched(story: Story) -> str:
    """How often the test samples were looked at: once, or by whom else."""
    one = story.certificate
    if one.looks == 1:
        return f"{one.samples:,}, used once, after the last choice"
    return (
        f"{one.samples:,}; this test set has been looked at {one.looks:,} times in this run's folder, by as many "
        "artefacts: to keep the best of them is to choose by test data, which this certificate can't make up for"
    )


def _churned(churn: Churn) -> str:
    """Which way answers changed."""
    return (
        f"{churn.lost:,} from right to wrong, {churn.gained:,} from wrong to right, {churn.both_wrong:,} from wrong to "
        "wrong"
    )


def _parity(story: Story) -> Markup:
    """How well both files agree with the networks that they were lowered from."""

    def words(one: Parity) -> list[Markup]:
        differences = (figures.plain(value) for value in (one.largest, one.mean, one.spread))
        texts = (f"{one.samples:,}", *differences, figures.percent(one.same_answers))
        return [cell(text, number=True) for text in texts]

    heads = ("Samples", "Largest difference", "Mean difference", "Spread of outputs", "Same answers")
    return element(
        "details",
        element("summary", "Does each file compute what its network computes?"),
        table(
            "Agreement of each file with the network that it was lowered from",
            [column("File"), *(column(head, number=True) for head in heads)],
            [row("Original", *words(story.original.parity)), row("Artefact", *words(story.compressed.parity))],
        ),
    )
