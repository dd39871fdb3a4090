from __future__ import annotations

import base64
import hashlib
import math
import re
from dataclasses import replace
from itertools import pairwise

import pytest

from featherweight.contracts import Cost, Goal, Refusal, Story
from featherweight.report import page_of
from featherweight.report.style import SCRIPT, STYLE
from tests.report.documents import Document
from tests.report.stories import certificate, story, unmet

HOSTILE = "<script>alert('x')</script>\"'&"


def hostile() -> Story:
    """A story whose every text of a user or a file tries to be markup."""
    one = story()
    first = replace(one.layers[0], name=HOSTILE, kind=HOSTILE, chosen=f"{HOSTILE}({HOSTILE}) > b", refused=(HOSTILE,))
    tensor = replace(one.compressed.artefact.inputs[0], name=HOSTILE, dtype=HOSTILE, layout=HOSTILE)
    artefact = replace(
        one.compressed.artefact,
        file=HOSTILE,
        inputs=(tensor,),
        outputs=(tensor,),
        operators={HOSTILE: 1},
        sha256=HOSTILE,
    )
    side = replace(one.compressed, artefact=artefact, parts={HOSTILE: 7}, operators_ms=((HOSTILE, 1.0),))
    return replace(
        one,
        certificate=certificate(metric=HOSTILE, statement=HOSTILE, bound_method=HOSTILE),
        verdict=f"{HOSTILE} and {HOSTILE}",
        compressed=side,
        layers=(first, *one.layers[1:]),
        refusals=(Refusal(HOSTILE, HOSTILE, HOSTILE, HOSTILE),),
        samples={HOSTILE: 1},
        hashes={HOSTILE: HOSTILE},
        versions={HOSTILE: HOSTILE},
        device=HOSTILE,
    )


def other_metric() -> Story:
    return story(
        certificate=certificate(metric="mIoU", lost=None, gained=None, bound_method="bootstrap", original=0.8123),
        goal=Goal(max_drop=0.02),
    )


def tiny() -> Story:
    """Nothing was measured, nothing was there."""
    one = story()
    side = replace(one.original, macs=0, parameters=0, peak_activation_bytes=0, operators_ms=(), parts={})
    proof = certificate(samples=1, drop=0.0, drop_bound=0.0, lost=0, gained=0, original=0.0, artefact=0.0)
    return replace(
        one,
        original=side,
        compressed=side,
        certificate=proof,
        goal=Goal(max_drop=0.0),
        layers=(),
        attempts=(),
        refusals=(),
    )


def huge() -> Story:
    """Figures beyond every scale, and figures that aren't numbers."""
    one = story()
    cost = Cost(10**18, 10**24, 10**17)
    rows = tuple(replace(row, before=cost, after=cost, divergence=math.inf, error=math.nan) for row in one.layers)
    side = replace(
        one.compressed, macs=10**24, parameters=10**17, operators_ms=(("A", 1e9), ("B", 1e-9)), parts={"w": 10**18}
    )
    check = certificate(drop=math.nan, drop_bound=math.inf, artefact=-1e12)
    bad = replace(one.attempts[0], measured_divergence=math.inf, predicted_divergence=0.0, check=check)
    return replace(one, compressed=side, layers=rows, attempts=(bad, *one.attempts[1:]), certificate=check, met=False)


STORIES = {"met": story, "unmet": unmet, "hostile": hostile, "other": other_metric, "tiny": tiny, "huge": huge}


@pytest.fixture(params=STORIES, name="told")
def _told(request) -> Story:
    return STORIES[request.param]()


def squeezed(words: str) -> str:
    return " ".join(words.split())


def test_tags_balance_and_nothing_is_loaded(told) -> None:
    page = page_of(told)
    assert page.startswith("<!doctype html>\n<html")
    document = Document(page)
    assert not re.search(r"https?://|@import|url\(", page)
    assert not [attributes for _, attributes in document.tags if "src" in attributes]
    assert all((one["href"] or "").startswith("#") for one in document.named("a"))
    assert {tag for tag, _ in document.tags}.isdisjoint({"link", "img", "iframe", "object", "embed", "base", "form"})


def test_the_page_is_complete(told) -> None:
    text = Document(page_of(told)).text
    for one in told.layers:
        assert one.name in text
        assert all(reason in text for reason in one.refused)
        assert f"{one.before.size_bytes:,}" in text
        assert f"{one.after.size_bytes:,}" in text
    for refusal in told.refusals:
        assert all(part in text for part in (refusal.subject, refusal.action, refusal.reason, refusal.remedy))
    for side in (told.original, told.compressed):
        tensors = (*side.artefact.inputs, *side.artefact.outputs)
        assert side is told.original or all(tensor.name in text for tensor in tensors)
        assert all(operator.partition(" ")[0] in text for operator in side.artefact.operators)
        assert all(part in text for part in side.parts)
    told_pairs = (*told.hashes.items(), *told.versions.items())
    assert all(key in text and value in text for key, value in told_pairs)
    assert all(name in text and f"{count:,}" in text for name, count in told.samples.items())
    assert told.device in text


def test_every_attempt_is_told() -> None:
    text = Document(page_of(story())).text
    for one in story().attempts:
        assert f"{one.size_bytes:,}" in text
    assert text.count("shipped") == 1
    assert "0.0552" in text


def test_the_statement_stands_once_word_for_word(told) -> None:
    text = Document(page_of(told)).text
    if told.certificate.statement != HOSTILE:
        assert text.count(told.certificate.statement) == 1
    assert told.certificate.statement in text


def test_nothing_hostile_becomes_markup() -> None:
    page = page_of(hostile())
    document = Document(page)
    assert page.count("<script") == 1
    assert [data for tag, data in document.texts if tag == "script"] == [SCRIPT]
    assert HOSTILE in document.text
    plain = Document(page_of(story()))
    assert {tag for tag, _ in document.tags} <= {tag for tag, _ in plain.tags}
    assert {name for _, one in document.tags for name in one} <= {name for _, one in plain.tags for name in one}


def test_met_and_unmet_are_told_by_words_and_shape() -> None:
    good, bad = Document(page_of(story())), Document(page_of(unmet()))
    assert ("h1", "Goal met.") in good.texts
    assert ("h1", "Goal not met; this is the nearest result.") in bad.texts
    assert ("title", "Goal not met") in bad.texts
    assert ("title", "Goal met") not in bad.texts
    assert "The smallest file in reach has 320,416 bytes; the goal allows 300,000." in bad.text
    assert "about 1,480" in bad.text
    assert bad.named("path")[0]["d"] != good.named("path")[0]["d"]


@pytest.mark.parametrize("met", [True, False])
def test_a_verdict_that_is_the_statement_alone(met) -> None:
    one = story(met=met, verdict=certificate().statement)
    assert ("h1", "Goal met." if met else "Goal not met.") in Document(page_of(one)).texts


def test_a_verdict_without_the_statement_is_shown_whole() -> None:
    document = Document(page_of(story(verdict="All is well.")))
    assert ("h1", "All is well.") in document.texts
    assert certificate().statement in document.text


def test_figures_that_are_no_numbers_have_no_drawing() -> None:
    text = Document(page_of(huge())).text
    assert "There is no drawing" in text
    assert "Not drawn, since a figure is zero or infinite: 1." in text


def test_a_given_plan_needs_no_attempts() -> None:
    assert "nothing was searched" in Document(page_of(tiny())).text


def test_channels_asked_for_and_kept_stand_with_the_reason_of_a_difference() -> None:
    page = page_of(story())
    assert "asked to keep 2 of 3, kept 1: layer3.2.conv1:groups took some of the same channels" in page
    assert "3 groups by shapley score" in page
    assert 'id="channels"' not in page_of(story(units=()))


def test_unlabelled_data_is_said() -> None:
    assert "the original's own answers" in Document(page_of(story(labelled=False))).text
    assert "the original's own answers" not in Document(page_of(story())).text


def test_integer_kernels_are_counted() -> None:
    text = Document(page_of(story())).text
    assert "39 of the artefact's 41 operators compute on integers." in text


def test_the_snippet_is_for_its_runtime_only() -> None:
    one = story()
    elsewhere = replace(one.compressed, artefact=replace(one.compressed.artefact, target="elsewhere"))
    assert "ai_edge_litert" in Document(page_of(one)).text
    assert "ai_edge_litert" not in Document(page_of(replace(one, compressed=elsewhere))).text


def test_headings_tables_and_drawings_are_named(told) -> None:
    document = Document(page_of(told))
    levels = [int(tag[1]) for tag, _ in document.tags if re.fullmatch("h[1-6]", tag)]
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))
    assert all(one.get("scope") in ("col", "row") for one in document.named("th"))
    assert len(document.named("caption")) == len(document.named("table"))
    assert all(one.get("aria-label") or one.get("aria-hidden") for one in document.named("svg"))
    assert ("html", {"lang": "en"}) in document.tags


def test_links_and_names_agree(told) -> None:
    document = Document(page_of(told))
    anchors = [one["id"] for _, one in document.tags if "id" in one]
    assert len(anchors) == len(set(anchors))
    assert {(one["href"] or "")[1:] for one in document.named("a")} <= set(anchors)
    assert {one["aria-labelledby"] for _, one in document.tags if "aria-labelledby" in one} <= set(anchors)


def test_browsers_run_this_script_and_load_nothing() -> None:
    document = Document(page_of(story()))
    (policy,) = [one["content"] for one in document.named("meta") if one.get("http-equiv") == "Content-Security-Policy"]
    (script,) = [data for tag, data in document.texts if tag == "script"]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert policy == f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{digest}'"


def test_the_interval_is_to_scale() -> None:
    page = page_of(story())
    (measured,) = re.findall(r'<circle cx="([\d.]+)" cy="66" r="7" class="point met">', page)
    (bound,) = re.findall(r'<line x1="([\d.]+)" x2="[\d.]+" y1="57.*? class="cap met">', page)
    (limit,) = re.findall(r'<line x1="([\d.]+)" x2="[\d.]+" y1="26" y2="102" class="limit">', page)
    measured, bound, limit = float(measured), float(bound), float(limit)
    assert (bound - measured) / (limit - measured) == pytest.approx((0.0026 - 0.0007) / (0.01 - 0.0007), abs=1e-3)


def luminance(colour: str) -> float:
    """WCAG 2.2's relative luminance of #rrggbb."""
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    red, green, blue = [one / 12.92 if one <= 0.04045 else ((one + 0.055) / 1.055) ** 2.4 for one in parts]
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one: str, other: str) -> float:
    dark, light = sorted((luminance(one), luminance(other)))
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("mode", ["light", "dark"])
def test_text_and_drawings_stand_out_from_their_paper(mode) -> None:
    light, dark = (
        dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6});", block)) for block in STYLE.split("@media (prefers")[:2]
    )
    colours = light if mode == "light" else dark
    assert len(light) == len(dark) > 15
    for text in ("ink", "soft", "accent", "met", "unmet"):
        for paper in ("paper", "card", "head"):
            assert contrast(colours[text], colours[paper]) >= 4.5, (text, paper)
    assert contrast(colours["met"], colours["met-tint"]) >= 4.5
    for mark in (name for name in colours if re.fullmatch(r"c\d", name)):
        assert contrast(colours[mark], colours["paper"]) >= 1.6, mark


def test_the_same_story_gives_the_same_page(told) -> None:
    assert page_of(told) == page_of(told)


def test_a_long_network_stays_quick_and_whole() -> None:
    one = story()
    rows = tuple(replace(one.layers[index % 19], name=f"block{index}") for index in range(400))
    assert len(re.findall(r"<b>block\d+</b>", page_of(replace(one, layers=rows)))) == 400


def test_the_words_of_the_verdict_are_whole() -> None:
    for one in (story(), unmet()):
        header = page_of(one).partition("<header")[2].partition("</header>")[0]
        assert squeezed(one.verdict) == squeezed(
            " ".join(re.findall(r'<(?:h1|p|p class="lead")>(.*?)</(?:h1|p)>', header))
        ).replace("&#x27;", "'")
