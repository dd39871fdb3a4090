from __future__ import annotations

import math
from itertools import pairwise

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from featherweight.report.axes import Axis, axis_around

POSITIVE = st.floats(1e-12, 1e12)


@given(st.floats(-1e9, 1e9), st.floats(1e-6, 1e9), st.integers(2, 8))
def test_even_ticks_are_round_evenly_spaced_and_inside(low, width, most) -> None:
    assume(width > 1e-9 * abs(low))
    axis = Axis(low, low + width)
    ticks = axis.ticks(most)
    slack = 1e-6 * width
    assert len(ticks) <= most + 1
    assert all(axis.low - slack <= tick <= axis.high + slack for tick in ticks)
    gaps = [after - before for before, after in pairwise(ticks)]
    if gaps:
        step = max(gaps)
        assert gaps == pytest.approx([step] * len(gaps), rel=1e-3, abs=slack)
        mantissa = step / 10 ** math.floor(math.log10(step * (1 + 1e-6)))
        assert min(abs(mantissa - one) for one in (1, 2, 5, 10)) < 1e-2


@pytest.mark.parametrize(
    ("low", "high", "ticks"),
    [
        (0.0, 1.0, [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]),
        (-0.08, 1.16, [0.0, 0.5, 1.0]),
        (290.0, 330.0, [290, 300, 310, 320, 330]),
    ],
)
def test_even_ticks_by_hand(low, high, ticks) -> None:
    assert Axis(low, high).ticks() == pytest.approx(ticks)


@given(POSITIVE, st.floats(1.69, 1e9), st.integers(2, 8))
def test_ratio_ticks_are_round_and_inside(low, ratio, most) -> None:
    axis = Axis(low, low * ratio, True)
    ticks = axis.ticks(most)
    assert len(ticks) <= most
    assert ticks == sorted(set(ticks))
    assert all(axis.low <= tick <= axis.high for tick in ticks)
    assert all(f"{tick:.0e}"[0] in "1235" and float(f"{tick:.0e}") == pytest.approx(tick) for tick in ticks)


def test_ratio_ticks_by_hand() -> None:
    assert Axis(0.004, 0.06, True).ticks() == [0.005, 0.01, 0.02, 0.05]
    assert Axis(1e-6, 1.5, True).ticks(4) == [1e-6, 1e-4, 1e-2, 1.0]


@given(st.lists(POSITIVE, min_size=1, max_size=8), st.booleans())
def test_every_value_has_its_place_in_order(values, logarithmic) -> None:
    axis = axis_around(values, logarithmic=logarithmic)
    places = [axis.place(value) for value in sorted(values)]
    assert all(0.0 < place < 1.0 for place in places)
    assert places == sorted(places)
    assert axis.place(axis.low) == 0.0
    assert axis.place(axis.high) == pytest.approx(1.0)


def test_one_value_stands_in_the_middle() -> None:
    assert axis_around([5.0]).place(5.0) == pytest.approx(0.5)
    assert axis_around([0.0]).place(0.0) == pytest.approx(0.5)
    assert axis_around([5.0], logarithmic=True).place(5.0) == pytest.approx(0.5)
