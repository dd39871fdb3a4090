"""Small YAML documents that people write: read safely, each under the name and version of its format.

What is wrong with one is told by the caller's own error: a plan is no rules' file.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from featherweight.contracts import FeatherweightError

SHOWN = 200
"""Characters of a broken document in a message."""


class PlainLoader(yaml.SafeLoader):
    """A safe loader without aliases: a few lines of them can stand for gigabytes."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        """A node of the document, which is no alias."""
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("there are no anchors and aliases here")
        return super().compose_node(parent, index)


@dataclass(frozen=True, slots=True)
class Format:
    """One kind of document.

    Attributes:
        noun: what it is, as the subject of a sentence ("A plan").
        key: the word that it begins with.
        version: what stands behind it.
        error: raised where a text isn't one.
        remedy: how to come by a sound one.
        loader: of its YAML.
        largest: in bytes.
    """

    noun: str
    key: str
    version: int
    error: type[FeatherweightError]
    remedy: str
    loader: type[PlainLoader] = PlainLoader
    largest: int = 8 << 20

    def read(self, path: Path) -> str:
        """The text of a file.

        Raises:
            FeatherweightError: of this format's kind: the file is missing, too large, or no text.
        """
        try:
            if (size := path.stat().st_size) > self.largest:
                raise self.error(f"{self.noun} is a small file.", f"{path}: {size:,} bytes", "is it the right file?")
            return path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            rule = f"{self.noun} must be a readable text file."
            raise self.error(rule, f"{path}: {error}", "check the path") from error

    def parsed(self, text: str, origin: str) -> dict[str, Any]:
        """The mapping that a text holds; ``origin`` names it in messages.

        Raises:
            FeatherweightError: of this format's kind: no YAML, no mapping, or another format or version.
        """
        try:
            document = yaml.load(text, self.loader)  # safe loaders all
        except Exception as error:  # yaml's constructors raise a dozen kinds for odd values
            line = " ".join(str(error).split())[:SHOWN]
            raise self.error(f"{self.noun} must be YAML.", f"{origin}: {line}", self.remedy) from error
        if not isinstance(document, dict) or document.get(self.key) != self.version:
            raise self.error(
                f"{self.noun} must begin with {self.key}: {self.version}.",
                f"{origin}: {str(document)[:SHOWN]!r}",
                self.remedy,
            )
        return document
