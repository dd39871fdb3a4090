"""Limits out of reach are said early, with the nearest that can be reached."""

from __future__ import annotations

import itertools
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from featherweight.contracts import Choice, Cost, Goal, Option, OutOfReachError, Step, Table
from featherweight.planning import allocate, check_reach, gentlest, least


def _table(rows: list[list[tuple[int, int, float, float]]], fixed: Cost | None = None) -> Table:
    options = {}
    for number, row in enumerate(rows):
        name = f"layer{number}"
        entries = [(1000, 1000, 900.0, 4.0), *row]
        options[name] = tuple(
            Option(name, (Step("x", {"n": n}),) if n else (), Cost(s, m, s, p, ms), n, 0.1 * n)
            for n, (s, m, p, ms) in enumerate(entries)
        )
    return Table(options, (), fixed or Cost(100, 50, 0, 80.0, 0.5))


entries = st.tuples(st.integers(1, 999), st.integers(1, 999), st.floats(1, 899), st.floats(0.1, 3.9))
tables = st.lists(st.lists(entries, min_size=1, max_size=3), min_size=1, max_size=3)


def _all(table: Table) -> list[Cost]:
    totals = []
    for chosen in itertools.product(*table.options.values()):
        totals.append(sum((option.cost for option in chosen), table.fixed))
    return totals


def _goal(size: float, latency: float, package: float) -> Goal:
    return Goal(max_size_bytes=round(size), max_latency_ms=latency, max_package_bytes=round(package))


@given(tables, st.floats(200, 2500), st.floats(0.6, 10), st.floats(100, 2500))
def test_it_says_no_exactly_where_no_choice_fits(rows: list, size: float, latency: float, package: float) -> None:
    table, goal = _table(rows), _goal(size, latency, package)
    fits = [c for c in _all(table) if all(c.of(q) <= limit for q, limit in goal.limits.items())]
    near = [c for c in _all(table) if all(c.of(q) <= limit * (1 + 1e-5) for q, limit in goal.limits.items())]
    if len(fits) != len(near):  # at the edge the solver's tolerance decides
        return
    if fits:
        check_reach(table, goal)
    else:
        with pytest.raises(OutOfReachError) as failure:
            check_reach(table, goal)
        assert failure.value.exit_code == 11


@given(tables, st.floats(0.6, 10))
def test_the_nearest_limit_is_the_least_there_is(rows: list, latency: float) -> None:
    table = _table(rows)
    goal = Goal(max_size_bytes=1, max_latency_ms=latency)
    fitting = [c.size_bytes for c in _all(table) if c.milliseconds <= latency]
    nearest = least(table, "size", goal)
    if fitting:
        assert nearest == pytest.approx(min(fitting), rel=1e-5)
    else:
        assert nearest == float("inf")


def test_the_nearest_goal_can_be_met() -> None:
    table = _table([[(300, 500, 200.0, 1.0)], [(400, 600, 300.0, 2.0)]])
    with pytest.raises(OutOfReachError) as failure:
        check_reach(table, Goal(max_size_bytes=700))
    assert "where the least in reach is 800" in failure.value.got
    found = re.search(r"--max-size (\d+)", failure.value.remedy)
    assert found is not None
    check_reach(table, Goal(max_size_bytes=int(found[1])))


def test_limits_that_fight_each_other() -> None:
    table = _table([[(10, 1, 10.0, 4.0), (900, 1, 900.0, 0.1)]], Cost(0, 0, 0))
    with pytest.raises(OutOfReachError, match="least in reach"):
        check_reach(table, Goal(max_size_bytes=20, max_latency_ms=1.0))


def _peak(choice: Choice) -> float:
    return 100.0 - 10 * sum(bool(option.steps) for option in choice.layers.values())


def test_memory_is_read_off_every_choice() -> None:
    table = _table([[(300, 500, 200.0, 1.0)], [(400, 600, 300.0, 2.0)]])
    with pytest.raises(OutOfReachError, match="peak"):
        check_reach(table, Goal(max_memory_bytes=70), _peak)
    with pytest.raises(TypeError, match="memory"):
        allocate(table, Goal(max_memory_bytes=70), 1.0)
    chosen = allocate(table, Goal(minimize="memory"), 1.0, _peak)
    assert chosen is not None
    assert _peak(chosen) == 80.0
    assert gentlest(table, Goal(max_memory_bytes=100), _peak) is not None


@given(st.floats(1e-9, 1e5), st.floats(1.01, 1e6))
def test_what_is_told_tells_the_limit_and_what_is_in_reach_apart(least_time: float, factor: float) -> None:
    table = Table({"a": (Option("a", (), Cost(1, 1, 1, 1.0, least_time), 0.0, 0.0),)}, (), Cost(0, 0, 0))
    with pytest.raises(OutOfReachError) as failure:
        check_reach(table, Goal(max_latency_ms=least_time / factor))
    told = re.findall(r"[0-9][0-9,]*(?:\.[0-9]+)?", failure.value.got)
    limit, nearest = (float(text.replace(",", "")) for text in told)
    assert limit < nearest
    assert nearest >= least_time
    assert float(failure.value.remedy.removeprefix("--max-latency ")) == nearest
