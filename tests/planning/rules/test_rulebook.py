"""Rules as a file: what is read, and what is refused in which words."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from featherweight.contracts import FeatherweightError, Goal, GoalError, Plan, PlanError, Step, UsageError
from featherweight.planning.plans import write_plan
from featherweight.planning.rules.rule import Bound, Rule, Rules, goal_of
from featherweight.planning.rules.rulebook import parse_rules, read_rules
from featherweight.records import from_json, to_json

HEAD = "featherweight_rules: 1\n"
_WORDS = ["all", "types", "layers", "goal", "start", "pin", "bits", "keep", "methods", "forbid", "limits", "x"]
documents = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(_WORDS), inner, max_size=4),
    max_leaves=12,
)
DOCUMENT = Path(__file__).parents[3] / "docs" / "rules.md"


def test_a_file_with_nothing_but_its_version_says_nothing() -> None:
    assert parse_rules(HEAD) == Rules()
    assert goal_of(Rules()) == Goal()


def test_every_key_is_read() -> None:
    rules = parse_rules(
        HEAD
        + """
all: {methods: [quantization, pruning], bits: at least 4}
types: {linear: {activations: int8}, "conv*": {keep: at least 50%, activations: [int8, float32]}}
layers:
  stem: {untouched: true}
  "block.*": {forbid: [lowrank, {quantization: {weights: float16}}], bits: at most 8}
  1.10: {pin: [{pruning: {keep: 8}}, {quantization: {weights: int8, activations: int8, bits: 4}}], bits: 4}
  head: {pin: []}
  tail: {pin: any, keep: at least 1}
  last: {pin: [{pruning: {keep: 3}}]}
"""
    )
    assert rules.all.methods == ("quantization", "pruning")
    assert (3.9 in rules.all.bits, 4 in rules.all.bits, 32 in rules.all.bits) == (False, True, True)
    assert rules.types["linear"].activations == ("int8",)
    assert (rules.types["conv*"].keep, rules.types["conv*"].activations) == (0.5, ("int8", "float32"))
    assert rules.layers["stem"] == Rule(place="layers.stem", untouched=True)
    block = rules.layers["block.*"]
    assert block.forbid == (Step("lowrank"), Step("quantization", {"weights": "float16"}))
    assert (1.58 in block.bits, 8 in block.bits, 16 in block.bits) == (True, True, False)
    pinned = rules.layers["1.10"]  # a key is a name as it is written, not a number
    assert pinned.pruning == Step("pruning", {"keep": 8})
    assert pinned.pin == (Step("quantization", {"weights": "int8", "activations": "int8", "bits": 4}),)
    assert pinned.bits == Bound(4, 4)
    assert rules.layers["head"].pin == ()
    assert (rules.layers["tail"].pin, rules.layers["tail"].keep) == ("any", 1.0)
    assert (rules.layers["last"].pin, rules.layers["last"].pruning) == (None, Step("pruning", {"keep": 3}))


def test_the_goal_is_read_and_what_was_given_beside_it_wins() -> None:
    rules = parse_rules(
        HEAD
        + """
goal:
  max_drop: 2pp
  confidence: 90%
  minimize: latency
  limits: {size: 300kB, package: 0.1MB, macs: 40M, latency: 2.5ms, memory: 1MiB}
  metric: top5
  relative: true
  max_group_drop: 0.03
"""
    )
    wanted = Goal(
        max_drop=0.02, confidence=0.9, minimize="latency", max_size_bytes=300_000, max_package_bytes=100_000,
        max_macs=40_000_000, max_latency_ms=2.5, max_memory_bytes=1 << 20, relative=True, max_group_drop=0.03,
    )  # fmt: skip
    assert goal_of(rules) == wanted
    assert rules.metric == "top5"
    given = goal_of(rules, {"max_drop": 0.01, "minimize": None, "max_macs": 5})
    assert (given.max_drop, given.minimize, given.max_macs, given.confidence) == (0.01, "latency", 5, 0.9)


@pytest.mark.parametrize(("text", "milliseconds"), [("2", 2.0), ("0.25ms", 0.25), ("1.5 s", 1500.0), ("1e-3s", 1.0)])
def test_latency_in_its_units(text: str, milliseconds: float) -> None:
    assert goal_of(parse_rules(f"{HEAD}goal: {{limits: {{latency: {text}}}}}")).max_latency_ms == milliseconds


def test_an_earlier_plan_lies_beside_the_file(tmp_path: Path) -> None:
    plan = Plan("abc", "litert", {"head": (Step("lowrank", {"rank": 8}),)})
    write_plan(plan, tmp_path / "old.yaml")
    (tmp_path / "rules.yaml").write_text(f"{HEAD}start: old.yaml\n")
    assert read_rules(tmp_path / "rules.yaml").start == plan
    (tmp_path / "rules.yaml").write_text(f"{HEAD}start: other.yaml\n")
    with pytest.raises(PlanError, match=r"other\.yaml"):
        read_rules(tmp_path / "rules.yaml")


def test_rules_are_plain_values_that_a_run_can_be_known_by() -> None:
    rules = parse_rules(
        HEAD + "all: {bits: at least 4}\nlayers: {a: {pin: [{lowrank: {rank: 8}}]}}\ngoal: {max_drop: 0.01}"
    )
    assert from_json(Rules, to_json(rules)) == rules


# ------------------------------------------------------------------------------------------------------ what is refused

REFUSED = [
    ("no version", "all: {}", "featherweight_rules: 1", ""),
    ("another version", "featherweight_rules: 2", "featherweight_rules: 1", ""),
    ("a list", "- 1", "featherweight_rules: 1", ""),
    ("no YAML", HEAD + "all: {", "must be YAML", ""),
    ("an alias", HEAD + "all: &x {bits: 4}\nlayers: {a: *x}", "no anchors", ""),
    ("a key twice", HEAD + "layers: {a: {}, a: {}}", "'a' stands there twice", ""),
    ("a merge key", HEAD + "layers: {<<: {a: {}}, b: {bits: 4}}", "'a'", ""),
    ("a list as a key", HEAD + "layers: {[1]: {}}", "short name", ""),
    ("a long key", HEAD + f"layers: {{{'a' * 501}: {{}}}}", "short name", ""),
    ("unknown at the top", HEAD + "layer: {}", "'layer'", "did you mean 'layers'"),
    ("unknown in a rule", HEAD + "layers: {a: {bit: 4}}", "'bit'", "did you mean 'bits'"),
    ("unknown in all", HEAD + "all: {methds: []}", "keys of all are", "did you mean 'methods'"),
    ("unknown in a type", HEAD + "types: {linear: {rank: 4}}", "keys of types.linear are", "untouched"),
    ("unknown in the goal", HEAD + "goal: {max_size: 3}", "keys of goal are", "'max_drop'"),
    ("unknown limit", HEAD + "goal: {limits: {sise: 3}}", "keys of goal.limits are", "did you mean 'size'"),
    ("unknown quantity", HEAD + "goal: {minimize: speed}", "can be minimised", "one of: size"),
    ("unknown family", HEAD + "all: {methods: [quantisation]}", "all: methods", "did you mean 'quantization'"),
    ("unknown family in a ban", HEAD + "all: {forbid: [prune]}", "all: forbid", "did you mean 'pruning'"),
    ("unknown family in a pin", HEAD + "layers: {a: {pin: [{low: {}}]}}", "layers.a: pin", "'lowrank'"),
    ("unknown activations", HEAD + "all: {activations: int16}", "all: activations", "'int8'"),
    ("a rule as a word", HEAD + "layers: {a: untouched}", "layers.a: 'untouched' (a mapping is wanted)", ""),
    ("a pin as a word", HEAD + "all: {pin: int8}", "all.pin: 'int8' (a list is wanted)", ""),
    ("bits as a list", HEAD + "all: {bits: [4]}", "all.bits: [4]", ""),
    ("bits as prose", HEAD + "all: {bits: few}", "all: bits: 'few'", "at least 4"),
    ("no bits", HEAD + "all: {bits: 0}", "1 to 32 bits", ""),
    ("bits in percent", HEAD + "all: {bits: 50%}", "1 to 32 bits", ""),
    ("a share without a side", HEAD + "all: {keep: 0.5}", "at least a share", "at least 0.5"),
    ("a share above all", HEAD + "all: {keep: at least 8}", "at least a share", "pruning: {keep: 8}"),
    ("nothing kept", HEAD + "all: {keep: at least 0}", "at least a share", ""),
    ("two steps in one", HEAD + "all: {pin: [{lowrank: {rank: 8}, sharing: {values: 4}}]}", "one method", ""),
    ("pruning last", HEAD + "all: {pin: [{lowrank: {rank: 8}}, {pruning: {keep: 8}}]}", "Channels go first", ""),
    ("untouched and limited", HEAD + "layers: {a: {untouched: true, bits: 8}}", "no other rule", ""),
]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "phrase", "remedy"), [case[1:] for case in REFUSED], ids=[case[0] for case in REFUSED]
)
def test_what_rules_don_t_say_is_refused(text: str, phrase: str, remedy: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_rules(text, origin="rules.yaml")
    assert phrase in str(caught.value)
    assert "rules.yaml" in caught.value.got or "rules.yaml" in caught.value.rule
    assert remedy in caught.value.remedy
    assert len(str(caught.value)) < 1000


@pytest.mark.parametrize(
    "goal",
    ["{max_drop: much}", "{max_drop: 1.5}", "{confidence: 100%}", "{limits: {latency: fast}}", "{limits: {size: -1}}"],
)
def test_a_goal_that_means_nothing_is_refused(goal: str) -> None:
    with pytest.raises(GoalError):
        goal_of(parse_rules(f"{HEAD}goal: {goal}"))


def test_files_that_can_t_be_rules(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="readable"):
        read_rules(tmp_path / "missing.yaml")
    (tmp_path / "large.yaml").write_text(HEAD + "#" * (1 << 20))
    with pytest.raises(UsageError, match="small"):
        read_rules(tmp_path / "large.yaml")
    (tmp_path / "latin.yaml").write_bytes(b"\xff\xfe\xfa")
    with pytest.raises(UsageError, match="readable"):
        read_rules(tmp_path / "latin.yaml")
    entries = ", ".join(f"a{number}: {{}}" for number in range(1001))
    with pytest.raises(UsageError, match="at most 1,000"):
        parse_rules(f"{HEAD}layers: {{{entries}}}")


@given(documents)
def test_any_document_is_read_or_refused_in_words(document: object) -> None:
    text = HEAD + yaml.safe_dump(document) if isinstance(document, dict) else yaml.safe_dump(document)
    try:
        assert isinstance(parse_rules(text), Rules)
    except FeatherweightError as error:
        assert error.rule and error.got and error.remedy  # noqa: PT017, PT018


def test_the_example_in_the_document_is_read(tmp_path: Path) -> None:
    text = DOCUMENT.read_text(encoding="utf-8").split("```yaml\n")[1].split("```")[0]
    write_plan(Plan("abc", "litert", {"stem": ()}), tmp_path / "earlier.yaml")
    rules = parse_rules(text, tmp_path)
    said = {key for rule in (rules.all, *rules.types.values(), *rules.layers.values()) for key in rule.said}
    assert said == {"untouched", "methods", "forbid", "pin", "pruning", "bits", "keep", "activations"}  # every key
    assert len(goal_of(rules).limits) == 5
    assert rules.start is not None
    assert rules.metric
