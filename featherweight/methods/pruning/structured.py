"""Structured pruning: which channels of a coupled unit go, and the network without them.

Within a unit the choice is by optimal-brain-surgeon elimination over all its consumers together (default), or by one
of the named criteria of :mod:`featherweight.methods.pruning.ranking`. Removal is surgery on the user's own classes; the
consumers are repaired in closed form, and the walk of :mod:`featherweight.methods.apply` refits what follows. A unit's
options are how many of its groups stay; what they save depends on the layers around it, so the table keeps them apart
from the layers' own options (:class:`featherweight.contracts.Keep`).
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from featherweight.contracts import Capability, GroupScore, Plan, PlanError, RunError, Step, UnitStory
from featherweight.methods.pruning.ablation import AblationTable
from featherweight.methods.pruning.ranking import CRITERIA, EXPLAINING, explain, rank_groups, reranked
from featherweight.methods.seam import PRUNING, layer_steps
from featherweight.network.capture import Network
from featherweight.network.channels import ChannelUnit, Coupling, analyse
from featherweight.network.surgery import Slim, confirm, parameters_gone, reached, slim
from featherweight.numerics.elimination import Elimination
from featherweight.observation.evidence import Evidence
from featherweight.tasks.data import Split
from featherweight.tasks.task import Task

_SHARES = (0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3)
_LEAST_CHOICES = 4


@dataclass(frozen=True)
class Pruning:
    """The structured-pruning family; its settings are ``keep``, how many groups stay, and ``criterion``.

    Attributes:
        criterion: how options choose within a unit.
    """

    criterion: str = "obs"

    def options(self, unit: ChannelUnit, capability: Capability) -> list[int]:
        """How many groups to keep: about a tenth less each time, aligned as the target asks, from many to few."""
        step = alignment(unit, capability)
        counts = {max(step, round(unit.groups * share / step) * step) for share in _SHARES}
        return sorted((count for count in counts if count < unit.groups), reverse=True)

    def step(self, keep: int) -> Step:
        """The plan's step that keeps this many groups."""
        settings: dict[str, int | str] = {"keep": keep}
        return Step(PRUNING, settings if self.criterion == "obs" else settings | {"criterion": self.criterion})


@dataclass(frozen=True)
class Prunable:
    """A network's coupled channels, and how to choose among them.

    Attributes:
        coupling: units that forward can really spare.
        pruning: the family's settings.
    """

    coupling: Coupling
    pruning: Pruning = Pruning()

    @classmethod
    def of(cls, network: Network, pruning: Pruning) -> Prunable:
        """Analyse a network, and try its units."""
        return cls(confirm(network, analyse(network.graph)), pruning)


def alignment(unit: ChannelUnit, capability: Capability) -> int:
    """Kept groups should be a multiple of this: the target's, halved for units that it would leave without choices.

    A group of several channels (a head) is aligned when its channels are.
    """
    producer = unit.producers[0].channels.shape[1]
    step = max(1, capability.channel_multiple // producer)
    while step > 1 and unit.groups < _LEAST_CHOICES * step:
        step //= 2
    return step


def pruning_of(plan: Plan, coupling: Coupling) -> dict[str, Step]:
    """Unit → its pruning step, checked against the network.

    Raises:
        PlanError: a unit that isn't there, or settings that make no sense for it.
    """
    found = {}
    for name, steps in plan.choices.items():
        layer_steps(steps)
        if steps and steps[0].method == PRUNING:
            _check(coupling.unit(name), steps[0])
            found[name] = steps[0]
    return found


def _check(unit: ChannelUnit, step: Step) -> None:
    keep = step.settings.get("keep")
    if set(step.settings) - {"keep", "criterion"} or type(keep) is not int or not 1 <= keep <= unit.groups:
        raise PlanError(
            "Pruning keeps a whole number of a unit's groups, at least one: a layer without channels computes nothing.",
            f"{dict(step.settings)} for {unit.name!r}, which has {unit.groups}",
            f"{{keep: {max(1, unit.groups // 2)}}} keeps half of them",
        )
    if _criterion(step) not in CRITERIA:
        raise PlanError(
            "The criterion must be one of the catalogue.",
            repr(step.settings["criterion"]),
            f"one of: {', '.join(CRITERIA)}",
        )


def removals_for(unit: ChannelUnit, ranking: Elimination, keep: int) -> tuple[int, ...]:
    """The groups that go so that ``keep`` stay, rising."""
    return tuple(sorted(ranking.order[: unit.groups - keep].tolist()))


@dataclass(frozen=True)
class Grounds:
    """What criteria may look at.

    Attributes:
        evidence: of the calibration samples.
        split: these samples; labels count for ``taylor`` alone, where there are any.
        task: what outputs mean, for criteria that run the network.
        captured: the network before batch norms were folded, for ``bn-scale``.
    """

    evidence: Evidence
    split: Split | None = None
    task: Task | None = None
    captured: Network | None = None


@dataclass(frozen=True)
class Selection:
    """What goes, and why.

    Attributes:
        removals: unit → the groups that go.
        tables: unit → what its groups are worth, where the criterion explains.
    """

    removals: Mapping[str, tuple[int, ...]]
    tables: Mapping[str, AblationTable]


def ranked(
    network: Network, unit: ChannelUnit, criterion: str, grounds: Grounds
) -> tuple[Elimination, AblationTable | None]:
    """The order in which a unit's groups go, and the table behind it where the criterion explains.

    Raises:
        PlanError: the criterion can't be had for this unit, or on these grounds.
    """
    if criterion in EXPLAINING and grounds.split is not None and grounds.task is not None:
        table = explain(network, unit, grounds.evidence, criterion, grounds.split, grounds.task)
        return reranked(rank_groups(network, unit, grounds.evidence), table), table
    if criterion == "bn-scale" and grounds.captured is not None:
        network, unit = grounds.captured, analyse(grounds.captured.graph).unit(unit.name)
    return rank_groups(network, unit, grounds.evidence, criterion, split=grounds.split, task=grounds.task), None


def select(network: Network, coupling: Coupling, plan: Plan, grounds: Grounds) -> Selection:
    """The groups of every unit that go under a plan.

    Args:
        network: the dense network.
        coupling: of its graph, confirmed.
        plan: its pruning steps say how many stay, and by which criterion.
        grounds: what criteria may look at.

    Raises:
        PlanError: a step that doesn't fit the network.
    """
    removals, tables = {}, {}
    for name, step in pruning_of(plan, coupling).items():
        unit = coupling.unit(name)
        order, table = ranked(network, unit, _criterion(step), grounds)
        removals[name] = removals_for(unit, order, int(step.settings["keep"]))
        if table is not None:
            tables[name] = table
    return Selection(removals, tables)


def _criterion(step: Step) -> str:
    return str(step.settings.get("criterion", "obs"))


def prune(network: Network, coupling: Coupling, removals: Mapping[str, Sequence[int]]) -> Slim:
    """The network without these groups, beside the dense one; nothing is refit yet."""
    return slim(network, coupling, {name: tuple(groups) for name, groups in removals.items()})


def accounts_of(
    coupling: Coupling, plan: Plan, pruned: Slim, tables: Mapping[str, AblationTable]
) -> tuple[UnitStory, ...]:
    """For every unit that a plan prunes what was asked and what was reached, counted on the smaller network.

    A difference is explained: another unit of the plan took some of the same channels.
    """
    told = []
    shapes = {name: tuple(parameter.shape) for name, parameter in pruned.dense.module.named_parameters()}
    for name, step in pruning_of(plan, coupling).items():
        unit = coupling.unit(name)
        left = reached(unit, pruned.dense.module, pruned.network.module)
        asked = int(step.settings["keep"])
        others = [other for other in pruned.removals if other != name and unit.overlaps(coupling.unit(other))]
        why = ""
        if left != asked:
            reason = f"{', '.join(others)} took some of the same channels" if others else "forward couldn't spare them"
            why = f"asked to keep {asked} of {unit.groups}, kept {left}: {reason}"
        tied = tuple(dict.fromkeys(one.layer for one in (*unit.producers, *unit.consumers)))
        groups = pruned.removals.get(name, ())
        gone = sum(parameters_gone(unit, len(groups), shapes).values())
        scores = _scores(tables.get(name), groups)
        told.append(
            UnitStory(name, tied, unit.groups, asked, left, gone, _criterion(step), explanation=why, scores=scores)
        )
    return tuple(told)


def _scores(table: AblationTable | None, gone: Sequence[int]) -> tuple[GroupScore, ...]:
    if table is None:
        return ()
    return tuple(
        GroupScore(row.group, row.score, _finite(row.standard_error), row.group not in gone) for row in table.rows
    )


def _finite(value: float) -> float | None:
    """None for what a single draw can't tell: JSON has no NaN."""
    return value if math.isfinite(value) else None


def read_removals(path: Path) -> dict[str, tuple[int, ...]]:
    """Unit → groups that went, as a run's stage keeps them.

    Raises:
        RunError: the file is missing or says something else.
    """
    try:
        document = json.loads(path.read_text())
        whole = isinstance(document, dict) and all(
            isinstance(groups, list) and all(type(group) is int for group in groups) for groups in document.values()
        )
        if not whole:
            raise ValueError("no mapping of units to lists of whole numbers")
    except (OSError, ValueError) as error:
        raise RunError(
            "What a run removed must be readable.", f"{path}: {error}", "make the run anew with this version"
        ) from error
    return {name: tuple(groups) for name, groups in document.items()}
