from __future__ import annotations

import math
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from featherweight.report import figures


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1,000 B (1.0 kB)"),
        (320_416, "320,416 B (320.4 kB)"),
        (999_960, "999,960 B (1.0 MB)"),
        (1_106_448, "1,106,448 B (1.1 MB)"),
        (3 * 10**12, "3,000,000,000,000 B (3.0 TB)"),
    ],
)
def test_size(value, words) -> None:
    assert figures.size(value) == words


@pytest.mark.parametrize(
    ("value", "words"),
    [(0, "0 MACs"), (512, "512 MACs"), (41_214_848, "41.2 M MACs"), (10**22, "10,000.0 E MACs"), (999.7, "1.0 k MACs")],
)
def test_macs(value, words) -> None:
    assert figures.macs(value) == words


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (0.0, "0 ms"),
        (0.00082, "0.00082 ms"),
        (0.01041, "0.0104 ms"),
        (0.054, "0.054 ms"),
        (0.36, "0.36 ms"),
        (41.5, "41.50 ms"),
        (1250.0, "1.25 s"),
        (math.nan, "not a number"),
    ],
)
def test_milliseconds(value, words) -> None:
    assert figures.milliseconds(value) == words


@pytest.mark.parametrize(
    ("value", "words"),
    [(0.9173, "91.73 %"), (1.0, "100.00 %"), (-0.012, "−1.20 %"), (-1e-9, "0.00 %"), (math.inf, "∞ %")],
)
def test_percent(value, words) -> None:
    assert figures.percent(value) == words


@pytest.mark.parametrize(("value", "words"), [(0.95, "95 %"), (0.999, "99.9 %"), (0.57, "57 %")])
def test_confidence(value, words) -> None:
    assert figures.confidence(value) == words


@pytest.mark.parametrize(
    ("value", "words"),
    [(0, "0"), (0.0123, "0.0123"), (1.2e-7, "1.20e-7"), (-2.5, "−2.5"), (-3e-9, "−3.00e-9"), (12345678.0, "1.23e7"),
     (math.inf, "∞"), (-math.inf, "−∞"), (math.nan, "not a number")],
)  # fmt: skip
def test_plain(value, words) -> None:
    assert figures.plain(value) == words


@pytest.mark.parametrize(
    ("before", "after", "words"),
    [
        (1_106_448, 320_416, "3.45× smaller"),
        (1, 2, "2.00× larger"),
        (5, 5, "unchanged"),
        (0, 0, "unchanged"),
        (0, 7, "–"),
        (7, 0, "–"),
        (1.0, math.inf, "–"),
        (123.4, 10.0, "12.3× smaller"),
        (0.01150, 0.01152, "about the same"),
        (1000, 994, "1.01× smaller"),
        (10**6, 3, "333,333× smaller"),
    ],
)
def test_change(before, after, words) -> None:
    assert figures.change(before, after, "smaller", "larger") == words


@given(st.integers(1, 10**30), st.integers(1, 10**30))
def test_a_change_says_the_ratio_to_three_digits(before, after) -> None:
    words = figures.change(before, after, "smaller", "larger")
    if before == after:
        assert words == "unchanged"
        return
    if words == "about the same":
        assert max(before, after) <= 1.0051 * min(before, after)
        return
    number, way = words.split("× ")
    exact = Fraction(max(before, after), min(before, after))
    assert way == ("smaller" if after < before else "larger")
    assert abs(Fraction(number.replace(",", "")) - exact) <= exact * Fraction(51, 10_000)


@given(st.integers(1, 10**9))
def test_about_is_the_next_number_of_three_digits(count) -> None:
    shown = int(figures.about(count).replace(",", ""))
    assert count <= shown <= count * 1.01
    assert len(str(shown).rstrip("0")) <= 3


@given(st.floats(0, 1e24))
def test_short_bytes_stay_short_and_right(value) -> None:
    number, unit = figures.short_bytes(value).split(" ")
    scale = 1000.0 ** ["B", "kB", "MB", "GB", "TB", "PB", "EB"].index(unit)
    assert float(number.replace(",", "")) * scale == pytest.approx(value, abs=0.51 if unit == "B" else 0.051 * scale)
    assert unit == "EB" or float(number.replace(",", "")) < 1000


def test_shape() -> None:
    assert figures.shape((1, 32, 32, 3)) == "1 × 32 × 32 × 3"
    assert figures.shape(()) == "scalar"
