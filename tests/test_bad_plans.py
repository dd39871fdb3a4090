"""Plans and files of a target that are none, on the command line: refused, and nothing is begun."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

import featherweight as fw
from tests import jobs
from tests.jobs import HERE, LOOSE, job, refused, tell


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished run."""
    folder = tmp_path_factory.mktemp("finished") / "run"
    fw.compress(jobs.network(), jobs.data(), fw.Goal(max_drop=0.5), out=folder)
    return folder


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
    ("impossible rank", 8, "ranks up to 6", _steps({"lowrank": {"rank": 7}})),
    ("rank zero", 8, "ranks up to 6", _steps({"lowrank": {"rank": 0}})),
    ("rank in words", 8, "ranks up to 6", _steps({"lowrank": {"rank": "half"}})),
    ("rank true", 8, "ranks up to 6", _steps({"lowrank": {"rank": True}})),
    ("unknown setting", 8, "write {rank: 8}", _steps({"lowrank": {"rank": 2, "speed": 1}})),
    ("unknown type", 8, "int3", _steps({"quantization": {**INT8, "weights": "int3"}})),
    ("unknown setting of types", 8, "'bits': 9", _steps({"quantization": {**INT8, "bits": 9}})),
    ("channels that are not there", 8, "keeps a whole number", _steps({"pruning": {"keep": 99}})),
    (
        "channels of the answer",
        8,
        "removed from a unit",
        lambda d: d["units"].update({"2": [{"pruning": {"keep": 1}}]}),
    ),
    ("pruning by luck", 8, "criterion", _steps({"pruning": {"keep": 3, "criterion": "luck"}})),
    ("pruning last", 8, "put pruning first", _steps({"lowrank": {"rank": 2}}, {"pruning": {"keep": 3}})),
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
        for words in (
            ("verify", good, path, "--data", f"{HERE}:data"),
            ("verify", path, good, "--data", f"{HERE}:data"),
            ("benchmark", good, path),
        ):
            assert str(path) in refused(capsys, 9, "LiteRT must load the file", *words)
    assert str(tmp_path) in refused(capsys, 9, "LiteRT must load the file", "benchmark", tmp_path)


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
    assert phrase in refused(capsys, code, phrase, "verify", *pair, "--data", f"{HERE}:{data}")


@pytest.mark.parametrize("words", [["--runs", "0"], ["--runs", "-3"], ["--threads", "0"], ["--threads", "two"]])
def test_counts_that_are_none(capsys, finished: Path, words: list[str]) -> None:
    rule = "A count is a whole number from 1"
    assert rule in refused(capsys, 2, rule, "benchmark", finished / "original.tflite", *words)
