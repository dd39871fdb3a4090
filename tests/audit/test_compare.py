"""The whole certificate from outputs: any metric, groups, churn."""

from __future__ import annotations

import numpy as np
import pytest

from featherweight.audit.verify import compare, labels_of
from featherweight.contracts import Certificate, Churn, DataError, Goal
from featherweight.records import from_json, to_json
from featherweight.tasks import CLASSIFICATION, MULTI_LABEL, REGRESSION, Split, Task, metric_by_name, own_metric

RANDOM = np.random.default_rng(11)
N = 400
LABELS = RANDOM.integers(0, 3, N)
BEFORE = RANDOM.normal(size=(N, 3)) + 3 * np.eye(3)[LABELS]
AFTER = BEFORE + 0.3 * RANDOM.normal(size=BEFORE.shape)
INPUTS = np.zeros((N, 1), np.float32)
SPLIT = Split.of((INPUTS, LABELS))


def certified(task: Task = CLASSIFICATION, split: Split = SPLIT, **goal) -> Certificate:
    return compare(BEFORE, AFTER, split, task, Goal(**{"max_drop": 0.05, **goal}))


@pytest.mark.parametrize("name", ["accuracy", "top-2", "f1", "auc", "map", "perplexity"])
def test_every_metric_is_certified_and_comes_back_from_json(name):
    metric = metric_by_name(name)
    found = certified(CLASSIFICATION.with_metric(metric))
    assert found.metric == metric.name
    assert found.drop <= found.drop_bound
    assert found.holds == (found.drop_bound <= 0.05)
    assert (found.lost is not None) == (name in ("accuracy", "top-2"))
    assert metric.name in found.tested
    assert from_json(Certificate, to_json(found)) == found


def test_churn_counts_answers_whatever_the_metric():
    was, now = BEFORE.argmax(1) == LABELS, AFTER.argmax(1) == LABELS
    changed = BEFORE.argmax(1) != AFTER.argmax(1)
    expected = Churn(N, changed.sum(), (was & ~now).sum(), (~was & now).sum(), (changed & ~was & ~now).sum())
    assert expected.changed > 5
    for name in ("accuracy", "f1"):
        assert certified(CLASSIFICATION.with_metric(metric_by_name(name))).churn == expected
    assert (
        compare(INPUTS, INPUTS, Split.of((INPUTS, INPUTS + RANDOM.normal(size=(N, 1)))), REGRESSION, Goal()).churn
        is None
    )


def test_an_answer_that_is_no_number_is_churn():
    broken = AFTER.copy()
    broken[0] = np.nan
    found = compare(BEFORE, broken, SPLIT, CLASSIFICATION, Goal())
    assert found.churn is not None
    assert found.churn.lost == found.lost


def test_classes_are_groups_by_name_or_number():
    found = compare(BEFORE, AFTER, SPLIT, CLASSIFICATION, Goal(), class_names=("ant", "bee"))
    assert {one.group for one in found.groups} == {"ant", "bee", "class 2"}
    assert sum(one.samples for one in found.groups) == N
    drops = [one.drop for one in found.groups]
    assert drops == sorted(drops, reverse=True)
    assert found.drop == pytest.approx(sum(one.drop * one.samples for one in found.groups) / N)


def test_groups_of_the_users_come_before_classes():
    groups = np.where(np.arange(N) < 150, "day", "night")
    found = certified(split=Split.of((INPUTS, LABELS, groups)))
    assert {one.group: one.samples for one in found.groups} == {"day": 150, "night": 250}


def test_a_goal_for_groups_decides_too():
    strict, loose = certified(max_drop=0.5, max_group_drop=0.01), certified(max_drop=0.5, max_group_drop=0.4)
    assert (strict.holds, loose.holds) == (False, True)
    assert strict.drop_bound <= 0.5
    assert "can't be shown for 3 of 3" in strict.statement
    assert "None of 3 groups loses more than 40.00 points" in loose.statement


def test_a_figure_of_a_set_leaves_groups_to_accuracy():
    plain = certified()
    assert certified(CLASSIFICATION.with_metric(metric_by_name("auc"))).groups == plain.groups


def test_groups_that_nobody_gave():
    with pytest.raises(DataError, match=r"\(x, y, groups\)"):
        compare(INPUTS, INPUTS, Split.of((INPUTS, INPUTS)), REGRESSION, Goal(max_group_drop=0.1))


def test_regression_by_group():
    targets = RANDOM.normal(size=(N, 1))
    before = targets + 0.1 * RANDOM.normal(size=(N, 1))
    split = Split.of((INPUTS, targets, np.arange(N) % 2))
    found = compare(before, before + 0.01, split, REGRESSION, Goal(max_group_drop=0.5))
    assert [one.group for one in found.groups] in (["0", "1"], ["1", "0"])
    assert found.holds


def test_without_labels_the_original_stands_in_where_that_makes_sense():
    bare = Split.of(INPUTS)
    for name in ("accuracy", "f1", "auc"):
        found = certified(CLASSIFICATION.with_metric(metric_by_name(name)), bare)
        assert found.original > 0.98
    with pytest.raises(DataError, match="perplexity needs labels"):
        certified(CLASSIFICATION.with_metric(metric_by_name("perplexity")), bare)


def test_several_labels_at_once():
    marks = (RANDOM.random((N, 3)) < 0.4).astype(int)
    before = 4.0 * marks - 2 + RANDOM.normal(size=marks.shape)
    split = Split.of((INPUTS, marks))
    found = compare(before, before + 0.1 * RANDOM.normal(size=marks.shape), split, MULTI_LABEL, Goal(max_drop=0.05))
    assert (found.metric, found.holds, found.groups, found.churn) == ("mAP", True, (), None)
    np.testing.assert_array_equal(labels_of(Split.of(INPUTS), before, MULTI_LABEL), before > 0)


def test_a_users_metric_for_each_sample_and_for_the_set():
    right = own_metric(lambda outputs, labels: outputs.argmax(1) == labels, "hits")
    found = certified(CLASSIFICATION.with_metric(right))
    assert (found.metric, found.bound_method, found.lost) == ("hits", "exact", certified().lost)
    share = own_metric(lambda outputs, labels: (outputs.argmax(1) == labels).mean(), "share")
    whole = certified(CLASSIFICATION.with_metric(share))
    assert whole.drop == pytest.approx(found.drop)
    assert whole.bound_method in ("bootstrap", "worst-case")
    assert whole.drop_bound > whole.drop


def test_a_users_metric_that_moves_the_wrong_way():
    wrong = own_metric(lambda outputs, labels: float((outputs.argmax(1) != labels).mean()), "misses")
    with pytest.raises(DataError, match="misses must tell good outputs from shuffled ones, higher being better"):
        certified(CLASSIFICATION.with_metric(wrong))
    declared = own_metric(wrong.function, "misses", higher_is_better=False)
    assert certified(CLASSIFICATION.with_metric(declared)).higher_is_better is False
