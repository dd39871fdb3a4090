"""The demo's data and training; the whole demo, checked by a stranger, is ``benchmarks/demo_check.py``."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from featherweight import demo
from featherweight.contracts import DataError, ModelError
from featherweight.tasks import Data


@pytest.fixture(scope="module")
def digits() -> Data:
    return demo.digits()


def test_the_splits_have_their_sizes_and_share_nothing(digits: Data) -> None:
    assert {name: len(split) for name, split in digits.splits().items()} == {
        "train": 697,
        "validation": 300,
        "test": 800,
    }
    hashes = {name: set(split.digests()) for name, split in digits.splits().items()}
    assert not hashes["train"] & hashes["validation"]
    assert not hashes["train"] & hashes["test"]
    assert not hashes["validation"] & hashes["test"]


def test_the_splits_together_are_the_digits_of_scikit_learn(digits: Data) -> None:
    pixels, labels = load_digits(return_X_y=True)
    rows = {(tuple((16.0 * x).astype(int)), y) for x, y in zip(pixels / 16.0, labels, strict=True)}
    found = set()
    for split in digits.splits().values():
        batch = split.take(range(len(split)))
        assert batch.labels is not None
        assert batch.inputs[0].shape[1:] == (1, 8, 8)
        assert 0.0 <= float(batch.inputs[0].min()) <= float(batch.inputs[0].max()) == 1.0
        found |= {
            (tuple((16.0 * x).int().flatten().tolist()), int(y))
            for x, y in zip(batch.inputs[0], batch.labels, strict=True)
        }
    assert found == rows


def test_the_splits_are_the_same_every_time(digits: Data) -> None:
    np.random.seed(3)
    assert demo.digits().fingerprint() == digits.fingerprint()


def test_every_split_holds_all_ten_digits(digits: Data) -> None:
    for split in digits.splits().values():
        assert split.labels is not None
        assert np.bincount(split.labels, minlength=10).min() >= 20


def test_training_gives_the_same_bytes_whatever_happened_before(digits: Data) -> None:
    first = demo.train(digits, epochs=1).state_dict()
    torch.manual_seed(99)
    torch.rand(5)
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        second = demo.train(digits, epochs=1).state_dict()
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(value, second[name]) for name, value in first.items())


def test_training_leaves_the_random_numbers_of_others_alone(digits: Data) -> None:
    state = torch.get_rng_state()
    demo.train(digits, epochs=1)
    assert torch.equal(torch.get_rng_state(), state)


def test_a_few_epochs_learn_the_digits(digits: Data) -> None:
    network = demo.train(digits, epochs=6)
    assert not network.training
    batch = digits.validation.take(range(300))
    assert batch.labels is not None
    with torch.no_grad():
        right = network(batch.inputs[0]).argmax(1) == batch.labels
    assert float(right.float().mean()) > 0.95


def test_images_are_moved_by_at_most_a_pixel() -> None:
    x = torch.zeros(3, 1, 8, 8)
    x[:, :, 4, 4] = 1.0
    places = set()
    for seed in range(60):
        moved = demo._shifted(x, torch.Generator().manual_seed(seed))
        assert moved.shape == x.shape
        assert torch.equal(moved.sum((1, 2, 3)), torch.ones(3))
        assert torch.equal(moved[0], moved[2])
        places.add(tuple(moved[0, 0].nonzero()[0].tolist()))
    assert places == {(row, column) for row in (3, 4, 5) for column in (3, 4, 5)}


def test_without_scikit_learn_the_command_to_install_it_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(DataError, match=r"pip install .*\[demo\]"):
        demo.digits()


def test_weights_that_are_not_the_demos_are_refused_and_kept(tmp_path: Path) -> None:
    (tmp_path / "trained.safetensors").write_text("mine")
    with pytest.raises(ModelError, match=r"whole safetensors file"):
        demo.demo(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["trained.safetensors"]
    assert (tmp_path / "trained.safetensors").read_text() == "mine"
