"""The report's interactive part: its data, its solver beside Python's, and the page in a browser."""

from __future__ import annotations

import base64
import hashlib
import json
import math
import re
from dataclasses import replace
from itertools import pairwise
from typing import Any
from urllib.parse import unquote

import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from featherweight.contracts import (
    Choice,
    Cost,
    Goal,
    Plan,
    Quantity,
    Step,
    Story,
    Table,
)
from featherweight.planning.allocate import allocate
from featherweight.planning.plans import parse_plan, plan_of
from featherweight.planning.widths import narrowed
from featherweight.report import page_of
from featherweight.report.explorer import EXPLORER_SCRIPT, explorer, explorer_data, yaml_key
from featherweight.report.style import SCRIPT
from tests.report.browser import needs_browser, opened
from tests.report.documents import Document
from tests.report.stories import story
from tests.report.tables import table, told, whole

HOSTILE = "</script><script>document.body.textContent = ''</script><!--<b>\"'&"


def embedded(page: str) -> dict[str, Any]:
    (text,) = re.findall(r'<script type="application/json" id="explore-data">(.*?)</script>', page)
    return json.loads(text)


# ------------------------------------------------------------------------------------------------------------ the data


def test_without_a_table_there_is_no_section() -> None:
    assert explorer(story()) is None
    assert 'href="#explore"' not in page_of(story())
    assert explorer(replace(story(), table=Table({}, (), Cost(0, 0, 0)))) is None
    with pytest.raises(ValueError, match="without a table"):
        explorer_data(story())


def test_the_data_hold_every_option_exactly() -> None:
    made = table(1, units=2, priced=True)
    data = embedded(page_of(told(made)))
    assert data["quantities"] == ["size", "package", "macs", "latency"]
    for at, (name, row) in enumerate(made.options.items()):
        layer = data["layers"][at]
        assert (layer["name"], tuple(layer["widths"])) == (name, made.widths[name])
        assert layer["divergence"] == pytest.approx([option.divergence for option in row], rel=1e-5)
        words = [[data["steps"][number][0] for number in numbers] for numbers in layer["steps"]]
        assert words == [[str(step) for step in option.steps] for option in row]
        for numbers, quantity in zip(layer["forms"], data["quantities"], strict=True):
            forms = [data["forms"][number] for number in numbers]
            for form, option in zip(forms, row, strict=True):
                exact = quantity in ("size", "macs")
                assert form == pytest.approx(option.form.terms(quantity), rel=0 if exact else 1e-5)
    for unit, (name, row) in zip(data["units"], made.keeps.items(), strict=True):
        gone = [keep.rows[name] for keep in row]
        assert unit["rows"] == [[list(made.options).index(name), gone]]
        assert unit["saved"][0] == [keep.saved.size_bytes for keep in row]


def test_only_what_the_table_prices_can_be_asked_for() -> None:
    assert explorer_data(told(table(2)))["quantities"] == ["size", "macs"]


def test_layers_that_are_alike_share_their_terms() -> None:
    made = table(3)
    first = next(iter(made.options.values()))
    alike = Table(dict.fromkeys("abc", first), (), made.fixed, dict.fromkeys("abc", (8, 8)))
    assert len(explorer_data(told(alike))["forms"]) <= 2 * len(first)


def test_what_no_budget_allows_is_left_out() -> None:
    made = table(4)
    name, row = next(iter(made.options.items()))
    broken = replace(row[1], divergence=math.inf)
    data = explorer_data(replace(told(made), table=replace(made, options={**made.options, name: (row[0], broken)})))
    assert data["layers"][0]["divergence"] == [0]


def test_the_shipped_plan_is_found_in_the_table() -> None:
    one = told(table(5, units=3))
    data = explorer_data(one)
    for at, (name, row) in enumerate(one.table.options.items()):
        pruning = ()
        if name in one.table.keeps:
            pruning = one.table.keeps[name][data["shipped"]["keeps"][list(one.table.keeps).index(name)]].steps
        assert one.plan.choices[name] == (*pruning, *row[data["shipped"]["options"][at]].steps)
    edited = replace(one.plan, choices={**one.plan.choices, "block0.conv": (Step("own"),)})
    assert explorer_data(replace(one, plan=edited))["shipped"] is None


@given(st.text(min_size=1, max_size=200))
def test_any_name_is_a_key_of_a_plan(name: str) -> None:
    assert yaml.safe_load(f"units:\n  {yaml_key(name)}: [{{a: 1}}]\n  b: []\n")["units"] == {name: [{"a": 1}], "b": []}


def test_hostile_names_stay_data() -> None:
    made = table(6)
    names = dict.fromkeys(made.options)
    odd = {f"{HOSTILE}{at}": tuple(replace(o, steps=(Step(HOSTILE, {HOSTILE: HOSTILE}),)) for o in made.options[name])
           for at, name in enumerate(names)}  # fmt: skip
    one = told(replace(made, options=odd, widths={}))
    page = page_of(replace(one, certificate=replace(one.certificate, metric=HOSTILE)))
    assert [layer["name"] for layer in embedded(page)["layers"]] == list(odd)
    assert page.count("<script") == 3
    assert "<b>" not in page.partition('id="explore"')[2].partition("</section>")[0]


def test_the_page_stays_whole_and_loads_nothing() -> None:
    page = page_of(told(table(7)))
    document = Document(page)
    assert not re.search(r"https?://|@import|url\(", page)
    assert {tag for tag, _ in document.tags}.isdisjoint({"link", "img", "iframe", "object", "embed", "base", "form"})
    scripts = [data for tag, data in document.texts if tag == "script"]
    assert scripts[1:] == [SCRIPT, EXPLORER_SCRIPT]
    digests = [base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in scripts[1:]]
    (policy,) = [one["content"] for one in document.named("meta") if one.get("http-equiv") == "Content-Security-Policy"]
    sources = " ".join(f"'sha256-{digest}'" for digest in digests)
    assert policy == f"default-src 'none'; style-src 'unsafe-inline'; script-src {sources}"
    assert "needs JavaScript" in document.text
    assert 'href="#explore"' in page


def test_what_cant_be_limited_is_said() -> None:
    text = "Peak memory is no sum over layers"
    assert text not in Document(page_of(told(table(7)))).text
    assert text in Document(page_of(told(table(7), Goal(max_memory_bytes=10**6)))).text


def test_a_large_table_stays_small() -> None:
    made = table(8, layers=57, options=48, units=27, keeps=10)
    assert len(json.dumps(explorer_data(replace(story(), table=made)), separators=(",", ":"))) < 150_000


# ---------------------------------------------------------------------------------------------------------- the solver


def evaluated(made: Table, keeps: list[int], options: list[int]) -> Choice:
    """Python's own account of a plan that the browser found."""
    kept = {unit: row[at] for (unit, row), at in zip(made.keeps.items(), keeps, strict=True)}
    narrow = narrowed(replace(made, fixed=Cost(0, 0, 0)), kept)
    return Choice({name: row[at] for (name, row), at in zip(narrow.options.items(), options, strict=True)}, kept)


def figures(made: Table, choice: Choice, quantities: list[Quantity]) -> list[float]:
    return [*(made.fixed.of(one) + choice.cost.of(one) for one in quantities), choice.divergence]


def solved(tables: list[Table], asked: list[list[tuple[int, list[float | None]]]], folder: Any) -> list[list[Any]]:
    """For every table and question (what is minimised, limits) the browser's plan."""
    page = '<!doctype html><meta charset="utf-8"><body><svg></svg></body>'
    cases = [[explorer_data(told(made)), questions] for made, questions in zip(tables, asked, strict=True)]
    solver = EXPLORER_SCRIPT.partition("// What leaves the page")[0] + "return { compiled, allocate, front }; })();"
    driver = f"""
        const {{ compiled, allocate, front }} = {solver}
        const free = limit => (limit === null ? Infinity : limit);
        return {json.dumps(cases)}.map(([data, questions]) => {{
          const problem = compiled(data);
          return questions.map(([objective, limits]) => ({{
            plan: allocate(problem, objective, limits.map(free)),
            front: front(problem, objective, limits[limits.length - 1]),
          }}));
        }});"""
    return opened(page, folder, driver)[1]


def worst(made: Table) -> float:
    return sum(max(option.divergence for option in row) for row in made.options.values())


@needs_browser
def test_the_browser_comes_close_to_the_proven_best_and_never_beyond(tmp_path) -> None:
    tables = [table(seed, layers=10, options=8) for seed in range(12)]
    goals = [Goal(), Goal(minimize="macs"), Goal(max_macs=1)]
    asked, best = [], []
    for made in tables:
        limit = int(0.8 * whole(made, "macs"))
        tight = [replace(goal, max_macs=limit if goal.max_macs else None) for goal in goals]
        budget = 0.02 * worst(made)
        asked.append([(int(one.minimize == "macs"), [None, one.max_macs, budget]) for one in tight])
        best.append([allocate(made, one, budget) for one in tight])
    gaps = []
    for made, questions, answers, proven in zip(tables, asked, solved(tables, asked, tmp_path), best, strict=True):
        for (objective, limits), answer, choice in zip(questions, answers, proven, strict=True):
            plan = answer["plan"]
            mine = figures(made, evaluated(made, plan["keeps"], plan["options"]), ["size", "macs"])
            assert plan["figures"][:2] == mine[:2]
            assert plan["figures"][2] == pytest.approx(mine[2], rel=1e-4)
            if choice is None:  # what can't be met must not be claimed
                assert any(limit is not None and value > limit for value, limit in zip(mine, limits, strict=True))
                continue
            assert all(limit is None or value <= limit * (1 + 1e-5) for value, limit in zip(mine, limits, strict=True))
            least = figures(made, choice, ["size", "macs"])[objective]
            assert mine[objective] >= least * (1 - 1e-9)
            gaps.append(mine[objective] / least - 1)
    assert len(gaps) >= 24
    assert np.mean(gaps) < 0.01


@needs_browser
def test_coupled_units_package_and_latency_are_told_as_python_does(tmp_path) -> None:
    tables = [table(seed, units=4, priced=True) for seed in range(6)]
    budgets = [0.05 * worst(made) for made in tables]
    asked = [[(0, [None] * 4 + [b]), (1, [None] * 4 + [b]), (3, [None] * 4 + [b])] for b in budgets]
    gaps = []
    for made, budget, answers in zip(tables, budgets, solved(tables, asked, tmp_path), strict=True):
        quantities: list[Quantity] = ["size", "package", "macs", "latency"]
        for answer in answers:
            for plan in (answer["plan"], *answer["front"]):
                mine = figures(made, evaluated(made, plan["keeps"], plan["options"]), quantities)
                assert plan["figures"] == pytest.approx(mine, rel=1e-4)
                assert plan["figures"][4] <= budget * (1 + 1e-6)
        for answer, quantity in zip(answers, ("size", "package", "latency"), strict=True):
            choice = allocate(made, Goal(minimize=quantity), budget)
            assert choice is not None
            least = made.fixed.of(quantity) + choice.cost.of(quantity)
            gaps.append(answer["plan"]["figures"][quantities.index(quantity)] / least - 1)
        # A front: more divergence for less of what is minimised, from nothing at all to the budget.
        trade = [(plan["figures"][4], plan["figures"][0]) for plan in answers[0]["front"]]
        assert trade[0] == (0.0, whole(made, "size"))
        assert len(trade) > 10
        assert all(a[0] < b[0] and a[1] > b[1] for a, b in pairwise(trade))
        assert answers[0]["plan"]["figures"][0] <= trade[-1][1]
    assert np.mean(gaps) < 0.003


@needs_browser
def test_losses_are_read_off_a_monotone_curve_through_zero(tmp_path) -> None:
    curve = EXPLORER_SCRIPT.partition("// Elements, figures")[0] + "return lossCurve; })()"
    driver = f"""
        const lossCurve = {curve};
        const attempt = ([predicted, drop]) => ({{ predicted, drop }});
        const read = pairs => {{
          const curve = lossCurve(pairs.map(attempt));
          return curve && {{ most: curve.most,
            drop: [0, 1, 2, 3, 4, 6, 12].map(curve.drop), back: [0, 0.01, 0.025, 0.04, 0.08].map(curve.divergence) }};
        }};
        const told = [[4, 0.03], [2, 0.01], [3, 0.005], [6, 0.04]];
        return [told, [[2, -0.001]], [], [[null, 0.01], [0, 0.02]]].map(read);"""
    page = '<!doctype html><meta charset="utf-8"><body></body>'
    first, *rest = opened(page, tmp_path, driver)[1]
    assert first["most"] == 0.04
    assert first["drop"] == pytest.approx([0, 0.005, 0.01, 0.01, 0.03, 0.04, 0.08])
    assert first["back"] == pytest.approx([0, 3, 3.75, 6, 12])
    assert rest == [None, None, None]


# ------------------------------------------------------------------------------------------------------------ the page

DRIVER = """
    const find = id => document.getElementById("explore-" + id);
    const drawn = () => new Promise(done => setTimeout(done, 50));
    const told = () => ({
      words: find("told").textContent,
      command: find("command").textContent,
      plan: decodeURIComponent(find("plan").href.split(",").slice(1).join(",")),
      figures: Object.fromEntries([...document.querySelectorAll("[data-figure]")]
        .map(one => [one.dataset.figure, Number(one.dataset.value)])),
      rows: document.querySelectorAll(".tall tbody tr").length,
      differ: document.querySelectorAll(".tall .differs").length,
      off: find("off").hidden,
    });
    const move = async (id, value) => {
      find(id).value = value;
      find(id).dispatchEvent(new Event(find(id).tagName === "SELECT" ? "change" : "input"));
      await drawn();
      return told();
    };
"""


def agrees(one: Story, answer: dict[str, Any]) -> Plan:
    """The plan that a page offers, after checking it against the figures that the page shows."""
    plan = parse_plan(answer["plan"])
    assert (plan.network, plan.target) == (one.plan.network, one.plan.target)
    places = explorer_data(replace(one, plan=plan))["shipped"]
    assert places is not None
    choice = evaluated(one.table, places["keeps"], places["options"])
    assert plan.choices == plan_of("", "", choice, one.table.fixed).choices
    mine = figures(one.table, choice, ["size", "macs"])
    assert [answer["figures"][name] for name in ("size", "macs")] == mine[:2]
    assert answer["figures"]["divergence"] == pytest.approx(mine[2], rel=1e-4)
    assert plan.predicted["size_bytes"] == choice.cost.size_bytes + one.table.fixed.size_bytes
    assert plan.predicted["macs"] == choice.cost.macs + one.table.fixed.macs
    assert plan.predicted["divergence"] == pytest.approx(choice.divergence, rel=1e-4)
    return plan


@needs_browser
def test_a_moved_slider_gives_another_plan_to_run(tmp_path) -> None:
    one = told(table(9, units=3))
    driver = (
        DRIVER
        + """
        const first = told(), more = await move("drop", 380), none = await move("drop", 0);
        await move("find", "2");
        const least = await move("size", 200);
        return { first, more, none, least };"""
    )
    page, answer = opened(page_of(one), tmp_path, driver)
    first, more, none, least = (answer[name] for name in ("first", "more", "none", "least"))
    assert first["figures"]["size"] <= one.plan.predicted["size_bytes"]
    assert first["off"]
    assert 0 < float(re.findall(r"about ([\d.]+) points of accuracy lost", first["words"])[0]) <= 0.5
    assert f"File {first['figures']['size'] / 1000:.1f} kB" in first["words"]
    assert first["command"] == "featherweight apply MODEL --data DATA --plan plan.yaml --max-drop 1pp --out DIR"
    for shown in (first, more, none, least):
        agrees(one, shown)
        assert shown["rows"] == len(one.table.options)
    assert more["figures"]["size"] < first["figures"]["size"] < none["figures"]["size"]
    assert more["figures"]["divergence"] > first["figures"]["divergence"] > none["figures"]["divergence"] == 0.0
    assert more["differ"] > 0
    assert "--max-drop 1.9pp" in more["command"]
    assert least["figures"]["size"] <= int(re.findall(r"--max-size (\d+)", least["command"])[0])
    assert least["figures"]["size"] < whole(one.table, "size")
    assert {tag for tag, _ in Document(re.sub("<br>", "", page)).tags} >= {"polyline", "input", "select", "details"}


@needs_browser
def test_limits_out_of_reach_are_told_and_odd_names_shown(tmp_path) -> None:
    made = table(10)
    odd = {f"{HOSTILE}{at}\n\U0001f600": row for at, row in enumerate(made.options.values())}
    one = told(replace(made, options=odd, widths={}), Goal(max_size_bytes=1_001, max_drop=0.2))
    one = replace(one, certificate=replace(one.certificate, metric="MAE", lost=None, higher_is_better=False))
    _, answer = opened(page_of(one), tmp_path, DRIVER + "return told();")
    assert answer["words"].startswith("No plan was found within all of these limits.")
    assert list(agrees(one, answer).choices) == list(odd)
    assert re.search(r"about [\d.]+ of MAE added", answer["words"])
    assert answer["command"].endswith("--max-drop 0.2 --max-size 1001 --out DIR")


@needs_browser
def test_without_losses_to_go_by_the_divergence_itself_is_the_limit(tmp_path) -> None:
    one = told(table(11))
    _, answer = opened(
        page_of(replace(one, attempts=())), tmp_path, DRIVER + "return [told(), await move('drop', 40)];"
    )
    assert all("a divergence of" in shown["words"] and "points" not in shown["words"] for shown in answer)
    assert all("--max-drop 1pp" in shown["command"] for shown in answer)
    assert answer[1]["figures"]["divergence"] < answer[0]["figures"]["divergence"]
    assert unquote(answer[0]["plan"]) == answer[0]["plan"]
