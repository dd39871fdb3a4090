from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import confusion_matrix

from featherweight.audit.churn import churn_of
from featherweight.contracts import Churn


def test_every_way_that_an_answer_can_go():
    labels = np.array([0, 0, 0, 0, 0])
    before = np.array([0, 0, 1, 1, 1])
    after = np.array([0, 1, 0, 2, 1])
    assert churn_of(before, after, labels) == Churn(samples=5, changed=3, lost=1, gained=1, both_wrong=1)


@given(st.integers(0, 10_000))
def test_the_parts_add_up_and_match_the_confusion_of_right_and_wrong(seed):
    before, after, labels = np.random.default_rng(seed).integers(0, 3, (3, 40))
    churn = churn_of(before, after, labels)
    assert churn.changed == churn.lost + churn.gained + churn.both_wrong == (before != after).sum()
    table = confusion_matrix(before == labels, after == labels, labels=[False, True])
    assert (churn.gained, churn.lost) == (table[0, 1], table[1, 0])
    mirrored = churn_of(after, before, labels)
    assert (mirrored.lost, mirrored.gained) == (churn.gained, churn.lost)


def test_an_answer_of_several_parts_counts_as_a_whole():
    before, after = np.zeros((3, 2), int), np.zeros((3, 2), int)
    after[1, 0] = 1
    assert churn_of(before, after, before) == Churn(3, 1, 1, 0, 0)
