"""The curve from error to divergence."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from featherweight.planning.calibration import divergence_curve, spread_anchors

positive = st.floats(1e-9, 1e6)


@given(
    st.lists(st.tuples(positive, positive), min_size=1, max_size=5, unique_by=lambda pair: pair[0]),
    st.lists(positive, max_size=20),
)
def test_the_curve_is_monotone_and_runs_through_its_anchors(pairs: list, errors: list) -> None:
    anchors, divergences = zip(*sorted(pairs), strict=True)
    raised = np.maximum.accumulate(divergences)
    assert divergence_curve(anchors, divergences, anchors) == pytest.approx(raised, rel=1e-6)
    rising = sorted(errors)
    curve = divergence_curve(anchors, divergences, rising)
    assert all(b >= a * (1 - 1e-9) for a, b in pairwise(curve))


def test_it_is_proportional_outside_and_zero_at_zero() -> None:
    curve = divergence_curve([1.0, 10.0], [0.1, 10.0], [0.0, 0.5, 1.0, np.sqrt(10), 10.0, 20.0])
    assert curve == pytest.approx([0.0, 0.05, 0.1, 1.0, 10.0, 20.0])
    assert divergence_curve([], [], [0.0, 1.0]).tolist() == [0.0, 0.0]


def test_anchors_are_spread_over_the_ranking_and_hold_the_worst() -> None:
    errors = [0.0, *np.geomspace(1e-6, 1.0, 12)]
    chosen = spread_anchors(errors, 3)
    assert chosen == [4, 8, 12]
    assert spread_anchors([0.0, 0.0], 3) == []
    assert spread_anchors([0.0, 1.0, 1.1, 1.2], 3) == [3]
    assert spread_anchors([5.0], 3) == [0]
