from __future__ import annotations

import textwrap

import numpy as np
import pytest
from PIL import Image

from featherweight.contracts import DataError
from featherweight.tasks import Data, load_data


@pytest.fixture
def functions(tmp_path):
    path = tmp_path / "digits.py"
    path.write_text(
        textwrap.dedent("""
            import numpy as np
            from featherweight.tasks import Data

            def splits(): return {name: (np.eye(4), [0, 1, 0, 1]) for name in ("train", "validation", "test")}
            def triple(): return np.eye(4), np.eye(4), np.eye(4)
            def data(): return Data.of(triple(), "mine")
            def nothing(): return None
            def fails(): raise KeyError("pixels")
        """)
    )
    return str(path)


def test_functions_of_every_kind(functions):
    assert np.array_equal(np.asarray(load_data(f"{functions}:splits").test.labels), [0, 1, 0, 1])
    assert load_data(f"{functions}:splits").name == "digits.py:splits"
    assert load_data(f"{functions}:triple").validation.labels is None
    assert load_data(f"{functions}:data").name == "mine"


def test_a_function_of_a_module(functions, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert isinstance(load_data("digits:splits"), Data)


def test_a_folder(tmp_path):
    for name in ("a", "b"):
        (tmp_path / "set" / name).mkdir(parents=True)
        for index in range(5):
            array = np.full((4, 4, 3), index * 10 + ord(name), dtype=np.uint8)
            Image.fromarray(array).save(tmp_path / "set" / name / f"{index}.png")
    data = load_data(f"{tmp_path}/set", size=(2, 3), seed=4)
    assert data.name == "set"
    assert data.test.take([0]).inputs[0].shape == (1, 3, 2, 3)


@pytest.mark.parametrize(
    ("suffix", "told"),
    [
        (":nothing", "a NoneType"),
        (":fails", r"KeyError: 'pixels' \(digits\.py, line 9\)"),
        (":absent", "functions in there: data, fails, nothing, splits, triple"),
        ("", "which is no folder"),
    ],
)
def test_what_gives_no_data(functions, suffix, told):
    with pytest.raises(DataError, match=told):
        load_data(functions + suffix)


def test_a_size_for_a_function(functions):
    with pytest.raises(DataError, match="resize within the function"):
        load_data(f"{functions}:splits", size=(2, 2))


def test_what_isnt_there(tmp_path):
    with pytest.raises(DataError, match="which is no folder"):
        load_data(str(tmp_path / "nowhere"))
    with pytest.raises(DataError, match="must exist"):
        load_data(f"{tmp_path}/nowhere.py:splits")
