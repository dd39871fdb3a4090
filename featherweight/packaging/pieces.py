"""The pieces that an output is made of, as values, and how each is described in a package.

A package's output is the concatenation of its pieces. Four kinds exist: bytes stored as they are, bytes under the plain
model, numbers coded plane by plane, and levels. A description is a kind byte and variable-length integers; everything
in it is checked against the output before a byte is decoded.
"""

from __future__ import annotations

from dataclasses import dataclass

from featherweight.contracts import DataError

MOST_VALUES = 4096  # of a palette
MOST_COLUMNS = 1 << 24
FEWEST_CONTEXTS, MOST_CONTEXTS = 3, 6
ELEMENT_BYTES = {"int8": 1, "uint8": 1, "int16": 2, "uint16": 2, "int32": 4, "word16": 2, "word32": 4, "float32": 4}
ELEMENTS = tuple(ELEMENT_BYTES)
NO_BASE = -1


def broken(got: str) -> DataError:
    """The one error for a package that is damaged, cut off or forged."""
    return DataError("A package must be whole and as its format says.", got, "download it again, or pack the file anew")


@dataclass(frozen=True, slots=True)
class Stored:
    """Bytes at eight bits each."""

    length: int


@dataclass(frozen=True, slots=True)
class Bytes:
    """Bytes under the plain model.

    Attributes:
        length: in bytes.
        element: 1, 2, 4 or 8: the place in an element is part of a context.
        distance: to the reference inside the piece; 0 is none.
        base: where the reference begins in the earlier version, or NO_BASE.
    """

    length: int
    element: int = 1
    distance: int = 0
    base: int = NO_BASE


@dataclass(frozen=True, slots=True)
class Planes:
    """Numbers of several bytes, the most significant plane first.

    Attributes:
        length: in bytes, a multiple of ``element``.
        element: bytes of a number, 2, 4 or 8.
        stored: bit k tells that plane k (0 is the least significant byte) is stored as it is.
        base: where the earlier version's numbers begin, or NO_BASE.
    """

    length: int
    element: int
    stored: int
    base: int = NO_BASE


@dataclass(frozen=True, slots=True)
class Levels:
    """A matrix under the level model.

    Attributes:
        length: in bytes.
        element: one of ELEMENTS. "word16" and "word32" are entries of a palette that the stream begins with, "float32"
            is a level times its row's scale.
        rows: of the matrix as it lies in memory; with ``across`` it is coded column by column.
        period: inner extent of a coded row.
        offset: of the levels: what is coded is the value less this.
        across, balanced: see above; the tree instead of the chain.
        top: of the rows' own grids; 0 where the tensor has none.
        values: entries of the palette; 0 where the element has none.
        contexts: how many count, FEWEST_CONTEXTS to MOST_CONTEXTS: more are smaller, fewer are faster.
        base: where the earlier version's tensor begins, or NO_BASE.
    """

    length: int
    element: str
    rows: int
    period: int
    offset: int = 0
    across: bool = False
    balanced: bool = False
    top: int = 0
    values: int = 0
    contexts: int = 6
    base: int = NO_BASE

    @property
    def columns(self) -> int:
        """Of the matrix as it lies in memory."""
        return self.length // ELEMENT_BYTES[self.element] // self.rows

    @property
    def coded_shape(self) -> tuple[int, int]:
        """Rows and columns in the order of coding."""
        return (self.columns, self.rows) if self.across else (self.rows, self.columns)


Piece = Stored | Bytes | Planes | Levels
_KINDS: tuple[type, ...] = (Stored, Bytes, Planes, Levels)
_ACROSS, _BALANCED, _BASED = 16, 32, 64


def varint(value: int) -> bytes:
    """A whole number from 0, seven bits to the byte, the low ones first."""
    made = bytearray()
    while value > 127:
        made.append(value & 127 | 128)
        value >>= 7
    made.append(value)
    return bytes(made)


@dataclass(slots=True)
class Cursor:
    """A place in bytes that are read front to back; reading past the end is an error, never a guess.

    Attributes:
        data: what is read.
        place: the next byte.
    """

    data: bytes | memoryview
    place: int = 0

    def take(self, count: int) -> bytes:
        """The next ``count`` bytes."""
        if count > len(self.data) - self.place:
            raise broken("it ends too early")
        self.place += count
        return bytes(self.data[self.place - count : self.place])

    def number(self, most: int) -> int:
        """The next variable-length integer, at most ``most``."""
        value = 0
        for shift in range(0, 35, 7):
            byte = self.take(1)[0]
            value |= (byte & 127) << shift
            if byte < 128:
                break
        else:
            raise broken("a number of more than five bytes")
        if value > most:
            raise broken(f"the number {value} where at most {most} may stand")
        return value


def _signed(value: int) -> int:
    return value * 2 if value >= 0 else -value * 2 - 1


def _unsigned(value: int) -> int:
    return -(value + 1) // 2 if value & 1 else value // 2


def _base(piece: Bytes | Planes | Levels) -> bytes:
    return b"" if piece.base == NO_BASE else varint(piece.base)


def describe(piece: Piece) -> bytes:
    """The description of a piece as it stands in a section."""
    kind, length = _KINDS.index(type(piece)), varint(piece.length)
    based = _BASED if not isinstance(piece, Stored) and piece.base != NO_BASE else 0
    if isinstance(piece, Stored):
        return bytes([kind]) + length
    if isinstance(piece, Bytes):
        return bytes([kind | based]) + length + bytes([piece.element]) + varint(piece.distance) + _base(piece)
    if isinstance(piece, Planes):
        return bytes([kind | based]) + length + bytes([piece.element, piece.stored]) + _base(piece)
    flags = kind | based | (_ACROSS if piece.across else 0) | (_BALANCED if piece.balanced else 0)
    numbers = (piece.rows, piece.period, _signed(piece.offset), piece.top, piece.values)
    return (
        bytes([flags])
        + length
        + bytes([ELEMENTS.index(piece.element), piece.contexts])
        + b"".join(map(varint, numbers))
        + _base(piece)
    )


def read_piece(cursor: Cursor, room: int, base_bytes: int) -> Piece:
    """The next piece's description, checked.

    Args:
        cursor: in a section.
        room: bytes of output that the section has left.
        base_bytes: length of the earlier version; 0 where there is none.

    Raises:
        DataError: it isn't one that this version of the format knows, or doesn't fit.
    """
    flags = cursor.take(1)[0]
    kind, based = flags & 15, bool(flags & _BASED)
    length = cursor.number(room)
    if kind >= len(_KINDS) or flags & 128 or (kind != 3 and flags & (_ACROSS | _BALANCED)) or (kind == 0 and based):
        raise broken(f"a piece of the unknown kind {flags}")
    if length == 0:
        raise broken("an empty piece")
    if kind == 0:
        return Stored(length)
    if kind == 1:
        piece: Piece = _read_bytes(cursor, length, based, base_bytes)
    elif kind == 2:
        piece = _read_planes(cursor, length, based, base_bytes)
    else:
        piece = _read_levels(cursor, length, flags, base_bytes)
    return piece


def _read_base(cursor: Cursor, length: int, based: bool, base_bytes: int) -> int:
    if not based:
        return NO_BASE
    if length > base_bytes:
        raise broken("a piece that its base is too short for")
    return cursor.number(base_bytes - length)


def _read_bytes(cursor: Cursor, length: int, based: bool, base_bytes: int) -> Bytes:
    element = cursor.take(1)[0]
    if element not in (1, 2, 4, 8):
        raise broken(f"elements of {element} bytes")
    return Bytes(length, element, cursor.number(length), _read_base(cursor, length, based, base_bytes))


def _read_planes(cursor: Cursor, length: int, based: bool, base_bytes: int) -> Planes:
    element, stored = cursor.take(2)
    if element not in (2, 4, 8) or length % element or stored >> element:
        raise broken(f"{length} bytes in planes of {element}")
    return Planes(length, element, stored, _read_base(cursor, length, based, base_bytes))


def _read_levels(cursor: Cursor, length: int, flags: int, base_bytes: int) -> Levels:
    index, contexts = cursor.take(2)
    if index >= len(ELEMENTS) or not FEWEST_CONTEXTS <= contexts <= MOST_CONTEXTS:
        raise broken(f"elements of type {index} under {contexts} contexts")
    element, size = ELEMENTS[index], ELEMENT_BYTES[ELEMENTS[index]]
    rows, period = cursor.number(length // size), cursor.number(MOST_COLUMNS)
    offset, top, values = _unsigned(cursor.number(1 << 17)), cursor.number(256), cursor.number(MOST_VALUES)
    base = _read_base(cursor, length, bool(flags & _BASED), base_bytes)
    if rows == 0 or length % (size * rows):
        raise broken(f"{length} bytes in {rows} rows of {element}")
    across, balanced = bool(flags & _ACROSS), bool(flags & _BALANCED)
    made = Levels(length, element, rows, period, offset, across, balanced, top, values, contexts, base)
    word = element.startswith("word")
    columns = made.coded_shape[1]
    if not 0 < period <= columns <= MOST_COLUMNS or word != (values > 0):
        raise broken(f"a period of {period} in {columns} columns, {values} values of {element}")
    if element == "float32" and (rows > MOST_VALUES or made.across or offset):
        raise broken(f"{rows} rows of scaled numbers")
    if base != NO_BASE and (top or word or element == "float32"):
        raise broken("a base for a tensor that can have none")
    return made
