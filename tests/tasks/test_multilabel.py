from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import expit, rel_entr
from sklearn.metrics import hamming_loss

from featherweight.contracts import DataError
from featherweight.tasks import MULTI_LABEL

RANDOM = np.random.default_rng(0)
LOGITS = RANDOM.normal(size=(40, 3))
MARKS = RANDOM.integers(0, 2, (40, 3))


def test_scores_are_shares_of_right_labels():
    scores = MULTI_LABEL.scores(LOGITS, MARKS)
    assert scores.mean() == pytest.approx(1 - hamming_loss(MARKS, LOGITS > 0))
    broken = LOGITS.copy()
    broken[0, 1] = np.nan
    assert MULTI_LABEL.scores(broken, MARKS)[0] == 0
    assert not MULTI_LABEL.binary


def test_the_divergence_is_scipys():
    other = LOGITS + RANDOM.normal(size=LOGITS.shape)
    p, q = expit(LOGITS), expit(other)
    expected = (rel_entr(p, q) + rel_entr(1 - p, 1 - q)).sum(1).mean()
    assert MULTI_LABEL.divergence(LOGITS, other) == pytest.approx(expected, rel=1e-10)
    assert MULTI_LABEL.divergence(np.full((2, 2), 900.0), np.full((2, 2), -900.0)) == pytest.approx(1800)


@given(st.integers(0, 1000))
def test_it_is_a_divergence(seed):
    left, right = np.random.default_rng(seed).normal(size=(2, 5, 3)) * 5
    assert MULTI_LABEL.divergence(left, right) >= 0
    assert MULTI_LABEL.divergence(left, left) == 0


def test_answers():
    np.testing.assert_array_equal(MULTI_LABEL.answers(LOGITS), LOGITS > 0)


@pytest.mark.parametrize(
    ("labels", "told"),
    [
        (np.zeros(40, int), "shape"),
        (np.zeros((40, 2), int), "for 3 classes"),
        (MARKS + 1, "other values"),
        (np.ones((40, 3), int), "no class in test"),
    ],
)
def test_labels_that_do_not_fit(labels, told):
    with pytest.raises(DataError, match=told):
        MULTI_LABEL.check_labels("test", labels, 3)


def test_sound_labels_pass_and_odd_outputs_do_not():
    MULTI_LABEL.check_labels("test", MARKS, 3)
    for call in (lambda: MULTI_LABEL.answers(LOGITS[0]), lambda: MULTI_LABEL.scores(LOGITS, MARKS[:, :2])):
        with pytest.raises(DataError):
            call()
