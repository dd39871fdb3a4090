"""Rules as a file: what a person wrote, checked word by word.

Read with a safe loader, bounded in size, every unknown key refused with the nearest known one. ``docs/rules.md`` shows
every key.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

import yaml

from featherweight.contracts import QUANTITIES, Scalar, Step, Steps, UsageError
from featherweight.methods import METHODS
from featherweight.methods.seam import PRUNING
from featherweight.planning.documents import SHOWN, Format, PlainLoader
from featherweight.planning.plans import read_plan
from featherweight.planning.rules.rule import ANY, NO_LIMIT, Bound, Rule, Rules
from featherweight.quantities import byte_count, count, milliseconds, share
from featherweight.spelling import nearest

ACTIVATIONS = ("float32", "int8", "dynamic")
METHOD_NAMES = (PRUNING, *(method.name for method in METHODS))

_VERSION = 1
_MOST_ENTRIES = 1000
_LONGEST_NAME = 500
_BOUND = re.compile(r"(?:at (least|most) )?([0-9]*\.?[0-9]+)\s*(%?)")
_KINDS = {"dataclass_type": "a mapping is wanted", "tuple_type": "a list is wanted", "dict_type": "a mapping is wanted"}


def read_rules(path: Path) -> Rules:
    """Read a file of rules; the earlier plan that it names lies beside it.

    Raises:
        UsageError: the file is missing, too large, no YAML, or says something that rules don't.
        GoalError: a goal's field is no quantity.
        PlanError: the earlier plan is none.
    """
    return parse_rules(_FORMAT.read(path), path.parent, str(path))


def parse_rules(text: str, folder: Path = Path(), origin: str = "the rules") -> Rules:
    """Rules from their YAML text.

    Args:
        text: of the file.
        folder: what ``start`` is relative to.
        origin: names the file in messages.

    Raises:
        FeatherweightError: as for :func:`read_rules`.
    """
    document = _FORMAT.parsed(text, origin)
    words = _validated(document, origin)
    if len(words.types) + len(words.layers) > _MOST_ENTRIES:
        raise UsageError(f"Rules have at most {_MOST_ENTRIES:,} entries.", origin, "use patterns")
    goal, metric = _goal(words.goal, origin)
    return Rules(
        all=_rule(words.all, "all", origin),
        types={kind: _rule(rule, f"types.{kind}", origin) for kind, rule in words.types.items()},
        layers={name: _rule(rule, f"layers.{name}", origin) for name, rule in words.layers.items()},
        goal=goal,
        metric=metric,
        start=None if words.start is None else read_plan(folder / words.start),
        search=words.search,
        storage=words.storage,
    )


# ------------------------------------------------------------------------------------------------- as they are written


class _Loader(PlainLoader):
    """A safe loader whose keys are read as they are written ("1.10" is a layer's name), each once."""

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        made: dict[Any, Any] = {}
        for key, value in node.value:
            if not isinstance(key, yaml.ScalarNode) or not 0 < len(key.value) <= _LONGEST_NAME:
                raise yaml.YAMLError(f"a key must be a short name ({key.start_mark})")
            if key.value in made:
                raise yaml.YAMLError(f"{key.value!r} stands there twice ({key.start_mark})")
            made[key.value] = self.construct_object(value, deep=deep)
        return made


_FORMAT = Format(
    "A file of rules", "featherweight_rules", _VERSION, UsageError, "see the example in docs/rules.md", _Loader, 1 << 20
)

Words = int | float | str
_StepWords = str | dict[str, dict[str, Scalar] | None]
_REFUSED: Any = {"extra": "forbid"}


@dataclass(frozen=True)
class _RuleWords:
    __pydantic_config__ = _REFUSED
    untouched: bool | None = None
    methods: tuple[str, ...] | None = None
    forbid: tuple[_StepWords, ...] | None = None
    pin: tuple[_StepWords, ...] | Literal["any"] | None = None
    bits: Words | None = None
    keep: Words | None = None
    activations: str | tuple[str, ...] | None = None


@dataclass(frozen=True)
class _LimitWords:
    __pydantic_config__ = _REFUSED
    size: Words | None = None
    package: Words | None = None
    macs: Words | None = None
    latency: Words | None = None
    memory: Words | None = None


@dataclass(frozen=True)
class _GoalWords:
    __pydantic_config__ = _REFUSED
    max_drop: Words | None = None
    confidence: Words | None = None
    minimize: str | None = None
    limits: _LimitWords = _LimitWords()
    metric: str | None = None
    relative: bool | None = None
    max_group_drop: Words | None = None


@dataclass(frozen=True)
class _RulesWords:
    __pydantic_config__ = _REFUSED
    featherweight_rules: int
    goal: _GoalWords = _GoalWords()
    start: str | None = None
    search: int = 0
    storage: str = ""
    all: _RuleWords = _RuleWords()
    types: dict[str, _RuleWords] = field(default_factory=dict)
    layers: dict[str, _RuleWords] = field(default_factory=dict)


_KEYS: Mapping[str, type] = {"goal": _GoalWords, "goal.limits": _LimitWords, "": _RulesWords}


def _validated(document: dict[str, Any], origin: str) -> _RulesWords:
    from pydantic import TypeAdapter, ValidationError  # noqa: PLC0415  (a fifth of our import time)

    try:
        return TypeAdapter(_RulesWords).validate_python(document)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = [str(part) for part in first["loc"]]
        if first["type"] == "unexpected_keyword_argument":
            owner = ".".join(where[:-1])
            known = [one.name for one in fields(_KEYS.get(owner, _RuleWords))]
            raise UsageError(
                f"The keys {'of ' + owner if owner else 'of rules'} are: {', '.join(known)}.",
                f"{origin}: {where[-1]!r}",
                nearest(where[-1], known),
            ) from error
        place = [part for part in where if not re.search(r"[\[(]|^(int|float|str|bool)$", part)]
        raise UsageError(
            "Every key of the rules takes a value of its own kind.",
            f"{origin}: {'.'.join(place)}: {first['input']!r}"[:SHOWN]
            + f" ({_KINDS.get(first['type'], first['msg'])})",
            "see the example in docs/rules.md",
        ) from error


# --------------------------------------------------------------------------------------------------- as they are meant


def _rule(words: _RuleWords, place: str, origin: str) -> Rule:
    at = f"{origin}: {place}"
    if words.untouched and any(
        getattr(words, one.name) is not None for one in fields(words) if one.name != "untouched"
    ):
        raise UsageError(
            "What is untouched has no other rule.", f"{at}: untouched beside other keys", "take one of them out"
        )
    for method in words.methods or ():
        _check_known("Families", method, METHOD_NAMES, f"{at}: methods")
    listed = (words.activations,) if isinstance(words.activations, str) else words.activations
    for kind in listed or ():
        _check_known("Types of activations", kind, ACTIVATIONS, f"{at}: activations")
    pin, pruning = _pin(words.pin, f"{at}: pin")
    return Rule(
        place=place,
        untouched=words.untouched,
        methods=words.methods,
        forbid=None if words.forbid is None else tuple(_step(one, f"{at}: forbid") for one in words.forbid),
        pin=pin,
        pruning=pruning,
        bits=None if words.bits is None else _bits(words.bits, f"{at}: bits"),
        keep=None if words.keep is None else _keep(words.keep, f"{at}: keep"),
        activations=listed,
    )


def _check_known(what: str, word: str, known: tuple[str, ...], at: str) -> None:
    if word not in known:
        raise UsageError(f"{what} are: {', '.join(known)}.", f"{at}: {word!r}", nearest(word, known))


def _step(words: _StepWords, at: str) -> Step:
    if isinstance(words, dict) and len(words) != 1:
        raise UsageError("A step is one method with its settings.", f"{at}: {words!r}"[:SHOWN], "{lowrank: {rank: 8}}")
    method, settings = (words, None) if isinstance(words, str) else next(iter(words.items()))
    _check_known("Families", method, METHOD_NAMES, at)
    return Step(method, settings or {})


def _pin(
    words: tuple[_StepWords, ...] | Literal["any"] | None, at: str
) -> tuple[Steps | Literal["any"] | None, Step | None]:
    """The steps on the layer itself, and the pruning of its unit; a pin of pruning alone leaves the layer free."""
    if words is None:
        return None, None
    if isinstance(words, str):
        return ANY, None
    steps = tuple(_step(one, at) for one in words)
    pruning = steps[0] if steps and steps[0].method == PRUNING else None
    own = steps[1:] if pruning else steps
    if any(step.method == PRUNING for step in own):
        raise UsageError("Channels go first, and once.", f"{at}: {' > '.join(map(str, steps))}", f"put {PRUNING} first")
    return (None if pruning and not own else own), pruning


def _parsed(words: Words, at: str, example: str) -> tuple[str | None, float, str]:
    found = _BOUND.fullmatch(str(words).strip())
    if found is None:
        raise UsageError("A bound is a number, or at least or at most one.", f"{at}: {words!r}", f"write {example}")
    return found[1], float(found[2]), found[3]


def _bits(words: Words, at: str) -> Bound:
    side, number, unit = _parsed(words, at, "at least 4")
    if unit or not 1 <= number <= 32:
        raise UsageError("Weights have 1 to 32 bits.", f"{at}: {words!r}", "write at least 4, at most 8, or 8")
    return Bound(0.0 if side == "most" else number, NO_LIMIT if side == "least" else number)


def _keep(words: Words, at: str) -> float:
    side, number, unit = _parsed(words, at, "at least 0.5")
    portion = number / 100 if unit else number
    if side != "least" or not 0 < portion <= 1:
        raise UsageError(
            "What is kept is at least a share of the channels, above 0 and up to 1.",
            f"{at}: {words!r}",
            "write at least 0.5, or at least 50%; to fix a number, pin: [{pruning: {keep: 8}}]",
        )
    return portion


def _goal(words: _GoalWords, origin: str) -> tuple[dict[str, float | int | bool | str], str | None]:
    """Fields of the goal, and the metric."""
    limits = {
        "max_size_bytes": _amount(byte_count, words.limits.size),
        "max_package_bytes": _amount(byte_count, words.limits.package),
        "max_macs": _amount(count, words.limits.macs),
        "max_latency_ms": _amount(milliseconds, words.limits.latency),
        "max_memory_bytes": _amount(byte_count, words.limits.memory),
    }
    found = {
        "max_drop": _amount(share, words.max_drop),
        "confidence": _amount(share, words.confidence),
        "minimize": words.minimize,
        "relative": words.relative,
        "max_group_drop": _amount(share, words.max_group_drop),
        **limits,
    }
    if words.minimize is not None:
        _check_known("What can be minimised", words.minimize, QUANTITIES, f"{origin}: goal.minimize")
    return {key: value for key, value in found.items() if value is not None}, words.metric


def _amount(read: Any, words: Words | None) -> Any:
    return None if words is None else read(str(words))
