"""Packing and unpacking: files into one package, and back to the byte."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from featherweight.contracts import DataError
from featherweight.packaging.choose import SHORT, Place, choose_bytes, choose_tensor
from featherweight.packaging.coder import DECODE, ENCODE, FULL, finish_encoding, registers, start_decoding
from featherweight.packaging.container import (
    MOST_BYTES,
    SECTION_BYTES,
    Base,
    Header,
    Section,
    check_base,
    read_package,
    write_header,
    write_section,
)
from featherweight.packaging.pieces import NO_BASE, Levels, Piece, broken
from featherweight.packaging.spans import TensorSpan, apart, tensor_spans
from featherweight.packaging.streams import Knowledge, bytes_array, code_piece, fresh_knowledge

Array = np.ndarray

_SLACK = 4096


@dataclass(frozen=True, slots=True)
class Content:
    """What goes into a package.

    Attributes:
        files: name → bytes. A name is a relative path with forward slashes.
        description: JSON values for whoever holds the package: target, inputs, outputs.
        spans: name → the tensors of that file; files that aren't named are read for them.
    """

    files: Mapping[str, bytes]
    description: Mapping[str, object] = field(default_factory=dict)
    spans: Mapping[str, Sequence[TensorSpan]] = field(default_factory=dict)

    def joined(self) -> bytes:
        """All files, one after the other."""
        return b"".join(self.files.values())

    def located(self) -> tuple[TensorSpan, ...]:
        """The tensors of all files that are worth a piece of their own, by their place in the joined bytes."""
        found, start = [], 0
        for name, content in self.files.items():
            spans = apart(tuple(self.spans[name]), len(content)) if name in self.spans else tensor_spans(name, content)
            found += [TensorSpan(s.offset + start, s.length, s.dtype, s.shape, s.name) for s in spans]
            start += len(content)
        return tuple(span for span in found if span.length >= SHORT)


def encode_package(content: Content, base: Content | None = None) -> bytes:
    """A package of files, coded against an earlier version where one is given.

    Raises:
        DataError: there is nothing to pack, or more than the format holds.
    """
    output, earlier = content.joined(), base.joined() if base else b""
    if not 0 < len(output) <= MOST_BYTES or len(earlier) > MOST_BYTES:
        raise DataError("A package holds 1 byte to 2 GiB.", f"{len(output)} bytes", "pack the artefact alone")
    known = fresh_knowledge(bytes_array(output), bytes_array(earlier))
    sections = _sections(_stretches(content.located(), base.located() if base else (), known), known)
    files = [[name, len(data)] for name, data in content.files.items()]
    matrices = [piece for section in sections for piece in section.pieces if isinstance(piece, Levels)]
    header = Header(
        length=len(output),
        sha256=hashlib.sha256(output).digest(),
        columns=max((piece.coded_shape[1] for piece in matrices), default=0),
        sections=len(sections),
        description={**content.description, "files": files},
        base=Base(len(earlier), hashlib.sha256(earlier).digest()) if base else None,
    )
    return write_header(header) + b"".join(map(write_section, sections))


def _stretches(
    spans: Sequence[TensorSpan], earlier: Sequence[TensorSpan], known: Knowledge
) -> Iterator[tuple[TensorSpan | None, Place]]:
    """The output cut into tensors and what lies between, each with its counterpart in the base."""
    partners = dict(_partners(spans, earlier))
    end = shift = 0
    for span in (*spans, TensorSpan(len(known.output), 0, "uint8", (0,))):
        if span.offset > end:
            length = span.offset - end
            inside = 0 <= end + shift <= len(known.base) - length and len(known.base) > 0
            yield None, Place(end, length, end + shift if inside else NO_BASE)
        if span.length:
            partner = partners.get(span.offset)
            yield span, Place(span.offset, span.length, partner.offset if partner else NO_BASE)
            shift = partner.offset - span.offset if partner else shift
        end = span.offset + span.length


def _partners(spans: Sequence[TensorSpan], earlier: Sequence[TensorSpan]) -> Iterator[tuple[int, TensorSpan]]:
    """The earlier version's tensor for each of ours.

    It has the same name, type and shape, or is the next one of that type and shape.
    """
    named = {(one.name, one.dtype, one.shape): one for one in earlier if one.name}
    alike: dict[tuple[str, tuple[int, ...]], list[TensorSpan]] = {}
    for one in reversed(earlier):
        alike.setdefault((one.dtype, one.shape), []).append(one)
    for span in spans:
        queue = alike.get((span.dtype, span.shape), [])
        partner = named.get((span.name, span.dtype, span.shape)) or (queue[-1] if queue else None)
        if partner in queue:
            queue.remove(partner)
        if partner is not None:
            yield span.offset, partner


def _sections(stretches: Iterator[tuple[TensorSpan | None, Place]], known: Knowledge) -> list[Section]:
    """Stretches chosen and coded, a new section after every SECTION_BYTES of output."""
    sections, pieces, length = [], [], 0
    reg, buffer = registers(ENCODE), _SLACK
    room = np.zeros(len(known.output) * 2 + buffer, dtype=np.uint8)
    for span, place in stretches:
        piece = choose_tensor(span, place, known) if span else choose_bytes(place, known)
        code_piece(piece, place.start, known, reg, room)
        pieces.append(piece)
        length += place.length
        if length >= SECTION_BYTES or place.start + place.length == len(known.output):
            sections.append(Section(tuple(pieces), _finished(reg, room)))
            reg, pieces, length = registers(ENCODE), [], 0
    return sections


def _finished(reg: Array, room: Array) -> bytes:
    count = finish_encoding(reg, room)
    if reg[FULL]:
        raise DataError("A package is hardly larger than its content.", f"over {len(room)} bytes", "report this file")
    return room[:count].tobytes()


@dataclass(frozen=True, slots=True)
class Decoded:
    """A package's content, and what each piece of it took.

    Attributes:
        header: of the package.
        output: all files, one after the other.
        pieces: with the place where each begins and the bits that it took.
    """

    header: Header
    output: bytes
    pieces: tuple[tuple[Piece, int, float], ...]

    def files(self) -> dict[str, bytes]:
        """The files by name.

        Raises:
            DataError: the description names none, or others than the output holds.
        """
        made, start = {}, 0
        for name, length in _listed(self.header):
            made[name] = self.output[start : start + length]
            start += length
        if start != len(self.output):
            raise broken("files that don't fill the output")
        return made


def _listed(header: Header) -> list[tuple[str, int]]:
    """Names and lengths of the files, fit to be written below a folder."""
    listed = header.description.get("files")
    if not isinstance(listed, list) or not listed:
        raise broken("a description without files")
    made = []
    for entry in listed:
        fits = isinstance(entry, list) and len(entry) == 2 and isinstance(entry[0], str) and type(entry[1]) is int
        if not fits or entry[1] < 0 or not safe_name(entry[0]):
            raise broken(f"the file {str(entry)[:80]}")
        made.append((entry[0], entry[1]))
    clash = _clash([name for name, _ in made])
    if clash:
        raise broken(f"two files in one place: {clash[:80]}")
    return made


def _clash(names: Sequence[str]) -> str:
    """The first name that is another file's too, or its folder's, on a system that doesn't tell a from A; or ""."""
    folded = [name.casefold() for name in names]
    folders = {name[:place] for name in folded for place, letter in enumerate(name) if letter == "/"}
    return next((name for k, name in enumerate(folded) if name in folders or name in folded[:k]), "")


def safe_name(name: str) -> bool:
    """Whether a name stays below the folder that it is written to, on any system."""
    parts = name.split("/")
    odd = any(part in ("", ".", "..") or part != part.strip() for part in parts)
    return not odd and name.isprintable() and not set(name) & set('\\:*?"<>|') and len(name.encode()) <= 255


def decode_package(data: bytes, base: bytes | None = None) -> Decoded:
    """The content of a package.

    It takes the output's length in memory, the base's, and about 12 MB; the time is in proportion to the output.

    Raises:
        DataError: the package is damaged, cut off, forged or of another version, or the base isn't its own.
    """
    header, sections = read_package(data)
    check_base(header, base)
    output = np.zeros(header.length, dtype=np.uint8)
    known = fresh_knowledge(output, bytes_array(base if header.base and base else b""))
    found, start = [], 0
    for section in sections:
        stream, reg = bytes_array(section.stream), registers(DECODE)
        start_decoding(reg, stream)
        spent = 0.0
        for piece in section.pieces:
            code_piece(piece, start, known, reg, stream)
            found.append((piece, start, _bits(reg) - spent))
            start, spent = start + piece.length, _bits(reg)
    whole = output.tobytes()
    if hashlib.sha256(whole).digest() != header.sha256:
        raise broken("content that differs from its SHA-256")
    return Decoded(header, whole, tuple(found))


def _bits(reg: Array) -> float:
    """Bits that a decoder has used: whole bytes, and how far the interval has shrunk since."""
    return 8.0 * float(reg[3] - 4) + 32.0 - float(np.log2(reg[1] - reg[0] + 1))
