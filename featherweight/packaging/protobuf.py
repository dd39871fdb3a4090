"""The wire format of protocol buffers: which fields a message holds and where their bytes lie.

Nothing is copied or kept, and a message is walked without walking what is inside it. Input is untrusted: every length
is checked against the message that it stands in, and all walks of one :class:`Wire` together visit a bounded number of
fields.

Source: the encoding as published, protobuf.dev/programming-guides/encoding.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5
_FIXED = {FIXED64: 8, FIXED32: 4}
_LONGEST_VARINT = 10  # bytes: 64 bits by sevens


@dataclass(frozen=True, slots=True)
class Field:
    """A field of a message.

    Attributes:
        number: of the field in its message's schema.
        wire: VARINT, FIXED64, BYTES or FIXED32.
        start, end: where its bytes begin, and the place behind them; a length in front doesn't count.
    """

    number: int
    wire: int
    start: int
    end: int


class Wire:
    """Bytes that messages are read from.

    Args:
        data: the whole file.
        most: fields and numbers that may be visited in all.
    """

    def __init__(self, data: bytes, most: int) -> None:
        self._data, self._left = data, most

    def fields(self, start: int, end: int) -> Iterator[Field]:
        """The fields of the message that lies at ``start`` to ``end``, in the order of their bytes.

        Raises:
            ValueError: it is no message, or more is asked for than may be visited.
        """
        place = start
        while place < end:
            tag, place = self._number(place, end)
            number, wire = tag >> 3, tag & 7
            begin = place
            if wire == VARINT:
                _, place = self._number(place, end)
            elif wire == BYTES:
                length, begin = self._number(place, end)
                place = begin + length
            elif wire in _FIXED:
                place += _FIXED[wire]
            else:
                raise ValueError(f"a field of wire type {wire}")
            if number == 0 or place > end:
                raise ValueError("a field outside its message")
            yield Field(number, wire, begin, place)

    def numbers(self, field: Field) -> Iterator[int]:
        """The whole numbers from 0 of a field, be it one or many packed together; negative ones come as above 2⁶³.

        Raises:
            ValueError: there is no whole number, or more is asked for than may be visited.
        """
        if field.wire not in (VARINT, BYTES):
            raise ValueError("a field that holds no number")
        place = field.start
        while place < field.end:
            value, place = self._number(place, field.end)
            yield value

    def _number(self, place: int, end: int) -> tuple[int, int]:
        """The variable-length integer at a place, and the place behind it."""
        self._left -= 1
        if self._left < 0:
            raise ValueError("more fields than may be visited")
        value = 0
        for at in range(place, min(end, place + _LONGEST_VARINT)):
            byte = self._data[at]
            value |= (byte & 127) << 7 * (at - place)
            if byte < 128:
                return value, at + 1
        raise ValueError("a number that doesn't end")
