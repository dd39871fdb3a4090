from __future__ import annotations

import re
from dataclasses import replace

import pytest

from featherweight.report.axes import Axis
from featherweight.report.charts import COLOURS, colour_of, interval, pair_bar, stacked_bars
from featherweight.report.costs import costs, operator_times
from featherweight.report.scatter import Point, Scale, scatter
from tests.report.documents import Document
from tests.report.stories import story


def stacked(bars: dict[str, dict[str, float]]) -> dict[str, tuple[float, float]]:
    """Title of a part → where its bar begins, how long it is with its gap."""
    parts = sorted({part for bar in bars.values() for part in bar})
    image = stacked_bars("what", bars, parts, "{:g}".format)
    found = re.findall(
        r'<rect x="([\d.]+)" y="[\d.]+" width="([\d.]+)" height="26" class="c\d"><title>(.*?)</title>', image
    )
    return {title: (float(x), float(width) + 1.5) for x, width, title in found}


def test_bars_are_to_scale_and_stand_one_behind_the_other() -> None:
    found = stacked({"Original": {"a": 300.0, "b": 100.0}, "Artefact": {"b": 50.0, "a": 0.0}})
    assert found == {
        "Original, a: 300": (76.0, pytest.approx(390.0)),
        "Original, b: 100": (pytest.approx(466.0), pytest.approx(130.0)),
        "Artefact, b: 50": (76.0, pytest.approx(65.0)),
    }


def test_bars_of_nothing_are_named_all_the_same() -> None:
    image = stacked_bars("what", {"Original": {"a": 0.0}}, ["a"], "{:g}".format)
    assert "<rect" not in image
    assert "Original" in Document(image).text


def test_late_parts_share_the_last_colour() -> None:
    assert [colour_of(rank) for rank in range(COLOURS + 2)] == [*(f"c{rank}" for rank in range(COLOURS)), "c7", "c7"]


def test_pair_bars_are_to_scale() -> None:
    widths = re.findall(r'width="([\d.]+)"', pair_bar(50, 25, 200))
    assert widths == ["25.00", "12.50"]
    assert re.findall(r'width="([\d.]+)"', pair_bar(0, 1, 10**9)) == ["0.00", "1.20"]
    assert re.findall(r'width="([\d.]+)"', pair_bar(0, 0, 0)) == ["0.00", "0.00"]


@pytest.mark.parametrize(
    "marks", [(0.0, 0.0, 0.0), (-0.2, -0.1, 0.01), (0.004, 0.4, 0.0001), (0.0, 1e-12, 1e-12), (-1.0, 1.0, 0.5)]
)
def test_an_interval_stays_inside_its_drawing(marks) -> None:
    image = interval("what", marks, ("measured", "bound", "limit"), 100.0)
    places = [float(x) for x in re.findall(r' (?:x|x1|x2|cx)="([-\d.]+)"', image)]
    assert all(0.0 <= x <= 720.0 for x in places)


def places_of(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    scale = Scale(Axis(0.0, 10.0), "title", "{:g}".format)
    made = [Point(x, y, str(index), "met", "hint") for index, (x, y) in enumerate(points)]
    image = scatter("what", scale, scale, made, (0.0, 0.0, 10.0, 10.0))
    return [(float(x), float(y)) for x, y in re.findall(r'<circle cx="([\d.]+)" cy="([\d.]+)"', image)]


def test_points_lie_where_their_axes_say() -> None:
    low, middle, high = places_of([(0.0, 0.0), (5.0, 2.5), (10.0, 10.0)])
    assert (low, high) == ((64.0, 214.0), (344.0, 14.0))
    assert middle == ((64.0 + 344.0) / 2, 214.0 - 50.0)


def test_operators_of_one_kind_are_summed() -> None:
    side = replace(story().original, operators_ms=(("CONV_2D", 0.5), ("ADD", 0.25), ("CONV_2D", 1.0)))
    assert operator_times(side) == {"CONV_2D": 1.5, "ADD": 0.25}


def test_shares_are_of_the_whole_file() -> None:
    one = story()
    side = replace(one.original, parts={"a": 750, "b": 250})
    page = Document(costs(replace(one, original=side, compressed=side)))
    cells = [data for tag, data in page.texts if tag == "td"]
    assert cells[:8] == ["750 B", "75.00 %", "750 B", "75.00 %", "250 B", "25.00 %", "250 B", "25.00 %"]
