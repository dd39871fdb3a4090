from __future__ import annotations

import subprocess
import sys
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import DataLoader, TensorDataset

from featherweight.contracts import DataError
from featherweight.tasks import Data, Split

X = np.arange(24, dtype=np.float32).reshape(8, 3)
Y = np.array([0, 1, 2, 0, 1, 2, 0, 1])


class Pairs:
    """A map-style dataset that counts its readings."""

    def __init__(self, x, y=None):
        self.x, self.y, self.read = x, y, 0

    def __len__(self):
        return len(self.x)

    def __getitem__(self, index):
        self.read += 1
        return self.x[index] if self.y is None else (self.x[index], self.y[index])


FORMS = {
    "numpy": lambda: (X, Y),
    "torch": lambda: (torch.from_numpy(X.copy()), torch.from_numpy(Y)),
    "list of labels": lambda: (X, Y.tolist()),
    "list of samples": lambda: (list(X), Y),
    "read-only": lambda: (np.frombuffer(X.tobytes(), dtype=np.float32).reshape(X.shape), Y),
    "reversed": lambda: (X[::-1].copy()[::-1], Y),
    "byte order": lambda: (X.astype(">f4"), Y.astype(">i8")),
    "small labels": lambda: (X, Y.astype(np.uint8)),
    "dataset": lambda: Pairs(X, Y),
    "tensor dataset": lambda: TensorDataset(torch.from_numpy(X.copy()), torch.from_numpy(Y)),
    "list of pairs": lambda: list(zip(X, Y, strict=True)),
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_gives_the_same_samples(form):
    split = Split.of(FORMS[form]())
    assert len(split) == 8
    np.testing.assert_array_equal(split.labels, Y)
    assert np.asarray(split.labels).dtype == np.int64
    batch = split.take([6, 1])
    assert len(batch.inputs) == 1
    torch.testing.assert_close(batch.inputs[0], torch.from_numpy(X[[6, 1]]), rtol=0, atol=0)
    torch.testing.assert_close(batch.labels, torch.tensor([0, 1]))


@pytest.mark.parametrize("form", FORMS)
def test_fingerprint_is_of_the_contents_alone(form):
    data = Data.of((FORMS[form](),) * 3)
    assert data.fingerprint() == Data.of(((X, Y),) * 3).fingerprint()


@pytest.mark.parametrize("form", [lambda: X, lambda: torch.from_numpy(X.copy()), lambda: (X, None), lambda: Pairs(X)])
def test_unlabelled_samples(form):
    split = Split.of(form())
    assert split.labels is None
    assert split.take([0]).labels is None
    torch.testing.assert_close(split.take([3, 2]).inputs[0], torch.from_numpy(X[[3, 2]]))


def test_unlabelled_dataset_of_one_tuples():
    split = Split.of(TensorDataset(torch.from_numpy(X.copy())))
    assert split.labels is None
    assert torch.equal(split.take([1]).inputs[0][0], torch.from_numpy(X[1]))


@pytest.mark.parametrize("form", [((X, X[:, :1]), Y), [((x, x[:1]), y) for x, y in zip(X, Y, strict=True)]])
def test_several_inputs(form):
    batch = Split.of(form).take([1, 4])
    assert [tuple(tensor.shape) for tensor in batch.inputs] == [(2, 3), (2, 1)]
    assert torch.equal(batch.inputs[1], torch.from_numpy(X[[1, 4], :1]))


def test_a_list_is_an_array_and_no_pair():
    split = Split.of([[1.0, 2.0], [3.0, 4.0]])
    assert split.labels is None
    assert split.take([1]).inputs[0].tolist() == [[3.0, 4.0]]


def test_real_labels_of_several_numbers():
    split = Split.of((X, X.astype(np.float64) * 2))
    np.testing.assert_array_equal(split.labels, X * 2)
    torch.testing.assert_close(split.take([2]).labels, torch.tensor(X[[2]] * 2, dtype=torch.float64))


@pytest.mark.parametrize("size", [1, 3, 8, 100])
def test_batches_are_all_samples_in_order(size):
    batches = list(Split.of((X, Y)).batches(size))
    assert all(len(batch.inputs[0]) == size for batch in batches[:-1])
    assert torch.equal(torch.cat([batch.inputs[0] for batch in batches]), torch.from_numpy(X))
    assert [label for batch in batches for label in np.asarray(batch.labels)] == Y.tolist()


def test_contiguous_parts_share_memory():
    array, tensor = X.copy(), torch.from_numpy(X.copy())
    for values in (array, tensor):
        split = Split.of((values, Y)).first(6)
        pointer = torch.as_tensor(values).data_ptr()
        assert split.take(range(6)).inputs[0].data_ptr() == pointer
        for index, batch in enumerate(split.batches(2)):
            assert batch.inputs[0].data_ptr() == pointer + index * 2 * 3 * 4


def test_memory_maps_are_read_in_part(tmp_path):
    np.save(tmp_path / "x.npy", X)
    split = Split.of((np.load(tmp_path / "x.npy", mmap_mode="r"), Y))
    assert torch.equal(split.take([7]).inputs[0], torch.from_numpy(X[[7]]))


def test_gradients_stay_behind():
    split = Split.of(torch.ones(3, 2, requires_grad=True))
    assert not split.take([0]).inputs[0].requires_grad


def test_a_part_of_a_dataset_reads_that_part():
    dataset = Pairs(X)
    split = Split.of(dataset)
    dataset.read = 0
    split.first(3).subset([2, 0]).take([1])
    assert dataset.read == 2  # one to see whether there are labels, one for the sample


@given(st.data())
def test_parts_of_parts_are_indices_of_indices(data):
    rows = np.arange(20)
    split = Split.of(np.arange(20.0))
    for _ in range(data.draw(st.integers(1, 4))):
        length = len(rows)
        if data.draw(st.booleans()):
            indices = range(
                data.draw(st.integers(0, length)), data.draw(st.integers(0, length)), data.draw(st.integers(1, 3))
            )
        else:
            positions = st.integers(0, length - 1)
            indices = data.draw(st.lists(positions, max_size=8)) if length else []
        rows, split = rows[np.asarray(indices, dtype=int)], split.subset(indices)
        assert len(split) == len(rows)
        np.testing.assert_array_equal(split.take(range(len(rows))).inputs[0].numpy(), rows.astype(float))


@pytest.mark.parametrize("indices", [range(5, -1, -1), range(0), range(0, -1), range(-2, -2), []])
def test_ranges_that_run_backwards_or_nowhere(indices):
    assert Split.of(X).subset(indices).take(range(len(indices))).inputs[0].tolist() == X[list(indices)].tolist()


def test_first_of_more_than_there_are():
    assert len(Split.of(X).first(100)) == 8


@pytest.mark.parametrize("indices", [[8], [-1], range(5, 9), range(-1, 3), np.array([0.5]), [[1]], [True, False]])
def test_indices_that_mean_nothing(indices):
    with pytest.raises(DataError, match=r"counted from 0|whole numbers"):
        Split.of(X).subset(indices)


def test_counts_that_mean_nothing():
    with pytest.raises(DataError, match="can't be negative"):
        Split.of(X).first(-1)
    with pytest.raises(DataError, match="size = 0"):
        Split.of(X).batches(0)
    with pytest.raises(DataError, match="at least one"):
        Split.of(Pairs(X)).take([])


@pytest.mark.parametrize(
    ("value", "told"),
    [
        ((X, Y[:-1]), "8 in input 0, 7 in labels"),
        (((X, X[:5]), Y), "8 in input 0, 5 in input 1"),
        ((X, Y, Y, Y), "4 values"),
        (((), Y), "one row per sample"),
        ((X, np.array(3)), "one row per sample"),
        (np.array(3.0), "one row per sample"),
        ("digits", "a str"),
        ({"x": X}, "a dict"),
        (None, "a NoneType"),
        (DataLoader(TensorDataset(torch.ones(2))), "a DataLoader"),
        (([X[0], X[:2]], [0, 1]), "arrays of numbers"),
        ((X, list("abcdefgh")), "labels of type <U1"),
        ((X, [[0], [0, 1], 1, 1, 1, 1, 1, 1]), "numbers of one shape"),
        ((X, torch.ones(8, dtype=torch.bfloat16)), "numbers of one shape"),
    ],
)
def test_what_is_no_split(value, told):
    with pytest.raises(DataError, match=told):
        Split.of(value)


@pytest.mark.parametrize(
    ("samples", "told"),
    [
        (np.array(["a", "b"]), "of type <U1"),
        (np.array([None, 3], dtype=object), "of type object"),
        (np.ones((2, 3), dtype=np.longdouble), "arrays of numbers"),
        ([X[0], X[0, :2]], "one shape and type"),
        ([(X[0], 1), (X[0], X[0], 3)], "3 values at index 1"),
        ([(X[0], 1), (X[0],)], "sample 1 has none"),
        ([{"x": X[0]}, {"x": X[0]}], "of type object"),
        ([[[1], [1, 2]], 3], "arrays of numbers"),
        ([[torch.ones(2), 0], [torch.ones(2), 1]], "arrays of numbers"),
        (Pairs(X, Y[:1]), "must give its sample 1"),
    ],
)
def test_samples_that_cant_be_read(samples, told):
    with pytest.raises(DataError, match=told):
        Split.of(samples).take([0, 1])


def test_errors_of_a_dataset_are_chained_and_ours_pass():
    class Failing(Pairs):
        def __getitem__(self, index):
            raise self.x[0]

    with pytest.raises(DataError, match=r"sample 0.*\n.*KeyError: 'pixels'") as caught:
        Split.of(Failing([KeyError("pixels")])).take([0])
    assert isinstance(caught.value.__cause__, KeyError)
    with pytest.raises(DataError, match="mine"):
        Split.of(Failing([DataError("mine", "", "")])).take([0])


def test_data_from_a_mapping_or_a_tuple():
    mapping = {"test": (X[:2], Y[:2]), "train": X, "validation": (X[2:5], Y[2:5])}
    for value in (mapping, (mapping["train"], mapping["validation"], mapping["test"])):
        data = Data.of(value, "digits")
        assert [len(split) for split in data.splits().values()] == [8, 3, 2]
        assert data.train.labels is None
        assert data.name == "digits"
    assert Data.of(data) is data


@pytest.mark.parametrize(
    ("value", "told"),
    [
        ({"train": X, "test": X}, "train, test"),
        ({"train": X, "val": X, "test": X}, "train, val, test"),
        ({"train": X, "validation": X, "test": X, "more": X}, "more"),
        ({}, "an empty mapping"),
        ((X, Y), "a tuple of 2"),
        ([X, X, X], "a list"),
        (None, "a NoneType"),
    ],
)
def test_what_is_no_data(value, told):
    with pytest.raises(DataError, match=told):
        Data.of(value)


def test_labels_in_one_of_validation_and_test():
    with pytest.raises(DataError, match="labels in validation only"):
        Data.of((X, (X, Y), X))
    with pytest.raises(DataError, match="labels in test only"):
        Data.of(((X, Y), Pairs(X), (X, Y)))


def make_data(x: Any = X, y: Any = Y):
    return Data.of(((x[:4], y[:4]), (x[4:6], y[4:6]), (x[6:], y[6:])))


def test_fingerprint_tells_contents_apart():
    other, moved = X.copy(), Y.copy()
    other[7, 2] += 1
    moved[7] = 2
    prints = [
        make_data().fingerprint(),
        make_data(x=other).fingerprint(),
        make_data(y=moved).fingerprint(),
        make_data(x=X.astype(np.float64)).fingerprint(),
        make_data(x=X.reshape(8, 1, 3)).fingerprint(),
        Data.of((X[:4], X[4:6], X[6:])).fingerprint(),
        Data.of((X[:3], X[3:6], X[6:])).fingerprint(),
        Data.of(((X, X),) * 3).fingerprint(),
        Data.of((((X, X), None),) * 3).fingerprint(),
    ]
    assert len(set(prints)) == len(prints)
    assert all(len(text) == 64 for text in prints)


def test_fingerprint_does_not_depend_on_chunks(monkeypatch):
    whole = make_data().fingerprint()
    monkeypatch.setattr("featherweight.tasks.data._CHUNK", 3)
    assert make_data().fingerprint() == whole


def test_fingerprint_is_the_same_in_another_process():
    program = (
        "import numpy as np\n"
        "from featherweight.tasks import Data\n"
        "x = np.arange(24, dtype=np.float32).reshape(8, 3)\n"
        "y = np.array([0, 1, 2, 0, 1, 2, 0, 1])\n"
        "print(Data.of(((x[:4], y[:4]), (x[4:6], y[4:6]), (x[6:], y[6:]))).fingerprint())\n"
    )
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == make_data().fingerprint()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.bool, torch.complex64, torch.int8])
def test_samples_of_every_type_have_digests(dtype):
    x = torch.tensor([[0.0, 1.0], [1.0, 0.0], [0.0, 1.0]]).to(dtype)
    first, second, third = Split.of(x).digests()
    assert first == third != second


def test_digests_of_scalars_empty_samples_and_strides():
    assert len(set(Split.of(torch.arange(3)).digests())) == 3
    assert len(set(Split.of(torch.ones(3, 0)).digests())) == 1
    assert list(Split.of(torch.from_numpy(X.copy()).T).digests()) == list(Split.of(X.T.copy()).digests())
