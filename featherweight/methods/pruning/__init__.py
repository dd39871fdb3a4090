"""Structured pruning: which channels of a coupled unit go, by which criterion, and the network without them."""

from featherweight.methods.pruning.structured import (
    Grounds,
    Prunable,
    Pruning,
    Selection,
    accounts_of,
    alignment,
    prune,
    pruning_of,
    read_removals,
    removals_for,
    select,
)

__all__ = [
    "Grounds",
    "Prunable",
    "Pruning",
    "Selection",
    "accounts_of",
    "alignment",
    "prune",
    "pruning_of",
    "read_removals",
    "removals_for",
    "select",
]
