"""What a person may have meant by a word that isn't known."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def nearest(word: str, known: Iterable[str]) -> str:
    """What a person may have meant, in words: the nearest known word first."""
    names = list(known)
    close = difflib.get_close_matches(word, names, n=3, cutoff=0.5)
    if close:
        return "did you mean " + " or ".join(map(repr, close)) + "?"
    shown = ", ".join(names[:12])
    return f"one of: {shown}{', ...' if len(names) > 12 else ''}" if names else "there is none"
