"""Without data: runs whose calibration is made up, and int8 from a network and a shape alone."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import featherweight
from featherweight import Data, Goal, Plan, Step
from featherweight.contracts import DataError, ModelError, PlanError, RunError, UsageError
from featherweight.datafree import int8_plan
from featherweight.demo import digits
from featherweight.network import capture, fold_batch_norm
from featherweight.planning.plans import read_plan
from featherweight.targets import target_by_name
from tests.jobs import LOOSE, data, files, job, network, refused, tell

INT8 = Step("quantization", {"weights": "int8", "activations": "int8"})


def _network() -> nn.Module:
    """A small digit classifier with batch normalisation, trained for a second."""
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(1, 12, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(12), nn.ReLU(),
        nn.Conv2d(12, 24, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(24), nn.ReLU(),
        nn.Flatten(), nn.Linear(24 * 4, 10),
    )  # fmt: skip
    batch = digits().train.take(range(697))
    x, y = batch.inputs[0], torch.as_tensor(batch.labels)
    optimizer = torch.optim.AdamW(network.train().parameters(), lr=1e-2)
    for _ in range(40):
        at = torch.randint(len(x), (128,))
        optimizer.zero_grad()
        nn.functional.cross_entropy(network(x[at]), y[at]).backward()
        optimizer.step()
    return network.eval()


@pytest.fixture(scope="module")
def quantized(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("quantized") / "run"
    featherweight.quantize(_network(), (1, 8, 8), out=folder)
    return folder


# ------------------------------------------------------------------------------------------------ a shape and no data


def test_the_file_answers_as_the_original_does_on_data_it_never_saw(quantized: Path) -> None:
    certificate = featherweight.verify(
        quantized / "original.tflite", quantized / "artefact.tflite", digits(), Goal(max_drop=0.02)
    )
    assert certificate.original > 0.85
    assert abs(certificate.drop) <= 0.01
    assert certificate.holds


def test_the_record_says_what_was_not_used_and_what_is_not_proven(quantized: Path) -> None:
    record = json.loads((quantized / "quantized.json").read_text())
    assert record["statement"].startswith("No data was used. Nothing about its accuracy is proven")
    assert record["proof"] == "featherweight verify original.tflite artefact.tflite --data DATA --target litert"
    assert "batch-norm statistics" in record["calibration"]
    assert record["loss"][1] < 0.3 * record["loss"][0]
    assert record["equalized"] == [["0", "3"]]
    assert record["refusals"] == []
    assert record["parity"]["mean"] <= 0.1 * record["parity"]["spread"]
    for side in ("artefact", "original"):
        assert record[side]["size_bytes"] == (quantized / record[side]["file"]).stat().st_size
    plan = read_plan(quantized / "plan.yaml")
    assert plan.choices == dict.fromkeys(("0", "3", "7"), (INT8,))
    assert any("int8" in operator for operator in record["artefact"]["operators"])


def test_again_and_after_a_stop_the_same_bytes(quantized: Path, tmp_path: Path, monkeypatch) -> None:
    told = files(quantized)
    featherweight.quantize(_network(), (1, 8, 8), out=quantized)
    assert files(quantized) == told

    def stopped(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("featherweight.datafree.recover", stopped)
        with pytest.raises(KeyboardInterrupt):
            featherweight.quantize(_network(), [(1, 8, 8)], out=tmp_path / "run")
    assert not (tmp_path / "run" / "artefact.tflite").exists()
    featherweight.quantize(_network(), [(1, 8, 8)], out=tmp_path / "run")
    assert files(tmp_path / "run") == told


def test_another_shape_or_model_needs_another_folder(quantized: Path) -> None:
    with pytest.raises(RunError, match=r"other .*seed"):
        featherweight.quantize(_network(), (1, 8, 8), out=quantized, seed=1)


def test_on_the_command_line_and_with_a_warning_where_nothing_is_remembered(capsys, tmp_path: Path) -> None:
    model = job()[0]
    told = tell(capsys, "quantize", model, "--shape", "6", "--out", tmp_path / "run")
    assert told.code == 0, told
    assert "No data was used" in told.out
    assert "plain noise" in told.out
    assert f"artefact {tmp_path / 'run' / 'artefact.tflite'}" in told.out
    machine = tell(capsys, "quantize", model, "--shape", "6", "--out", tmp_path / "run", "--json")
    assert json.loads(machine.out) == json.loads((tmp_path / "run" / "quantized.json").read_text())
    assert json.loads(machine.out)["calibration"].startswith("plain noise, no data")


@pytest.mark.parametrize("shape", ["", "6,", "0", "-6", "a", "6.5", "99999,99999,99999"])
def test_shapes_that_are_none_are_refused(capsys, tmp_path: Path, shape: str) -> None:
    refused(capsys, 2, "shape is", "quantize", job()[0], f"--shape={shape}", "--out", tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_what_can_not_be_done_is_refused_with_the_reason(tmp_path: Path) -> None:
    with pytest.raises(ModelError):
        featherweight.quantize(_network(), (3, 8, 8), out=tmp_path / "a")
    with pytest.raises(UsageError, match="shape"):
        featherweight.quantize(_network(), (), out=tmp_path / "b")
    transposed = capture(nn.Sequential(nn.ConvTranspose2d(2, 2, 2)).eval(), torch.randn(2, 2, 4, 4))
    with pytest.raises(PlanError, match="int8 kernel"):
        int8_plan(transposed, "", target_by_name("litert").capability)


def test_layers_without_a_kernel_stay_and_say_why() -> None:
    module = nn.Sequential(nn.Conv2d(2, 4, 3), nn.ReLU(), nn.ConvTranspose2d(4, 2, 2)).eval()
    network = fold_batch_norm(capture(module, torch.randn(2, 2, 6, 6)))
    plan, refusals = int8_plan(network, "mine", target_by_name("litert").capability)
    assert plan.choices == {"0": (INT8,), "2": ()}
    assert [refusal.subject for refusal in refusals] == ["2"]
    assert "conv_transpose2d" in refusals[0].reason


# ------------------------------------------------------------------------------------ runs whose calibration is made up


def _parts(count: int = 400) -> dict[str, np.ndarray]:
    sizes = {"train": 32, "validation": 64, "test": count}
    return {
        name: np.random.default_rng(seed).normal(size=(size, 1, 8, 8)).astype(np.float32)
        for seed, (name, size) in enumerate(sizes.items())
    }


def _applied(folder: Path, data: object) -> featherweight.Outcome:
    network = _network()
    fingerprint = capture(network, torch.randn(2, 1, 8, 8)).fingerprint()
    plan = Plan(fingerprint, "litert", {"0": (INT8,), "3": (INT8,), "7": (INT8,)})
    return featherweight.apply(network, data, plan, Goal(max_drop=0.5), out=folder)


def test_no_training_sample_matters_and_the_report_says_so(tmp_path: Path) -> None:
    parts = _parts()
    own, other = Data.of(parts), Data.of({**parts, "train": parts["train"] * 3.0})
    first = _applied(tmp_path / "one", own.without_training())
    again = _applied(tmp_path / "one", other.without_training())  # the very same run: it continues
    assert again.story == first.story
    without = {name: parts[name] for name in ("validation", "test")}
    assert _applied(tmp_path / "one", without).story == first.story
    assert (first.story.samples["train"], first.story.samples["calibration"]) == (0, 128)
    assert first.story.calibration == "synthesized from batch-norm statistics, no data"
    assert json.loads(first.card.read_text())["calibration"] == first.story.calibration
    assert f"calibration: {first.story.calibration}" in re.sub(r"\s+", " ", first.report.read_text())
    with pytest.raises(RunError, match="calibration"):
        _applied(tmp_path / "one", own)


def test_compress_on_the_command_line_without_training_data(capsys, tmp_path: Path) -> None:
    told = tell(capsys, "compress", *job(), LOOSE, "--data-free", "--out", tmp_path / "run", "--json")
    assert told.code == 0, told
    card = json.loads(told.out)
    assert card["calibration"].startswith("plain noise, no data")
    before = files(tmp_path / "run")
    assert tell(capsys, "compress", *job(), LOOSE, "--data-free", "--out", tmp_path / "run").code == 0
    assert files(tmp_path / "run") == before


def test_a_training_split_that_is_merely_empty_is_still_refused(capsys, tmp_path: Path) -> None:
    refused(capsys, 4, "no sample in train", "compress", *job(data="no_training"), "--out", tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_recalibration_needs_samples(quantized: Path) -> None:
    free = Data.of(_parts()).without_training()
    with pytest.raises(DataError, match="without a training split"):
        featherweight.recalibrate(quantized, _network(), free, out=quantized.parent / "other")


def test_on_made_up_inputs_no_channel_is_taken_and_the_report_says_why(tmp_path: Path) -> None:
    outcome = featherweight.compress(network(), Data.of(data()).without_training(), Goal(max_drop=0.5), out=tmp_path)
    assert not any(step.method == "pruning" for steps in outcome.plan.choices.values() for step in steps)
    (refusal,) = (one for one in outcome.story.refusals if one.subject == "network" and one.action == "pruning")
    assert "made-up" in refusal.reason
