"""What an app's developer needs: what goes in and comes out, what runs inside, and lines that run it."""

from __future__ import annotations

from featherweight.contracts import Artefact, Story, TensorSpec
from featherweight.report import figures
from featherweight.report.markup import Markup, cell, column, element, row, section, table
from featherweight.report.snippet import program_of


def deployment(story: Story) -> Markup:
    """The artefact from outside and from inside."""
    artefact = story.compressed.artefact
    return section(
        "use",
        "Use it",
        element("p", element("code", artefact.file), f" for {artefact.target}, {figures.size(artefact.size_bytes)}."),
        element("h3", "Inputs and outputs"),
        _tensors(artefact),
        _program(artefact),
        element("h3", "Operators"),
        _operators(story),
    )


def _tensors(artefact: Artefact) -> Markup:
    kinds = [("input", one) for one in artefact.inputs] + [("output", one) for one in artefact.outputs]
    heads = [column(words) for words in ("Tensor", "Direction", "Shape", "Type", "Layout")]
    heads += [column(words, number=True) for words in ("Scale", "Zero point")]
    rows = [_tensor(direction, one) for direction, one in kinds]
    note = "Where there is a scale, a real value is scale × (integer − zero point)."
    scaled = any(one.scale is not None for _, one in kinds)
    return element(
        "div", table("Inputs and outputs", heads, rows), element("p", note, class_="note") if scaled else None
    )


def _tensor(direction: str, one: TensorSpec) -> Markup:
    return row(
        element("code", one.name),
        cell(direction),
        cell(figures.shape(one.shape)),
        cell(_type(one.dtype)),
        cell(one.layout or "–"),
        cell("–" if one.scale is None else f"{one.scale:.9g}", number=True),
        cell("–" if one.zero_point is None else str(one.zero_point), number=True),
    )


def _type(name: str) -> Markup:
    """The name of a type; integers stand out, since integer kernels are what makes a file fast."""
    integer = name.startswith(("int", "uint"))
    return element("span", name, class_="type integer" if integer else "type")


def _program(artefact: Artefact) -> Markup | None:
    found = program_of(artefact)
    if found is None:
        return None
    program, package = found
    return element(
        "div",
        element("h3", "Run it in Python"),
        element("pre", element("code", program), tabindex=0),
        element("p", "Needs ", element("code", f"pip install {package}"), " and nothing else.", class_="note"),
    )


def _operators(story: Story) -> Markup:
    """Operators with the type that they compute on, in the original and in the artefact."""
    before, after = story.original.artefact.operators, story.compressed.artefact.operators
    rows = [
        row(
            element("code", operator),
            cell(_type(kind) if kind else "–"),
            *(cell(f"{one[name]:,}" if name in one else "–", number=True) for one in (before, after)),
        )
        for name in sorted({**before, **after})
        for operator, _, kind in [name.partition(" ")]
    ]
    integers = sum(count for name, count in after.items() if " int" in name or " uint" in name)
    words = f"{integers:,} of the artefact's {sum(after.values()):,} operators compute on integers."
    heads = [column("Operator"), column("Type"), column("Original", number=True), column("Artefact", number=True)]
    return element("div", element("p", words), table("Operators of both files", heads, rows, "operators"))
