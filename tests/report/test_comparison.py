from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from featherweight.contracts import Goal
from featherweight.report.comparison import Unit, bounded_drop, comparison, goal_in_words, measured_drop, titled
from tests.report.stories import certificate, story


def test_the_rows_say_what_the_story_holds() -> None:
    rows = {one.label: one for one in comparison(story())}
    assert (rows["Accuracy"].original, rows["Accuracy"].artefact) == ("91.73 %", "91.66 %")
    assert rows["Accuracy"].change == "0.07 points lost; at most 0.26 points lost, 95 % sure"
    assert rows["File"].change == "3.45× smaller"
    assert rows["MACs"].original == "41.2 M MACs"
    assert (rows["Time for a sample"].artefact, rows["Time for a sample"].change) == ("0.36 ms", "2.61× faster")
    assert rows["Peak activation memory"].change == "unchanged"
    assert rows["Parameters"].artefact == "261,002"


def test_a_gain_is_called_one() -> None:
    better = story(certificate=certificate(drop=-0.002, drop_bound=-0.0005))
    assert measured_drop(better) == "0.20 points gained"
    assert bounded_drop(better) == "at least 0.05 points gained"
    assert measured_drop(story(certificate=certificate(drop=0.0))) == "0.00 points lost"
    level = story(certificate=certificate(drop=-0.002, drop_bound=-1e-9))
    assert bounded_drop(level) == "at least 0.00 points gained"


def test_a_metric_that_counts_no_answers_has_no_percent() -> None:
    other = story(certificate=certificate(metric="mIoU", lost=None, gained=None, original=0.8123, artefact=0.8101))
    row = comparison(other)[0]
    assert (row.label, row.original, row.artefact) == ("mIoU", "0.8123", "0.8101")
    assert row.change == "0.0007 lost; at most 0.0026 lost, 95 % sure"


@given(st.floats(-1, 1), st.sampled_from([0.01, 0.005, 0.00125, 0.0]))
def test_a_bound_is_never_shown_too_low(bound, limit) -> None:
    unit = Unit.of(story(goal=Goal(max_drop=limit)))
    shown = float(unit.above(bound).split(" ")[0].replace("−", "-")) / 100
    assert bound - 1e-9 <= shown <= bound + 10.0 ** -(unit.digits + 2) + 1e-9
    assert (shown <= limit + 1e-12) == (bound <= limit + 1e-10)


@pytest.mark.parametrize(("limit", "words"), [(0.01, "1 point"), (0.005, "0.5 points"), (0.0, "0 points")])
def test_a_limit_is_short(limit, words) -> None:
    assert Unit.of(story()).exact(limit) == words


def test_the_goal_in_words() -> None:
    words = goal_in_words(story(goal=Goal(max_drop=0.02, minimize="macs", max_size_bytes=300_000, max_macs=10**7)))
    assert words == (
        "the network with the fewest multiply-accumulates that loses at most 2 points of accuracy, 95 % sure; "
        "at most 300,000 B (300.0 kB); at most 10.0 M MACs"
    )


def test_names_with_capitals_stay() -> None:
    assert titled("mIoU") == "mIoU"
    assert titled("accuracy") == "Accuracy"


def test_nothing_to_compare_with_is_a_dash() -> None:
    base = story()
    rows = {row.label: row for row in comparison(replace(base, original=replace(base.original, macs=0)))}
    assert rows["MACs"].change == "–"


def test_packages_have_a_row_where_they_were_made() -> None:
    one = story()
    (row,) = (row for row in comparison(one) if row.label == "Package")
    assert (row.original, row.change) == ("901,638 B (901.6 kB)", "4.01× smaller")
    bare = replace(one, original=replace(one.original, package_bytes=0))
    assert "Package" not in [row.label for row in comparison(bare)]
