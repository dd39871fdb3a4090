from __future__ import annotations

from featherweight.contracts import Churn, Goal, GroupProof, Story
from featherweight.report import card_of, page_of
from featherweight.report.comparison import bounded_drop, goal_in_words, measured_drop
from tests.report.documents import Document
from tests.report.stories import certificate, story

GROUPS = (
    GroupProof("<cat>", 900, 0.95, 0.93, 0.02, 0.041, False, "Loses too much.", 2_000, "accuracy", True),
    GroupProof("dog", 1, 1.0, 1.0, 0.0, None, False, "One sample supports no claim.", 300, "accuracy", True),
    GroupProof("eel", 800, 0.9, 0.9, 0.0, 0.0123, True, "Loses at most 1.23 points.", None, "accuracy", True),
)


def grouped(**changes) -> Story:
    proof = certificate(groups=GROUPS, churn=Churn(10_000, 250, 71, 64, 115), smallest_provable=0.0003, **changes)
    return story(certificate=proof, goal=Goal(max_group_drop=0.03))


def test_every_group_stands_in_the_page_with_its_claim() -> None:
    text = " ".join(Document(page_of(grouped())).text.split())
    assert "Who pays" in text
    for one in GROUPS:
        assert one.group in text
        assert one.statement in text
    assert "95.00 %" in text
    assert "4.10 points" in text
    assert "no claim" in text
    assert "Measured by accuracy. All bounds hold together, with 95 % confidence." in text
    assert "can't be shown for 2 of 3" in text
    assert "<cat>" not in page_of(grouped())


def test_without_groups_there_is_no_such_part() -> None:
    assert "Who pays" not in page_of(story())


def test_churn_and_what_the_test_set_can_prove() -> None:
    text = " ".join(Document(page_of(grouped())).text.split())
    assert "250 (2.50 %): 71 from right to wrong, 64 from wrong to right, 115 from wrong to wrong" in text
    assert "0.03 points, if not a single answer is lost" in text


def test_what_was_tested_is_told_word_for_word() -> None:
    assert "Tested on <all> samples." in Document(page_of(grouped(tested="Tested on <all> samples."))).text


def test_a_test_set_that_was_looked_at_before_is_told() -> None:
    assert "used once, after the last choice" in page_of(grouped())
    text = Document(page_of(grouped(looks=3))).text
    assert "this test set has been looked at 3 times" in text
    assert "used once" not in text


def test_the_card_has_it_all() -> None:
    card = card_of(grouped(looks=2))["certificate"]
    assert card["churn"]["both_wrong"] == 115
    assert [one["group"] for one in card["groups"]] == ["<cat>", "dog", "eel"]
    assert card["groups"][1]["drop_bound"] is None
    assert card["looks"] == 2


def test_a_metric_that_is_better_when_it_falls() -> None:
    proof = certificate(metric="perplexity", lost=None, gained=None, higher_is_better=False, original=4.0, artefact=4.1)
    rising = story(certificate=proof)
    assert measured_drop(rising) == "0.0007 added"
    assert bounded_drop(rising) == "at most 0.0026 added"
    assert goal_in_words(rising).startswith("the smallest file that adds at most 0.01 of perplexity")


def test_goals_in_words() -> None:
    goal = Goal(max_drop=0.02, relative=True, max_group_drop=0.05, minimize="latency", max_memory_bytes=1_000)
    assert goal_in_words(story(goal=goal)) == (
        "the fastest network that loses at most 2 % of the original's accuracy, 95 % sure; at most 5 % in every group; "
        "at most 1,000 B (1.0 kB) of activations"
    )


def test_the_limit_of_a_relative_goal_is_drawn_where_it_was_tested() -> None:
    told = story(certificate=certificate(limit=0.00912, points=True), goal=Goal(max_drop=0.01, relative=True))
    assert "0.912 points" in page_of(told)
