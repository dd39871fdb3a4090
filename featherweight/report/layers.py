"""Every layer: what was chosen, what it saves, what couldn't be done."""

from __future__ import annotations

from featherweight.contracts import LayerStory, Story
from featherweight.report import figures
from featherweight.report.charts import pair_bar
from featherweight.report.markup import Markup, cell, column, element, row, section, table


def layers(story: Story) -> Markup:
    """The table of all layers in execution order."""
    largest = max((max(one.before.size_bytes, one.after.size_bytes) for one in story.layers), default=0)
    heads = [
        column("Layer", sortable=True),
        column("Chosen", sortable=True),
        *(column(words, number=True, sortable=True) for words in ("Bytes before", "Bytes after")),
        column(),
        *(column(words, number=True, sortable=True) for words in ("MACs", "Predicted divergence", "Options")),
    ]
    rows = [_layer(one, largest) for one in story.layers]
    kept = sum(one.chosen == "keep" for one in story.layers)
    intro = element(
        "p",
        f"{len(story.layers):,} layers with weights, in execution order; {kept:,} without change. Bytes are "
        "weights, biases and scales as stored for the target. The divergence is what the choice was predicted to "
        "change at the network's outputs.",
    )
    return section("layers", "Layer by layer", intro, table("Choice and cost of every layer", heads, rows, "layers"))


def _layer(one: LayerStory, largest: int) -> Markup:
    shapes = f"{one.kind}, {figures.shape(one.input_shape)} → {figures.shape(one.output_shape)}"
    name = element("span", element("b", one.name), element("small", shapes))
    return row(
        name,
        cell(_steps(one.chosen), _refused(one.refused)),
        cell(f"{one.before.size_bytes:,}", value=one.before.size_bytes),
        cell(f"{one.after.size_bytes:,}", value=one.after.size_bytes),
        cell(pair_bar(one.before.size_bytes, one.after.size_bytes, largest)),
        cell(_macs(one), value=one.after.macs),
        cell(figures.plain(one.divergence), value=one.divergence),
        cell(f"{one.options:,}", value=one.options),
    )


def _macs(one: LayerStory) -> Markup:
    """Those that are left, with those that were there where they differ."""
    was = element("small", f"of {one.before.macs:,}") if one.before.macs != one.after.macs else None
    return element("span", f"{one.after.macs:,}", was)


def _steps(chosen: str) -> Markup:
    """The steps, one a line, with their settings; a kept layer stands back."""
    if chosen == "keep":
        return element("span", "kept as it is", class_="soft")
    steps = [step.partition("(") for step in chosen.split(" > ")]
    lines = [
        element("span", element("b", name), element("small", inside.removesuffix(")"))) for name, _, inside in steps
    ]
    return element("span", *lines, class_="steps")


def _refused(refused: tuple[str, ...]) -> Markup | None:
    if not refused:
        return None
    items = [element("li", reason) for reason in refused]
    return element("details", element("summary", f"{len(refused)} refused"), element("ul", *items))
