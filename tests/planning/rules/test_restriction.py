"""Tables under rules: each key, who is meant, and what any choice from the result keeps to."""

from __future__ import annotations

import fnmatch
import json
import math
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from featherweight.contracts import Cost, Goal, Keep, Option, Plan, PlanError, Step, Steps, Table
from featherweight.planning.allocate import allocate
from featherweight.planning.rules.restriction import activation_type, encoded_bits, restricted, untouched_layers
from featherweight.planning.rules.rule import Rules
from featherweight.planning.rules.rulebook import parse_rules
from tests.planning.rules.ruled import (
    COARSE,
    DYNAMIC,
    HALF,
    INT4,
    INT8,
    KINDS,
    LOWRANK,
    LOWRANK_INT8,
    SHARED,
    SPATIAL,
    STEPS,
    TERNARY,
    WIDTHS,
    keep_step,
    made_table,
    ruled_network,
    tables,
    whole_table,
)


def rules(text: str) -> Rules:
    return parse_rules("featherweight_rules: 1\n" + text)


def left(text: str, table: Table | None = None) -> Table:
    return restricted(table or whole_table(), ruled_network(), rules(text))


def steps(table: Table, layer: str) -> list[Steps]:
    return [option.steps for option in table.options[layer]]


def counts(table: Table, unit: str) -> list[int]:
    return [int(keep.steps[0].settings["keep"]) if keep.steps else 16 for keep in table.keeps[unit]]


def refused(text: str, *phrases: str, table: Table | None = None) -> PlanError:
    with pytest.raises(PlanError) as caught:
        left(text, table)
    for phrase in phrases:
        assert phrase in str(caught.value)
    return caught.value


# ------------------------------------------------------------------------------------------------------------- the keys


def test_no_rules_change_nothing() -> None:
    table = whole_table()
    assert restricted(table, ruled_network(), Rules()) == table
    assert restricted(made_table({}, {}), ruled_network(), Rules()) == made_table({}, {})


def test_only_some_families() -> None:
    table = left("all: {methods: [quantization]}")
    assert steps(table, "head") == [(), INT8, INT4, HALF, DYNAMIC]
    assert (counts(table, "stem"), counts(table, "block.one")) == ([16], [16])
    table = left("all: {methods: [pruning, lowrank]}")
    assert steps(table, "head") == [(), LOWRANK, SPATIAL]
    assert counts(table, "stem") == [16, 14, 12, 8, 4]


def test_bans_of_families_and_of_single_settings() -> None:
    table = left("all: {forbid: [lowrank, {quantization: {bits: 4}}, {pruning: {keep: 8}}]}")
    assert steps(table, "head") == [(), INT8, HALF, DYNAMIC, SHARED, TERNARY, COARSE]
    assert counts(table, "stem") == [16, 14, 12, 4]
    assert counts(left("layers: {stem: {forbid: [pruning]}}"), "stem") == [16]
    assert steps(left("all: {forbid: [{lowrank: {kind: spatial}}]}"), "head") == [
        (),
        *(s for s in STEPS if s != SPATIAL),
    ]


def test_bits() -> None:
    assert steps(left("all: {bits: at least 8}"), "head") == [(), INT8, HALF, DYNAMIC, LOWRANK, LOWRANK_INT8, SPATIAL]
    assert steps(left("all: {bits: at most 4}"), "head") == [INT4, SHARED, TERNARY, COARSE]
    assert steps(left("all: {bits: 16}"), "head") == [HALF]


@pytest.mark.parametrize(
    ("chain", "bits", "activations"),
    [
        ((), 32, "float32"), (INT8, 8, "int8"), (INT4, 4, "int8"), (HALF, 16, "float32"), (DYNAMIC, 8, "dynamic"),
        (LOWRANK, 32, "float32"), (LOWRANK_INT8, 8, "int8"), (SHARED, 4, "float32"), ((*SHARED, *INT8), 4, "int8"),
        (TERNARY, math.log2(3), "float32"), ((Step("binarization", {"kind": "binary"}),), 1, "float32"),
        (COARSE, 2.047, "int8"), ((Step("entropy", {"step": 0.25, "activations": "int8"}),), 4.047, "int8"),
        ((Step("sparsity", {"zeros": 0.5}), *INT8), 8, "int8"),
    ],
)  # fmt: skip
def test_what_chains_of_steps_make_of_a_layer(chain: Steps, bits: float, activations: str) -> None:
    assert encoded_bits(chain) == pytest.approx(bits, abs=1e-3)
    assert activation_type(chain) == activations


def test_activations() -> None:
    assert steps(left("types: {linear: {activations: int8}}"), "head") == [INT8, INT4, LOWRANK_INT8, COARSE]
    both = left("all: {activations: [float32, dynamic]}")
    assert steps(both, "stem") == [(), HALF, DYNAMIC, LOWRANK, SPATIAL, SHARED, TERNARY]


def test_the_least_share_of_channels() -> None:
    table = left("all: {keep: at least 0.75}")
    assert (counts(table, "stem"), counts(table, "block.one")) == ([16, 14, 12], [16, 12])
    assert counts(left("all: {keep: at least 100%}"), "stem") == [16]
    assert left("all: {keep: at least 1%}") == whole_table()


def test_shares_where_two_units_hold_one_layer() -> None:
    """A split layer: together the units never take more than the rule leaves."""
    rows = {"stem": [INT8]}
    table = made_table(rows, {"stem": []})
    halves = {
        unit: tuple(
            Keep(unit, (keep_step(8 - gone),) if gone else (), {"stem": gone}, {}, Cost(0, 0, 0), gone, gone)
            for gone in range(8)
        )
        for unit in ("stem", "stem:2")
    }
    found = left("layers: {stem: {keep: at least 0.5}}", replace(table, keeps=halves))
    assert [max(keep.rows["stem"] for keep in row) for row in found.keeps.values()] == [4, 4]
    found = left('layers: {"stem:2": {keep: at least 0.75}}', replace(table, keeps=halves))  # by the unit's own name
    assert [max(keep.rows["stem"] for keep in row) for row in found.keeps.values()] == [7, 2]


def test_shares_that_can_t_be_told_leave_all_channels() -> None:
    """A unit none of whose producers is on the table."""
    table = whole_table()
    table = replace(table, keeps={"stem": tuple(replace(keep, rows={}) for keep in table.keeps["stem"])})
    assert counts(left("layers: {stem: {keep: at least 0.5}}", table), "stem") == [16]


def test_pins() -> None:
    table = left("layers: {head: {pin: [{quantization: {weights: int8, activations: int8}}]}, stem: {pin: []}}")
    assert (steps(table, "head"), steps(table, "stem")) == ([INT8], [()])
    assert counts(table, "stem") == [16, 14, 12, 8, 4]  # a pin without pruning says nothing of channels
    table = left("layers: {depth: {pin: [{pruning: {keep: 8}}, {lowrank: {rank: 8}}]}}")
    assert (steps(table, "depth"), counts(table, "stem")) == ([LOWRANK], [8])
    table = left("layers: {block.one: {pin: [{pruning: {keep: 8}}]}}")
    assert (len(steps(table, "block.one")), counts(table, "block.one")) == (len(STEPS) + 1, [8])


def test_what_is_untouched_keeps_its_weight_its_rows_and_its_columns() -> None:
    table = left("layers: {block.one: {untouched: true}}")
    assert steps(table, "block.one") == [()]
    assert (counts(table, "block.one"), counts(table, "stem")) == ([16], [16])  # its rows, its columns
    table = left("layers: {head: {untouched: true}}")
    assert (counts(table, "stem"), counts(table, "block.one")) == ([16], [16, 12, 8, 4])
    assert steps(table, "stem") == steps(whole_table(), "stem")


def test_untouched_layers_that_the_table_doesn_t_price_are_frozen_too() -> None:
    full = whole_table()
    rest = made_table({layer: [INT8] for layer in WIDTHS if layer != "head"}, {"stem": [8], "block.one": [8]})
    assert full.keeps["stem"][1].columns["head"] == 2
    table = left("layers: {head: {untouched: true}}", rest)
    assert (counts(table, "stem"), counts(table, "block.one")) == ([16], [16, 8])


def test_who_refits_layers_is_told_what_is_untouched() -> None:
    wanted = rules("types: {conv2d: {untouched: true}}\nlayers: {stem: {untouched: false}}")
    assert untouched_layers(whole_table(), ruled_network(), wanted) == {"block.one", "block.two"}


# --------------------------------------------------------------------------------------------------------- who is meant


def test_the_more_specific_wins_key_by_key() -> None:
    text = """
all: {bits: at least 8, activations: int8}
types: {"*conv2d": {bits: at most 4}, conv2d: {bits: 16, activations: float32}}
layers:
  "block.*": {bits: 4}
  "*.two": {bits: at least 16}
  block.one: {activations: [float32, int8]}
"""
    table = left(text)
    assert steps(table, "head") == [INT8, LOWRANK_INT8]  # all
    assert steps(table, "depth") == [INT4, COARSE]  # a pattern of kinds; activations from all
    assert steps(table, "stem") == [HALF]  # a kind's own name
    assert steps(table, "block.one") == [INT4, SHARED]  # its own name, and the first pattern
    assert steps(table, "block.two") == [(), HALF, LOWRANK, SPATIAL]  # the later pattern


def test_an_exact_name_beats_a_pattern_that_stands_later() -> None:
    assert steps(left('layers: {head: {bits: 16}, "h*": {bits: 8}}'), "head") == [HALF]


def test_a_pin_overrides_what_is_less_specific_and_gives_way_to_what_is_more() -> None:
    table = left("all: {bits: at least 8}\nlayers: {head: {pin: [{sharing: {values: 16}}]}}")
    assert steps(table, "head") == [SHARED]
    text = "all: {pin: [{quantization: {weights: int8, activations: int8}}]}\nlayers: {head: {bits: at least 16}}"
    assert steps(left(text), "head") == [(), HALF, LOWRANK, SPATIAL]
    assert steps(left(text), "stem") == [INT8]
    assert steps(left(text.replace("at least 16", "8")), "head") == [INT8]  # nothing excludes it
    assert len(steps(left(text.replace("bits: at least 16", "pin: any")), "head")) == len(STEPS) + 1


def test_untouched_is_lifted_by_what_is_more_specific() -> None:
    table = left("all: {untouched: true}\nlayers: {head: {methods: [quantization]}}")
    assert steps(table, "head") == [(), INT8, INT4, HALF, DYNAMIC]
    assert [steps(table, layer) for layer in ("stem", "depth", "block.one")] == [[()]] * 3
    assert counts(table, "stem") == [16]
    table = left("types: {conv2d: {untouched: true}}\nlayers: {stem: {untouched: false}}")
    assert (len(steps(table, "stem")), steps(table, "block.two")) == (len(STEPS) + 1, [()])


@pytest.mark.parametrize("name", ["stem", "depth", "block.two"])
def test_a_unit_is_addressed_by_any_layer_whose_rows_it_holds(name: str) -> None:
    assert counts(left(f"layers: {{{name}: {{keep: at least 0.75}}}}"), "stem") == [16, 14, 12]
    assert counts(left(f"layers: {{{name}: {{pin: [{{pruning: {{keep: 8}}}}]}}}}"), "stem") == [8]
    assert counts(left(f"all: {{keep: at least 1}}\nlayers: {{{name}: {{keep: at least 0.5}}}}"), "stem") == [
        16,
        14,
        12,
        8,
    ]


def test_tied_layers_named_alike_all_count() -> None:
    table = left("layers: {stem: {keep: at least 0.5}, depth: {keep: at least 0.75}}")
    assert counts(table, "stem") == [16, 14, 12]
    assert counts(left("types: {depthwise_conv2d: {methods: [quantization]}}"), "stem") == [16]


# ------------------------------------------------------------------------------------------------------ an earlier plan


def start(text: str, choices: dict[str, Steps], table: Table | None = None) -> Table:
    said = replace(rules(text), start=Plan("of another network", "litert", choices))
    return restricted(table or whole_table(), ruled_network(), said)


def test_an_earlier_plan_fixes_what_it_names() -> None:
    table = start("", {"stem": (keep_step(8), *INT8), "head": (), "block.one": LOWRANK})
    assert (steps(table, "stem"), counts(table, "stem")) == ([INT8], [8])
    assert (steps(table, "head"), steps(table, "block.one")) == ([()], [LOWRANK])
    assert counts(table, "block.one") == [16]  # a plan without pruning leaves all channels
    assert len(steps(table, "depth")) == len(STEPS) + 1  # it doesn't name it
    assert table.refusals == ()


def test_rules_win_over_an_earlier_plan() -> None:
    plan = {"stem": (keep_step(8), *INT8), "head": INT8}
    table = start("layers: {stem: {bits: at least 16, keep: at least 0.75}, head: {pin: any}}", plan)
    assert (steps(table, "stem"), counts(table, "stem")) == ([(), HALF, LOWRANK, SPATIAL], [16, 14, 12])
    assert len(steps(table, "head")) == len(STEPS) + 1
    table = start("layers: {depth: {pin: any}}", plan)  # tied to the stem: its channels are free, its weight isn't
    assert (steps(table, "stem"), counts(table, "stem")) == ([INT8], [16, 14, 12, 8, 4])
    assert table.refusals == ()


def test_what_an_earlier_plan_wants_and_the_table_lacks_is_told() -> None:
    missing: Steps = (Step("lowrank", {"rank": 7}),)
    table = start("", {"stem": (keep_step(7), *missing), "gone": INT8, "head": INT8, "depth": (keep_step(8),)})
    told = {(refusal.subject, refusal.action): refusal.reason for refusal in table.refusals}
    assert set(told) == {("stem", "start"), ("gone", "start"), ("depth", "start")}
    assert [refusal.reason for refusal in table.refusals if refusal.subject == "stem"] == [
        "the earlier plan's lowrank(rank=7) can't be taken up: it isn't among the options here",
        "the earlier plan's pruning(keep=7) can't be taken up: it isn't among the options here",
    ]
    assert "no such layer" in told["gone", "start"]
    assert "no such unit" in told["depth", "start"]
    assert (len(steps(table, "stem")), steps(table, "head"), steps(table, "depth")) == (len(STEPS) + 1, [INT8], [()])
    with pytest.raises(PlanError, match="something in common"):
        start("", {"gone": INT8})


# ------------------------------------------------------------------------------------------------------ what is refused


def test_a_table_of_another_network() -> None:
    table = whole_table()
    options = {"neck": table.options["head"], **table.options}
    assert refused("all: {bits: at least 4}", "no layer 'neck' here", table=replace(table, options=options)).remedy


def test_names_and_kinds_that_match_nothing() -> None:
    assert refused("layers: {hed: {bits: 8}}", "'hed'", "did you mean 'head'?").remedy
    assert refused('layers: {"blocks.*": {bits: 8}}', "'blocks.*'", "'block.").remedy
    assert refused("types: {conv1d: {bits: 8}}", "type must match", "'conv2d'").remedy


def test_pins_to_what_isn_t_there() -> None:
    error = refused("layers: {head: {pin: [{lowrank: {rank: 9}}]}}", "layers.head.pin: lowrank(rank=9)", "'head'")
    assert "did you mean 'lowrank(rank=8)'" in error.remedy
    assert "The table has 11: keep; quantization(" in error.remedy
    refused("layers: {stem: {pin: [{pruning: {keep: 9}}]}}", "the channels of 'stem'", "pruning(keep=8)")
    refused("layers: {head: {pin: [{pruning: {keep: 8}}]}}", "Only channels that can go", "units: stem, block.one")
    refused("all: {pin: [{pruning: {keep: 8}}]}", "all.pin for 'head'")
    text = "layers: {block.one: {untouched: true}, stem: {pin: [{pruning: {keep: 8}}]}}"
    refused(text, "the channels of 'stem', which touch an untouched layer")


def test_rules_that_leave_nothing() -> None:
    table, pin = made_table({"stem": [INT8], "head": []}, {}), "{pin: [{lowrank: {rank: 8}}], methods: [quantization]}"
    both = "layers: {stem: {pin: [{pruning: {keep: 8}}]}, depth: {pin: [{pruning: {keep: 4}}]}}"
    for error in (
        refused("all: {activations: dynamic}", "activations = [dynamic]", "layer 'stem'", "keep; quant", table=table),
        refused("layers: {head: {bits: at most 8}}", "layers.head.bits = at most 8 leaves nothing", table=table),
        refused("all: {bits: at most 8, methods: [lowrank]}", "leaves nothing for layer 'stem'", "one of these there"),
        refused(f"layers: {{head: {pin}}}", "layers.head.pin"),
        refused(both, "leaves nothing"),
    ):
        assert error.remedy


def test_a_layer_that_isn_t_on_the_table_can_only_stay_as_it_is() -> None:
    table = made_table({layer: [INT8] for layer in WIDTHS if layer != "head"}, {})
    assert left("all: {bits: at least 8}", table).options == table.options
    refused("all: {bits: 8}", "layer 'head'", table=table)
    assert steps(left("all: {bits: 8}\nlayers: {head: {bits: 32}}", table), "stem") == [INT8]


# ----------------------------------------------------------------------------------------------------------- properties

_bounds = st.sampled_from(["at least 4", "at least 8", "at most 16", "at most 8", 8])
_rule = st.fixed_dictionaries(
    {},
    optional={
        "methods": st.lists(
            st.sampled_from(["quantization", "pruning", "lowrank", "sharing", "binarization", "entropy"]), max_size=4
        ),
        "forbid": st.lists(st.sampled_from(["lowrank", "pruning", {"quantization": {"bits": 4}}]), max_size=2),
        "bits": _bounds,
        "keep": st.sampled_from(["at least 0.5", "at least 75%", "at least 1"]),
        "activations": st.sampled_from(["int8", "float32", ["float32", "int8"]]),
    },
)
_names = st.sampled_from([*WIDTHS, "*", "block.*", "*e*", "?tem"])
_kinds = st.sampled_from(["conv2d", "linear", "depthwise_conv2d", "*conv2d", "l*"])
documents = st.fixed_dictionaries(
    {"featherweight_rules": st.just(1)},
    optional={
        "all": _rule,
        "types": st.dictionaries(_kinds, _rule, max_size=3),
        "layers": st.dictionaries(_names, st.just({"untouched": True}) | _rule, max_size=4),
    },
)

_FACTS: list[tuple[Steps, set[str], float, str]] = [
    ((), set(), 32, "float32"),
    (INT8, {"quantization"}, 8, "int8"),
    (INT4, {"quantization"}, 4, "int8"),
    (HALF, {"quantization"}, 16, "float32"),
    (DYNAMIC, {"quantization"}, 8, "dynamic"),
    (LOWRANK, {"lowrank"}, 32, "float32"),
    (LOWRANK_INT8, {"lowrank", "quantization"}, 8, "int8"),
    (SPATIAL, {"lowrank"}, 32, "float32"),
    (SHARED, {"sharing"}, 4, "float32"),
    (TERNARY, {"binarization"}, 1.585, "float32"),
    (COARSE, {"entropy"}, 2.047, "int8"),
]


def ladder(document: dict, layer: str) -> list[dict]:
    """What a document says of a layer, the more specific first; written anew, to compare with."""
    found: list[dict] = []
    for said, word in ((document.get("layers", {}), layer), (document.get("types", {}), KINDS[layer])):
        found += [said.get(word, {}), {}]
        for pattern, rule in said.items():
            if pattern != word and fnmatch.fnmatchcase(word, pattern):
                found[-1].update(rule)
    return [*found, document.get("all", {})]


def is_untouched(document: dict, layer: str) -> bool:
    return bool(next((rule for rule in ladder(document, layer) if rule), {}).get("untouched"))


def effective(document: dict, layer: str, key: str) -> object:
    return next((rule[key] for rule in ladder(document, layer) if key in rule), None)


def fits(document: dict, layer: str, option: Option) -> bool:
    """Whether an option keeps to everything that is said of its layer."""
    if is_untouched(document, layer):
        return option.steps == ()
    (fact,) = [fact for fact in _FACTS if fact[0] == option.steps]
    _, used, bits, activation = fact
    methods, banned = effective(document, layer, "methods"), effective(document, layer, "forbid") or []
    *words, number = str(effective(document, layer, "bits") or "at least 0").split()
    within = {"at least": bits >= float(number), "at most": bits <= float(number), "": bits == float(number)}
    allowed = effective(document, layer, "activations") or ["float32", "int8", "dynamic"]
    return (
        (methods is None or used <= set(methods))
        and not ("lowrank" in banned and "lowrank" in used)
        and not ({"quantization": {"bits": 4}} in banned and option.steps == INT4)
        and within[" ".join(words)]
        and activation in ([allowed] if isinstance(allowed, str) else allowed)
    )


@given(tables, documents)
@settings(max_examples=200)
def test_exactly_what_keeps_to_the_rules_is_left(table: Table, document: dict) -> None:
    """Layers against a second reading of the rules; where nothing keeps to them, that is refused."""
    said = parse_rules(json.dumps(document))
    wanted = {layer: tuple(o for o in row if fits(document, layer, o)) for layer, row in table.options.items()}
    if unmatched(document) or not all(wanted.values()):
        with pytest.raises(PlanError):
            restricted(table, ruled_network(), said)
        return
    found = restricted(table, ruled_network(), said)
    assert found.options == wanted
    assert (found.fixed, found.widths, found.refusals) == (table.fixed, table.widths, table.refusals)
    assert all(set(map(id, found.keeps[unit])) <= set(map(id, row)) for unit, row in table.keeps.items())
    assert all(found.keeps.values())


def unmatched(document: dict) -> bool:
    return any(not fnmatch.filter(WIDTHS, name) for name in document.get("layers", {}))


@given(tables, documents, st.sampled_from([0.0, 0.05, 0.3, 10.0]), st.sampled_from(["size", "macs"]))
@settings(max_examples=60)
def test_any_choice_keeps_to_the_rules(table: Table, document: dict, budget: float, minimize: str) -> None:
    try:
        found = restricted(table, ruled_network(), parse_rules(json.dumps(document)))
    except PlanError:
        return
    choice = allocate(found, Goal(minimize=minimize), budget)
    if choice is None:
        return
    for layer, option in choice.layers.items():
        assert fits(document, layer, option)
    for unit, keep in choice.keeps.items():
        touched = {name for name, count in (*keep.rows.items(), *keep.columns.items()) if count}
        assert not any(is_untouched(document, layer) for layer in touched)
        check_unit(document, unit, keep)


def check_unit(document: dict, unit: str, keep: Keep) -> None:
    """The most specific level at which anybody speaks of the unit's channels is kept."""
    members = ["stem", "depth", "block.two"] if unit == "stem" else ["block.one"]
    portion = (16 - keep.rows[unit]) / 16
    for key, broken in (
        ("keep", lambda value: portion < {"at least 0.5": 0.5, "at least 75%": 0.75, "at least 1": 1.0}[value]),
        ("methods", lambda value: bool(keep.steps) and "pruning" not in value),
        ("forbid", lambda value: bool(keep.steps) and "pruning" in value),
    ):
        levels = zip(*(ladder(document, member) for member in members), strict=True)
        first = next((level for level in levels if any(key in rule for rule in level)), ())
        assert not any(broken(rule[key]) for rule in first if key in rule)
