"""Where the figures come from: refusals, samples, hashes, versions, device."""

from __future__ import annotations

from collections.abc import Mapping

from featherweight.contracts import Refusal, Story
from featherweight.report.markup import Markup, cell, column, element, row, section, table


def refusals(story: Story) -> Markup:
    """Everything that was wanted and couldn't be done, with the way out where there is one."""
    title = "What couldn't be done"
    if not story.refusals:
        return section("refusals", title, element("p", "Nothing was refused."))
    heads = [column(words) for words in ("Where", "Wanted", "Reason", "What would make it possible")]
    intro = element("p", "Nothing is skipped silently: what a method or the target can't do here is listed.")
    rows = [_refusal(one) for one in story.refusals]
    fold = element(
        "details",
        element("summary", f"{len(rows):,} refusal{'s' if len(rows) != 1 else ''}"),
        table(title, heads, rows),
        open=len(rows) <= 12 or None,
    )
    return section("refusals", title, intro, fold)


def _refusal(one: Refusal) -> Markup:
    return row(element("code", one.subject), cell(one.action), cell(one.reason), cell(one.remedy or "–"))


def provenance(story: Story) -> Markup:
    """Samples, hashes, versions and the device, and how the figures came about."""
    artefact = story.compressed.artefact
    answers = "its labels" if story.labelled else "the original's own answers, since there were no labels"
    files = f"{story.original.artefact.file} and {artefact.file}"
    words = (
        f"Size, {story.certificate.metric} and time were measured on the files themselves, {files}, each run in "
        f"{artefact.target}. The search saw calibration and validation samples only (calibration: "
        f"{story.calibration}); test data were touched once, after the last choice, and compared with {answers}. "
        "MACs, parameters and activation memory are counted on the captured graphs. A divergence is a prediction where "
        "it says so."
    )
    return section(
        "provenance",
        "How these figures came about",
        element("p", words),
        *(element("p", sentence) for sentence in story.preparation),
        element(
            "div",
            _pairs(
                "Samples by split", "Split", "Samples", {name: f"{count:,}" for name, count in story.samples.items()}
            ),
            _pairs("Versions", "Package", "Version", story.versions),
            class_="columns",
        ),
        _pairs("SHA-256 of what went in and came out", "Of", "SHA-256", story.hashes, "hashes"),
        element("p", element("b", "Timed on: "), story.device),
        element(
            "p",
            "The same as data: ",
            element("code", "card.json"),
            ". The plan, to read, edit and replay: ",
            element("code", "plan.yaml"),
            ".",
        ),
    )


def _pairs(caption: str, left: str, right: str, pairs: Mapping[str, str], kind: str | None = None) -> Markup:
    rows = [
        row(name, cell(element("code", value) if kind else value, number=not kind)) for name, value in pairs.items()
    ]
    return element(
        "div", element("h3", caption), table(caption, [column(left), column(right, number=not kind)], rows, kind)
    )
