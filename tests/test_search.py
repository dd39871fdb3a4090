"""The search over the global knobs: default first, resumable, and adopted only where the artefact diverges less."""

from __future__ import annotations

import sqlite3
from dataclasses import replace
from pathlib import Path

import optuna
import pytest
import torch

from featherweight import api, pipeline, search, stages
from featherweight.contracts import Goal, Knobs, LoweringError, Plan, PlanError, RunError, Step, UsageError
from featherweight.numerics.affine import symmetric_grid
from featherweight.numerics.gptq import RowGrids, gptq, row_errors
from featherweight.pipeline import prepare, run_job
from featherweight.planning.plans import parse_plan, plan_text, read_plan
from featherweight.planning.rules.rule import Rules
from featherweight.planning.rules.rulebook import parse_rules
from featherweight.runs import Run
from featherweight.stages import Job
from featherweight.story import identity_of
from featherweight.targets import target_by_name
from featherweight.tasks import Data, task_by_name
from tests import jobs

INT8 = Step("quantization", {"weights": "int8", "activations": "int8"})
DEFAULT = Knobs()
TURNED = Knobs(samples=7, draw=2, ranges="minmax", damping=0.25, rounding_damping=0.5, largest_first=False)


def job(trials: int = 0, storage: str = "") -> Job:
    """The small network's job; a wide goal, so that one attempt is enough."""
    data, target = Data.of(jobs.data()), target_by_name("litert")
    made = prepare(jobs.network(), data, Goal(max_drop=0.5), target, task_by_name("classification"))
    return replace(made, rules=Rules(search=trials, storage=storage))


def plan(one: Job, knobs: Knobs = DEFAULT) -> Plan:
    """Both layers on int8."""
    return Plan(one.captured.fingerprint(), "litert", {"0": (INT8,), "2": (INT8,)}, {}, knobs)


def trials(folder: Path, one: Job) -> list[tuple[Knobs, float]]:
    """Knobs and divergence of a search in a folder."""
    run = Run(folder, identity_of(one))
    with run.held():
        original = stages.reference(run, one)
        found = search.search(run, one, plan(one), original)
    return [(record.plan.knobs, record.measured_divergence) for record, _ in found]


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[tuple[Knobs, float]]]:
    folder = tmp_path_factory.mktemp("searched") / "run"
    return folder, trials(folder, job(7))


def test_the_defaults_come_first_and_others_follow(searched) -> None:
    _, found = searched
    assert len(found) == 7
    assert found[0][0] == Knobs()
    assert len({knobs for knobs, _ in found}) > 4
    assert len({divergence for _, divergence in found}) > 2  # turning them does something


def test_the_database_holds_what_was_measured(searched) -> None:
    folder, found = searched
    (name,) = optuna.study.get_all_study_names(f"sqlite:///{folder / search.FILE}")
    kept = optuna.load_study(study_name=name, storage=f"sqlite:///{folder / search.FILE}").trials
    assert [trial.value for trial in kept] == [divergence for _, divergence in found]
    assert all(trial.state == optuna.trial.TrialState.COMPLETE for trial in kept)


@pytest.mark.parametrize("moment", ["before the file", "after the file", "after the trial"])
def test_a_search_that_is_interrupted_ends_like_one_that_is_not(
    searched, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    calls = []

    def stop(real, after):
        def fall(*args):
            calls.append(args)
            if len(calls) == 6 and not after:
                raise KeyboardInterrupt
            value = real(*args)
            if len(calls) == 6:
                raise KeyboardInterrupt
            return value

        return fall

    with monkeypatch.context() as patch:
        if moment == "after the trial":
            patch.setattr(search._Database, "keep", stop(search._Database.keep, after=True))
        else:
            patch.setattr(search, "attempt", stop(search.attempt, after=moment == "after the file"))
        with pytest.raises(KeyboardInterrupt):
            trials(tmp_path / "run", job(7))
    assert trials(tmp_path / "run", job(7)) == searched[1]


def test_fewer_trials_are_the_first_ones_and_more_go_on(searched, tmp_path: Path) -> None:
    assert trials(tmp_path / "run", job(2)) == searched[1][:2]
    assert trials(tmp_path / "run", job(7)) == searched[1]
    assert trials(tmp_path / "run", job(3)) == searched[1][:3]


def test_another_database_may_be_named(searched, tmp_path: Path) -> None:
    place = tmp_path / "other.db"
    assert trials(tmp_path / "run", job(2, f"sqlite:///{place}")) == searched[1][:2]
    assert place.exists()
    assert not (tmp_path / "run" / search.FILE).exists()


def test_odd_folders_are_folders(tmp_path: Path) -> None:
    folder = tmp_path / "100% {odd}?x=#1"
    trials(folder, job(1))
    assert (folder / search.FILE).exists()


def test_every_knob_reaches_the_file(tmp_path: Path) -> None:
    one = job()
    run = Run(tmp_path, identity_of(one))
    with run.held():
        original = stages.reference(run, one)
        default = stages.attempt(run, one, 1, plan(one), original)[1].artefact.sha256
        for name, value in TURNED.turned.items():
            if name not in ("largest_first", "draw"):
                other = stages.attempt(run, one, 2, plan(one, replace(Knobs(), **{name: value})), original)[1]
                assert other.artefact.sha256 != default, name
        same = stages.attempt(run, one, 9, plan(one), original)[1]
    assert same.artefact.sha256 == default


def test_the_order_reaches_the_rounding() -> None:
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(1, 6, 8, generator=generator, dtype=torch.float64)
    rows = (
        torch.randn(64, 8, generator=generator, dtype=torch.float64) @ torch.randn(8, 8, generator=generator).double()
    )
    covariance = (rows.T @ rows / 64).unsqueeze(0)
    grids = RowGrids.of(symmetric_grid(weight[0].abs().amax(1), 3), 1)
    first, plain = (gptq(weight, covariance, grids, largest_first=order) for order in (True, False))
    assert not torch.equal(first, plain)
    nearest = row_errors(grids.nearest(weight) - weight, covariance)
    assert bool((row_errors(plain - weight, covariance) <= nearest).all())
    # Columns that stand in descending order already: both orders are one.
    order = covariance[0].diagonal().argsort(descending=True, stable=True)
    arranged = covariance[:, order][:, :, order]
    both = [gptq(weight[:, :, order], arranged, grids, largest_first=one) for one in (True, False)]
    assert torch.equal(*both)
    assert torch.equal(both[0], first[:, :, order])


def test_default_knobs_calibrate_on_what_the_table_saw_and_draws_differ() -> None:
    one = job()
    assert stages.samples_for(one, Knobs()) is one.calibration
    few, more = (stages.samples_for(one, Knobs(samples=size)) for size in (9, 20))
    inputs = [{row.tobytes() for row in split.take(range(len(split))).inputs[0].numpy()} for split in (few, more)]
    assert (len(inputs[0]), len(inputs[1])) == (9, 20)
    assert inputs[0] < inputs[1]
    other = stages.samples_for(one, Knobs(samples=9, draw=1))
    assert {row.tobytes() for row in other.take(range(9)).inputs[0].numpy()} != inputs[0]


def test_only_knobs_that_matter_are_turned() -> None:
    one = job()
    bare = Plan("", "litert", {"0": ()})
    half = replace(bare, choices={"0": (Step("quantization", {"weights": "float16", "activations": "float32"}),)})
    assert search._Space.of(bare, 48).defaults == {}
    assert set(search._Space.of(half, 48).defaults) == {"refit", "damping"}
    assert set(search._Space.of(plan(one), 600).defaults) == set(Knobs.__slots__)
    assert search._Space.of(plan(one), 600).choices["samples"] == [0, 128, 256, 512]
    assert search._Space.of(plan(one), 200).knobs({"samples": 512, "draw": 3}) == Knobs()
    assert search._Space.of(plan(one), 200).knobs({"refit": False, "damping": 0.1}) == Knobs(refit=False)


def test_knobs_travel_in_plans() -> None:
    one = plan(job(), TURNED)
    assert parse_plan(plan_text(one)) == one
    assert "knobs" not in plan_text(plan(job()))
    assert str(TURNED).startswith("samples 7, draw 2, ranges minmax, damping 0.25")
    for broken in ("{sample: 5}", "{samples: -1}", "{damping: .nan}", "{ranges: best}", "{refit: 1}", "[1]"):
        text = plan_text(plan(job())).replace("units:", f"knobs: {broken}\nunits:")
        with pytest.raises(PlanError, match="knobs"):
            parse_plan(text)


def test_a_whole_run_tells_its_trials_and_never_diverges_more(tmp_path: Path) -> None:
    plain, turned = run_job(job(), tmp_path / "plain"), run_job(job(4), tmp_path / "turned")
    assert len(turned.story.attempts) >= len(plain.story.attempts)
    assert [one.number for one in turned.story.attempts] == list(range(1, len(turned.story.attempts) + 1))
    assert any(one.plan.knobs.turned for one in turned.story.attempts)
    shipped = next(one for one in turned.story.attempts if one.plan == turned.plan)
    assert shipped.measured_divergence <= min(
        one.measured_divergence for one in turned.story.attempts if one.plan.choices == turned.plan.choices
    )
    again = run_job(job(4), tmp_path / "turned")
    assert again.certificate == turned.certificate
    assert again.story.attempts == turned.story.attempts
    assert again.artefact.read_bytes() == turned.artefact.read_bytes()
    assert again.certificate.looks == 1  # test data were touched once, for what ships


def test_worse_knobs_are_not_adopted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def worse(run, one, chosen, original):
        record, made = stages.attempt(run, one, 1, chosen, original)
        turned = replace(chosen, knobs=Knobs(damping=0.1))
        return [(replace(record, plan=turned, measured_divergence=record.measured_divergence + 1), made)]

    monkeypatch.setattr(pipeline, "search", worse)
    plain = run_job(job(), tmp_path / "plain")
    turned = run_job(job(1), tmp_path / "turned")
    assert turned.plan == plain.plan
    assert turned.artefact.read_bytes() == plain.artefact.read_bytes()


def test_better_knobs_are_adopted_and_their_plan_gives_the_same_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def better(run, one, chosen, original):
        record, made = stages.attempt(run, one, 2, replace(chosen, knobs=Knobs(damping=0.25)), original)
        return [(replace(record, measured_divergence=0.0), made)]

    monkeypatch.setattr(pipeline, "search", better)
    turned = run_job(job(1), tmp_path / "turned")
    assert turned.plan.knobs == Knobs(damping=0.25)
    assert "knobs: {damping: 0.25}" in (tmp_path / "turned" / "plan.yaml").read_text()
    assert "damping 0.25" in turned.report.read_text()
    plain = run_job(job(), tmp_path / "plain")
    assert turned.artefact.read_bytes() != plain.artefact.read_bytes()
    again = api.apply(
        jobs.network(), jobs.data(), read_plan(tmp_path / "turned" / "plan.yaml"), job().goal, out=tmp_path / "again"
    )
    assert again.artefact.read_bytes() == turned.artefact.read_bytes()


# ---------------------------------------------------------------------------------------------------- failed trials


def failing(monkeypatch: pytest.MonkeyPatch, numbers: set[int], error: Exception | type[Exception]) -> list[int]:
    """Let these trials fail; the numbers of all that are really tried."""
    tried = []

    def fall(run, one, number, chosen, original):
        tried.append(number)
        if number in numbers:
            raise error
        return stages.attempt(run, one, number, chosen, original)

    monkeypatch.setattr(search, "attempt", fall)
    return tried


NO_KERNEL = LoweringError("The file must load.", "no kernel\nfor this", "another target")


@pytest.mark.parametrize("error", [NO_KERNEL, PlanError("It fits.", "not", "again"), RuntimeError("not positive")])
def test_a_trial_that_fails_is_told_and_kept_and_the_search_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], error: Exception
) -> None:
    tried = failing(monkeypatch, {1, 4}, error)
    found = trials(tmp_path / "run", job(7))
    told = capsys.readouterr()
    assert (len(found), tried, told.out) == (5, [1, 2, 3, 4, 5, 6, 7], "")
    lines = told.err.splitlines()
    reason = " ".join(str(error if isinstance(error, RuntimeError) else error.got).split())
    assert [line.split(" (")[0] for line in lines] == [
        f"featherweight: trial {number} of the search" for number in (1, 4)
    ]
    assert all(reason in line for line in lines)
    # The next call tries neither of the two again, and finds the same.
    tried.clear()
    assert trials(tmp_path / "run", job(7)) == found
    assert tried == [2, 3, 5, 6, 7]
    assert capsys.readouterr().err == told.err


def test_a_search_with_failed_trials_that_is_interrupted_ends_like_one_that_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        failing(patch, {2, 3}, NO_KERNEL)
        whole = trials(tmp_path / "whole", job(8))
        assert trials(tmp_path / "run", job(4)) == whole[:2]
        assert trials(tmp_path / "run", job(8)) == whole
    with monkeypatch.context() as patch:
        failing(patch, {3}, KeyboardInterrupt())
        with pytest.raises(KeyboardInterrupt):
            trials(tmp_path / "stopped", job(4))
    tried = failing(monkeypatch, set(), NO_KERNEL)
    assert len(trials(tmp_path / "stopped", job(4))) == 4  # an interruption is no failure
    assert tried == [1, 2, 3, 4]


def test_failed_trials_are_pruned_ones_with_a_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    failing(monkeypatch, {2}, NO_KERNEL)
    trials(tmp_path, job(2))
    place = f"sqlite:///{tmp_path / search.FILE}"
    (name,) = optuna.study.get_all_study_names(place)
    first, second = optuna.load_study(study_name=name, storage=place).trials
    assert (first.state, first.user_attrs) == (optuna.trial.TrialState.COMPLETE, {})
    assert second.state == optuna.trial.TrialState.PRUNED
    assert second.user_attrs == {"failure": ["LoweringError", NO_KERNEL.rule, NO_KERNEL.got, NO_KERNEL.remedy]}


def test_where_all_trials_fail_the_first_reason_is_the_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for folder, error in ((tmp_path / "plan", PlanError("First.", "one", "two")), (tmp_path / "file", NO_KERNEL)):
        with monkeypatch.context() as patch:
            failing(patch, set(range(1, 8)), error)
            with pytest.raises(type(error)) as told:
                trials(folder, job(7))
            assert told.value is error
        with pytest.raises(type(error)) as again:  # nothing fails now, but these trials are over
            trials(folder, job(7))
        assert str(again.value) == str(error)


def test_a_failure_that_is_no_trials_stops_the_search(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    failing(monkeypatch, {2}, RunError("The folder must take files.", "no space left", "free some"))
    with pytest.raises(RunError, match="no space"):
        trials(tmp_path, job(3))
    monkeypatch.undo()
    assert len(trials(tmp_path, job(3))) == 3


def test_a_whole_run_goes_on_beside_a_failed_trial(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    failing(monkeypatch, {2, 4}, NO_KERNEL)
    outcome = run_job(job(4), tmp_path / "run")
    assert outcome.met
    turned = [one for one in outcome.story.attempts if one.plan.knobs.turned]
    assert len(turned) == 1
    monkeypatch.undo()
    assert run_job(job(4), tmp_path / "run").story.attempts == outcome.story.attempts


def test_a_failed_trial_without_a_reason_is_not_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    failing(monkeypatch, {1}, NO_KERNEL)
    with pytest.raises(LoweringError):
        trials(tmp_path, job(1))
    with sqlite3.connect(tmp_path / search.FILE) as connection:
        connection.execute("UPDATE trial_user_attributes SET value_json = '[1]'")
    connection.close()
    with pytest.raises(RunError, match="without a reason"):
        trials(tmp_path, job(1))


# ------------------------------------------------------------------------------------------------------ refusals


def test_a_spoiled_database_is_told_before_anything_is_made(tmp_path: Path) -> None:
    for name, spoil in {"noise": _noise, "foreign": _foreign}.items():
        folder = tmp_path / name
        run_job(job(), folder)
        spoil(folder / search.FILE)
        before = (folder / search.FILE).read_bytes()
        with pytest.raises(RunError, match=search.FILE):
            run_job(job(1), folder)
        assert (folder / search.FILE).read_bytes() == before


def _noise(path: Path) -> None:
    path.write_bytes(b"no database, but long enough to be looked at as one" * 40)


def _foreign(path: Path) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE recipes (name TEXT)")
    connection.close()


def test_trials_of_other_knobs_are_not_taken_for_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search, "key_of", lambda parts: "0" * 64)  # as if somebody had renamed the study
    trials(tmp_path / "run", job(1))
    monkeypatch.setattr(search, "_DAMPINGS", (1e-4, 1e-1))
    with pytest.raises(RunError, match="other knobs"):
        trials(tmp_path / "run", job(1))


def test_a_wrong_url_is_one_clear_error(tmp_path: Path) -> None:
    for url in ("nonsense", "unknown://user:secret@host/x", f"sqlite:///{tmp_path}/no/such/folder.db"):
        with pytest.raises(RunError, match="--storage") as told:
            search.check_search(tmp_path, Rules(search=1, storage=url))
        assert "secret" not in str(told.value)


def test_without_optuna_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UsageError) as told:
        search.check_search(tmp_path, Rules(search=1))
    assert told.value.remedy == 'pip install -e ".[search]"'


def test_optuna_is_quiet_and_left_as_it_was(tmp_path: Path, capfd) -> None:
    before = optuna.logging.get_verbosity()
    trials(tmp_path / "run", job(2))
    assert capfd.readouterr().err == ""
    assert optuna.logging.get_verbosity() == before


@pytest.mark.parametrize("count", [-1, 10_001, 2.0, True])
def test_trials_are_a_whole_number(count) -> None:
    with pytest.raises(UsageError, match="whole number of trials"):
        Rules(search=count)


def test_rules_and_command_line_say_how_many(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    rules = parse_rules("featherweight_rules: 1\nsearch: 20\nstorage: sqlite:///x.db\n")
    assert (rules.search, rules.storage) == (20, "sqlite:///x.db")
    told = jobs.tell(capsys, "compress", *jobs.job(), "--out", tmp_path / "run", jobs.LOOSE, "--search", 2)
    assert told.code == 0, told
    assert (tmp_path / "run" / search.FILE).exists()
    jobs.refused(capsys, 2, "whole", "compress", *jobs.job(), "--out", tmp_path / "x", "--search", "many")
