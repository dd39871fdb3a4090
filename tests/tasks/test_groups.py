"""Groups of samples: how they are given, follow their samples, and are refused."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from featherweight.contracts import DataError
from featherweight.tasks import Data, Split

X, Y = np.arange(12.0).reshape(6, 2), np.array([0, 1, 0, 1, 0, 1])
GROUPS = ["a", "b", "a", "c", "b", "a"]


class Pairs:
    def __len__(self) -> int:
        return 6

    def __getitem__(self, index: int):
        return X[index], Y[index]


def groups_of(split: Split) -> list[str]:
    assert split.groups is not None
    return split.groups.tolist()


@pytest.mark.parametrize(
    "value", [(X, Y, GROUPS), (X, None, GROUPS), ((X, X), Y, GROUPS), (Pairs(), None, GROUPS), (X, Y, np.array(GROUPS))]
)
def test_every_kind_of_split_may_have_groups(value):
    split = Split.of(value)
    assert groups_of(split) == GROUPS
    assert len(split) == 6


def test_groups_follow_their_samples():
    split = Split.of((X, Y, GROUPS))
    assert groups_of(split.subset([3, 0])) == ["c", "a"]
    assert groups_of(split.subset([3, 0]).subset([1])) == ["a"]
    assert groups_of(split.first(2)) == ["a", "b"]
    assert Split.of((X, Y)).groups is None


def test_numbers_become_their_digits():
    for numbers in ([1, 2, 1, 2, 10, 1], torch.tensor([1, 2, 1, 2, 10, 1])):
        assert groups_of(Split.of((X, Y, numbers))) == ["1", "2", "1", "2", "10", "1"]
    assert groups_of(Split.of((X, Y, ["a", 1, "a", 1, "b", "b"]))) == ["a", "1", "a", "1", "b", "b"]


@pytest.mark.parametrize(
    ("groups", "told"),
    [
        (GROUPS[:-1], "one group"),
        (None, "one group"),
        ([0.5] * 6, "of type float64"),
        ([["a"]] * 6, "one group"),
        ([None, "a", "a", "a", "a", "a"], "one group"),
        (["x" * 101, *GROUPS[1:]], "101 characters"),
    ],
)
def test_groups_that_are_none(groups, told):
    with pytest.raises(DataError, match=told):
        Split.of((X, Y, groups))


def test_groups_count_in_the_fingerprint():
    plain, grouped, other = (
        Data.of({"train": (X, Y), "validation": (X + 20, Y), "test": part})
        for part in ((X + 40, Y), (X + 40, Y, GROUPS), (X + 40, Y, GROUPS[::-1]))
    )
    assert len({plain.fingerprint(), grouped.fingerprint(), other.fingerprint()}) == 3
    assert grouped.test.fingerprint("test") != other.test.fingerprint("test")
    assert plain.test.fingerprint("test") == Split.of((X + 40, Y)).fingerprint("test")
