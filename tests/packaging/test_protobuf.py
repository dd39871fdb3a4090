"""Messages that a plain writer of the wire format made are read back field by field; what is none is refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from featherweight.packaging.pieces import varint
from featherweight.packaging.protobuf import BYTES, FIXED32, FIXED64, VARINT, Field, Wire

WHOLE = st.integers(0, 2**64 - 1)
FIELDS = st.tuples(st.integers(1, 2**29 - 1), st.sampled_from([VARINT, FIXED64, BYTES, FIXED32]), WHOLE, st.binary())


def _payload(wire: int, value: int, text: bytes) -> tuple[bytes, bytes]:
    """What stands before a field's bytes, and these."""
    if wire == VARINT:
        return b"", varint(value)
    if wire == BYTES:
        return varint(len(text)), text
    size = 8 if wire == FIXED64 else 4
    return b"", value.to_bytes(8, "little")[:size]


@given(st.lists(FIELDS, max_size=8), st.binary(max_size=3))
def test_fields_are_where_they_were_written(written: list[tuple[int, int, int, bytes]], around: bytes) -> None:
    message, expected = around, []
    for number, wire, value, text in written:
        before, held = _payload(wire, value, text)
        start = len(message) + len(varint(number << 3 | wire)) + len(before)
        message += varint(number << 3 | wire) + before + held
        expected.append(Field(number, wire, start, start + len(held)))
    wire = Wire(message + around, 100)
    found = list(wire.fields(len(around), len(message)))
    assert found == expected
    for field, (_, kind, value, _) in zip(found, written, strict=True):
        if kind == VARINT:
            assert list(wire.numbers(field)) == [value]


@given(st.lists(WHOLE, max_size=8))
def test_packed_numbers_come_back(values: list[int]) -> None:
    held = b"".join(map(varint, values))
    assert list(Wire(held, 100).numbers(Field(1, BYTES, 0, len(held)))) == values


@pytest.mark.parametrize(
    "message",
    [b"\x08", b"\x08\x80", b"\x0a\x05abc", b"\x09abc", b"\x0b", b"\x0f\x00", b"\x00\x00", b"\x08" + b"\xff" * 11],
    ids=["no value", "cut", "too long", "short fixed", "group", "no wire type", "number 0", "endless"],
)
def test_what_is_no_message_is_refused(message: bytes) -> None:
    with pytest.raises(ValueError, match=r"field|number"):
        list(Wire(message, 100).fields(0, len(message)))


def test_a_message_ends_where_its_bytes_do() -> None:
    with pytest.raises(ValueError, match="outside its message"):
        list(Wire(b"\x0a\x03abc", 100).fields(0, 4))
    with pytest.raises(ValueError, match="no number"):
        list(Wire(bytes(8), 100).numbers(Field(1, FIXED64, 0, 8)))


def test_no_more_is_visited_than_allowed() -> None:
    wire = Wire(b"\x08\x01" * 10, 20)  # a tag and a number each
    assert len(list(wire.fields(0, 20))) == 10
    with pytest.raises(ValueError, match="more fields"):
        list(wire.fields(0, 2))
