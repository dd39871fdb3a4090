"""The command line from end to end: what it prints, what it hands over, and what it ends with."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from safetensors.torch import save_file

from featherweight import __version__, cli
from featherweight.contracts import EXIT_UNMET
from tests import jobs
from tests.jobs import HERE, LOOSE, Told, job, tell


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished run, made on the command line."""
    folder = tmp_path_factory.mktemp("finished") / "run"
    assert cli.main(["compress", *job(), LOOSE, "--out", str(folder)]) == 0
    return folder


def made_anew(folder: Path, before: dict[Path, int]) -> set[str]:
    """The stages that a call made since ``before``."""
    return {path.name for path, inode in inodes(folder).items() if before.get(path) != inode}


def inodes(folder: Path) -> dict[Path, int]:
    return {path: path.stat().st_ino for path in (folder / "stages").iterdir()}


def compressed(capsys, out: Path, *words: str) -> Told:
    return tell(capsys, "compress", *job(), LOOSE, "--out", out, *words)


# -------------------------------------------------------------------------------------------------------- compress


def test_compress_prints_the_table_the_verdict_and_where_the_files_are(capsys, finished: Path) -> None:
    told = compressed(capsys, finished)
    assert (told.code, told.err) == (0, "")
    for word in ("Original", "Artefact", "Accuracy", "File", "MACs", "Time", "✓ Goal met. With 95 % confidence"):
        assert word in told.out
    for name, file in (("artefact", "artefact.tflite"), ("plan", "plan.yaml"), ("report", "report.html")):
        assert re.search(rf"^{name} +{re.escape(str(finished / file))}$", told.out, re.MULTILINE)
        assert (finished / file).is_file()


def test_compress_prints_the_card_as_json_and_nothing_else(capsys, finished: Path) -> None:
    told = compressed(capsys, finished, "--json")
    assert (told.code, told.err) == (0, "")
    assert json.loads(told.out) == json.loads((finished / "card.json").read_text())


def test_the_same_command_continues_and_makes_nothing_again(capsys, finished: Path) -> None:
    before = inodes(finished)
    assert len(before) == 11
    assert compressed(capsys, finished).code == 0
    assert made_anew(finished, before) == set()


def test_the_artefact_is_what_the_card_describes(finished: Path) -> None:
    card = json.loads((finished / "card.json").read_text())
    for side, name in (("original", "original.tflite"), ("compressed", "artefact.tflite")):
        assert card[side]["artefact"]["size_bytes"] == (finished / name).stat().st_size
    assert card["certificate"]["samples"] == jobs.SPLITS["test"]
    assert card["certificate"]["original"] == 1.0


def test_what_the_users_functions_print_never_spoils_the_json(capsys, finished: Path) -> None:
    words = ["inspect", *job(data="talkative")]
    plain, machine = tell(capsys, *words), tell(capsys, *words, "--json")
    assert plain.out.startswith("reading the data\n")
    assert machine.err == "reading the data\n"
    assert json.loads(machine.out)["layers"]


def test_the_command_and_the_module_are_one(finished: Path) -> None:
    """Nothing but the result reaches a real terminal: the converter's chatter, native code's included, is silent."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    words = [
        sys.executable,
        "-m",
        "featherweight",
        "compress",
        "tests.jobs:network",
        "--data",
        "tests/jobs.py:data",
        LOOSE,
    ]
    out = finished.parent / "another"
    done = subprocess.run(
        [*words, "--out", str(out), "--json"], cwd=HERE.parents[1], env=environment, capture_output=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, b"")
    assert json.loads(done.stdout) == json.loads((out / "card.json").read_text())
    assert (out / "artefact.tflite").read_bytes() == (finished / "artefact.tflite").read_bytes()


def test_weights_from_a_file_are_the_weights_that_count(capsys, finished: Path, tmp_path: Path) -> None:
    state = jobs.network().state_dict()
    save_file({f"module.{name}": value for name, value in state.items()}, tmp_path / "weights.safetensors")
    words = ["--weights", str(tmp_path / "weights.safetensors")]
    before = inodes(finished)
    assert compressed(capsys, finished, *words).code == 0  # the same weights: the same run
    assert made_anew(finished, before) == set()
    state["0.bias"][0] += 1.0
    save_file(state, tmp_path / "weights.safetensors")
    assert "another run (other model)" in compressed(capsys, finished, *words).err


# ------------------------------------------------------------------------------------------------- goals out of reach


def unmet(capsys, folder: Path, command: str, *words: object) -> tuple[str, dict]:
    """A goal that is tried and not met: the verdict, and the card."""
    told = tell(capsys, command, *job(), "--out", folder, *words)
    assert told.code == EXIT_UNMET == 10
    assert told.err == ""
    verdict = re.search(r"^✗ (Goal not met; this is the nearest result\. .+)$", told.out, re.MULTILINE)
    assert verdict, told.out
    card = json.loads((folder / "card.json").read_text())
    assert (card["met"], card["verdict"]) == (False, verdict[1])
    page = (folder / "report.html").read_text()
    assert "Goal not met" in page
    assert "Goal met" not in page
    for name in ("artefact.tflite", "original.tflite", "plan.yaml"):
        assert (folder / name).stat().st_size > 0
    assert tell(capsys, command, *job(), "--out", folder, *words, "--json").code == EXIT_UNMET
    return verdict[1], card


def test_no_drop_at_all_cannot_be_shown(capsys, finished: Path, tmp_path: Path) -> None:
    words = ["--plan", gentle(finished, tmp_path), "--max-drop", "0"]
    verdict, card = unmet(capsys, tmp_path / "run", "apply", *words)
    assert "no finite test shows that nothing at all is lost" in verdict
    assert card["certificate"]["holds"] is False
    assert card["certificate"]["samples_needed"] is None


def gentle(finished: Path, folder: Path) -> Path:
    """A plan that loses no answer: int8 everywhere."""
    plan = yaml.safe_load((finished / "plan.yaml").read_text())
    plan["units"] = {unit: [{"quantization": {"weights": "int8", "activations": "int8"}}] for unit in plan["units"]}
    path = folder / "gentle.yaml"
    path.write_text(yaml.safe_dump(plan))
    return path


def test_a_test_set_that_is_too_small_says_how_large_it_must_be(capsys, finished: Path, tmp_path: Path) -> None:
    words = ["--plan", gentle(finished, tmp_path), "--max-drop", "0.5pp"]
    verdict, card = unmet(capsys, tmp_path / "run", "apply", *words)
    needed = card["certificate"]["samples_needed"]
    assert needed > jobs.SPLITS["test"]
    assert re.search(r"too small for the claim: .+; about [\d,]+ test samples would do", verdict)


def test_a_limit_below_reach_is_said_before_anything_is_made(capsys, tmp_path: Path) -> None:
    told = tell(capsys, "compress", *job(), LOOSE, "--max-size", "100", "--out", tmp_path)
    assert told.code == 11
    found = re.search(
        r"at most 100 bytes in the file, where the least in reach is ([\d,]+)\n  try: --max-size (\d+)", told.err
    )
    assert found, told.err
    assert int(found[1].replace(",", "")) == int(found[2])
    assert not list(tmp_path.glob("stages/4-*"))
    assert tell(capsys, "plan", *job(), LOOSE, "--max-size", found[2], "--out", tmp_path).code == 0


def test_both_limits_below_reach_are_both_told(capsys, tmp_path: Path) -> None:
    limits = [LOOSE, "--minimize", "macs", "--max-macs", "1", "--max-size", "1kB"]
    told = tell(capsys, "compress", *job(), *limits, "--out", tmp_path)
    assert told.code == 11
    assert "at most 1,000 bytes in the file" in told.err
    assert "at most 1 multiply-accumulates" in told.err


def test_another_goal_is_planned_from_the_same_table(capsys, tmp_path: Path) -> None:
    words = [*job(), LOOSE, "--out", tmp_path]
    assert tell(capsys, "plan", *words).code == 0
    table = next(tmp_path.glob("stages/3-table*"))
    before = table.stat().st_ino
    assert tell(capsys, "plan", *words, "--minimize", "macs").code == 0
    assert table.stat().st_ino == before
    assert len(list(tmp_path.glob("stages/3-plan-*"))) == 2


# ---------------------------------------------------------------------------------------------------- plan and apply


def test_plan_prints_what_it_writes_and_stops(capsys, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    told = tell(capsys, "plan", *job(), LOOSE, "--out", folder)
    assert (told.code, told.err) == (0, "")
    text = (folder / "plan.yaml").read_text()
    assert told.out == f"{text}\nwritten to {folder / 'plan.yaml'}\n"
    assert set(yaml.safe_load(text)["units"]) == {"0", "2"}
    assert {path.name for path in folder.iterdir()} == {".lock", "run.json", "stages", "plan.yaml"}
    machine = json.loads(tell(capsys, "plan", *job(), LOOSE, "--out", folder, "--json").out)
    assert machine["plan"] == str(folder / "plan.yaml")
    assert set(machine["choices"]) == {"0", "2"}
    assert machine["predicted"] == yaml.safe_load(text)["predicted"]


def test_compress_goes_on_from_a_plan(capsys, finished: Path, tmp_path: Path) -> None:
    assert tell(capsys, "plan", *job(), LOOSE, "--out", tmp_path).code == 0
    before = inodes(tmp_path)
    assert compressed(capsys, tmp_path).code == 0
    assert set(before) < set(inodes(tmp_path))
    assert not made_anew(tmp_path, before) & {path.name for path in before}
    assert (tmp_path / "artefact.tflite").read_bytes() == (finished / "artefact.tflite").read_bytes()


def test_an_edited_plan_is_applied(capsys, finished: Path, tmp_path: Path) -> None:
    document = yaml.safe_load((finished / "plan.yaml").read_text())
    document["units"] = {"0": [], "2": [{"quantization": {"weights": "float16", "activations": "float32"}}]}
    (tmp_path / "plan.yaml").write_text(yaml.safe_dump(document, sort_keys=False))
    words = ["apply", *job(), LOOSE, "--plan", tmp_path / "plan.yaml", "--out", tmp_path / "run"]
    told = tell(capsys, *words)
    assert (told.code, told.err) == (0, "")
    card = json.loads((tmp_path / "run" / "card.json").read_text())
    assert [layer["chosen"] for layer in card["layers"]] == [
        "keep",
        "quantization(weights=float16, activations=float32)",
    ]
    assert "float16 constants" in card["compressed"]["parts"]
    assert yaml.safe_load((tmp_path / "run" / "plan.yaml").read_text())["units"] == document["units"]
    assert json.loads(tell(capsys, *words, "--json").out) == card


# ------------------------------------------------------------------------------------------------- the other commands


def test_inspect_shows_every_layer(capsys) -> None:
    told = tell(capsys, "inspect", *job())
    assert told.code == 0
    assert re.search(r"^0 +linear +16 +112 +96 +64$", told.out, re.MULTILINE)
    assert re.search(r"^the whole network +163 +144 ", told.out, re.MULTILINE)
    record = json.loads(tell(capsys, "inspect", *job(), "--json").out)
    assert record["cost"] == {"size_bytes": 652, "macs": 144, "parameters": 163}
    assert [layer["name"] for layer in record["layers"]] == ["0", "2"]


def test_verify_repeats_the_certificate(capsys, finished: Path) -> None:
    words = ["verify", finished / "original.tflite", finished / "artefact.tflite", "--data", f"{HERE}:data"]
    card = json.loads((finished / "card.json").read_text())
    told = tell(capsys, *words, LOOSE)
    assert (told.code, told.out) == (0, card["certificate"]["statement"] + "\n")
    assert json.loads(tell(capsys, *words, LOOSE, "--json").out) == card["certificate"]
    assert tell(capsys, *words, "--max-drop", "0").code == EXIT_UNMET
    swapped = ["verify", words[2], words[1], *words[3:], LOOSE, "--json"]
    assert json.loads(tell(capsys, *swapped).out)["lost"] == card["certificate"]["gained"]


def test_benchmark_times_files_side_by_side(capsys, finished: Path) -> None:
    pair = [finished / "original.tflite", finished / "artefact.tflite"]
    told = tell(capsys, "benchmark", *pair, "--runs", "5")
    assert told.code == 0
    assert [line.split()[-1] for line in told.out.splitlines()] == [str(path) for path in pair]
    record = json.loads(tell(capsys, "benchmark", *pair, "--runs", "5", "--json").out)
    assert [(one["file"], one["runs"], one["threads"]) for one in record] == [(str(path), 5, 1) for path in pair]
    assert all(0.0 < one["median_ms"] <= one["p90_ms"] for one in record)


def test_targets_are_listed(capsys) -> None:
    told = tell(capsys, "targets")
    assert told.code == 0
    assert re.match(r"litert +ready +float32, float16, int8\n", told.out)
    found = json.loads(tell(capsys, "targets", "--json").out)
    assert [(one["name"], one["ready"]) for one in found] == [("litert", True), ("onnxruntime", True)]


@pytest.mark.parametrize("words", [["--help"], ["compress", "--help"], ["verify", "--help"]])
def test_help_tells_the_exit_codes(capsys, words: list[str]) -> None:
    with pytest.raises(SystemExit) as done:
        cli.main(words)
    assert done.value.code == 0
    told = capsys.readouterr().out
    assert "10 goal not met" in told
    assert "130 stopped" in told


@pytest.mark.parametrize("words", [["--max-size", "1B"], ["--minimize", "macs"], ["--max-latency", "1us"]])
def test_verify_takes_no_goal_that_its_certificate_says_nothing_of(capsys, finished: Path, words: list[str]) -> None:
    pair = [finished / "original.tflite", finished / "artefact.tflite"]
    told = tell(capsys, "verify", *pair, "--data", f"{HERE}:data", *words)
    assert told.code == 2
    assert f"unrecognized arguments: {' '.join(words)}" in told.err


def test_the_version(capsys) -> None:
    with pytest.raises(SystemExit) as done:
        cli.main(["--version"])
    assert done.value.code == 0
    assert capsys.readouterr().out == f"featherweight {__version__}\n"


def test_demo_hands_on_its_folder(capsys, monkeypatch, tmp_path: Path) -> None:
    asked = []
    monkeypatch.setattr(cli, "demo", lambda out: asked.append(out) or (_ for _ in ()).throw(KeyboardInterrupt))
    assert tell(capsys, "demo").code == 130
    assert tell(capsys, "demo", "--out", tmp_path).code == 130
    assert asked == [Path("demo-run"), tmp_path]
