"""The changelog and the package tell the same version."""

from __future__ import annotations

import re
from pathlib import Path

import featherweight

CHANGELOG = Path(__file__).parents[1] / "CHANGELOG.md"


def test_the_changelog_opens_with_the_package_version() -> None:
    headings = re.findall(r"^## \[(.+?)\] - (\S+)$", CHANGELOG.read_text(encoding="utf-8"), flags=re.MULTILINE)
    newest, date = headings[0]
    assert newest == featherweight.__version__
    assert date == "Unreleased" or re.fullmatch(r"\d{4}-\d\d-\d\d", date)
