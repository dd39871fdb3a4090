"""What bad input gets on the command line: a message in three parts, an exit code by kind, and nothing half written."""

from __future__ import annotations

import errno
import importlib.util
import json
import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from featherweight.files import PARTIAL
from tests import jobs
from tests.jobs import HERE, job, refused, tell

# ------------------------------------------------------------------------------------------- before anything begins

EARLY = [
    ("no file", 3, "must exist", ["nowhere.py:network", "--data", f"{HERE}:data"]),
    ("no function", 3, "must name a function", job("nothing")),
    ("no colon", 3, "file.py:function", [f"{HERE}", "--data", f"{HERE}:data"]),
    ("no model file", 3, "belongs to another framework", ["net.onnx", "--data", f"{HERE}:data"]),
    ("no module", 3, "must return a torch.nn.Module", job("no_module")),
    ("raising", 3, "RuntimeError: the checkpoint server is down", job("raising")),
    ("NaN weights", 3, "1 of 48 values of the parameter 2.weight", job("nan_weights")),
    ("data-dependent", 3, "traceable by torch.export", job("data_dependent")),
    ("fixed batch", 3, "free batch dimension", job("fixed_batch")),
    ("two outputs", 3, "must return one tensor", job("two_outputs")),
    ("narrow inputs", 3, "mat1 and mat2 shapes cannot be multiplied", job(data="narrow")),
    ("double inputs", 3, "same dtype", job(data="double")),
    ("no data", 4, "folder of images by class", [f"{HERE}:network", "--data", "nowhere"]),
    ("no splits", 4, "train, validation and test", job(data="two_splits")),
    ("no data at all", 4, "train, validation and test", job(data="network")),
    ("no training data", 4, "no sample in train", job(data="no_training")),
    ("no test data", 4, "no sample in test", job(data="no_test")),
    ("one class", 4, "at least two classes", job(data="one_class")),
    ("beyond the classes", 4, "Labels run from 0 to 2", job(data="beyond_the_classes")),
    ("negative labels", 4, "Labels run from 0", job(data="negative_labels")),
    ("real labels", 4, "whole numbers", job(data="real_labels")),
    ("NaN data", 4, "the first is train[0]", job(data="nan_first")),
    ("infinite data", 4, f"the first is test[{jobs.SPLITS['test'] - 1}]", job(data="infinite_last")),
    ("other shapes in test", 4, "one shape and type", job(data="narrow_test")),
    ("leaks", 4, "train[0] is test[0]", job(data="leaking")),
    ("negative drop", 5, "between 0 and 1", [*job(), "--max-drop", "-1"]),
    ("negative points", 5, "between 0 and 1", [*job(), "--max-drop=-1pp"]),
    ("endless drop", 5, "between 0 and 1", [*job(), "--max-drop", "1e999"]),
    ("drop in words", 5, "1pp, 1% or 0.01", [*job(), "--max-drop", "little"]),
    ("no bytes", 5, "leave room for a network", [*job(), "--max-size", "0"]),
    ("endless bytes", 5, "finite", [*job(), "--max-size", "1e999"]),
    ("no MACs", 5, "leave room for a network", [*job(), "--max-macs", "0"]),
    ("certainty", 5, "no finite test makes anybody certain", [*job(), "--confidence", "100%"]),
    ("a coin's confidence", 5, "between 50 % and 100 %", [*job(), "--confidence", "50%"]),
    ("confidence 95", 5, "confidence = 95.0", [*job(), "--confidence", "95"]),
    ("beauty", 5, "size, package, macs", [*job(), "--minimize", "beauty"]),
    ("unknown target", 6, "one of: litert", [*job(), "--target", "abacus"]),
    ("unknown task", 2, "classification, regression", [*job(), "--task", "poetry"]),
    ("negative seed", 2, "A seed is a whole number", [*job(), "--seed", "-1"]),
    ("huge seed", 2, "A seed is a whole number", [*job(), "--seed", str(2**63)]),
    ("seed in words", 2, "invalid int value", [*job(), "--seed", "lucky"]),
    ("image size", 2, "height and width", [*job(), "--image-size", "²,3"]),
    ("image size for a function", 4, "for a folder of images", [*job(), "--image-size", "8,8"]),
    ("unknown option", 2, "unrecognized arguments: --faster", [*job(), "--faster"]),
    ("no model", 2, "required: MODEL", ["--data", f"{HERE}:data"]),
]


@pytest.mark.parametrize(("code", "phrase", "words"), [case[1:] for case in EARLY], ids=[case[0] for case in EARLY])
def test_refused_before_anything_is_written(capsys, tmp_path: Path, code: int, phrase: str, words: list[str]) -> None:
    refused(capsys, code, phrase, "compress", *words, "--out", tmp_path / "run")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("phrase", "words"),
    [
        ("required: COMMAND", []),
        ("invalid choice: 'shrink'", ["shrink"]),
        ("required: --out", ["compress", *job()]),
        ("required: --plan", ["apply", *job(), "--out", "run"]),
        ("required: ORIGINAL, ARTEFACT", ["verify", "--data", "data"]),
        ("required: FILE", ["benchmark"]),
    ],
)
def test_a_call_that_is_incomplete(capsys, phrase: str, words: list[str]) -> None:
    assert "featherweight" in refused(capsys, 2, phrase, *words).partition("try: ")[2]


@pytest.mark.parametrize("package", ["litert_torch", "ai_edge_litert"])
def test_a_missing_extra_is_named_with_its_command(capsys, tmp_path: Path, monkeypatch, package: str) -> None:
    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == package else real(name))
    for words in (
        ["compress", *job(), "--out", tmp_path / "run"],
        ["benchmark", "a.tflite"],
        ["demo", "--out", tmp_path],
    ):
        told = refused(capsys, 6, f"the package {package} isn't installed", *words)
        assert 'pip install -e ".[litert]"' in told
    assert list(tmp_path.iterdir()) == []
    assert 'pip install -e ".[litert]"' in tell(capsys, "targets").out


# --------------------------------------------------------------------------------------------------- weights, images


class _Trap:
    """A pickle that leaves a mark when it is opened."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Callable[..., None], tuple[Path]]:
        return Path.touch, (self.mark,)


@pytest.mark.parametrize("write", [lambda value, path: path.write_bytes(pickle.dumps(value)), torch.save])
def test_a_pickle_that_wants_to_run_code_does_not(capsys, tmp_path: Path, write) -> None:
    write({"state_dict": _Trap(tmp_path / "mark")}, tmp_path / "weights.pt")
    weights = ["--weights", tmp_path / "weights.pt", "--out", tmp_path / "run"]
    refused(capsys, 3, "can run code, so it is never opened", "compress", *job(), *weights)
    assert [path.name for path in tmp_path.iterdir()] == ["weights.pt"]


def _write_nan(path: Path) -> None:
    save_file(jobs.nan_weights().state_dict(), path)


def _write_unfitting(path: Path) -> None:
    save_file({**jobs.network().state_dict(), "2.weight": torch.zeros(3, 17)}, path)


def _write_missing(path: Path) -> None:
    state = jobs.network().state_dict()
    del state["0.bias"]
    save_file(state, path)


def _write_cut(path: Path) -> None:
    save_file(jobs.network().state_dict(), path)
    path.write_bytes(path.read_bytes()[:-100])


@pytest.mark.parametrize(
    ("write", "phrase"),
    [
        (_write_nan, "NaN or infinite"),
        (_write_unfitting, "2.weight: file (3, 17), model (3, 16)"),
        (_write_missing, "1 missing: 0.bias"),
        (_write_cut, "whole safetensors file"),
        (Path.mkdir, "must exist"),
    ],
)
def test_weights_that_do_not_do(capsys, tmp_path: Path, write: Callable[[Path], None], phrase: str) -> None:
    write(tmp_path / "weights.safetensors")
    words = ["--weights", tmp_path / "weights.safetensors", "--out", tmp_path / "run"]
    refused(capsys, 3, phrase, "compress", *job(), *words)
    assert not (tmp_path / "run").exists()


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """A folder of tiny grey images in two classes."""
    random = np.random.default_rng(0)
    for name in ("cat", "dog"):
        (tmp_path / "images" / name).mkdir(parents=True)
        for index in range(6):
            pixels = random.integers(0, 256, (8, 8), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "images" / name / f"{index}.png")
    return tmp_path / "images"


def test_images_that_do_not_decode(capsys, tmp_path: Path, images: Path) -> None:
    (images / "cat" / "2.png").write_bytes(b"no image")
    whole = (images / "dog" / "3.png").read_bytes()
    words = ["compress", f"{HERE}:image_network", "--data", images, "--out", tmp_path / "run"]
    assert "cat/2.png" in refused(capsys, 4, "1 that don't", *words)
    (images / "cat" / "2.png").unlink()
    (images / "dog" / "3.png").write_bytes(whole[: len(whole) - 40])  # the header is whole, the pixels aren't
    assert "dog/3.png" in refused(capsys, 4, "1 that don't", *words)
    assert not (tmp_path / "run").exists()


def test_a_folder_with_one_class(capsys, tmp_path: Path, images: Path) -> None:
    for path in (images / "dog").iterdir():
        path.unlink()
    (images / "dog").rmdir()
    words = ["compress", f"{HERE}:image_network", "--data", images, "--out", tmp_path / "run"]
    assert "at least two classes" in refused(capsys, 4, "two classes", *words)
    assert not (tmp_path / "run").exists()


# ---------------------------------------------------------------------------------------------------- while lowering


def test_an_operation_that_the_target_cannot_take(capsys, tmp_path: Path) -> None:
    words = ["compress", *job("unliftable"), "--out", tmp_path / "run"]
    refused(capsys, 9, "Lowering not found: aten._linalg_svd", *words)
    assert not [path for path in tmp_path.rglob("*") if path.suffix in (PARTIAL, ".tflite")]


def test_a_network_whose_answers_are_no_numbers(capsys, tmp_path: Path) -> None:
    words = ["compress", *job("nan_outputs"), "--out", tmp_path / "run"]
    refused(capsys, 4, "outputs must be finite", *words)
    assert not list(tmp_path.rglob("*.tflite"))


# ---------------------------------------------------------------------------------------------------- faults of ours


def test_a_failure_of_our_own_says_so_with_its_place(capsys, tmp_path: Path, monkeypatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError("oh")

    monkeypatch.setattr("featherweight.api.compress", broken)
    told = tell(capsys, "compress", *job(), "--out", tmp_path)
    assert (told.code, told.out) == (1, "")
    assert "Traceback" in told.err
    assert "ZeroDivisionError('oh')\n  try: report it" in told.err
    told = tell(capsys, "compress", *job(), "--out", tmp_path, "--json")
    assert told.code == 1
    assert json.loads(told.out)["got"] == "ZeroDivisionError('oh')"


def test_whatever_the_system_refuses_is_an_error_of_the_folder(capsys, tmp_path: Path, monkeypatch) -> None:
    def denied(*_: object, **__: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", "/secret/file")

    monkeypatch.setattr("featherweight.api.compress", denied)
    told = refused(capsys, 7, "/secret/file: Permission denied", "compress", *job(), "--out", tmp_path)
    assert "--out" in told


def test_an_interrupted_command_says_how_to_go_on(capsys, tmp_path: Path, monkeypatch) -> None:
    def stopped(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("featherweight.api.compress", stopped)
    told = tell(capsys, "compress", *job(), "--out", tmp_path)
    assert (told.code, told.out) == (130, "")
    assert told.err == "featherweight: stopped; the same command continues where it was\n"
