"""What a run tells: the page for people, the card for machines, the table for the terminal."""

from __future__ import annotations

from pathlib import Path

from featherweight.contracts import Story
from featherweight.files import write_atomically
from featherweight.report.card import card_of, card_text
from featherweight.report.page import page_of
from featherweight.report.table import summary_lines, summary_table

__all__ = ["card_of", "card_text", "page_of", "summary_lines", "summary_table", "write_report"]


def write_report(story: Story, folder: Path) -> tuple[Path, Path]:
    """Write ``report.html`` and ``card.json``, each whole or not at all; their paths.

    Raises:
        RunError: the folder can't be written.
    """
    page, card = folder / "report.html", folder / "card.json"
    write_atomically(page, page_of(story))
    write_atomically(card, card_text(story))
    return page, card
