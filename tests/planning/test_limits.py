"""Goals with other limits, and limits that files exceed by a little: the plans that follow get less room."""

from __future__ import annotations

from dataclasses import replace

import pytest

from featherweight.contracts import Goal
from featherweight.planning import tightened
from tests.report.stories import story

PLAIN = story().attempts[0]


def test_a_goal_gets_other_limits() -> None:
    goal = Goal(max_size_bytes=1000, max_latency_ms=2.0)
    assert goal.with_limits({"size": 900.7, "latency": 1.5}).limits == {"size": 900.0, "latency": 1.5}
    assert goal.with_limits({"size": None}).limits == {"latency": 2.0}
    assert goal.with_limits({"package": 80.0, "memory": 7.9, "macs": 3.0}).limits == {
        "size": 1000.0, "package": 80.0, "macs": 3.0, "latency": 2.0, "memory": 7.0,
    }  # fmt: skip
    assert goal.with_limits({}) == goal


def test_what_exceeds_a_limit_by_a_little_tightens_it_until_it_fits() -> None:
    goal = Goal(max_package_bytes=1000, max_size_bytes=5000)
    over = replace(PLAIN, package_bytes=1050.0, size_bytes=4000)
    shares = tightened({}, over, goal)
    assert shares == {"package": pytest.approx(0.998 / 1.05)}
    assert over.package_bytes * shares["package"] <= 1000
    fits = replace(over, package_bytes=1050.0 * shares["package"])
    assert tightened(shares, fits, goal) == shares
    again = replace(over, package_bytes=1010.0)
    assert tightened(shares, again, goal)["package"] == pytest.approx(shares["package"] * 0.998 / 1.01)


def test_what_keeps_its_limits_or_is_far_beyond_them_changes_nothing() -> None:
    goal = Goal(max_package_bytes=1000)
    assert tightened({}, replace(PLAIN, package_bytes=1000.0), goal) == {}
    assert tightened({}, replace(PLAIN, package_bytes=2000.0), goal) == {}
