"""Restriction: a table with only those options left that a person's rules allow.

Each key of a rule is taken from the most specific level that has it
(:mod:`featherweight.planning.rules.addressing`). A pin overrides everything less specific than itself, and gives way to
what is more specific. What is said of a coupled unit through several of its layers, at the same level, all counts.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, TypeVar

from featherweight.contracts import Cost, Keep, Option, PlanError, Step, Steps, Table, describe
from featherweight.methods.seam import PRUNING
from featherweight.network.capture import Network
from featherweight.network.channels import analyse
from featherweight.planning.rules.addressing import PINS, Addressing, Levels, Said
from featherweight.planning.rules.rule import ANY, Rules
from featherweight.planning.rules.starting import started
from featherweight.spelling import nearest

Candidate = TypeVar("Candidate", Option, Keep)

_LAYER_KEYS = ("methods", "forbid", "bits", "activations", "pin")  # pins last: they are checked against the others
_UNIT_KEYS = ("methods", "forbid", "keep", "pruning")
_REAL_BITS = 32
_GAUSSIAN_BITS = 0.5 * math.log2(2 * math.pi * math.e)  # of a normal value on a grid of one standard deviation
_SHOWN = 12


def restricted(table: Table, network: Network, rules: Rules) -> Table:
    """The table with only the options left that the rules allow.

    Args:
        table: all options.
        network: the network that the table was made for; the folded one.
        rules: what may be done.

    Returns:
        A table whose options are among the given ones, in their order. Where an earlier plan asks for what isn't on
        the table, that layer stays free and a refusal says so.

    Raises:
        PlanError: a name or kind that matches nothing, a pin to an option that the table doesn't have, or rules that
            leave nothing for a layer or a unit.
    """
    addressing = Addressing.of(table, network, rules)
    frozen = _frozen_units(table, network, addressing.untouched)
    options = {}
    for layer in dict.fromkeys(layer.name for layer in network.layers):
        row = table.options.get(layer) or (Option(layer, (), Cost(0, 0, 0), 0.0, 0.0),)
        if layer in addressing.untouched:
            options[layer] = tuple(option for option in row if not option.steps)
        else:
            about = f"layer {layer!r}{_reasons(table, layer)}"
            options[layer] = _left(row, addressing.levels(layer, _LAYER_KEYS), allows_option, about)
    channels, keeps = _Channels(table), {}
    for unit, row in table.keeps.items():
        whole = tuple(keep for keep in row if not keep.steps)
        about = f"the channels of {unit!r}{', which touch an untouched layer' if unit in frozen else ''}"
        levels = addressing.unit_levels(unit, _UNIT_KEYS)
        keeps[unit] = _left(whole if unit in frozen else row, levels, channels.allows, about)
    found = replace(table, options={layer: options[layer] for layer in table.options}, keeps=keeps)
    return found if rules.start is None else started(found, table, rules.start, addressing.lifted)


def untouched_layers(table: Table, network: Network, rules: Rules) -> frozenset[str]:
    """The layers that must stay as they are, bit for bit: whoever refits layers must leave these out.

    Raises:
        PlanError: a name or kind that matches nothing.
    """
    return Addressing.of(table, network, rules).untouched


def _frozen_units(table: Table, network: Network, untouched: frozenset[str]) -> set[str]:
    """Units whose channels are rows or columns of something untouched, or that are untouched themselves."""
    frozen = {
        unit
        for unit, row in table.keeps.items()
        if unit in untouched or any(layer in untouched for keep in row for layer in (*keep.rows, *keep.columns))
    }
    unpriced = {layer.weight for layer in network.layers if layer.name in untouched and layer.name not in table.options}
    if unpriced and table.keeps:  # the table doesn't say what their channels are tied to
        coupling = analyse(network.graph)
        free = {u.name for u in coupling.units if not any(piece.state in unpriced for piece in u.slices)}
        frozen |= set(table.keeps) - free
    return frozen


def _reasons(table: Table, layer: str) -> str:
    """Why there is so little to choose from, where the table says so."""
    reasons = [refusal.reason for refusal in table.refusals if refusal.subject == layer]
    return f" ({'; '.join(reasons[:3])})" if reasons and layer not in table.options else ""


# ------------------------------------------------------------------------------------------------------- what is left


def _left(
    row: Sequence[Candidate], levels: Levels, allows: Callable[[Said, Candidate], bool], about: str
) -> tuple[Candidate, ...]:
    """The candidates that all levels allow, in their order.

    Raises:
        PlanError: there is none, or a pin to what isn't there.
    """
    left, spoken = list(row), set[str]()
    for level in levels:
        before = left
        for said in level:
            if said.key in spoken:
                continue
            kept = [one for one in left if allows(said, one)]
            pinned = said.key in PINS
            if pinned and not any(allows(said, one) for one in row):
                raise _unknown_pin(said, row, about)
            if pinned and not any(allows(said, one) for one in before):
                continue  # something more specific excludes it
            if not kept:
                raise _nothing_left(said, left, about)
            left = kept
        spoken |= {said.key for said in level}
        if any(said.key in PINS and said.value != ANY for said in level):
            break
    return tuple(left)


def _unknown_pin(said: Said, row: Sequence[Option | Keep], about: str) -> PlanError:
    known = [describe(one.steps) for one in row]
    wanted = describe((said.value,) if isinstance(said.value, Step) else said.value)
    remedy = f"{nearest(wanted, known)} The table has {len(known)}: {'; '.join(known[:_SHOWN])}"
    if not any(one.steps for one in row):
        remedy = "take the pin away: there is nothing but keeping it as it is"
    return PlanError("A pin must name an option that is on the table.", f"{said}: {wanted} for {about}", remedy)


def _nothing_left(said: Said, left: Sequence[Option | Keep], about: str) -> PlanError:
    options = "; ".join(describe(one.steps) for one in left[:_SHOWN])
    return PlanError(
        "Rules must leave something for every layer and every unit.",
        f"{said} = {_words(said.value)} leaves nothing for {about}",
        f"allow one of these there, by a more specific rule: {options}",
    )


def _words(value: Any) -> str:
    if isinstance(value, tuple):
        return f"[{', '.join(map(str, value))}]"
    return str(value)


def allows_option(said: Said, option: Option) -> bool:
    """Whether an option of a layer keeps to what is said."""
    match said.key:
        case "methods":
            return all(step.method in said.value for step in option.steps)
        case "forbid":
            return not any(_is_such(step, banned) for step in option.steps for banned in said.value)
        case "bits":
            return encoded_bits(option.steps) in said.value
        case "activations":
            return activation_type(option.steps) in said.value
        case _:  # a pin
            return said.value in (ANY, option.steps)


def _is_such(step: Step, banned: Step) -> bool:
    """Whether a step is of the banned method, with all settings that the ban names."""
    return step.method == banned.method and banned.settings.items() <= step.settings.items()


def encoded_bits(steps: Steps) -> float:
    """Bits for one weight as it is encoded: the fewest that tell its values apart; 32 where nothing encodes it."""
    bits = float(_REAL_BITS)
    for step in steps:
        match step.method:
            case "quantization":
                bits = min(bits, 16.0 if step.settings.get("weights") == "float16" else _number(step, "bits", 8))
            case "sharing":
                bits = min(bits, math.log2(_number(step, "values", 2**_REAL_BITS)))
            case "binarization":
                bits = min(bits, math.log2(2 if step.settings.get("kind") == "binary" else 3))
            case "entropy":
                bits = min(bits, max(0.0, _GAUSSIAN_BITS - math.log2(_number(step, "step", 1))))
    return bits


def _number(step: Step, key: str, otherwise: float) -> float:
    return float(step.settings.get(key, otherwise))


def activation_type(steps: Steps) -> str:
    """What a layer's activations are: "int8", "dynamic" or "float32"."""
    return next((str(step.settings["activations"]) for step in steps if "activations" in step.settings), "float32")


class _Channels:
    """What rules say of kept channels, on one table."""

    def __init__(self, table: Table) -> None:
        self.table = table
        self.most: dict[str, int] = {}  # layer → rows that all its units together can take
        for row in table.keeps.values():
            for layer, rows in _deepest(row).items():
                self.most[layer] = self.most.get(layer, 0) + rows

    def allows(self, said: Said, keep: Keep) -> bool:
        """Whether a keep of a unit keeps to what is said."""
        match said.key:
            case "methods":
                return not keep.steps or PRUNING in said.value
            case "forbid":
                return not any(_is_such(step, banned) for step in keep.steps for banned in said.value)
            case "keep":
                return self._leaves(keep, said)
            case _:  # a pin
                return keep.steps == (said.value,)

    def _leaves(self, keep: Keep, said: Said) -> bool:
        """Whether enough rows stay; units that share a layer divide between them what may go."""
        deepest = _deepest(self.table.keeps[keep.unit])
        layers = [said.subject] if said.subject in deepest else list(deepest)
        if not layers:
            return not keep.steps  # none of its producers is on the table: shares can't be told
        for layer in layers:
            room = (1 - said.value) * self.table.widths[layer][0] * deepest[layer] / self.most[layer]
            if keep.rows.get(layer, 0) > room * (1 + 1e-9):
                return False
        return True


def _deepest(row: Sequence[Keep]) -> dict[str, int]:
    """Layer → the most rows that a unit takes from it."""
    found: dict[str, int] = {}
    for keep in row:
        for layer, rows in keep.rows.items():
            if rows:
                found[layer] = max(found.get(layer, 0), rows)
    return found
