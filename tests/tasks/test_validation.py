from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from featherweight.contracts import DataError
from featherweight.tasks import REGRESSION, Data, validate

RANDOM = np.random.default_rng(0)
X = RANDOM.normal(size=(30, 4)).astype(np.float32)
Y = np.arange(30) % 3


def make(x: Any = X, y: Any = Y):
    parts = (slice(0, 10), slice(10, 20), slice(20, 30))
    return Data.of(tuple(x[part] if y is None else (x[part], y[part]) for part in parts))


def changed(values, index, value):
    values = values.copy()
    values[index] = value
    return values


@pytest.mark.parametrize("classes", [None, 3, 10])
def test_sound_data_passes(classes):
    assert validate(make(), classes) is None


def test_unlabelled_and_integer_data_pass():
    assert validate(make(y=None), 3) is None
    assert validate(make(x=RANDOM.integers(0, 1000, (30, 8))), 3) is None


@pytest.mark.parametrize("empty", ["train", "validation", "test"])
def test_empty_splits(empty):
    parts = {name: (X[:10], Y[:10]) if name != empty else (X[:0], Y[:0]) for name in ("train", "validation", "test")}
    with pytest.raises(DataError, match=f"no sample in {empty}"):
        validate(Data.of(parts))
    with pytest.raises(DataError, match=f"no sample in {empty}"):
        validate(Data.of(parts | {empty: []}))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_inputs_that_arent_finite(value):
    x = changed(changed(X, (17, 2), value), (19, 0), value)
    with pytest.raises(DataError, match=r"2 samples of validation hold NaN or infinity; the first is validation\[7\]"):
        validate(make(x))


def test_inputs_that_arent_finite_far_into_the_second_of_two(monkeypatch):
    monkeypatch.setattr("featherweight.tasks.validation._CHUNK", 4)
    bad = changed(X, (29, 3), np.nan)
    data = Data.of(tuple(((X[part], bad[part]), None) for part in (slice(0, 10), slice(10, 20), slice(20, 30))))
    with pytest.raises(DataError, match=r"1 samples of test hold NaN or infinity; the first is test\[9\]"):
        validate(data)


@pytest.mark.parametrize(
    ("y", "classes", "told"),
    [
        (changed(Y, 12, -1), 3, r"run from 0 to 2.*\n.*1 others in validation; the first is -1 at sample 2"),
        (changed(Y, 12, -1), None, r"run from 0\..*\n.*the first is -1 at sample 2"),
        (Y, 2, r"run from 0 to 1.*\n.*3 others in train; the first is 2 at sample 2"),
        (changed(Y, slice(20, 30), 1), 3, r"two classes.*\n.*all 10 labels in test are 1"),
        (Y.astype(np.float32), 3, r"whole numbers.*\n.*train labels of type float32"),
        (np.eye(3)[Y], 3, r"shape \(10, 3\).*\n.*one_hot\.argmax"),
        (Y[:, None], 3, r"shape \(10, 1\)"),
    ],
    ids=["negative", "negative-unknown", "too-large", "one-class", "real", "one-hot", "column"],
)
def test_labels_that_dont_suit_classification(y, classes, told):
    with pytest.raises(DataError, match=told):
        validate(make(y=y), classes)


def test_labels_of_regression():
    target = RANDOM.normal(size=(30, 2))
    validate(make(y=target), task=REGRESSION)
    validate(make(y=np.zeros(30)), task=REGRESSION)
    with pytest.raises(DataError, match="1 NaN or infinite values in test"):
        validate(make(y=changed(target, (25, 1), np.nan)), task=REGRESSION)


def test_shapes_and_types_that_differ_between_splits():
    with pytest.raises(DataError, match=r"train: float32 \(4,\); validation: float32 \(3,\)"):
        validate(Data.of((X[:10], X[10:20, :3], X[20:])))
    with pytest.raises(DataError, match=r"test: float64 \(4,\)"):
        validate(Data.of((X[:10], X[10:20], X[20:].astype(np.float64))))
    with pytest.raises(DataError, match=r"float32 \(4,\), float32 \(4,\)"):
        validate(Data.of((X[:10], ((X[10:20], X[10:20]), None), X[20:])))


def test_groups_of_validation_or_test_alone():
    groups = np.arange(10) % 2
    whole = {"train": (X[:10], Y[:10]), "validation": (X[10:20], Y[10:20]), "test": (X[20:], Y[20:])}
    grouped = {name: (*part, groups) for name, part in whole.items()}
    both = {**whole, "validation": grouped["validation"], "test": grouped["test"]}
    assert validate(Data.of(both), 3) is None  # training samples need none
    for missing in ("validation", "test"):
        with pytest.raises(DataError, match=f"no groups in {missing}") as told:
            validate(Data.of({**grouped, missing: whole[missing]}), 3)
        assert missing in told.value.remedy


def test_samples_that_change_when_read_again():
    class Noisy:
        def __len__(self):
            return 10

        def __getitem__(self, index):
            return torch.rand(4)

    with pytest.raises(DataError, match="first sample of validation changed"):
        validate(Data.of((X[:10], Noisy(), X[20:])))


def test_leaks_are_counted_and_the_first_pair_is_named():
    x = X.copy()
    x[13], x[28], x[29], x[21] = x[4], x[4], x[16], x[20]  # two leaks; the last is a repeat within test
    with pytest.raises(DataError, match=r"2 in more than one; train\[4\] is validation\[3\]"):
        validate(make(x))
    validate(make(x), allow_leaks=True)


def test_repeats_within_a_split_are_no_leak():
    x = X.copy()
    x[1] = x[0]
    assert validate(make(x)) is None


def test_a_leak_needs_all_inputs_alike():
    parts = (slice(0, 10), slice(10, 20), slice(20, 30))
    same = np.zeros((30, 2), dtype=np.float32)
    assert validate(Data.of(tuple(((X[part], same[part]), None) for part in parts))) is None
