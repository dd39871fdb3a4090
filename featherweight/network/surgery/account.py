"""The account: how much was asked for, how much was reached, and why they differ."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from featherweight.contracts import PlanError
from featherweight.network.channels.units import ChannelUnit, Coupling, Removals


@dataclass(frozen=True, slots=True)
class Reduction:
    """Parameters before and after, against what was asked for.

    Attributes:
        asked: the share of parameters that was to go, in [0, 1].
        before, after: stored parameters; shared ones count once.
        explanation: plain sentences; empty where the asked share was reached.
    """

    asked: float
    before: int
    after: int
    explanation: tuple[str, ...]

    @property
    def reached(self) -> float:
        """The share of parameters that went."""
        return 1.0 - self.after / self.before if self.before else 0.0


_CLOSE = 0.01


def parameters_of(module: nn.Module) -> int:
    """Number of stored parameters; shared ones count once."""
    return sum(parameter.numel() for parameter in module.parameters())


def reached(unit: ChannelUnit, original: nn.Module, smaller: nn.Module) -> int:
    """How many groups of a unit the smaller module still has, counted on its parameters and buffers.

    Args:
        unit: of the original's coupling.
        original, smaller: before and after the surgery.
    """
    before, after = original.state_dict(), smaller.state_dict()
    counts = {
        unit.groups - (before[piece.state].shape[piece.axis] - after[piece.state].shape[piece.axis]) // width
        for piece, width in ((piece, piece.indices.shape[1]) for piece in unit.slices)
        if piece.state in before and piece.state in after
    }
    return min(counts, default=unit.groups)


def account(original: nn.Module, smaller: nn.Module, coupling: Coupling, removals: Removals, asked: float) -> Reduction:
    """Compare what was asked for with what was reached.

    Args:
        original, smaller: before and after the surgery.
        coupling, removals: what the surgery was told.
        asked: the share of parameters that was to go.

    Raises:
        PlanError: ``asked`` is no share.
    """
    if not 0.0 <= asked <= 1.0:
        raise PlanError("The share of parameters to remove must lie between 0 and 1.", f"{asked!r}", "0.3 is 30 %")
    before, after = parameters_of(original), parameters_of(smaller)
    reduction = Reduction(asked, before, after, ())
    if abs(reduction.reached - asked) <= _CLOSE:
        return reduction
    return Reduction(asked, before, after, tuple(_reasons(original, reduction, coupling, removals)))


def _reasons(original: nn.Module, reduction: Reduction, coupling: Coupling, removals: Removals) -> list[str]:
    said = [f"asked for {reduction.asked:.1%} of {reduction.before} parameters, reached {reduction.reached:.1%}"]
    removed = {name: len(set(groups)) for name, groups in removals.items() if len(groups)}
    if not removed:
        said.append("nothing was removed: no unit was told to lose channels")
    for unit in coupling.units:
        share = removed.get(unit.name, 0) / unit.groups
        if abs(share - reduction.asked) > _CLOSE:
            said.append(f"{unit.name} lost {removed.get(unit.name, 0)} of {unit.groups} channel groups ({share:.0%})")
    touched = {piece.state for unit in coupling.units for piece in unit.slices}
    fixed = sum(parameter.numel() for name, parameter in original.named_parameters() if name not in touched)
    if fixed:
        said.append(f"{fixed} parameters ({fixed / reduction.before:.1%}) sit where no channel can go")
    if removed:
        said.append("a weight whose rows and columns both shrink loses more than the share of either")
    return said + [f"{refusal.subject}: {refusal.reason}" for refusal in coupling.refusals]
