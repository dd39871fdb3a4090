"""Bounds on figures of a set: against a bootstrap by hand, in simulated studies, and where no claim can be made."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from sklearn.metrics import f1_score, roc_auc_score

from featherweight.audit import resampling
from featherweight.audit.bounds import bootstrap, worst_case
from featherweight.audit.measure import bounded, lower_level, measured
from featherweight.audit.resampling import influences, pseudo_values, set_bound, studentized, tightened
from featherweight.contracts import DataError, Goal
from featherweight.tasks.metrics import METRICS, own_metric

RANDOM = np.random.default_rng(7)
LABELS = RANDOM.choice(3, 300, p=[0.5, 0.3, 0.2])
BEFORE = RANDOM.normal(size=(300, 3)) + 2 * np.eye(3)[LABELS]
AFTER = BEFORE + 0.4 * RANDOM.normal(size=BEFORE.shape)
PAIR = (BEFORE, AFTER)


def mean_of(scores: np.ndarray):
    values = torch.from_numpy(scores)
    return lambda weights: weights @ values / weights.sum(1)


def test_the_influence_on_a_mean_is_the_distance_from_it():
    scores = RANDOM.normal(size=50)
    value, influence = influences(mean_of(scores), 50)
    assert value == pytest.approx(scores.mean())
    np.testing.assert_allclose(influence, scores - scores.mean(), atol=1e-12)


def test_of_a_mean_it_is_the_bootstrap_of_the_differences():
    """Same quantity, other draws: margins agree but for the luck of the draw and the widening."""
    scores = RANDOM.exponential(size=120)
    u = np.square(scores - scores.mean())
    widened = 1 + np.square(u).sum() / u.sum() ** 2
    found = studentized(mean_of(scores), 120, 0.95, resamples=4_999)
    assert found - scores.mean() == pytest.approx(widened * (bootstrap(scores, 0.95) - scores.mean()), rel=0.06)


def test_where_many_samples_carry_the_figure_it_is_their_influences_bootstrap():
    scores = RANDOM.normal(size=2_000)
    assert studentized(mean_of(scores), 2_000, 0.95) == pytest.approx(bootstrap(scores, 0.95), rel=1e-9)


def test_a_replicate_is_a_draw_with_replacement():
    drawn = resampling._replicates(5, 40, np.random.default_rng(0))
    assert drawn.shape == (5, 40)
    assert (drawn.sum(1) == 40).all()
    rows = np.random.default_rng(0).integers(0, 40, (5, 40))
    np.testing.assert_array_equal(drawn[3], np.bincount(rows[3], minlength=40))


@pytest.mark.parametrize("name", ["f1", "auc", "map", "perplexity"])
def test_figures_of_both_and_a_bound_beyond_the_drop(name):
    metric = METRICS[name]
    before, after, bound = set_bound(metric, PAIR, LABELS, 0.95)
    assert (before, after) == (metric.value(BEFORE, LABELS)[0], metric.value(AFTER, LABELS)[0])
    assert bound.drop == pytest.approx(metric.sign * (before - after), abs=1e-12)
    assert bound.upper > bound.drop
    assert bound.method == "bootstrap"
    assert set_bound(metric, PAIR, LABELS, 0.95)[2] == bound  # the same seed
    assert set_bound(metric, PAIR, LABELS, 0.99)[2].upper > bound.upper
    swapped = set_bound(metric, PAIR[::-1], LABELS, 0.95)[2]
    assert swapped.drop == pytest.approx(-bound.drop)


def test_the_margin_is_near_that_of_a_plain_bootstrap():
    random, drops = np.random.default_rng(0), []
    answers = [part.argmax(1) for part in PAIR]
    for _ in range(400):
        rows = random.integers(0, 300, 300)
        old, new = (f1_score(LABELS[rows], part[rows], average="macro") for part in answers)
        drops.append(old - new)
    bound = set_bound(METRICS["f1"], PAIR, LABELS, 0.95)[2]
    assert bound.upper - bound.drop == pytest.approx(np.std(drops) * 1.75, rel=0.25)


@pytest.mark.parametrize("name", ["f1", "auc"])
def test_it_covers_in_simulated_studies(name, monkeypatch):
    """A smoke test of what ``benchmarks/certificate_coverage.py`` measures: binomial noise leaves room for 90 %."""
    monkeypatch.setattr(resampling, "RESAMPLES", 199)
    random, held = np.random.default_rng(1), 0

    def draw(samples: int):
        labels = random.choice(2, samples, p=[0.6, 0.4])
        before = random.normal(size=(samples, 2)) + 1.5 * np.eye(2)[labels]
        after = before + 0.6 * random.normal(size=before.shape)
        return before, after, labels

    large = draw(200_000)
    truth = METRICS[name].value(large[0], large[2])[0] - METRICS[name].value(large[1], large[2])[0]
    for _ in range(150):
        before, after, labels = draw(150)
        held += set_bound(METRICS[name], (before, after), labels, 0.95)[2].upper >= truth
    assert held / 150 >= 0.9


def test_where_few_answers_change_the_unseen_ones_are_reckoned_with():
    after = BEFORE.copy()
    right = np.flatnonzero(BEFORE.argmax(1) == LABELS)[:3]
    after[right] = -BEFORE[right]
    for changed, outputs in ((0, BEFORE), (3, after)):
        bound = set_bound(METRICS["f1"], (BEFORE, outputs), LABELS, 0.95)[2]
        assert bound.method == "worst-case"
        assert bound.rare is not None
        assert (bound.rare.lowered, bound.rare.whole) == (changed, True)
        assert bound.upper > bound.drop
        assert bound.upper > 3 / 300  # the rule of three
    assert set_bound(METRICS["perplexity"], (BEFORE, BEFORE), LABELS, 0.95)[2].upper > 0


def nearly_equal(name: str) -> tuple[np.ndarray, np.ndarray]:
    """Outputs that change next to nothing of a metric, and labels."""
    after = BEFORE.copy()
    if name == "f1":  # six answers of 300 that are lost by a hair
        rows = np.flatnonzero(BEFORE.argmax(1) == LABELS)[:6]
        after[rows, LABELS[rows]] = np.sort(BEFORE[rows], axis=1)[:, -2] - 1e-6
        return after, LABELS
    marks = (LABELS[:, None] == np.arange(3)).astype(int)
    order = np.argsort(BEFORE[:, 0])
    mixed = np.flatnonzero(np.diff(marks[order, 0]) != 0)[:12:4]  # three pairs of neighbours that change places
    after[order[mixed], 0], after[order[mixed + 1], 0] = BEFORE[order[mixed + 1], 0], BEFORE[order[mixed], 0]
    return after, marks


@pytest.mark.parametrize("name", ["f1", "auc", "map"])
def test_samples_that_cost_little_are_not_reckoned_to_cost_the_most(name):
    after, labels = nearly_equal(name)
    bound = set_bound(METRICS[name], (BEFORE, after), labels, 0.95)[2]
    assert bound.method == "worst-case"
    assert bound.rare is not None
    assert 0 < len(bound.rare.losses) == bound.rare.lowered < 20
    most = worst_case(np.full(bound.rare.lowered, bound.rare.largest), bound.rare.largest, len(LABELS), 0.95)
    least = worst_case([], bound.rare.largest, len(LABELS), 0.95)
    assert least <= bound.upper < 0.8 * most
    # Together they cost at least what was seen, and none more than the most.
    assert sum(bound.rare.losses) / len(LABELS) >= bound.drop - 1e-12
    assert max(bound.rare.losses) <= bound.rare.largest * (1 + 1e-9)


@pytest.mark.parametrize("name", ["f1", "auc"])
def test_it_covers_where_few_samples_change(name, monkeypatch):
    """Answers that are ruined, at odds near those that a test may not see at all."""
    monkeypatch.setattr(resampling, "RESAMPLES", 199)
    random, held, few = np.random.default_rng(2), 0, 0

    def draw(samples: int):
        labels = random.choice(2, samples, p=[0.6, 0.4])
        before = random.normal(size=(samples, 2)) + 4.0 * np.eye(2)[labels]
        ruined = random.random(samples) < 0.012
        return before, np.where(ruined[:, None], before - 12.0 * np.eye(2)[labels], before), labels

    large = draw(200_000)
    truth = METRICS[name].value(large[0], large[2])[0] - METRICS[name].value(large[1], large[2])[0]
    for _ in range(200):
        before, after, labels = draw(250)
        bound = set_bound(METRICS[name], (before, after), labels, 0.95)[2]
        held, few = held + (bound.upper >= truth), few + (bound.method == "worst-case")
    assert few > 10
    assert held / 200 >= 0.92


def test_a_share_cannot_lose_more_than_all():
    assert set_bound(METRICS["map"], (BEFORE, BEFORE), LABELS, 0.99)[2].upper <= 1.0


def test_too_few_samples_for_a_figure_of_a_set():
    few = slice(0, 99)
    with pytest.raises(DataError, match="needs 100 samples"):
        set_bound(METRICS["f1"], (BEFORE[few], AFTER[few]), LABELS[few], 0.95)
    own = own_metric(lambda outputs, labels: float((outputs.argmax(1) == labels).mean()), "own")
    with pytest.raises(DataError, match="own, a figure of the whole set"):
        bounded(own, (BEFORE[few], AFTER[few]), LABELS[few], 0.95)


def test_too_few_samples_of_a_class():
    labels = (np.arange(300) < 20).astype(int)
    outputs = np.random.default_rng(0).normal(size=(300, 2))
    for name in ("auc", "f1-binary"):
        with pytest.raises(DataError, match="enough samples of every class"):
            set_bound(METRICS[name], (outputs, outputs + 0.1), labels, 0.95)


@pytest.mark.parametrize("name", ["f1", "auc", "rmse"])
def test_the_lower_bound_of_a_level_lies_below_it(name):
    outputs, targets = (BEFORE, LABELS) if name != "rmse" else (BEFORE, BEFORE + 0.1 * RANDOM.normal(size=BEFORE.shape))
    level = METRICS[name].value(outputs, targets)[0]
    bounds = [lower_level(METRICS[name], outputs, targets, confidence) for confidence in (0.8, 0.95, 0.995)]
    assert bounds == sorted(bounds, reverse=True)
    assert 0 < bounds[2] < bounds[0] < level


def test_a_perfect_original_has_no_perfect_lower_bound():
    assert lower_level(METRICS["f1"], 9.0 * np.eye(3)[LABELS], LABELS, 0.95) < 1 - 3 / 300


def test_a_relative_limit_on_a_figure_of_a_set():
    found = measured(METRICS["auc"], PAIR, LABELS, Goal(max_drop=0.02, relative=True))
    assert found.level is not None
    assert 0.99 * 0.02 * found.level < found.limit <= 0.02 * found.level
    assert 0.8 < found.level < found.original


def auc(outputs: np.ndarray, labels: np.ndarray) -> float:
    return float(roc_auc_score(labels == 0, outputs[:, 0]))


def test_a_users_figure_is_bounded_by_leaving_parts_out():
    metric = own_metric(auc)
    values = pseudo_values(metric, BEFORE, LABELS)
    assert len(values) == resampling.MOST_DELETIONS
    assert values.mean() == pytest.approx(auc(BEFORE, LABELS), abs=0.02)
    before, after, bound = bounded(metric, PAIR, LABELS, 0.95)
    assert (before, after) == (auc(BEFORE, LABELS), auc(AFTER, LABELS))
    assert bound.drop == pytest.approx(before - after)
    assert bound.upper > bound.drop
    assert 0 < lower_level(metric, BEFORE, LABELS, 0.95) < before


def test_the_pseudo_values_of_a_mean_are_its_scores():
    metric = own_metric(lambda outputs, targets: float(outputs.mean()))
    scores = RANDOM.normal(size=120)
    np.testing.assert_allclose(np.sort(pseudo_values(metric, scores, scores)), np.sort(scores), atol=1e-10)


def test_the_confidence_is_tightened_a_little():
    assert tightened(0.95) == pytest.approx(0.96)


def test_a_figure_without_anything_to_measure_is_refused():
    with pytest.raises(DataError, match="finite number"):
        influences(lambda weights: weights.sum(1) * math.nan, 5)
