from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from featherweight.network.labels import FIXED, Atoms, Axis, Value

SIZE = 12
pairs = st.lists(st.tuples(st.integers(0, SIZE - 1), st.integers(0, SIZE - 1)), max_size=30)


def labels(*values: int) -> np.ndarray:
    return np.array(values, dtype=np.int64)


def components(edges: list[tuple[int, int]]) -> list[set[int]]:
    """Connected components, grown one node at a time."""
    left, found = set(range(SIZE)), []
    while left:
        group = {min(left)}
        while True:
            more = {b for a, b in edges if a in group} | {a for a, b in edges if b in group} | group
            if more == group:
                break
            group = more
        found.append(group)
        left -= group
    return found


@given(st.lists(pairs, max_size=4))
def test_united_atoms_are_connected_components(batches):
    atoms = Atoms()
    every = atoms.fresh(SIZE)
    for batch in batches:
        if batch:
            first, second = np.array(batch, dtype=np.int64).T
            atoms.unite(first, second)
    roots = atoms.find(every)
    for group in components([pair for batch in batches for pair in batch]):
        assert {int(roots[atom]) for atom in group} == {min(group)}


@given(pairs, st.lists(st.integers(0, SIZE - 1), min_size=1, max_size=4), st.booleans())
def test_a_frozen_atom_freezes_its_set_whatever_comes_first(edges, frozen, freeze_first):
    atoms = Atoms()
    every = atoms.fresh(SIZE)
    moves = [lambda: atoms.freeze(np.array(frozen, dtype=np.int64), "why"), lambda: None]
    if edges:
        first, second = np.array(edges, dtype=np.int64).T
        moves[1] = lambda: atoms.unite(first, second)
    for move in moves if freeze_first else moves[::-1]:
        move()
    expected = set().union(*(group for group in components(edges) if group & set(frozen)))
    assert set(np.flatnonzero(atoms.frozen(every)).tolist()) == expected
    assert all(atoms.reason(atom) == ("why" if atom in expected else "") for atom in range(SIZE))


def test_a_long_chain_is_united():
    atoms = Atoms()
    every = atoms.fresh(5000)
    atoms.unite(every[1:], every[:-1])
    assert (atoms.find(every) == 0).all()


def test_the_first_reason_is_kept():
    atoms = Atoms()
    a, b = atoms.fresh(1), atoms.fresh(1)
    atoms.freeze(b, "first")
    atoms.freeze(a, "second")
    atoms.unite(a, b)
    assert atoms.reason(int(a[0])) == atoms.reason(int(b[0])) == "first"


def test_fixed_labels_count_as_frozen_and_are_found_as_they_are():
    atoms = Atoms()
    atoms.fresh(2)
    assert atoms.find(labels(FIXED, 1)).tolist() == [FIXED, 1]
    assert atoms.frozen(labels(FIXED, 1)).tolist() == [True, False]


@given(st.integers(1, 4), st.integers(1, 4), st.integers(1, 4))
def test_an_axis_repeats_its_labels_inside_and_outside(count, outer, inner):
    axis = Axis(np.arange(count), outer, inner)
    written = axis.full()
    assert axis.size == len(written) == count * outer * inner
    assert all(written[i] == (i // inner) % count for i in range(axis.size))


def test_a_value_refuses_labels_that_do_not_fit():
    with pytest.raises(ValueError, match="3 indices carries 2 labels"):
        Value((3,), (Axis(labels(0, 1)),))
