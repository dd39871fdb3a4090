from __future__ import annotations

import json
import math
from dataclasses import fields, replace

from featherweight.contracts import Attempt, Certificate, Goal, Side, Story, Timing
from featherweight.report import card_of, card_text
from tests.report.stories import INT8, certificate, story


def slower(one: Story) -> Story:
    """The same job, timed on a bad day."""

    def late(side: Side) -> Side:
        times = tuple((name, 3.7 * spent) for name, spent in side.operators_ms)
        return replace(side, timing=Timing(9.9, 12.5, 80, 1), operators_ms=times)

    return replace(one, original=late(one.original), compressed=late(one.compressed))


def test_the_text_is_the_card() -> None:
    assert json.loads(card_text(story())) == card_of(story())


def test_the_same_story_gives_the_same_bytes() -> None:
    one = story()
    turned = replace(
        one,
        hashes=dict(reversed(list(one.hashes.items()))),
        plan=replace(one.plan, choices=dict(reversed(list(one.plan.choices.items())))),
    )
    assert turned == one
    assert card_text(turned) == card_text(one)


def test_times_stand_under_timings_and_nowhere_else() -> None:
    fast, slow = card_of(story()), card_of(slower(story()))
    assert fast.pop("timings") != slow.pop("timings")
    assert json.dumps(fast) == json.dumps(slow)
    assert "timing" not in json.dumps(fast)
    fast["goal"].pop("max_latency_ms")  # a limit, not a time
    assert "_ms" not in json.dumps(fast)


def test_timings_hold_every_operator_in_order() -> None:
    one = story()
    timings = card_of(one)["timings"]
    assert timings["compressed"]["timing"] == {"median_ms": 0.36, "p90_ms": 0.39, "runs": 100, "threads": 1}
    told = [(entry["operator"], entry["ms"]) for entry in timings["original"]["operators"]]
    assert told == list(one.original.operators_ms)


def test_every_field_of_the_story_is_told() -> None:
    card = card_of(story())
    assert list(card)[:6] == ["format", "version", "met", "verdict", "goal", "certificate"]
    assert (card["format"], card["version"]) == ("featherweight-card", 1)
    assert {one.name for one in fields(Story)} - {"table"} == set(card) - {"format", "version", "timings"}
    assert set(card["goal"]) == {one.name for one in fields(Goal)}
    assert set(card["certificate"]) == {one.name for one in fields(Certificate)}
    assert set(card["attempts"][0]) == {one.name for one in fields(Attempt)}
    assert set(card["compressed"]) == {one.name for one in fields(Side)} - {"timing", "operators_ms"}


def test_figures_are_the_storys() -> None:
    one, card = story(), card_of(story())
    assert card["compressed"]["artefact"]["sha256"] == one.compressed.artefact.sha256
    assert card["compressed"]["artefact"]["inputs"][0] == {
        "name": "serving_default_args_0:0", "shape": [1, 32, 32, 3], "dtype": "int8", "layout": "NHWC",
        "scale": 0.0186584480106831, "zero_point": -14,
    }  # fmt: skip
    assert card["samples"] == dict(one.samples)
    assert [refusal["reason"] for refusal in card["refusals"]] == [refusal.reason for refusal in one.refusals]


def test_a_choice_is_told_in_words_and_as_data() -> None:
    choice = card_of(story())["plan"]["choices"]["layer1.0.conv1"]
    assert choice["words"] == str(INT8)
    assert choice["steps"] == [{"method": "quantization", "settings": {"activations": "int8", "weights": "int8"}}]
    assert card_of(story())["plan"]["choices"]["head"] == {"words": "keep", "steps": []}


def test_what_json_cant_say_is_null() -> None:
    one = story()
    broken = replace(one.attempts[0], measured_divergence=math.inf, check=certificate(drop=math.nan))
    told = json.loads(card_text(replace(one, attempts=(broken,))))["attempts"][0]
    assert told["measured_divergence"] is None
    assert told["check"]["drop"] is None


def test_odd_characters_survive() -> None:
    odd = story(device="caf\udc80é ☃ <b>\"'\n")
    text = card_text(odd)
    assert json.loads(text.encode())["device"] == odd.device
    assert "é ☃" in text
