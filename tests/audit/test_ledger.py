"""Test data are touched once, and the run's folder says by whom."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from featherweight.audit.ledger import LEDGER, note_look
from featherweight.contracts import RunError


def test_looks_are_counted_by_artefact(tmp_path: Path) -> None:
    assert note_look(tmp_path, "t1", "a1", {"max_drop": 0.01}) == 1
    before = (tmp_path / LEDGER).read_bytes()
    assert note_look(tmp_path, "t1", "a1", {"max_drop": 0.01}) == 1  # an interrupted run looks again
    assert (tmp_path / LEDGER).read_bytes() == before
    assert note_look(tmp_path, "t1", "a1", {"max_drop": 0.02}) == 1
    assert note_look(tmp_path, "t1", "a2", {"max_drop": 0.02}) == 2
    assert note_look(tmp_path, "t2", "a3", {"max_drop": 0.02}) == 1
    looks = json.loads((tmp_path / LEDGER).read_text())["looks"]
    assert [(one["test"], one["artefact"]) for one in looks] == [("t1", "a1"), ("t1", "a1"), ("t1", "a2"), ("t2", "a3")]


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"format": "x", "looks": []}', '{"format": "featherweight-test-data", "looks": [1]}']
)
def test_a_ledger_that_was_tampered_with_stops_the_run(tmp_path: Path, text: str) -> None:
    (tmp_path / LEDGER).write_text(text)
    with pytest.raises(RunError, match="who looked"):
        note_look(tmp_path, "t", "a", {})
    assert (tmp_path / LEDGER).read_text() == text


def test_a_ledger_without_bounds_is_not_read(tmp_path: Path) -> None:
    (tmp_path / LEDGER).write_text(" " * (2 << 20))
    with pytest.raises(RunError, match="2,097,152 bytes"):
        note_look(tmp_path, "t", "a", {})
