from __future__ import annotations

import io
from dataclasses import replace

from rich.console import Console

from featherweight.report import summary_lines, summary_table
from tests.report.stories import certificate, story, unmet

FIGURES = (
    "91.73 %",
    "91.66 %",
    "1,106,448 B (1.1 MB)",
    "320,416 B (320.4 kB)",
    "3.45× smaller",
    "41.2 M MACs",
    "0.36 ms",
)


def printed(one, width: int = 140) -> str:
    paper = io.StringIO()
    Console(file=paper, width=width, color_system=None).print(summary_table(one))
    return paper.getvalue()


def test_both_tables_hold_the_figures_and_the_verdict() -> None:
    for text in (printed(story()), summary_lines(story())):
        assert all(figure in text for figure in FIGURES)
        assert "at most 0.26 points lost, 95 % sure" in text
        assert story().verdict in " ".join(text.split())
        assert "✓ Goal met." in text


def test_unmet_is_shown() -> None:
    for text in (printed(unmet()), summary_lines(unmet())):
        assert "✗ Goal not met" in text


def test_words_in_brackets_are_no_markup_of_the_terminal() -> None:
    words = "[bold red]loud[/] [link=x]here[/link] [/nonsense]"
    assert words in printed(story(verdict=words))
    assert words in summary_lines(story(verdict=words))
    assert "[bold]rate[/]" in printed(story(certificate=certificate(metric="[bold]rate[/]", drop=0.5)), 200).lower()


def test_columns_of_the_plain_text_line_up() -> None:
    lines = summary_lines(story()).split("\n\n")[0].splitlines()
    ends = {
        line.index(word) + len(word)
        for line, word in zip(lines[1:], ("91.73 %", "MB)", "41.2 M MACs", "0.94 ms"), strict=True)
    }
    assert ends == {lines[0].index("Original") + len("Original")}
    assert len(lines) == 5


def test_another_metric() -> None:
    one = story()
    other = replace(one, certificate=replace(one.certificate, metric="mIoU", lost=None, gained=None))
    words = " ".join(summary_lines(other).splitlines()[1].split())
    assert words == "mIoU 0.9173 0.9166 0.0007 lost; at most 0.0026 lost, 95 % sure"
