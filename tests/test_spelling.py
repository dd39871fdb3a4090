"""What a person may have meant."""

from __future__ import annotations

from featherweight.spelling import nearest


def test_the_nearest_word_is_suggested() -> None:
    assert nearest("strm", ["stem", "head"]) == "did you mean 'stem'?"
    assert nearest("zzz", ["stem", "head"]) == "one of: stem, head"
    assert nearest("zzz", map(str, range(20))).endswith("11, ...")
    assert nearest("zzz", []) == "there is none"
