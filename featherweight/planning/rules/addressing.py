"""Whom a rule speaks of: its names, patterns and kinds, found among a network's layers and units.

A layer is spoken of at five levels, the more specific first: by its exact name, by a pattern of names, by its exact
kind, by a pattern of kinds, by ``all``; of several patterns at one level the later counts. A coupled unit is spoken of
by its own name and by every layer whose output channels it holds.
"""

from __future__ import annotations

import fnmatch
import functools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from featherweight.contracts import Keep, PlanError, Table
from featherweight.methods.seam import PRUNING
from featherweight.network.capture import Network
from featherweight.planning.rules.rule import ANY, Rule, Rules
from featherweight.spelling import nearest

PINS = ("pin", "pruning")


@dataclass(frozen=True, slots=True)
class Said:
    """One key of one rule, as it applies to a layer or a unit.

    Attributes:
        key, value: what is said.
        place: where it stands in the file.
        subject: the layer or unit that the rule was found for.
    """

    key: str
    value: Any
    place: str
    subject: str

    def __str__(self) -> str:
        return f"{self.place}.{'pin' if self.key in PINS else self.key}"


Levels = Sequence[Sequence[Said]]


@dataclass(frozen=True)
class Addressing:
    """The rules as they apply to the layers and units of one network.

    Attributes:
        rules: the file.
        kinds: layer → kind.
        members: unit → itself and the layers whose output channels it holds.
    """

    rules: Rules
    kinds: Mapping[str, str]
    members: Mapping[str, tuple[str, ...]]

    @classmethod
    def of(cls, table: Table, network: Network, rules: Rules) -> Addressing:
        """With every name and kind of the rules found.

        Raises:
            PlanError: one matches nothing, or the table was made for another network.
        """
        kinds = {layer.name: layer.kind for layer in network.layers}
        strange = [layer for layer in table.options if layer not in kinds]
        if strange:
            raise PlanError(
                "A table belongs to the network that it was made for.", f"no layer {strange[0]!r} here", "plan again"
            )
        found = cls(rules, kinds, {unit: _members(unit, row, kinds) for unit, row in table.keeps.items()})
        names = list(dict.fromkeys([*kinds, *table.keeps]))
        for pattern in rules.layers:
            _check_matches("A rule's name or pattern", pattern, names)
        for pattern in rules.types:
            _check_matches("A rule's type", pattern, list(dict.fromkeys(kinds.values())))
        found._check_pruning_pins()
        return found

    @functools.cached_property
    def untouched(self) -> frozenset[str]:
        """The layers and units of which the most specific rule says so."""
        return frozenset(name for name in (*self.kinds, *self.members) if self._untouched(name))

    @property
    def lifted(self) -> tuple[frozenset[str], frozenset[str]]:
        """The layers and the units for which a pin is lifted: ``pin: any``."""
        layers = frozenset(
            name for name in self.kinds for level in self.levels(name, ("pin",)) for said in level if said.value == ANY
        )
        return layers, frozenset(unit for unit, members in self.members.items() if layers & set(members))

    def _untouched(self, name: str) -> bool:
        first: Mapping[str, Said] = next(filter(None, self._ladders[name]), {})
        return "untouched" in first and first["untouched"].value

    def levels(self, name: str, keys: Iterable[str]) -> Levels:
        """What is said of a layer, the more specific first."""
        return [[level[key] for key in keys if key in level] for level in self._ladders[name]]

    def unit_levels(self, unit: str, keys: Sequence[str]) -> Levels:
        """What is said of a unit through all that belongs to it."""
        parts = [self.levels(member, keys) for member in self.members[unit]]
        together = [[said for part in at for said in part] for at in zip(*parts, strict=True)]
        return [sorted(level, key=lambda said: keys.index(said.key)) for level in together]

    @functools.cached_property
    def _ladders(self) -> Mapping[str, Sequence[Mapping[str, Said]]]:
        """Name of a layer or unit → what is said of it at each level, the more specific first."""
        return {name: tuple(self._merged(name)) for name in (*self.kinds, *self.members)}

    def _merged(self, name: str) -> Iterator[dict[str, Said]]:
        kind = self.kinds.get(name, "")
        for patterns, word in ((self.rules.layers, name), (self.rules.types, kind)):
            exact = [patterns[word]] if word in patterns else []
            several = [rule for key, rule in patterns.items() if word and key != word and _matches(key, word)]
            yield _said(exact, name)
            yield _said(several, name)
        yield _said([self.rules.all], name)

    def _check_pruning_pins(self) -> None:
        held = {member for members in self.members.values() for member in members}
        for name in self.kinds:
            said = next((one for level in self.levels(name, ("pruning",)) for one in level), None)
            if said and name not in held:
                raise PlanError(
                    "Only channels that can go can be pinned.",
                    f"{said} for {name!r}",
                    f"take {PRUNING} out of that pin" + (f"; units: {', '.join(self.members)}" if self.members else ""),
                )


def _members(unit: str, row: Sequence[Keep], kinds: Mapping[str, str]) -> tuple[str, ...]:
    base = unit.partition(":")[0]
    rows = [layer for keep in row for layer, lost in keep.rows.items() if lost]
    return tuple(dict.fromkeys([unit, *([base] if base in kinds else []), *rows]))


def _said(rules: Sequence[Rule], subject: str) -> dict[str, Said]:
    """Key → what the last of some rules says."""
    return {key: Said(key, value, rule.place, subject) for rule in rules for key, value in rule.said.items()}


def _matches(pattern: str, word: str) -> bool:
    return fnmatch.fnmatchcase(word, pattern)


def _check_matches(what: str, pattern: str, words: Sequence[str]) -> None:
    if not any(_matches(pattern, word) for word in words):
        raise PlanError(f"{what} must match something of the network.", repr(pattern), nearest(pattern, words))
