"""Plans as files: what is written is read back, and what isn't a plan is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from featherweight.contracts import Plan, PlanError, Step
from featherweight.planning.plans import parse_plan, plan_text, read_plan, write_plan

names = st.text(st.characters(codec="utf-8", exclude_categories=("Cs", "Cc")), min_size=1, max_size=12)
scalars = st.integers(-(2**40), 2**40) | st.floats(allow_nan=False, allow_infinity=False) | st.booleans() | names
steps = st.lists(st.builds(Step, names, st.dictionaries(names, scalars, max_size=3)), max_size=3).map(tuple)
plans = st.builds(
    Plan,
    names,
    names,
    st.dictionaries(names, steps, max_size=4),
    st.dictionaries(names, st.floats(-1e9, 1e9), max_size=2),
)


@given(plans)
def test_what_is_written_is_read_back(plan: Plan) -> None:
    assert parse_plan(plan_text(plan)) == plan


def test_files_are_written_whole_and_read(tmp_path: Path) -> None:
    plan = Plan("abc", "litert", {"conv": (Step("lowrank", {"rank": 8}),), "fc": ()})
    write_plan(plan, tmp_path / "plan.yaml")
    assert read_plan(tmp_path / "plan.yaml") == plan
    assert [path.name for path in tmp_path.iterdir()] == ["plan.yaml"]


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("{", "YAML"),
        ("", "begin with"),
        ("- 1", "begin with"),
        ("featherweight_plan: 2", "begin with"),
        ("featherweight_plan: 1\nnetwork: a\ntarget: b", "no 'units'"),
        ("featherweight_plan: 1\nnetwork: a\ntarget: b\nunits: {}\nextra: 1", "unknown 'extra'"),
        ("featherweight_plan: 1\nnetwork: a\ntarget: b\nunits: [1]", "mapping"),
        ("featherweight_plan: 1\nnetwork: a\ntarget: b\nunits: {a: [prune]}", "method with its settings"),
        ("featherweight_plan: 1\nnetwork: a\ntarget: b\nunits: {a: [{x: 1, y: 2}]}", "method with its settings"),
        ("featherweight_plan: 1\nnetwork: a\ntarget: b\nunits: {a: [{x: {y: [1]}}]}", "plain values"),
        ("!!python/object/apply:os.system ['true']", "YAML"),
    ],
)
def test_what_is_no_plan_is_refused(text: str, word: str) -> None:
    with pytest.raises(PlanError, match=word):
        parse_plan(text)


def test_missing_and_oversized_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(PlanError, match="readable"):
        read_plan(tmp_path / "nowhere.yaml")
    (tmp_path / "big.yaml").write_bytes(b" " * (9 << 20))
    with pytest.raises(PlanError, match="small file"):
        read_plan(tmp_path / "big.yaml")
