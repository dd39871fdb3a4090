"""A finished run meets another environment."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import nn

import featherweight
from featherweight import Data, Goal, Plan, Split, Step
from featherweight.contracts import PlanError, RunError
from featherweight.network import capture
from featherweight.targets import target_by_name

INT8 = Step("quantization", {"weights": "int8", "activations": "int8"})
HALF = Step("quantization", {"weights": "float16", "activations": "float32"})


def _network(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 4)).eval()


def _samples(count: int, scale: float, seed: int) -> torch.Tensor:
    return scale * torch.randn(count, 6, generator=torch.Generator().manual_seed(seed))


def _run(folder: Path, step: Step) -> Path:
    network = _network()
    splits = {name: (_samples(count, 1.0, at), None) for at, (name, count) in enumerate(
        {"train": 128, "validation": 64, "test": 200}.items()
    )}  # fmt: skip
    fingerprint = capture(network, splits["train"][0][:2]).fingerprint()
    plan = Plan(fingerprint, "litert", {"0": (step,), "2": (step,)})
    featherweight.apply(network, Data.of(splits), plan, Goal(max_drop=0.5), out=folder)
    return folder


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _run(tmp_path_factory.mktemp("finished") / "run", INT8)


def test_louder_samples_widen_the_ranges_and_the_new_file_follows_the_original(finished: Path, tmp_path: Path) -> None:
    loud = _samples(200, 4.0, 9)
    before = {path: path.read_bytes() for path in finished.rglob("*") if path.is_file()}
    told = featherweight.recalibrate(finished, _network(), loud, out=tmp_path)
    assert told.samples == 200
    assert told.divergence_after < 0.2 * told.divergence_before
    assert told.changed_answers > 0.0
    assert all(shift.after[1] > shift.before[1] for shift in told.shifts)
    assert json.loads((tmp_path / "recalibration.json").read_text())["samples"] == 200
    assert before == {path: path.read_bytes() for path in finished.rglob("*") if path.is_file()}

    litert = target_by_name("litert")
    original = litert.load(finished / "original.tflite")((loud.numpy(),))
    old, new = (
        litert.load(path)((loud.numpy(),)) for path in (finished / "artefact.tflite", tmp_path / "artefact.tflite")
    )
    assert abs(new - original).mean() < 0.3 * abs(old - original).mean()


def test_the_same_environment_says_keep_the_old_file(finished: Path, tmp_path: Path) -> None:
    told = featherweight.recalibrate(finished, _network(), _samples(128, 1.0, 0), out=tmp_path)
    assert told.divergence_after == pytest.approx(told.divergence_before, rel=0.5, abs=1e-5)
    assert ("keep the old file" in told.text()) == (told.divergence_after >= told.divergence_before)


def test_another_model_is_refused(finished: Path, tmp_path: Path) -> None:
    with pytest.raises(PlanError, match="another model"):
        featherweight.recalibrate(finished, _network(1), _samples(8, 1.0, 0), out=tmp_path)


@pytest.mark.parametrize("place", ["", "stages/4-attempt-01-network"])
def test_the_runs_own_folder_is_not_overwritten(finished: Path, place: str) -> None:
    with pytest.raises(RunError, match="not overwritten"):
        featherweight.recalibrate(finished, _network(), Split.of(_samples(8, 1.0, 0)), out=finished / place)


def test_real_activations_have_no_ranges(tmp_path: Path) -> None:
    folder = _run(tmp_path / "run", HALF)
    with pytest.raises(PlanError, match="integer grids"):
        featherweight.recalibrate(folder, _network(), _samples(8, 1.0, 0), out=tmp_path / "new")


def test_a_folder_without_a_finished_run_is_refused(finished: Path, tmp_path: Path) -> None:
    (tmp_path / "plan.yaml").write_bytes((finished / "plan.yaml").read_bytes())
    with pytest.raises(RunError, match="finished run"):
        featherweight.recalibrate(tmp_path, _network(), _samples(8, 1.0, 0), out=tmp_path / "new")
