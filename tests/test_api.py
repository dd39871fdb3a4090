"""The public API: which names there are, and the way from a network to a proven file in Python."""

from __future__ import annotations

import inspect
import json
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

import featherweight as fw
from featherweight import api, contracts
from featherweight.packaging import unpack
from featherweight.planning.plans import plan_text
from featherweight.targets import TARGETS
from featherweight.tasks import CLASSIFICATION
from tests import jobs

LOOSE = fw.Goal(max_drop=0.5)

PUBLIC = {
    *("Certificate", "Data", "FeatherweightError", "Goal", "Network", "Outcome", "Plan", "Refusal", "Split", "Step"),
    *("Target", "Task", "apply", "capture", "compress", "inspect", "load_data", "load_model", "plan", "read_plan"),
    *("Rules", "advise", "quantize", "read_rules", "recalibrate", "target_by_name", "verify"),
}


@pytest.fixture(scope="module")
def outcome(tmp_path_factory: pytest.TempPathFactory) -> fw.Outcome:
    """What a run hands back."""
    return fw.compress(jobs.network(), jobs.data(), LOOSE, out=tmp_path_factory.mktemp("outcome") / "run")


# ------------------------------------------------------------------------------------------------------------- names


def test_the_public_names_are_these_and_nothing_else() -> None:
    assert set(fw.__all__) == PUBLIC
    assert fw.__all__ == sorted(fw.__all__)
    found = {name for name in dir(fw) if name[0] != "_" and not isinstance(getattr(fw, name), ModuleType)}
    assert found == PUBLIC


def test_every_public_name_is_explained() -> None:
    assert [name for name in PUBLIC if not (getattr(fw, name).__doc__ or "").strip()] == []


@pytest.mark.parametrize("function", [fw.compress, fw.plan, fw.apply, fw.verify, fw.inspect, fw.load_data])
def test_every_public_function_is_typed(function) -> None:
    signature = inspect.signature(function)
    assert signature.return_annotation is not inspect.Signature.empty
    assert all(one.annotation is not inspect.Parameter.empty for one in signature.parameters.values())


def test_the_words_of_the_main_job_stay() -> None:
    words = ["model", "data", "goal", "target", "task", "out", "seed"]
    assert list(inspect.signature(fw.compress).parameters) == words
    assert list(inspect.signature(fw.plan).parameters) == words
    assert list(inspect.signature(fw.apply).parameters) == ["model", "data", "chosen", "goal", "task", "out", "seed"]
    assert list(inspect.signature(fw.verify).parameters) == ["original", "artefact", "data", "goal", "target", "task"]


def test_every_error_is_one_of_ours_with_a_code_of_its_own() -> None:
    errors = [value for value in vars(contracts).values() if inspect.isclass(value) and issubclass(value, Exception)]
    codes = [error.exit_code for error in errors]
    assert sorted([*codes, contracts.EXIT_UNMET]) == list(range(1, len(errors) + 2))
    assert all(issubclass(error, fw.FeatherweightError) for error in errors)
    assert contracts.EXIT_UNMET not in codes


def test_an_error_keeps_its_three_parts_whatever_others_add() -> None:
    error = contracts.PlanError("The rule.", "what came", "what to do")
    error.args = ("The rule. While executing %linear ...",)  # as torch.fx does
    assert str(error) == "The rule.\n  got: what came\n  try: what to do"


# ---------------------------------------------------------------------------------------------------------- compress


def test_compress_hands_over_what_it_promises(outcome: fw.Outcome) -> None:
    assert outcome.met
    assert outcome.verdict == f"Goal met. {outcome.certificate.statement}"
    folder = outcome.artefact.parent
    for path, name in (
        (outcome.artefact, "artefact.tflite"),
        (outcome.original, "original.tflite"),
        (outcome.package, "artefact.fwp"),
        (outcome.report, "report.html"),
        (outcome.card, "card.json"),
    ):
        assert path == folder / name
        assert path.is_file()
    (unpacked,) = unpack(outcome.package, folder.parent / "unpacked.tflite")
    assert unpacked.read_bytes() == outcome.artefact.read_bytes()
    assert fw.read_plan(folder / "plan.yaml") == outcome.plan
    assert json.loads(outcome.card.read_text())["verdict"] == outcome.verdict
    assert outcome.story.samples == {"train": 48, "calibration": 48, "validation": 64, "test": 400}


def test_the_certificate_is_what_both_files_answer(outcome: fw.Outcome) -> None:
    x, y = jobs.data()["test"]
    run = fw.target_by_name("litert").load
    before, after = (run(path)((x,)).argmax(1) == y for path in (outcome.original, outcome.artefact))
    certificate = outcome.certificate
    assert (certificate.original, certificate.artefact) == (before.mean(), after.mean())
    assert (certificate.lost, certificate.gained) == ((before & ~after).sum(), (~before & after).sum())
    assert certificate.drop <= certificate.drop_bound <= LOOSE.max_drop


def test_verify_certifies_the_same_files_the_same(outcome: fw.Outcome) -> None:
    assert fw.verify(outcome.original, str(outcome.artefact), jobs.data(), LOOSE) == outcome.certificate
    strict = fw.verify(outcome.original, outcome.artefact, jobs.data(), fw.Goal(max_drop=0.0))
    assert not strict.holds


def test_the_same_call_in_other_words_is_the_same_run(outcome: fw.Outcome) -> None:
    data = jobs.data()
    stages = outcome.artefact.parent / "stages"
    before = {path: path.stat().st_ino for path in stages.iterdir()}
    again = fw.compress(
        jobs.network(),
        fw.Data.of((data["train"], data["validation"], data["test"])),
        replace(LOOSE, confidence=0.95),
        TARGETS[0],
        task=CLASSIFICATION,
        out=str(outcome.artefact.parent),
    )
    assert {path: path.stat().st_ino for path in stages.iterdir()} == before
    assert (again.verdict, again.plan, again.certificate) == (outcome.verdict, outcome.plan, outcome.certificate)


def test_nothing_of_the_users_is_changed(tmp_path: Path) -> None:
    model, data = jobs.network().train(), jobs.data()
    state = {name: value.clone() for name, value in model.state_dict().items()}
    contents = {name: (x.copy(), y.copy()) for name, (x, y) in data.items()}
    torch.manual_seed(7)
    np.random.seed(7)
    random = (torch.get_rng_state(), np.random.get_state()[1].tolist(), torch.get_num_threads())
    fw.compress(model, data, LOOSE, out=tmp_path / "run")
    assert model.training
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    assert all(parameter.requires_grad for parameter in model.parameters())
    for name, (x, y) in contents.items():
        np.testing.assert_array_equal(data[name][0], x)
        np.testing.assert_array_equal(data[name][1], y)
    assert torch.equal(torch.get_rng_state(), random[0])
    assert (np.random.get_state()[1].tolist(), torch.get_num_threads()) == random[1:]


def test_without_labels_the_originals_own_answers_count(outcome: fw.Outcome, tmp_path: Path) -> None:
    found = fw.compress(jobs.network(), jobs.unlabelled(), LOOSE, out=tmp_path / "run")
    assert not found.story.labelled
    # The small network's labels are its own answers, so everything that was measured must be the same.
    assert found.certificate == outcome.certificate
    assert found.artefact.read_bytes() == outcome.artefact.read_bytes()


def test_without_a_goal_one_point_is_allowed(tmp_path: Path) -> None:
    plain = fw.plan(jobs.network(), jobs.data(), out=tmp_path)[0]
    same = fw.plan(jobs.network(), jobs.data(), fw.Goal(0.01, 0.95, "size"), out=tmp_path)[0]
    assert plain == same
    assert len(list(tmp_path.glob("stages/3-plan-*"))) == 1


# ----------------------------------------------------------------------------------------------------- plan and apply


def test_a_plan_is_made_edited_and_applied(outcome: fw.Outcome, tmp_path: Path) -> None:
    first, path = fw.plan(jobs.network(), jobs.data(), LOOSE, out=tmp_path / "plan")
    assert path == tmp_path / "plan" / "plan.yaml"
    assert fw.read_plan(path) == first
    assert set(first.choices) == {"0", "2"}
    edited = replace(first, choices={"0": (fw.Step("lowrank", {"rank": 2}),), "2": ()})
    applied = fw.apply(jobs.network(), jobs.data(), edited, LOOSE, out=tmp_path / "applied")
    assert applied.plan == fw.read_plan(tmp_path / "applied" / "plan.yaml") == edited
    assert applied.story.compressed.macs == 2 * (6 + 16) + 16 * 3
    assert applied.story.compressed.parameters == 2 * (6 + 16) + 16 + 16 * 3 + 3
    assert len(applied.story.attempts) == 1
    # Rank two of six loses answers, and the certificate says so instead of hiding it.
    assert applied.certificate.lost is not None
    assert applied.certificate.lost > 10
    assert applied.met == applied.certificate.holds


def test_a_plan_that_is_applied_as_it_is_gives_the_file_that_it_gave_before(
    outcome: fw.Outcome, tmp_path: Path
) -> None:
    applied = fw.apply(jobs.network(), jobs.data(), outcome.plan, LOOSE, out=tmp_path / "applied")
    assert applied.artefact.read_bytes() == outcome.artefact.read_bytes()
    assert applied.certificate == outcome.certificate


def test_a_plan_that_keeps_everything_gives_the_original(tmp_path: Path, outcome: fw.Outcome) -> None:
    nothing = replace(outcome.plan, choices={})
    applied = fw.apply(jobs.network(), jobs.data(), nothing, LOOSE, out=tmp_path / "applied")
    assert applied.artefact.read_bytes() == outcome.original.read_bytes()
    assert (applied.certificate.lost, applied.certificate.gained) == (0, 0)


def test_a_plan_belongs_to_its_network(outcome: fw.Outcome, tmp_path: Path) -> None:
    other = jobs.network()
    with torch.no_grad():
        other[0].weight[0, 0] += 1e-3
    with pytest.raises(contracts.PlanError, match="another network"):
        fw.apply(other, jobs.data(), outcome.plan, LOOSE, out=tmp_path / "applied")
    assert list(tmp_path.iterdir()) == []


def test_a_certified_plan_is_not_overwritten_by_a_first_one(tmp_path: Path) -> None:
    first, path = fw.plan(jobs.network(), jobs.data(), LOOSE, out=tmp_path)
    assert fw.plan(jobs.network(), jobs.data(), LOOSE, out=tmp_path) == (first, path)
    later = plan_text(replace(first, choices={}))  # as a second attempt could have it
    for place in (tmp_path / "stages" / "4-attempt-02-network" / "plan.yaml", path):
        place.parent.mkdir(exist_ok=True)
        place.write_text(later)
    with pytest.raises(contracts.PlanError, match="certified plan is not overwritten"):
        fw.plan(jobs.network(), jobs.data(), LOOSE, out=tmp_path)
    assert path.read_text() == later


def test_nor_is_the_first_plan_of_another_goal_once_it_is_certified(tmp_path: Path) -> None:
    first, path = fw.plan(jobs.network(), jobs.data(), LOOSE, out=tmp_path)
    other = plan_text(replace(first, choices={}))  # as another goal could have it
    for place in (tmp_path / "stages" / "3-plan-other" / "plan.yaml", path):
        place.parent.mkdir(exist_ok=True)
        place.write_text(other)
    (tmp_path / "card.json").write_text("{}")
    with pytest.raises(contracts.PlanError, match="certified plan is not overwritten"):
        fw.plan(jobs.network(), jobs.data(), LOOSE, out=tmp_path)
    assert path.read_text() == other
    (tmp_path / "card.json").unlink()
    assert fw.plan(jobs.network(), jobs.data(), LOOSE, out=tmp_path) == (first, path)


# ------------------------------------------------------------------------------------------------------ small matters


@pytest.mark.parametrize(
    ("text", "size"), [("8,9", (8, 9)), ("8x9", (8, 9)), (" 224 , 0192 ", (224, 192)), ("1x1", (1, 1))]
)
def test_image_sizes_are_read(monkeypatch, text: str, size: tuple[int, int]) -> None:
    monkeypatch.setattr(api, "read_data", lambda source, size: (source, size))
    assert fw.load_data("folder", text) == ("folder", size)
    assert fw.load_data("folder") == ("folder", None)


@pytest.mark.parametrize("text", ["", "8", "8,", "8,9,10", "0,8", "-8,8", "8.5,8", "a,b", "²,3", "100000,1", "8 9"])
def test_anything_else_is_no_image_size(text: str) -> None:
    with pytest.raises(contracts.UsageError, match="height and width"):
        fw.load_data("folder", text)


@pytest.mark.parametrize("seed", [-1, 2**63, 1.5, "0", None])
def test_a_seed_is_a_whole_number(tmp_path: Path, seed: object) -> None:
    with pytest.raises(contracts.UsageError, match="seed"):
        fw.compress(jobs.network(), jobs.data(), LOOSE, out=tmp_path / "run", seed=seed)  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []


def test_one_training_sample_will_do(tmp_path: Path) -> None:
    data = jobs.data()
    data["train"] = (data["train"][0][:1], np.zeros(0, np.int64))
    parts = {name: x if name == "train" else (x, y) for name, (x, y) in data.items()}
    chosen, _ = fw.plan(jobs.network(), parts, LOOSE, out=tmp_path)
    assert set(chosen.choices) == {"0", "2"}
    assert json.loads((tmp_path / "stages" / "2-evidence" / "evidence.json").read_text())["samples"] == 1
