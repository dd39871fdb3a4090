"""The run's folder proves that test data were touched once, and tells where they weren't."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import featherweight as fw
from featherweight.audit.ledger import LEDGER, note_look
from featherweight.tasks import Data
from tests import jobs


def test_a_run_says_who_saw_the_test_data(tmp_path: Path) -> None:
    goal = fw.Goal(max_drop=0.5)
    outcome = fw.compress(jobs.network(), jobs.data(), goal, out=tmp_path / "run")
    (look,) = json.loads((tmp_path / "run" / LEDGER).read_text())["looks"]
    assert look["test"] == Data.of(jobs.data()).test.fingerprint("test")
    assert look["artefact"] == outcome.story.hashes["artefact"]
    assert look["goal"]["max_drop"] == 0.5
    assert outcome.certificate.looks == 1

    # Another artefact had been shown to the same samples: the next certificate and its report say so.
    shutil.rmtree(tmp_path / "run" / "stages" / "5-certificate")
    note_look(tmp_path / "run", look["test"], "another", look["goal"])
    again = fw.compress(jobs.network(), jobs.data(), goal, out=tmp_path / "run")
    assert again.certificate.looks == 2
    assert "this test set has been looked at 2 times" in again.report.read_text()


def test_groups_and_churn_are_in_the_certificate_of_a_run(tmp_path: Path) -> None:
    outcome = fw.compress(jobs.network(), jobs.data(), fw.Goal(max_drop=0.5, max_group_drop=0.9), out=tmp_path / "run")
    certificate = outcome.certificate
    assert certificate.churn is not None
    assert certificate.churn.samples == certificate.samples
    assert sum(one.samples for one in certificate.groups) == certificate.samples
    assert "groups" in certificate.statement
