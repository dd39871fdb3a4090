"""The container: header, sections, checksums. ``docs/package-format.md`` describes it; every length is bounded here.

A header says what the whole is and what it is coded against; sections follow, each with its own checksum, so that
damage is found before a byte of it is decoded, and a receiver can decode section by section as they arrive.
"""

from __future__ import annotations

import hashlib
import json
import zlib
from collections.abc import Mapping
from dataclasses import dataclass

from featherweight.contracts import DataError
from featherweight.packaging.pieces import MOST_COLUMNS, Cursor, Levels, Piece, broken, describe, read_piece, varint

MAGIC = b"FWPK"
VERSION = 1
MOST_BYTES = (1 << 31) - 1
MOST_SECTIONS = MOST_PIECES = 1 << 16
MOST_DESCRIPTION = 1 << 20
SECTION_BYTES = 1 << 20  # of output after which a new section begins
_BASED = 1


@dataclass(frozen=True, slots=True)
class Base:
    """The earlier version that a package is coded against.

    Attributes:
        length: in bytes.
        sha256: of its content.
    """

    length: int
    sha256: bytes


@dataclass(frozen=True, slots=True)
class Header:
    """What a package says before its sections.

    Attributes:
        length: of the output in bytes.
        sha256: of the output.
        columns: the most that a coded matrix has; a decoder's room depends on it alone.
        sections: how many follow.
        description: what the output is, as JSON values: its files and what they are for.
        base: what it is coded against, if anything.
    """

    length: int
    sha256: bytes
    columns: int
    sections: int
    description: Mapping[str, object]
    base: Base | None = None


@dataclass(frozen=True, slots=True)
class Section:
    """Pieces that share one stream.

    Attributes:
        pieces: in the order of the output.
        stream: coded.
    """

    pieces: tuple[Piece, ...]
    stream: bytes

    @property
    def length(self) -> int:
        """Of its output in bytes."""
        return sum(piece.length for piece in self.pieces)


def checksum(data: bytes) -> bytes:
    """CRC-32 (ISO 3309), four bytes, the low one first."""
    return zlib.crc32(data).to_bytes(4, "little")


def write_header(header: Header) -> bytes:
    """The header's bytes.

    Raises:
        DataError: the description isn't plain JSON, or too long.
    """
    try:
        text = json.dumps(header.description, separators=(",", ":"), ensure_ascii=False).encode()
    except (TypeError, ValueError) as error:
        raise DataError("A description is plain JSON.", str(error), "hand over texts, numbers and lists") from error
    if len(text) > MOST_DESCRIPTION:
        raise DataError(
            f"A description has at most {MOST_DESCRIPTION:,} bytes.", f"{len(text):,}", "leave the larger parts out"
        )
    made = MAGIC + bytes([VERSION, _BASED if header.base else 0])
    made += varint(header.length) + header.sha256 + varint(header.columns) + varint(header.sections)
    if header.base:
        made += varint(header.base.length) + header.base.sha256
    made += varint(len(text)) + text
    return made + checksum(made)


def write_section(section: Section) -> bytes:
    """A section's bytes: its length, its pieces and its stream, and their checksum."""
    body = varint(section.length) + varint(len(section.pieces)) + b"".join(map(describe, section.pieces))
    body += section.stream
    return varint(len(body)) + body + checksum(body)


def read_header(cursor: Cursor) -> Header:
    """The header.

    Raises:
        DataError: this is no package, one of another version, or a damaged one.
    """
    start = cursor.place
    magic = bytes(cursor.data[start : start + len(MAGIC)])
    if magic != MAGIC:
        raise DataError("A package begins with FWPK.", f"{magic!r}", "give a file that 'featherweight pack' wrote")
    version, flags = cursor.take(6)[4:]
    if version != VERSION:
        raise DataError(
            f"This Featherweight reads packages of version {VERSION}.", f"{version}", "update Featherweight"
        )
    if flags & ~_BASED:
        raise broken(f"the unknown flags {flags}")
    length, sha256 = cursor.number(MOST_BYTES), cursor.take(32)
    columns, sections = cursor.number(MOST_COLUMNS), cursor.number(MOST_SECTIONS)
    base = Base(cursor.number(MOST_BYTES), cursor.take(32)) if flags & _BASED else None
    text = cursor.take(cursor.number(MOST_DESCRIPTION))
    read = bytes(cursor.data[start : cursor.place])
    if cursor.take(4) != checksum(read):
        raise broken("a header that differs from its checksum")
    return Header(length, sha256, columns, sections, _description(text), base)


def _description(text: bytes) -> Mapping[str, object]:
    try:
        made = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise broken("a description that is no JSON") from error
    if not isinstance(made, dict):
        raise broken("a description that is no JSON object")
    return made


def read_section(cursor: Cursor, header: Header, room: int) -> Section:
    """The next section, its checksum and its descriptions checked.

    Args:
        cursor: in the package.
        header: of the package.
        room: bytes of output that are left.
    """
    body = cursor.take(cursor.number(MOST_BYTES))
    if cursor.take(4) != checksum(body):
        raise broken("a section that differs from its checksum")
    inside = Cursor(body)
    left = inside.number(room)
    pieces = []
    for _ in range(inside.number(MOST_PIECES)):
        piece = read_piece(inside, left, header.base.length if header.base else 0)
        if isinstance(piece, Levels) and piece.coded_shape[1] > header.columns:
            raise broken("a matrix wider than the header says")
        left -= piece.length
        pieces.append(piece)
    if left:
        raise broken(f"a section that {left} bytes of its output are missing from")
    return Section(tuple(pieces), body[inside.place :])


def read_package(data: bytes) -> tuple[Header, tuple[Section, ...]]:
    """Header and sections of a whole package; nothing is decoded.

    Raises:
        DataError: it is damaged, cut off, forged, or of another version.
    """
    cursor = Cursor(memoryview(data))
    header = read_header(cursor)
    sections, room = [], header.length
    for _ in range(header.sections):
        sections.append(read_section(cursor, header, room))
        room -= sections[-1].length
    if room:
        raise broken(f"{room} bytes of its output are in no section")
    if cursor.place != len(data):
        raise broken(f"{len(data) - cursor.place} bytes after its end")
    return header, tuple(sections)


def check_base(header: Header, base: bytes | None) -> None:
    """Refuse to decode against anything but the version that a package was coded against.

    Raises:
        DataError: it needs a base and got none, or another.
    """
    if header.base is None:
        return
    wanted = header.base.sha256.hex()
    if base is None:
        raise DataError(
            "An update is decoded with the version that it was made from.", "no base", f"give the file {wanted[:16]}…"
        )
    found = hashlib.sha256(base).digest()
    if len(base) != header.base.length or found != header.base.sha256:
        got = f"a base with SHA-256 {found.hex()[:16]}…"
        raise DataError("An update is decoded with the version that it was made from.", got, f"give {wanted[:16]}…")
