"""Labels on axes: which indices of which axes live and die together.

Notation: an *atom* is a non-negative integer. Every index of an axis carries one atom, or ``FIXED`` where nothing may
be removed. Atoms that must go together are united; a class of united atoms is the smallest thing that can be removed.
All operations work on whole arrays of atoms.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Labels = NDArray[np.int64]

FIXED = -1
"""The label of an index that belongs to no atom and always stays."""

MATERIAL_LIMIT = 1 << 19
"""Axes longer than this are never written out; symbolic sizes are stood for by primes above it."""

_NO_REASON = np.iinfo(np.int64).max


class Atoms:
    """Disjoint sets of atoms, with the first reason why a set is frozen.

    The sets are a forest in one array: hooking larger roots under smaller ones, so that the smallest atom, the one
    made first, stands for its set. Pointer jumping on the touched atoms keeps the trees flat.
    """

    def __init__(self) -> None:
        self._size = 0
        self._parent: Labels = np.empty(1024, dtype=np.int64)
        self._reason: Labels = np.empty(1024, dtype=np.int64)
        self.reasons: list[str] = []

    def __len__(self) -> int:
        return self._size

    def fresh(self, count: int) -> Labels:
        """``count`` new atoms, each a set of its own."""
        start, self._size = self._size, self._size + count
        while self._size > len(self._parent):
            self._parent = np.concatenate([self._parent, np.empty_like(self._parent)])
            self._reason = np.concatenate([self._reason, np.empty_like(self._reason)])
        atoms = np.arange(start, self._size, dtype=np.int64)
        self._parent[start : self._size] = atoms
        self._reason[start : self._size] = _NO_REASON
        return atoms

    def find(self, labels: Labels) -> Labels:
        """The representative of every atom; ``FIXED`` stays ``FIXED``."""
        free = labels >= 0
        atoms = labels[free]
        parent = self._parent
        while True:
            above = parent[parent[atoms]]
            if np.array_equal(above, parent[atoms]):
                break
            parent[atoms] = above
        result = labels.copy()
        result[free] = parent[atoms]
        return result

    def unite(self, first: Labels, second: Labels) -> None:
        """Unite atom ``first[i]`` with ``second[i]`` for every ``i``; both must be free of ``FIXED``."""
        while True:
            left, right = self.find(first), self.find(second)
            apart = left != right
            if not apart.any():
                return
            low, high = np.minimum(left, right)[apart], np.maximum(left, right)[apart]
            # A root that should hang below several others takes the lowest; the next round brings the rest.
            np.minimum.at(self._parent, high, low)
            touched = np.concatenate([low, high])
            np.minimum.at(self._reason, self.find(touched), self._reason[touched])

    def freeze(self, labels: Labels, reason: str) -> None:
        """Mark the sets of these atoms as not removable; a set keeps its first reason."""
        atoms = labels[labels >= 0]
        if len(atoms) == 0:
            return
        if not self.reasons or self.reasons[-1] != reason:
            self.reasons.append(reason)
        np.minimum.at(self._reason, self.find(atoms), len(self.reasons) - 1)

    def frozen(self, labels: Labels) -> NDArray[np.bool_]:
        """Which labels can't be removed: ``FIXED``, or of a frozen set."""
        roots = self.find(labels)
        result = roots < 0
        result[~result] = self._reason[roots[~result]] != _NO_REASON
        return result

    def reason(self, atom: int) -> str:
        """Why the atom's set is frozen; empty where it isn't."""
        number = self._reason[self.find(np.array([atom], dtype=np.int64))[0]]
        return "" if number == _NO_REASON else self.reasons[number]

    def roots(self) -> Labels:
        """The representative of every atom there is."""
        return self.find(np.arange(len(self), dtype=np.int64))


@dataclass(frozen=True, slots=True, eq=False)
class Axis:
    """The labels along one axis: index ``i`` carries ``labels[(i // inner) % len(labels)]``.

    A flattened feature map (channels, height, width) is the channels' labels with ``inner = height · width``; a batch
    folded into heads has ``outer = batch``. Neither is ever written out.

    Attributes:
        labels: (n,), atoms or ``FIXED``.
        outer: how often the pattern repeats.
        inner: how often each label repeats in a row.
    """

    labels: Labels
    outer: int = 1
    inner: int = 1

    @property
    def size(self) -> int:
        """Indices along the axis."""
        return self.outer * len(self.labels) * self.inner

    def full(self) -> Labels:
        """One label for every index, written out; (size,)."""
        if self.outer == 1 and self.inner == 1:
            return self.labels
        return np.tile(np.repeat(self.labels, self.inner), self.outer)

    def material(self) -> bool:
        """Whether the axis is short enough to be written out."""
        return self.size <= MATERIAL_LIMIT


Axes = tuple[Axis | None, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Value:
    """A tensor as the analysis sees it: sizes and labels, no numbers.

    Attributes:
        sizes: of every axis; symbolic sizes are stood for by large primes.
        axes: the labels of every axis; None where no index of it can be removed.
    """

    sizes: tuple[int, ...]
    axes: Axes

    def __post_init__(self) -> None:
        for size, axis in zip(self.sizes, self.axes, strict=True):
            if axis is not None and axis.size != size:
                raise ValueError(f"an axis of {size} indices carries {axis.size} labels")

    @classmethod
    def plain(cls, sizes: tuple[int, ...]) -> Value:
        """A tensor of which nothing can be removed."""
        return cls(sizes, (None,) * len(sizes))

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.sizes)

    def replace(self, dim: int, axis: Axis | None) -> Value:
        """The same tensor with other labels along ``dim``."""
        axes = list(self.axes)
        axes[dim] = axis
        return Value(self.sizes, tuple(axes))
