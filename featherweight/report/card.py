"""``card.json``: the model card for machines.

Wall-clock times stand under ``"timings"`` and nowhere else, so that two runs of one job give cards that are equal byte
for byte outside that key. Mappings are sorted by key; figures that aren't finite are null, since JSON has no word for
them.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping
from typing import Any

from featherweight.contracts import Plan, Side, Story, describe

FORMAT = "featherweight-card"
VERSION = 1
_FIRST = ("met", "verdict", "goal", "certificate")
_TIMES = ("timing", "operators_ms")


def card_of(story: Story) -> dict[str, Any]:
    """The story as plain values for JSON."""
    told = {name: value for name, value in _fields(dataclasses.replace(story, table=None)).items() if name != "table"}
    first = {name: told.pop(name) for name in _FIRST}
    timings = {"original": _timings(story.original), "compressed": _timings(story.compressed)}
    return {"format": FORMAT, "version": VERSION, **first, **told, "timings": timings}


def card_text(story: Story) -> str:
    """The card as the text of ``card.json``; odd characters that UTF-8 can't hold are escaped."""
    text = json.dumps(card_of(story), indent=1, ensure_ascii=False, allow_nan=False)
    return text.encode("utf-8", "backslashreplace").decode() + "\n"


def _timings(side: Side) -> dict[str, Any]:
    """The file's time, and its operators' in execution order."""
    operators = [{"operator": name, "ms": _plain(spent)} for name, spent in side.operators_ms]
    return {"timing": _plain(side.timing), "operators": operators}


def _fields(value: Any) -> dict[str, Any]:
    """A dataclass's fields as plain values, in their order."""
    return {one.name: _plain(getattr(value, one.name)) for one in dataclasses.fields(value)}


def _plain(value: Any) -> Any:
    """Values as JSON has them: sides without their times, plans with their choices in words too, infinities as None."""
    match value:
        case Side():
            return {name: told for name, told in _fields(value).items() if name not in _TIMES}
        case Plan():
            choices = {
                unit: {"words": describe(steps), "steps": _plain(steps)}
                for unit, steps in sorted(value.choices.items())
            }
            return {**_fields(value), "choices": choices}
        case Mapping():
            return {key: _plain(value[key]) for key in sorted(value)}
        case tuple() | list():
            return [_plain(one) for one in value]
        case float() if not math.isfinite(value):
            return None
    return _fields(value) if dataclasses.is_dataclass(value) else value
