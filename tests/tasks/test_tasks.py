from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import rel_entr, softmax
from sklearn.metrics import accuracy_score, mean_absolute_error

from featherweight.contracts import DataError, UsageError
from featherweight.tasks import CLASSIFICATION, REGRESSION, TASKS, task_by_name

RANDOM = np.random.default_rng(0)
LOGITS = RANDOM.normal(size=(50, 4)).astype(np.float32)
LABELS = RANDOM.integers(0, 4, 50)


def test_tasks_by_name():
    assert [task_by_name(task.name) for task in TASKS] == list(TASKS)
    with pytest.raises(UsageError, match="classification, regression"):
        task_by_name("guessing")


def test_accuracy_is_sklearns():
    scores = CLASSIFICATION.scores(LOGITS, LABELS)
    assert set(scores.tolist()) == {0.0, 1.0}
    assert scores.mean() == accuracy_score(LABELS, LOGITS.argmax(1))


def test_kl_is_scipys():
    other = LOGITS + RANDOM.normal(size=LOGITS.shape).astype(np.float32)
    p, q = (softmax(logits.astype(np.float64), axis=1) for logits in (LOGITS, other))
    assert CLASSIFICATION.divergence(LOGITS, other) == pytest.approx(rel_entr(p, q).sum(axis=1).mean(), rel=1e-12)


@given(st.integers(0, 10_000), st.floats(-1e4, 1e4), st.floats(0.01, 1e3))
def test_kl_is_a_divergence_of_distributions(seed, shift, scale):
    random = np.random.default_rng(seed)
    left, right = random.normal(size=(2, 5, 3)) * scale
    apart = CLASSIFICATION.divergence(left, right)
    assert apart >= 0
    assert CLASSIFICATION.divergence(left, left) == 0
    # A constant added to all logits of a sample changes no probability.
    assert CLASSIFICATION.divergence(left, right + shift) == pytest.approx(apart, rel=1e-6, abs=1e-9)


def test_kl_of_extreme_logits_is_exact():
    sure, unsure = np.array([[1000.0, -1000.0]]), np.array([[0.0, 0.0]])
    assert CLASSIFICATION.divergence(sure, unsure) == pytest.approx(np.log(2))
    assert CLASSIFICATION.divergence(unsure, sure) == pytest.approx(1000 - np.log(2))


def test_answers_of_classification():
    answers = CLASSIFICATION.answers(LOGITS)
    assert answers.dtype == np.int64
    assert CLASSIFICATION.scores(LOGITS, answers).all()
    assert CLASSIFICATION.answers(np.array([[1.0, 1.0]])).tolist() == [0]


def test_absolute_error_is_sklearns():
    outputs, labels = RANDOM.normal(size=(2, 30, 3))
    scores = REGRESSION.scores(outputs, labels)
    assert scores.shape == (30,)
    assert (scores <= 0).all()
    assert -scores.mean() == pytest.approx(mean_absolute_error(labels, outputs), rel=1e-12)


@pytest.mark.parametrize("shape", [(30,), (30, 1)])
def test_a_column_counts_as_a_list(shape):
    outputs = RANDOM.normal(size=30)
    np.testing.assert_array_equal(REGRESSION.scores(outputs[:, None], np.zeros(shape)), -np.abs(outputs))
    np.testing.assert_array_equal(REGRESSION.scores(outputs, np.zeros(shape)), -np.abs(outputs))


def test_regression_scores_any_number_of_axes():
    outputs = RANDOM.normal(size=(5, 2, 3))
    np.testing.assert_allclose(REGRESSION.scores(outputs, outputs + 2), -2.0)


def test_normalised_squared_error_by_hand():
    reference, outputs = np.array([[3.0], [4.0]]), np.array([[3.0], [2.0]])
    assert REGRESSION.divergence(reference, outputs) == 4 / 25
    assert REGRESSION.divergence(reference, reference) == 0
    assert REGRESSION.divergence(reference, 2 * reference) == 1


@given(st.integers(0, 10_000), st.floats(1e-3, 1e3))
def test_normalised_squared_error_has_no_unit(seed, unit):
    left, right = np.random.default_rng(seed).normal(size=(2, 6, 2))
    apart = REGRESSION.divergence(left, right)
    assert REGRESSION.divergence(left * unit, right * unit) == pytest.approx(apart, rel=1e-9)


def test_a_reference_of_zeros_is_matched_exactly_or_not():
    zeros = np.zeros((3, 1))
    assert REGRESSION.divergence(zeros, zeros) == 0
    assert REGRESSION.divergence(zeros, zeros + 1e-9) == np.inf


def test_half_precision_outputs_do_not_overflow():
    large = np.full((4, 1), 60000, dtype=np.float16)
    assert REGRESSION.divergence(large, large / 2) == pytest.approx(0.25)


def test_answers_of_regression_are_the_outputs():
    outputs = RANDOM.normal(size=(5, 2))
    assert REGRESSION.answers(outputs) is outputs


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.name)
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_outputs_that_arent_finite(task, value):
    sound, broken = np.ones((3, 2)), np.ones((3, 2))
    sound[:, 0] = 2  # the answer is class 0
    broken[:, 0], broken[1, 1] = 2, value
    assert task.divergence(sound, broken) == np.inf
    with pytest.raises(DataError, match="1 samples have NaN or infinite ones, the first is sample 1"):
        task.divergence(broken, sound)
    with pytest.raises(DataError, match="the first is sample 1"):
        task.answers(broken)


def test_broken_outputs_score_worst():
    outputs = np.array([[np.nan, 1.0], [0.0, 1.0], [0.0, np.nan], [-np.inf, 0.0]])
    assert CLASSIFICATION.scores(outputs, np.array([0, 1, 1, 1])).tolist() == [0, 1, 0, 1]
    np.testing.assert_array_equal(REGRESSION.scores(outputs[:, 0], np.zeros(4)), [-np.inf, 0, 0, -np.inf])


@pytest.mark.parametrize("shape", [(5,), (5, 1), (5, 3, 4, 4)])
def test_outputs_that_are_no_logits(shape):
    outputs = np.zeros(shape)
    for call in (
        lambda: CLASSIFICATION.scores(outputs, np.zeros(5, dtype=int)),
        lambda: CLASSIFICATION.divergence(outputs, outputs),
        lambda: CLASSIFICATION.answers(outputs),
    ):
        with pytest.raises(DataError, match=r"outputs \(samples, classes\)"):
            call()


def test_shapes_that_dont_fit():
    with pytest.raises(DataError, match=r"labels \(3,\) for outputs \(50, 4\)"):
        CLASSIFICATION.scores(LOGITS, LABELS[:3])
    with pytest.raises(DataError, match="one label per sample"):
        CLASSIFICATION.scores(LOGITS, np.eye(4)[LABELS])
    for labels in (np.zeros(4), np.zeros((5, 3)), np.zeros((5, 6)), np.zeros((10, 3))):
        with pytest.raises(DataError, match="of the outputs' shape"):
            REGRESSION.scores(np.zeros((5, 2, 3)), labels)
    for task in TASKS:
        with pytest.raises(DataError, match="outputs of one shape"):
            task.divergence(LOGITS, LOGITS[:, :3])
        with pytest.raises(DataError, match="outputs of one shape"):
            task.divergence(LOGITS[:0], LOGITS[:0])
