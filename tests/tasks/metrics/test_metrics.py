"""Every metric against scikit-learn, with and without weights, and by name."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import softmax
from sklearn import metrics as oracle

from featherweight.contracts import DataError, UsageError
from featherweight.tasks import CLASSIFICATION, METRICS, MULTI_LABEL, REGRESSION, metric_by_name
from featherweight.tasks.metrics import Metric, SampleMetric, SetMetric

N = 200
RANDOM = np.random.default_rng(3)
LABELS = RANDOM.choice(4, N, p=[0.4, 0.3, 0.2, 0.1])
LOGITS = RANDOM.normal(size=(N, 4)) + 1.5 * np.eye(4)[LABELS]
PAIR_LABELS = RANDOM.integers(0, 2, N)
PAIR_LOGITS = RANDOM.normal(size=(N, 2)) + np.eye(2)[PAIR_LABELS]
MARKS = RANDOM.integers(0, 2, (N, 3))
MARK_LOGITS = np.round(RANDOM.normal(size=(N, 3)) + MARKS, 1)  # rounded, so that there are ties
NUMBERS = RANDOM.normal(size=(N, 2))
GUESSES = NUMBERS + 0.3 * RANDOM.normal(size=(N, 2))


def likelihood(outputs: np.ndarray, labels: np.ndarray, weights: np.ndarray) -> float:
    return math.exp(oracle.log_loss(labels, softmax(outputs, axis=1), sample_weight=weights))


def one_against_rest(outputs: np.ndarray, labels: np.ndarray, weights: np.ndarray) -> float:
    shares = softmax(outputs, axis=1)
    return float(
        np.mean(
            [oracle.roc_auc_score(labels == c, shares[:, c], sample_weight=weights) for c in range(shares.shape[1])]
        )
    )


def precision(outputs: np.ndarray, labels: np.ndarray, weights: np.ndarray) -> float:
    return float(oracle.average_precision_score(labels, outputs, average="macro", sample_weight=weights))


def one_hot_precision(outputs: np.ndarray, labels: np.ndarray, weights: np.ndarray) -> float:
    return precision(softmax(outputs, axis=1), np.eye(outputs.shape[1])[labels], weights)


def answers(score, **settings):
    return lambda outputs, labels, weights: score(labels, outputs.argmax(1), sample_weight=weights, **settings)


def errors(score):
    return lambda outputs, labels, weights: score(labels, outputs, sample_weight=weights)


CASES = {
    "accuracy": ("accuracy", LOGITS, LABELS, answers(oracle.accuracy_score)),
    "top-2": (
        "top-2",
        LOGITS,
        LABELS,
        lambda outputs, labels, weights: oracle.top_k_accuracy_score(labels, outputs, k=2, sample_weight=weights),
    ),
    "f1": ("f1", LOGITS, LABELS, answers(oracle.f1_score, average="macro")),
    "f1 of two": ("f1", PAIR_LOGITS, PAIR_LABELS, answers(oracle.f1_score, average="macro")),
    "f1-binary": ("f1-binary", PAIR_LOGITS, PAIR_LABELS, answers(oracle.f1_score)),
    "auc": ("auc", LOGITS, LABELS, one_against_rest),
    "auc of two": ("auc", PAIR_LOGITS, PAIR_LABELS, one_against_rest),
    "auc of marks": ("auc", MARK_LOGITS, MARKS, errors(oracle.roc_auc_score)),
    "map": ("map", LOGITS, LABELS, one_hot_precision),
    "map of marks": ("map", MARK_LOGITS, MARKS, precision),
    "perplexity": ("perplexity", LOGITS, LABELS, likelihood),
    "mae": ("mae", GUESSES, NUMBERS, errors(oracle.mean_absolute_error)),
    "mse": ("mse", GUESSES, NUMBERS, errors(oracle.mean_squared_error)),
    "rmse": (
        "rmse",
        GUESSES,
        NUMBERS,
        lambda outputs, labels, weights: math.sqrt(oracle.mean_squared_error(labels, outputs, sample_weight=weights)),
    ),
}


def value(metric: Metric, outputs, labels, weights=None) -> np.ndarray:
    assert isinstance(metric, SampleMetric | SetMetric)
    return metric.value(outputs, labels, weights)


@pytest.fixture(params=CASES, name="case")
def _case(request):
    name, outputs, labels, expected = CASES[request.param]
    return metric_by_name(name), outputs, labels, expected


def test_it_is_scikit_learns(case):
    metric, outputs, labels, expected = case
    assert value(metric, outputs, labels)[0] == pytest.approx(expected(outputs, labels, np.ones(N)), rel=1e-10)


def test_with_weights_too_for_several_replicates_at_once(case):
    metric, outputs, labels, expected = case
    weights = RANDOM.multinomial(N, np.full(N, 1 / N), size=3).astype(np.float64)
    found = value(metric, outputs, labels, weights)
    wanted = []
    for row in weights:
        drawn = row > 0  # scikit-learn counts ties and thresholds of samples without weight
        wanted.append(expected(outputs[drawn], labels[drawn], row[drawn]))
    np.testing.assert_allclose(found, wanted, rtol=1e-10)


def test_a_weight_of_two_is_a_sample_that_is_there_twice(case):
    metric, outputs, labels, _ = case
    weights = RANDOM.integers(0, 3, N)
    twice = np.repeat(np.arange(N), weights)
    found = value(metric, outputs, labels, weights[None].astype(np.float64))
    np.testing.assert_allclose(found, value(metric, outputs[twice], labels[twice]), rtol=1e-10)


SETS = [name for name, (metric, *_) in CASES.items() if isinstance(metric_by_name(metric), SetMetric)]


@pytest.mark.parametrize("name", SETS)
def test_a_figure_of_a_set_has_the_slope_of_finite_differences(name):
    metric, outputs, labels, _ = CASES[name]
    figure = metric_by_name(metric).weigh(outputs, labels)
    weights = torch.from_numpy(np.random.default_rng(1).uniform(0.5, 2.0, (2, N))).requires_grad_()
    (slope,) = torch.autograd.grad(figure(weights).sum(), weights)
    # No change when all weights grow alike (Euler).
    np.testing.assert_allclose((slope * weights).sum(1).detach(), 0.0, atol=1e-10)
    for place in (0, 17, 99):
        step = torch.zeros(2, N, dtype=torch.float64)
        step[:, place] = 1e-6
        with torch.no_grad():
            numeric = (figure(weights + step) - figure(weights - step)) / 2e-6
        np.testing.assert_allclose(numeric, slope[:, place], rtol=1e-5, atol=1e-9)


@pytest.mark.parametrize(
    "name", ["f1", "f1 of two", "f1-binary", "auc", "auc of two", "auc of marks", "map", "map of marks"]
)
def test_no_single_change_takes_more_than_the_largest(name):
    word, outputs, labels, _ = CASES[name]
    metric = metric_by_name(word)
    limit, own = metric.largest(outputs, labels) / N, value(metric, outputs, labels)[0]
    random, taken = np.random.default_rng(5), []
    for row in range(N):
        changed = outputs.copy()
        changed[row] = random.choice([-9.0, 9.0], outputs.shape[1]) + random.normal(size=outputs.shape[1])
        taken.append(own - value(metric, changed, labels)[0])
    assert 0 < max(taken) <= limit + 1e-12


@pytest.mark.parametrize("name", SETS)
def test_what_it_rests_on_decides_it(name):
    """Scaling logits moves no answer and no rank; so nothing decisive and, for ranks and answers, not the metric."""
    word, outputs, labels, _ = CASES[name]
    metric = metric_by_name(word)
    parts = metric.decisive(outputs, labels)
    assert parts.shape[0] == N
    assert parts.ndim == 2
    other = outputs.copy()
    other[:5] = -other[:5]
    assert (metric.decisive(other, labels) != parts).any()
    if word.startswith("f1"):
        np.testing.assert_array_equal(metric.decisive(3.0 * outputs, labels), parts)


def test_f1_leaves_out_classes_without_samples():
    labels = np.array([0, 0, 1, 1])
    outputs = np.eye(3)[[0, 2, 1, 1]]
    expected = oracle.f1_score(labels, outputs.argmax(1), labels=[0, 1], average="macro")
    assert value(METRICS["f1"], outputs, labels)[0] == expected
    only_first = value(METRICS["f1"], outputs, labels, np.array([[1.0, 1.0, 0.0, 0.0]]))
    assert only_first[0] == pytest.approx(2 / 3)


@pytest.mark.parametrize("name", ["f1", "auc"])
def test_broken_outputs_never_help(name):
    broken = LOGITS.copy()
    right = np.flatnonzero(LOGITS.argmax(1) == LABELS)[:9]
    broken[right, 0] = np.nan
    assert value(METRICS[name], broken, LABELS)[0] < value(METRICS[name], LOGITS, LABELS)[0]


@given(st.integers(0, 1000), st.integers(1, 4))
def test_top_k_counts_ties_like_the_first_of_equals(seed, count):
    random = np.random.default_rng(seed)
    outputs, labels = random.integers(0, 3, (20, 5)).astype(float), random.integers(0, 5, 20)
    order = np.argsort(-outputs, axis=1, kind="stable")[:, :count]
    expected = (order == labels[:, None]).any(1)
    np.testing.assert_array_equal(metric_by_name(f"top-{count}").scores(outputs, labels), expected)


def test_perplexity_of_tokens():
    outputs, labels = RANDOM.normal(size=(6, 5, 7)), RANDOM.integers(0, 7, (6, 5))
    flat = torch.nn.functional.cross_entropy(torch.from_numpy(outputs.reshape(30, 7)), torch.from_numpy(labels.ravel()))
    assert value(METRICS["perplexity"], outputs, labels)[0] == pytest.approx(math.exp(flat.item()), rel=1e-12)


@pytest.mark.parametrize(
    ("name", "outputs", "labels", "told"),
    [
        ("top-4", LOGITS, LABELS, "more classes than k"),
        ("f1-binary", LOGITS, LABELS, "class 1 of two"),
        ("f1-binary", PAIR_LOGITS, 0 * PAIR_LABELS, "samples of class 1"),
        ("auc", LOGITS, 0 * LABELS, "members and others"),
        ("map", MARK_LOGITS, MARKS + 1, "0 or 1"),
        ("perplexity", LOGITS, LABELS + 1, "from 0"),
        ("perplexity", np.where(LOGITS > 2, np.nan, LOGITS), LABELS, "finite outputs"),
        ("perplexity", LOGITS, LABELS.astype(float), "one class for every token"),
        ("rmse", np.where(GUESSES > 2, np.inf, GUESSES), NUMBERS, "finite errors"),
        ("mae", GUESSES, NUMBERS[:-1], "labels of the outputs' shape"),
        ("f1", LOGITS, LABELS[:-1], "one label per sample"),
        ("f1", LOGITS[:, :1], LABELS, "at least two classes"),
    ],
)
def test_what_cannot_be_measured(name, outputs, labels, told):
    with pytest.raises(DataError, match=told):
        value(metric_by_name(name), outputs, labels)


def test_metrics_by_name():
    assert metric_by_name("F1") is METRICS["f1"]
    assert metric_by_name("top5").name == metric_by_name("top-5").name == "top-5 accuracy"
    for word in ("best", "top-0", "top-x", ""):
        with pytest.raises(UsageError):
            metric_by_name(word)
    for word, meant in (("acuracy", "accuracy"), ("perplexty", "perplexity"), ("top-x", "top-5"), ("F-1", "f1")):
        with pytest.raises(UsageError) as told:
            metric_by_name(word)
        assert told.value.got == repr(word)
        assert told.value.remedy.startswith(f"did you mean {meant!r}")
    with pytest.raises(UsageError, match="needs a direction"):
        metric_by_name("f1", higher_is_better=False)


def test_a_task_takes_the_metrics_that_suit_it():
    five = CLASSIFICATION.with_metric(metric_by_name("top-2"))
    assert (five.metric.name, five.by_sample.name, five.binary) == ("top-2 accuracy", "top-2 accuracy", True)
    np.testing.assert_array_equal(five.scores(LOGITS, LABELS), metric_by_name("top-2").scores(LOGITS, LABELS))
    f1 = CLASSIFICATION.with_metric(METRICS["f1"])
    assert (f1.metric.name, f1.by_sample.name, f1.binary) == ("macro F1", "accuracy", True)
    squared = REGRESSION.with_metric(METRICS["mse"])
    assert (squared.scores(GUESSES, NUMBERS) <= 0).all()
    assert MULTI_LABEL.with_metric(METRICS["auc"]).metric.name == "AUC"
    for task, name in ((CLASSIFICATION, "mae"), (REGRESSION, "f1"), (MULTI_LABEL, "accuracy")):
        with pytest.raises(UsageError, match=f"the task {task.name}"):
            task.with_metric(METRICS[name])
