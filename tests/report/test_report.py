from __future__ import annotations

import subprocess
import sys

import pytest

from featherweight.contracts import RunError
from featherweight.report import card_text, page_of, write_report
from tests.report.stories import story, unmet


def test_both_files_are_written(tmp_path) -> None:
    page, card = write_report(story(), tmp_path / "run")
    assert (page, card) == (tmp_path / "run" / "report.html", tmp_path / "run" / "card.json")
    assert page.read_text(encoding="utf-8") == page_of(story())
    assert card.read_text(encoding="utf-8") == card_text(story())
    assert sorted(path.name for path in page.parent.iterdir()) == ["card.json", "report.html"]


def test_an_old_report_is_replaced(tmp_path) -> None:
    write_report(story(), tmp_path)
    page, _ = write_report(unmet(), tmp_path)
    assert page.read_text(encoding="utf-8") == page_of(unmet())


def test_names_that_utf8_cant_hold_are_written_all_the_same(tmp_path) -> None:
    page, _ = write_report(story(device="\udcff"), tmp_path)
    assert "\\udcff" in page.read_text(encoding="utf-8")


def test_a_folder_that_cant_be_written_is_told(tmp_path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError):
        write_report(story(), tmp_path / "file")


def test_importing_the_report_loads_no_terminal_and_no_runtime() -> None:
    code = "import sys, featherweight.report; print([m for m in ('rich', 'ai_edge_litert') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
