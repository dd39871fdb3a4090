"""Quantities as people write them."""

from __future__ import annotations

import contextlib
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from featherweight.contracts import FeatherweightError, GoalError, UsageError
from featherweight.quantities import byte_count, count, positive, share

READERS = (share, byte_count, count, positive)


@pytest.mark.parametrize(
    ("text", "fraction"),
    [
        ("1pp", 0.01),
        ("1 pp", 0.01),
        ("0.5pp", 0.005),
        (".5 points", 0.005),
        ("1point", 0.01),
        ("95%", 0.95),
        (" 95 % ", 0.95),
        ("0.01", 0.01),
        ("1e-2", 0.01),
        ("0", 0.0),
        ("-1", -1.0),
        ("+2pp", 0.02),
    ],
)
def test_shares(text: str, fraction: float) -> None:
    assert share(text) == pytest.approx(fraction, abs=0.0, rel=1e-15)


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("1", 1),
        ("320kB", 320_000),
        ("2MB", 2_000_000),
        ("2 mb", 2_000_000),
        ("1.001MB", 1_001_000),  # a hair less in binary: rounded, not cut
        ("1.5GB", 1_500_000_000),
        ("1KiB", 1024),
        ("1MiB", 2**20),
        ("0.5GiB", 2**29),
        ("12 b", 12),
        ("1e3", 1000),
        ("0", 0),
        ("-5kB", -5000),
    ],
)
def test_bytes(text: str, size: int) -> None:
    assert byte_count(text) == size


@pytest.mark.parametrize(
    ("text", "number"), [("7", 7), ("40M", 40_000_000), ("1.5 k", 1500), ("2G", 2_000_000_000), ("3e2", 300)]
)
def test_counts(text: str, number: int) -> None:
    assert count(text) == number


@pytest.mark.parametrize(("text", "number"), [("1", 1), (" 200 ", 200), ("007", 7), ("7\x1f", 7)])
def test_positive_counts(text: str, number: int) -> None:
    assert positive(text) == number


@pytest.mark.parametrize(
    "text", ["", "  ", "one", "1 elephant", "1,5", "0x10", "1_000", "--1", "1pp1", "nan", "inf", "٣"]
)
@pytest.mark.parametrize("read", [share, byte_count, count])
def test_anything_else_is_no_quantity(read, text: str) -> None:
    with pytest.raises(GoalError, match="number with its unit") as failure:
        read(text)
    assert repr(text) in failure.value.got


@pytest.mark.parametrize("text", ["", "0", "-3", "1.5", "1e3", "many", "1" * 10, "٣", "0\x1f"])
def test_anything_else_is_no_positive_count(text: str) -> None:
    with pytest.raises(UsageError, match="from 1"):
        positive(text)


def test_a_share_has_no_byte_unit_and_bytes_are_no_share() -> None:
    with pytest.raises(GoalError):
        share("1MB")
    with pytest.raises(GoalError):
        byte_count("1pp")


@pytest.mark.parametrize("read", [byte_count, count])
def test_a_limit_is_finite(read) -> None:
    with pytest.raises(GoalError, match="finite"):
        read("1e999")
    with pytest.raises(GoalError, match="finite"):
        read({byte_count: "1e308GB", count: "1e308G"}[read])


@given(st.integers(-(10**12), 10**12))
def test_whole_numbers_are_read_exactly(number: int) -> None:
    assert byte_count(str(number)) == number
    assert count(f"{number}k") == 1000 * number
    assert share(f"{number}pp") == number / 100


@given(st.text(max_size=20))
def test_every_text_is_a_quantity_or_an_error_of_ours(text: str) -> None:
    for read in READERS:
        with contextlib.suppress(FeatherweightError):
            value = read(text)
            assert isinstance(value, int | float)
            assert not math.isnan(value)
