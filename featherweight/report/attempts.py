"""The correction loop: what every attempt promised, and what its file did on validation data."""

from __future__ import annotations

import math

from featherweight.contracts import Attempt, Story
from featherweight.report import figures
from featherweight.report.axes import axis_around
from featherweight.report.comparison import Unit, titled
from featherweight.report.markup import Markup, cell, column, element, row, section, table
from featherweight.report.scatter import Point, Scale, scatter


def attempts(story: Story) -> Markup:
    """The attempts as a table and as two drawings."""
    if not story.attempts:
        return section("attempts", "Attempts", element("p", "The plan was given, so nothing was searched."))
    intro = element(
        "p",
        "Each attempt is a plan, made into a file and measured on validation data. That steers the search and proves "
        "nothing; the certificate comes from test data.",
    )
    return section("attempts", "Attempts", intro, _table(story), _drawings(story))


def _table(story: Story) -> Markup:
    metric = titled(story.certificate.metric)
    words = ("Predicted divergence", "Measured divergence", "Bytes", "MACs", "Samples", metric, "Drop, at most")
    heads = [column("Attempt"), *(column(head, number=True) for head in words), column("On validation data")]
    return table("Attempts of the correction loop", heads, [_attempt(one, story) for one in story.attempts], "attempts")


def _attempt(one: Attempt, story: Story) -> Markup:
    chosen, unit = _is_chosen(one, story), Unit.of(story)
    name = element("span", f"{one.number}", element("small", "shipped") if chosen else None, _turned(one))
    return row(
        name,
        cell(figures.plain(one.predicted_divergence), number=True),
        cell(figures.plain(one.measured_divergence), number=True),
        cell(f"{one.size_bytes:,}", number=True),
        cell(f"{one.macs:,}", number=True),
        cell(f"{one.check.samples:,}", number=True),
        cell(unit.level(one.check.artefact), number=True),
        cell(unit.above(one.check.drop_bound), number=True),
        cell("✓ within the goal" if one.check.holds else "✗ beyond the goal"),
        kind="chosen" if chosen else None,
    )


def _turned(one: Attempt) -> Markup | None:
    """What the search over the global knobs turned, in words."""
    return element("small", str(one.plan.knobs)) if one.plan.knobs.turned else None


def _is_chosen(one: Attempt, story: Story) -> bool:
    same = (one.plan.choices, one.plan.knobs) == (story.plan.choices, story.plan.knobs)
    return same and one.size_bytes == story.compressed.artefact.size_bytes


def _drawings(story: Story) -> Markup:
    """Prediction against measurement, and size against the drop; what has no place on a scale is named."""
    predicted = [one for one in story.attempts if _is_drawn(one.predicted_divergence, one.measured_divergence)]
    bounded = [one for one in story.attempts if math.isfinite(one.check.drop_bound)]
    pictures = []
    if predicted:
        left_out = [one.number for one in story.attempts if one not in predicted]
        words = "On the dashed line the prediction is right. The thin line joins the attempts in order."
        pictures.append(_framed(_divergences(predicted, story), words, left_out))
    if bounded:
        left_out = [one.number for one in story.attempts if one not in bounded]
        words = "Above the dashed line the drop may be larger than the goal allows."
        pictures.append(_framed(_trade(bounded, story), words, left_out))
    return element("div", *pictures, class_="pictures")


def _is_drawn(*values: float) -> bool:
    return all(math.isfinite(value) and value > 0 for value in values)


def _framed(image: Markup, words: str, left_out: list[int]) -> Markup:
    if left_out:
        words += f" Not drawn, since a figure is zero or infinite: {', '.join(map(str, left_out))}."
    caption = element("figcaption", words)
    return element("figure", element("div", image, class_="drawing"), caption)


def _point(one: Attempt, story: Story, x: float, y: float) -> Point:
    kind = ("met" if one.check.holds else "unmet") + (" chosen" if _is_chosen(one, story) else "")
    return Point(x, y, str(one.number), kind, f"attempt {one.number}: {one.size_bytes:,} B")


def _divergences(drawn: list[Attempt], story: Story) -> Markup:
    values = [value for one in drawn for value in (one.predicted_divergence, one.measured_divergence)]
    axis = axis_around(values, logarithmic=True)
    points = [_point(one, story, one.predicted_divergence, one.measured_divergence) for one in drawn]
    return scatter(
        "Measured against predicted divergence of every attempt",
        Scale(axis, "predicted divergence", figures.plain),
        Scale(axis, "measured divergence", figures.plain),
        points,
        (axis.low, axis.low, axis.high, axis.high),
    )


def _trade(drawn: list[Attempt], story: Story) -> Markup:
    factor, limit = Unit.of(story).factor, story.goal.max_drop
    title = f"{story.certificate.metric} lost, at most" + (" (points)" if Unit.of(story).counted else "")
    across = axis_around(one.size_bytes for one in drawn)
    upwards = axis_around([factor * value for value in (limit, *(one.check.drop_bound for one in drawn))])
    return scatter(
        "Bound on the drop against bytes of every attempt",
        Scale(across, "size of the file", lambda value: figures.short_bytes(value).replace(".0 ", " ")),
        Scale(upwards, title, "{:g}".format),
        [_point(one, story, one.size_bytes, factor * one.check.drop_bound) for one in drawn],
        (across.low, factor * limit, across.high, factor * limit),
    )
