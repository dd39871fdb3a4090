"""Runs of networks with outliers behind a normalisation: scale moves once, int8 gains, and every later step agrees."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

import featherweight as fw
from featherweight import preparation, stages
from featherweight.methods import METHODS, Method, Pruning
from featherweight.methods.apply import rebuild
from featherweight.methods.pruning import Prunable, prune, read_removals
from featherweight.network import capture, fold_batch_norm
from featherweight.network.grids import load_state
from featherweight.network.smoothing import sites_of
from featherweight.pipeline import prepare
from featherweight.planning.rules.rule import Rule
from featherweight.records import from_json
from featherweight.runs import Run
from featherweight.stages import Job
from featherweight.targets import target_by_name
from featherweight.tasks import CLASSIFICATION
from tests import jobs

LOOSE = fw.Goal(max_drop=0.5)
INT8 = (fw.Step("quantization", {"weights": "int8", "activations": "int8"}),)
NO_RULES = fw.Rules()
WIDTH, OUTLIER = 24, 64.0


class Normalised(nn.Module):
    """One block behind a normalisation, and a head behind another."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.up, self.gate = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, 32), nn.Linear(WIDTH, 32)
        self.down, self.last, self.head = nn.Linear(32, WIDTH), nn.LayerNorm(WIDTH), nn.Linear(WIDTH, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.norm(x)
        x = x + self.down(functional.relu(self.up(y)) * torch.sigmoid(self.gate(y)))
        return self.head(self.last(x))


def network(outlier: float = OUTLIER) -> nn.Module:
    """With a few channels of both normalisations louder, and the weights that read them softer: the same function."""
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(0)
        made = Normalised().eval()
        for norm, readers in ((made.norm, (made.up, made.gate)), (made.last, (made.head,))):
            norm.weight[::8] *= outlier
            for reader in readers:
                reader.weight[:, ::8] /= outlier
    return made


def data() -> dict[str, tuple[np.ndarray, np.ndarray]]:
    own, parts = network(1.0), {}
    for seed, (name, size) in enumerate({"train": 256, "validation": 128, "test": 400}.items()):
        x = np.random.default_rng(seed).normal(size=(size, WIDTH)).astype(np.float32)
        with torch.no_grad():
            parts[name] = (x, own(torch.from_numpy(x)).argmax(1).numpy())
    return parts


def int8_plan(model: nn.Module) -> fw.Plan:
    captured = capture(model, torch.zeros(2, WIDTH))
    return fw.Plan(captured.fingerprint(), "litert", dict.fromkeys(("up", "gate", "down", "head"), INT8))


def made_of(folder: Path) -> dict[str, int]:
    """Stage → what tells whether it was made again."""
    return {path.name: path.stat().st_ino for path in (folder / "stages").iterdir()}


@pytest.fixture(scope="module")
def outcome(tmp_path_factory: pytest.TempPathFactory) -> fw.Outcome:
    return fw.apply(network(), data(), int8_plan(network()), LOOSE, out=tmp_path_factory.mktemp("smoothed") / "run")


def test_the_file_gains_by_it(outcome: fw.Outcome, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preparation, "sites_for", lambda job: ())
    plain = fw.apply(network(), data(), int8_plan(network()), LOOSE, out=tmp_path / "run")
    even = fw.apply(network(1.0), data(), int8_plan(network(1.0)), LOOSE, out=tmp_path / "even")
    lost, kept, least = (one.story.attempts[0].measured_divergence for one in (plain, outcome, even))
    assert kept < 0.1 * lost
    assert kept < 4 * least  # nearly as if there had never been an outlier
    assert plain.story.preparation == ()
    assert not (tmp_path / "run" / "stages" / "1-smoothing").exists()


def test_what_was_moved_is_told_and_kept(outcome: fw.Outcome) -> None:
    (told,) = outcome.story.preparation
    assert told.startswith(
        "Outliers in 2 normalisations' channels were moved into the weights of the 3 layers that read"
    )
    found = re.search(r"predicted to be (\S+) instead of (\S+)\.$", told)
    assert found
    assert 0 < 10 * float(found[1]) < float(found[2])
    assert told.replace("'", "&#x27;") in re.sub(r"\s+", " ", outcome.report.read_text())
    assert json.loads(outcome.card.read_text())["preparation"] == [told]
    kept = (outcome.artefact.parent / "stages" / "1-smoothing" / "smoothing.json").read_text()
    decided = from_json(tuple[preparation.Smoothing, ...], kept)
    assert [one.site.producer for one in decided] == ["norm", "last"]
    assert all(min(one.scale[::8]) > max(one.scale[1::8]) for one in decided)


def test_the_original_is_the_users_own(outcome: fw.Outcome) -> None:
    x = data()["test"][0]
    with torch.no_grad():
        wanted = network()(torch.from_numpy(x)).numpy()
    assert np.allclose(target_by_name("litert").load(outcome.original)((x,)), wanted, atol=1e-4)


def test_a_run_goes_on_where_it_was(outcome: fw.Outcome, tmp_path: Path) -> None:
    folder = shutil.copytree(outcome.artefact.parent, tmp_path / "run")
    for name in ("4-attempt-01-artefact", "5-certificate"):
        shutil.rmtree(folder / "stages" / name)
    before = made_of(folder)
    again = fw.apply(network(), data(), int8_plan(network()), LOOSE, out=folder)
    assert again.artefact.read_bytes() == outcome.artefact.read_bytes()
    assert before.items() <= made_of(folder).items()

    shutil.rmtree(folder / "stages" / "1-smoothing")  # made again, it says the same: all that follows stands
    before = made_of(folder)
    assert fw.apply(network(), data(), int8_plan(network()), LOOSE, out=folder).story.preparation
    assert before.items() <= made_of(folder).items()


def test_another_goal_meets_the_same_network(tmp_path: Path) -> None:
    first = fw.compress(network(), data(), LOOSE, out=tmp_path)
    before, file = made_of(tmp_path), first.artefact.read_bytes()
    other = fw.compress(network(), data(), fw.Goal(max_drop=0.4, minimize="macs"), out=tmp_path)
    assert first.story.preparation == other.story.preparation != ()
    shared = {"1-reference", "1-smoothing", "2-evidence", "3-table"}
    assert shared <= before.keys()
    assert {name: before[name] for name in shared}.items() <= made_of(tmp_path).items()
    elsewhere = fw.apply(network(), data(), first.plan, LOOSE, out=tmp_path / "applied")
    assert elsewhere.artefact.read_bytes() == file


def test_the_state_and_the_plan_give_the_network_back(outcome: fw.Outcome, tmp_path: Path) -> None:
    """Recalibration starts from the user's model, and knows nothing of what was moved."""
    told = fw.recalibrate(outcome.artefact.parent, network(), data()["train"][0], out=tmp_path)
    assert told.divergence_after == pytest.approx(told.divergence_before, rel=0.2)
    assert told.divergence_after < 1e-2


def test_so_do_they_where_channels_went(tmp_path: Path) -> None:
    plan = int8_plan(network())
    plan = replace(plan, choices={**plan.choices, "up": (fw.Step("pruning", {"keep": 20}), *INT8)})
    run = Run(tmp_path / "run", {"test": 1})
    with run.held():
        one = preparation.smoothed(run, job(network()))
        built, folder = stages.compressed(run, one, "4-attempt-01", plan)
    folded = fold_batch_norm(capture(network(), torch.zeros(2, WIDTH)))
    smaller = prune(folded, Prunable.of(folded, Pruning()).coupling, read_removals(folder / "removals.json")).network
    again = rebuild(smaller, plan, load_state(folder), one.capability, METHODS)
    assert again.fingerprint() == built.network.fingerprint()
    assert again.layer("up").weight_shape == (20, WIDTH)


# ----------------------------------------------------------------------------------------------- where nothing is moved


def job(model: nn.Module, methods: tuple[Method, ...] = METHODS, rules: fw.Rules = NO_RULES) -> Job:
    parts = jobs.data() if isinstance(model, nn.Sequential) else data()
    made = prepare(model, fw.Data.of(parts), LOOSE, target_by_name("litert"), CLASSIFICATION, methods)
    return replace(made, rules=rules)


@pytest.mark.parametrize(
    "build",
    [
        lambda: job(jobs.network()),  # no normalisation
        lambda: job(network(1.0)),  # no outlier
        lambda: job(network(), tuple(one for one in METHODS if one.name != "quantization")),  # nothing goes to int8
        lambda: job(network(), rules=fw.Rules(all=Rule(untouched=True))),
    ],
    ids=["layers alone", "no outliers", "no int8", "untouched"],
)
def test_the_job_stays_the_very_same(build: Callable[[], Job], tmp_path: Path) -> None:
    one = build()
    run = Run(tmp_path / "run", {"test": 1})
    with run.held():
        assert preparation.smoothed(run, one) is one
    assert one.moved == {}


def test_a_normalisation_with_an_untouched_reader_stays() -> None:
    one = job(network(), rules=fw.Rules(layers={"up": Rule(untouched=True)}))
    assert [site.producer for site in preparation.sites_for(one)] == ["last"]


def test_a_normalisation_of_images_stays() -> None:
    x = np.random.default_rng(0).normal(size=(192, 2, 8, 8)).astype(np.float32)
    parts = {name: (x[at::3], None) for at, name in enumerate(("train", "validation", "test"))}
    layers = nn.BatchNorm2d(2), nn.Conv2d(2, 4, 3), nn.ReLU(), nn.Conv2d(4, 3, 3), nn.Flatten(), nn.Linear(48, 3)
    model = nn.Sequential(*layers).eval()
    made = prepare(model, fw.Data.of(parts), LOOSE, target_by_name("litert"), CLASSIFICATION)
    assert [site.producer for site in sites_of(made.network)] == ["0", "1"]
    assert preparation.sites_for(made) == ()
