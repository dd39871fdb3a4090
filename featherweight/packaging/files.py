"""Packages on disk: what the commands ``pack``, ``unpack`` and ``package info`` call."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from featherweight.contracts import DataError, RunError
from featherweight.files import file_failure, write_atomically
from featherweight.packaging.container import MOST_BYTES, Header, read_package
from featherweight.packaging.package import Content, Decoded, decode_package, encode_package, safe_name
from featherweight.packaging.pieces import ELEMENT_BYTES, Levels, Piece
from featherweight.packaging.spans import TensorSpan, tensor_spans

_NETWORK = ("state.safetensors", "plan.yaml", "grids.json")


@dataclass(frozen=True, slots=True)
class PieceInfo:
    """One stretch of the content.

    Attributes:
        name: of the tensor, or "" where it is no tensor.
        kind: how it is coded: "levels", "planes", "bytes" or "stored".
        elements: how many numbers it holds.
        bits: that it took.
        entropy: zero-order entropy of its numbers in bits each.
    """

    name: str
    kind: str
    elements: int
    bits: float
    entropy: float

    @property
    def bits_per_element(self) -> float:
        """Of the package, description and checksums left out."""
        return self.bits / self.elements


@dataclass(frozen=True, slots=True)
class PackageInfo:
    """What is in a package.

    Attributes:
        files: name → bytes; empty where the base wasn't given.
        description: what the packer said about it.
        package_bytes, content_bytes: coded and decoded.
        sha256: of the content, in hexadecimal.
        base_sha256: of the version that it updates; None where it stands alone.
        pieces: in the order of the content; empty where the base wasn't given.
    """

    files: Mapping[str, int]
    description: Mapping[str, object]
    package_bytes: int
    content_bytes: int
    sha256: str
    base_sha256: str | None
    pieces: tuple[PieceInfo, ...]

    def text(self) -> str:
        """A table: every piece with its bits beside the zero-order entropy of its numbers."""
        share = self.package_bytes / max(self.content_bytes, 1)
        lines = [f"{name}: {size:,} bytes" for name, size in self.files.items()]
        lines.append(f"{self.package_bytes:,} bytes in the package, {share:.1%} of {self.content_bytes:,}")
        lines.append(f"content SHA-256 {self.sha256}")
        if self.base_sha256 is not None:
            hint = "" if self.pieces else "; name it with --base to see the files and pieces"
            lines.append(f"an update of {self.base_sha256}{hint}")
        if self.pieces:
            lines.append(f"{'tensor':44} {'coded as':8} {'numbers':>12} {'bits each':>10} {'entropy':>8}")
        for piece in self.pieces:
            name = piece.name or "(no tensor)"
            figures = f"{piece.elements:12,} {piece.bits_per_element:10.3f} {piece.entropy:8.3f}"
            lines.append(f"{name[-44:]:44} {piece.kind:8} {figures}")
        return "\n".join(lines)


def pack(
    artefact: Path | str,
    out: Path | str,
    *,
    base: Path | str | None = None,
    description: Mapping[str, object] | None = None,
    spans: Sequence[TensorSpan] | None = None,
) -> int:
    """Pack an artefact of any target, or a folder with a network, for download.

    Args:
        artefact: a file, or a folder whose ``state.safetensors``, ``plan.yaml`` and ``grids.json`` are packed.
        out: the package to write.
        base: the earlier version that the receiver has; the package becomes an update of it.
        description: JSON values for whoever holds the package, such as target, inputs and outputs.
        spans: where the tensors lie in a file whose format isn't known here.

    Returns:
        The package's size in bytes.

    Raises:
        DataError: there is nothing to pack, or it is more than 2 GiB.
        RunError: a file can't be read or written.
    """
    inputs = [Path(one).resolve() for one in (artefact, base) if one is not None]
    if Path(out).resolve() in inputs:
        raise RunError("A package doesn't replace what it was made from.", f"--out {out}", "name another file")
    content = _content(Path(artefact))
    named = {next(iter(content.files)): tuple(spans)} if spans is not None else {}
    content = replace(content, description=dict(description or {}), spans=named)
    package = encode_package(content, None if base is None else _content(Path(base)))
    write_atomically(Path(out), package)
    return len(package)


def unpack(package: Path | str, out: Path | str, *, base: Path | str | None = None) -> tuple[Path, ...]:
    """Write a package's content: a single file to ``out``, several files into the folder ``out``.

    Memory: the content, the base, and about 30 MB.

    Returns:
        The files written.

    Raises:
        DataError: the package is damaged, or the base isn't the one that it was made from.
        RunError: a file can't be read or written.
    """
    files = _decoded(Path(package), base).files()
    single = len(files) == 1
    places = {(Path(out) if single else Path(out) / name): data for name, data in files.items()}
    for place in places:
        if place.is_dir():  # before anything is written: new files beside old ones would be worse than none
            raise RunError("A file can't take the place of a folder.", f"{place} is one", "name another --out")
    for place, data in places.items():
        write_atomically(place, data)
    return tuple(places)


def info(package: Path | str, *, base: Path | str | None = None) -> PackageInfo:
    """What is in a package, and what each tensor took; it is decoded for that, an update only with its base.

    Raises:
        DataError: the package is damaged, or an update of another base.
        RunError: a file can't be read.
    """
    content = _read(Path(package))
    header, _ = read_package(content)
    if header.base is not None and base is None:
        return _told(header, len(content), {}, ())
    decoded = decode_package(content, None if base is None else _content(Path(base)).joined())
    sizes = {name: len(data) for name, data in decoded.files().items()}
    return _told(decoded.header, len(content), sizes, tuple(_piece_infos(decoded)))


def _told(header: Header, size: int, files: Mapping[str, int], pieces: tuple[PieceInfo, ...]) -> PackageInfo:
    return PackageInfo(
        files=files,
        description={name: value for name, value in header.description.items() if name != "files"},
        package_bytes=size,
        content_bytes=header.length,
        sha256=header.sha256.hex(),
        base_sha256=header.base.sha256.hex() if header.base else None,
        pieces=pieces,
    )


def _piece_infos(decoded: Decoded) -> list[PieceInfo]:
    names, start = {}, 0
    for name, data in decoded.files().items():
        names |= {span.offset + start: span.name or f"tensor {span.offset}" for span in tensor_spans(name, data)}
        start += len(data)
    made = []
    for piece, place, bits in decoded.pieces:
        size = _element_bytes(piece)
        numbers = np.frombuffer(
            decoded.output[place : place + piece.length], dtype=f"V{size}" if size > 4 else f"<u{size}"
        )
        kind = type(piece).__name__.lower()
        made.append(PieceInfo(names.get(place, ""), kind, len(numbers), bits, _entropy(numbers)))
    return made


def _element_bytes(piece: Piece) -> int:
    if isinstance(piece, Levels):
        return ELEMENT_BYTES[piece.element]
    return getattr(piece, "element", 1) if piece.length % getattr(piece, "element", 1) == 0 else 1


def _entropy(numbers: np.ndarray) -> float:
    shares = np.unique(numbers, return_counts=True)[1] / len(numbers)
    return float(-(shares * np.log2(shares)).sum())


def _decoded(package: Path, base: Path | str | None) -> Decoded:
    return decode_package(_read(package), None if base is None else _content(Path(base)).joined())


def _content(path: Path) -> Content:
    """A file, or the files of a network's folder."""
    if not path.is_dir():
        name = path.name if safe_name(path.name) else "artefact"
        return Content({name: _read(path)})
    found = {name: _read(path / name) for name in _NETWORK if (path / name).is_file()}
    if _NETWORK[0] not in found:
        raise DataError(
            "A network's folder holds state.safetensors.",
            f"{os.fspath(path)} without it",
            "give a stage's network folder",
        )
    return Content(found)


def _read(path: Path) -> bytes:
    try:
        if path.stat().st_size > MOST_BYTES:
            raise DataError("A package holds at most 2 GiB.", f"{path} is larger", "pack parts of it")
        return path.read_bytes()
    except OSError as error:
        raise file_failure(path, error) from error
