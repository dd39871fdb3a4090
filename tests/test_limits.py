"""Limits that files exceed by a little: the plans that follow get less room."""

from __future__ import annotations

from dataclasses import replace

import pytest

from featherweight.contracts import Attempt, Goal, Quantity
from featherweight.pipeline import _tightened
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
    goal, shares = Goal(max_package_bytes=1000, max_size_bytes=5000), dict[Quantity, float]()
    promised = 1000.0

    def made() -> Attempt:
        return replace(PLAIN, package_bytes=1.05 * promised * shares.get("package", 1.0), size_bytes=4000)

    assert _tightened(shares, made(), goal)
    assert not _tightened(shares, made(), goal)
    assert made().package_bytes <= 1000
    assert shares == {"package": pytest.approx(0.998 / 1.05)}


def test_what_keeps_its_limits_or_is_far_beyond_them_changes_nothing() -> None:
    shares = dict[Quantity, float]()
    goal = Goal(max_package_bytes=1000)
    assert not _tightened(shares, replace(PLAIN, package_bytes=1000.0), goal)
    assert not _tightened(shares, replace(PLAIN, package_bytes=2000.0), goal)
    assert shares == {}
