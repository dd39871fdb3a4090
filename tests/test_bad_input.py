"""What bad input gets on the command line: a message in three parts, an exit code by kind, and nothing half written."""

from __future__ import annotations

import errno
import importlib.util
import json
import os
import pickle
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from safetensors.torch import save_file

import featherweight as fw
from featherweight.files import PARTIAL
from tests import jobs
from tests.jobs import HERE, job, tell

LOOSE = "--max-drop=50pp"  # a goal that the small network's artefact meets at once


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished run."""
    folder = tmp_path_factory.mktemp("finished") / "run"
    fw.compress(jobs.network(), jobs.data(), fw.Goal(max_drop=0.5), out=folder)
    return folder


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def refused(capsys, code: int, phrase: str, *words: object) -> str:
    """Run a command that must be refused, in words and as JSON; what was told."""
    told = tell(capsys, *words)
    assert (told.code, told.out) == (code, ""), told
    parts = re.fullmatch(r"featherweight: (.+)\n  got: (.+)\n  try: (.+)\n", told.err)
    assert parts, told.err  # three lines, and nothing else: no warning, no trace
    assert phrase in told.err, told.err
    machine = tell(capsys, *words, "--json")
    document = json.loads(machine.out)
    assert (machine.code, machine.err) == (code, ""), machine
    assert (document["rule"], document["got"], document["try"]) == parts.groups()
    assert document["error"].endswith("Error")
    return told.err


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
    ("beauty", 5, "size, macs", [*job(), "--minimize", "beauty"]),
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
    refused(capsys, 4, "at least two classes", *words)


# ---------------------------------------------------------------------------------------------------- while lowering


def test_an_operation_that_the_target_cannot_take(capsys, tmp_path: Path) -> None:
    words = ["compress", *job("unliftable"), "--out", tmp_path / "run"]
    refused(capsys, 9, "Lowering not found: aten._linalg_svd", *words)
    assert not [path for path in tmp_path.rglob("*") if path.suffix in (PARTIAL, ".tflite")]


def test_a_network_whose_answers_are_no_numbers(capsys, tmp_path: Path) -> None:
    words = ["compress", *job("nan_outputs"), "--out", tmp_path / "run"]
    refused(capsys, 4, "outputs must be finite", *words)
    assert not list(tmp_path.rglob("*.tflite"))


# --------------------------------------------------------------------------------------------------- the run's folder


def test_the_folder_of_another_run(capsys, finished: Path) -> None:
    before = files(finished)
    for word, words in (
        ("goal", [*job(), "--max-drop=40pp"]),
        ("seed", [*job(), LOOSE, "--seed", "1"]),
        ("task", [*job(), LOOSE, "--task", "regression"]),
        ("data", [*job(data="unlabelled"), LOOSE]),
    ):
        refused(capsys, 7, f"another run (other {word})", "compress", *words, "--out", finished)
    assert files(finished) == before


def test_a_folder_with_other_files(capsys, tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("mine")
    told = refused(capsys, 7, "holds other files (thesis.tex)", "compress", *job(), "--out", tmp_path)
    assert "nothing there was touched" in told
    assert files(tmp_path) == {"thesis.tex": b"mine"}


def test_an_output_that_is_a_file_or_below_one(capsys, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    refused(capsys, 7, "must be a folder", "compress", *job(), "--out", tmp_path / "file")
    refused(capsys, 7, "Not a directory", "compress", *job(), "--out", tmp_path / "file" / "run")
    refused(capsys, 7, "Not a directory", "plan", *job(), "--out", tmp_path / "file" / "run")
    assert files(tmp_path) == {"file": b"mine"}


def test_a_full_disk_at_any_file_is_told_and_the_run_goes_on(
    capsys, tmp_path: Path, monkeypatch, finished: Path
) -> None:
    """Every time one file more finds room; in the end the run's files are those of an undisturbed one."""
    words = ["compress", *job(), LOOSE, "--out", tmp_path / "run"]
    real, room = os.fsync, 0

    def fsync(handle: int) -> None:
        nonlocal left
        left -= 1
        if left < 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(handle)

    monkeypatch.setattr(os, "fsync", fsync)
    failures = 0
    while True:
        left = room
        told = tell(capsys, *words)
        assert not list(tmp_path.rglob(f"*{PARTIAL}"))
        if told.code != 7:
            break
        assert "No space left on device" in told.err
        assert "run the same command again: it continues" in told.err
        failures, room = failures + 1, room + 4
    assert failures >= 2
    assert told.code == 0
    for name in ("artefact.tflite", "original.tflite", "plan.yaml"):
        assert (tmp_path / "run" / name).read_bytes() == (finished / name).read_bytes()


LIMITED = """
import resource, sys
import torch
torch.set_num_threads(1)
from featherweight.cli import main
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]), resource.RLIM_INFINITY))
first = main(sys.argv[2:])
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
sys.exit(first if first != 7 else main(sys.argv[2:]) + 70)
"""


def test_files_that_really_find_no_room(tmp_path: Path, finished: Path) -> None:
    """The system itself refuses to let files grow: first the original's own, then, with the limit gone, nothing."""
    limit = len((finished / "original.tflite").read_bytes()) - 8
    words = ["compress", *job(), LOOSE, "--out", str(tmp_path / "run")]
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, str(limit), *words],
        cwd=HERE.parents[1],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 70, done.stderr
    assert re.fullmatch(r"featherweight: .+\n  got: .+File too large\n  try: free some space.+\n", done.stderr), (
        done.stderr
    )
    for name in ("artefact.tflite", "original.tflite", "plan.yaml"):
        assert (tmp_path / "run" / name).read_bytes() == (finished / name).read_bytes()


# ------------------------------------------------------------------------------------------------------------- plans


def _edited(finished: Path, edit: Callable[[dict], object]) -> str:
    document = yaml.safe_load((finished / "plan.yaml").read_text())
    edit(document)
    return yaml.safe_dump(document)


def _steps(*steps: object) -> Callable[[dict], object]:
    return lambda document: document["units"].update({"0": list(steps)})


INT8 = {"weights": "int8", "activations": "int8"}
PLANS = [
    ("another network", 8, "another network", lambda d: d.update(network="abc")),
    ("unknown target", 6, "one of: litert", lambda d: d.update(target="abacus")),
    ("another version", 8, "featherweight_plan: 1", lambda d: d.update(featherweight_plan=2)),
    ("unknown key", 8, "unknown 'speed'", lambda d: d.update(speed="fast")),
    ("no units", 8, "no 'units'", lambda d: d.pop("units")),
    ("units as a list", 8, "must be a mapping", lambda d: d.update(units=[1])),
    ("unknown layer", 8, "must be a layer of the network", lambda d: d["units"].update({"fc9": []})),
    ("steps as a number", 8, "must be a list", lambda d: d["units"].update({"0": 5})),
    ("a step in words", 8, "a method with its settings", _steps("smaller")),
    ("unknown method", 8, "a method of the catalogue", _steps({"magic": {}})),
    ("impossible rank", 8, "a rank from 1 to 6", _steps({"lowrank": {"rank": 7}})),
    ("rank zero", 8, "a rank from 1 to 6", _steps({"lowrank": {"rank": 0}})),
    ("rank in words", 8, "a rank from 1 to 6", _steps({"lowrank": {"rank": "half"}})),
    ("rank true", 8, "a rank from 1 to 6", _steps({"lowrank": {"rank": True}})),
    ("unknown setting", 8, "the one setting", _steps({"lowrank": {"rank": 2, "speed": 1}})),
    ("unknown type", 8, "int3", _steps({"quantization": {**INT8, "weights": "int3"}})),
    ("unknown setting of types", 8, "'bits': 8", _steps({"quantization": {**INT8, "bits": 8}})),
    ("wrong order", 8, "able to follow", _steps({"quantization": INT8}, {"lowrank": {"rank": 2}})),
    ("twice", 8, "able to follow", _steps({"quantization": INT8}, {"quantization": {**INT8}})),
    ("settings in a list", 8, "plain values", _steps({"lowrank": {"rank": [2]}})),
    ("predictions in words", 8, "finite numbers", lambda d: d.update(predicted={"divergence": "small"})),
    ("a single prediction", 8, "finite numbers", lambda d: d.update(predicted=3)),
    ("endless prediction", 8, "finite numbers", lambda d: d.update(predicted={"divergence": float("inf")})),
]


@pytest.mark.parametrize(("code", "phrase", "edit"), [case[1:] for case in PLANS], ids=[case[0] for case in PLANS])
def test_a_plan_that_cannot_be_applied(capsys, tmp_path: Path, finished: Path, code: int, phrase: str, edit) -> None:
    (tmp_path / "plan.yaml").write_text(_edited(finished, edit))
    words = ["apply", *job(), LOOSE, "--plan", tmp_path / "plan.yaml", "--out", tmp_path / "run"]
    refused(capsys, code, phrase, *words)
    assert [path.name for path in tmp_path.iterdir()] == ["plan.yaml"]


@pytest.mark.parametrize(
    ("content", "phrase"),
    [
        (b"", "featherweight_plan: 1"),
        (b"{", "must be YAML"),
        (b"\xff\xfe", "readable text file"),
        (b"- 1", "featherweight_plan: 1"),
        (b"[" * 5000, "must be YAML"),
        (b"when: 2026-13-45", "must be YAML"),
        (b"a: &x [1]\nb: *x", "no anchors and aliases"),
        (b"!!python/object/apply:os.system ['false']", "could not determine a constructor"),
        (None, "No such file"),
    ],
)
def test_a_file_that_is_no_plan(capsys, tmp_path: Path, content: bytes | None, phrase: str) -> None:
    if content is not None:
        (tmp_path / "plan.yaml").write_bytes(content)
    refused(capsys, 8, phrase, "apply", *job(), "--plan", tmp_path / "plan.yaml", "--out", tmp_path / "run")
    refused(capsys, 8, "Is a directory", "apply", *job(), "--plan", tmp_path, "--out", tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_an_edited_plan_is_not_overwritten(capsys, tmp_path: Path) -> None:
    words = [*job(), LOOSE, "--out", tmp_path / "run"]
    assert tell(capsys, "plan", *words).code == 0
    edited = (tmp_path / "run" / "plan.yaml").read_bytes() + b"# mine\n"
    (tmp_path / "run" / "plan.yaml").write_bytes(edited)
    refused(capsys, 8, "edited is not overwritten", "plan", *words)
    refused(capsys, 8, "edited is not overwritten", "compress", *words)
    assert (tmp_path / "run" / "plan.yaml").read_bytes() == edited
    assert not (tmp_path / "run" / "artefact.tflite").exists()


# ------------------------------------------------------------------------------------------------- verify, benchmark


def test_files_that_are_none_of_the_target(capsys, tmp_path: Path, finished: Path) -> None:
    good = finished / "original.tflite"
    (tmp_path / "text.tflite").write_text("no model")
    (tmp_path / "empty.tflite").write_text("")
    (tmp_path / "cut.tflite").write_bytes(good.read_bytes()[:700])
    for name in ("text", "empty", "cut", "nowhere"):
        path = tmp_path / f"{name}.tflite"
        refused(capsys, 9, "LiteRT must load the file", "verify", good, path, "--data", f"{HERE}:data")
        refused(capsys, 9, "LiteRT must load the file", "verify", path, good, "--data", f"{HERE}:data")
        refused(capsys, 9, "LiteRT must load the file", "benchmark", good, path)
    refused(capsys, 9, "LiteRT must load the file", "benchmark", tmp_path)


@pytest.mark.parametrize(
    ("data", "code", "phrase"),
    [
        ("narrow", 4, "must have the shape that the file takes"),
        ("beyond_the_classes", 4, "Labels run from 0 to 2"),
        ("infinite_last", 4, "NaN or infinity"),
        ("no_test", 4, "no sample in test"),
        ("no_training", 4, "no sample in train"),
        ("leaking", 4, "more than one split"),
    ],
)
def test_data_that_prove_nothing(capsys, finished: Path, data: str, code: int, phrase: str) -> None:
    pair = [finished / "original.tflite", finished / "artefact.tflite"]
    refused(capsys, code, phrase, "verify", *pair, "--data", f"{HERE}:{data}")


@pytest.mark.parametrize("words", [["--runs", "0"], ["--runs", "-3"], ["--threads", "0"], ["--threads", "two"]])
def test_counts_that_are_none(capsys, finished: Path, words: list[str]) -> None:
    refused(capsys, 2, "A count is a whole number from 1", "benchmark", finished / "original.tflite", *words)


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
