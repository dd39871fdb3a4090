"""Which piece a stretch of bytes becomes: every candidate is measured with the coder itself, and the smallest wins.

Large tensors are measured on their first rows (``SAMPLE`` numbers); what was learnt before counts, as it will in
coding.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from math import isqrt, prod

import numpy as np

from featherweight.packaging.levels import LARGEST
from featherweight.packaging.pieces import (
    ELEMENT_BYTES,
    FEWEST_CONTEXTS,
    MOST_COLUMNS,
    MOST_CONTEXTS,
    MOST_VALUES,
    NO_BASE,
    Bytes,
    Levels,
    Piece,
    Planes,
    Stored,
)
from featherweight.packaging.spans import SIZES, TensorSpan
from featherweight.packaging.streams import Knowledge, measured_bits, palette, scaled_rows

Array = np.ndarray

SAMPLE = 1 << 15
SWIFTNESS = 0.001  # share of the size given for speed
SHORT = 256  # bytes: below, a tensor is coded with what surrounds it
_CHAIN = 16  # magnitudes below are coded by the chain
_PLANE_SAMPLE = 1 << 16


@dataclass(frozen=True, slots=True)
class Place:
    """A stretch of the output, and where the same stretch lies in the earlier version.

    Attributes:
        start, length: in the output.
        base: where it begins in the base, or NO_BASE.
    """

    start: int
    length: int
    base: int = NO_BASE


def choose_bytes(place: Place, known: Knowledge) -> Piece:
    """The piece for bytes that are no tensor."""
    candidates: list[Piece] = [Stored(place.length)]
    candidates += [Bytes(place.length, size, distance) for size, distance in ((1, 0), (4, 4), (4, 0))]
    if place.base != NO_BASE:
        candidates.append(Bytes(place.length, 1, 0, place.base))
    return min(candidates, key=lambda piece: measured_bits(piece, place.start, known))


def choose_tensor(span: TensorSpan, place: Place, known: Knowledge) -> Piece:
    """The piece for a tensor whose bytes lie at ``place``."""
    held = known.output[place.start : place.start + place.length]
    candidates = [*_level_candidates(span, place, held), *_byte_candidates(span, place)]
    if SIZES[span.dtype] > 1 and span.dtype != "int16":
        candidates.append(_planes(span, place, known))
    best = min(candidates, key=lambda piece: _rate(piece, place, known) * _slowness(piece))
    return _swiftest(best, place, known) if isinstance(best, Levels) else best


def _slowness(piece: Piece) -> float:
    """Bytes under the plain model take eight decisions each: where sizes are close, levels are chosen."""
    return 1 + 5 * SWIFTNESS if isinstance(piece, Bytes) else 1.0


def _swiftest(piece: Levels, place: Place, known: Knowledge) -> Levels:
    """The piece with as few contexts as cost next to nothing, and with the fewest where a level takes many decisions.

    What a level of eight bits gains from more contexts is about 1 %, and decoding would take twice as long.
    """
    fewest = FEWEST_CONTEXTS if piece.base == NO_BASE else FEWEST_CONTEXTS + 1  # the base is the fourth context
    if piece.balanced:
        return replace(piece, contexts=fewest)
    most = _rate(piece, place, known) * (1 + SWIFTNESS)
    for contexts in range(fewest, MOST_CONTEXTS):
        fewer = replace(piece, contexts=contexts)
        if _rate(fewer, place, known) <= most:
            return fewer
    return piece


def _rate(piece: Piece, place: Place, known: Knowledge) -> float:
    """Measured bits for each byte of a piece's head."""
    head = _head(piece)
    return measured_bits(head, place.start, known) / head.length


def _head(piece: Piece) -> Piece:
    """A piece's first rows, SAMPLE numbers or a little more."""
    if isinstance(piece, Levels):
        rows = min(piece.rows, -(-SAMPLE // piece.columns))
        length = rows * piece.columns * ELEMENT_BYTES[piece.element]
        period = min(piece.period, rows) if piece.across else piece.period
        return replace(piece, length=length, rows=rows, period=period)
    element = piece.element if isinstance(piece, Planes) else 1
    return replace(piece, length=min(piece.length, SAMPLE * element))


def _byte_candidates(span: TensorSpan, place: Place) -> Iterator[Piece]:
    yield Stored(place.length)
    size = min(SIZES[span.dtype], 8)
    yield Bytes(place.length, size, size if size > 1 else 0, NO_BASE)
    if place.base != NO_BASE:
        yield Bytes(place.length, size, 0, place.base)


def _planes(span: TensorSpan, place: Place, known: Knowledge) -> Planes:
    """Planes, those stored that the model doesn't make smaller."""
    element = SIZES[span.dtype]
    every, stored = (1 << element) - 1, 0
    length = min(place.length, element * _PLANE_SAMPLE // 4)
    bits = measured_bits(Planes(length, element, every, place.base), place.start, known)
    for plane in range(element):
        fewer = measured_bits(Planes(length, element, every & ~(1 << plane), place.base), place.start, known)
        stored |= (1 << plane) if fewer >= bits else 0
    return Planes(place.length, element, stored, place.base)


def _layouts(shape: tuple[int, ...]) -> Iterator[tuple[int, int, bool]]:
    """(rows in memory, period, across) worth trying for a tensor: by output channel, and by its last axis."""
    shape = (1, *(n for n in shape if n > 1))
    count, seen = prod(shape), set()
    for rows in dict.fromkeys((shape[1] if len(shape) > 2 else 1, count // shape[-1])):
        columns = count // rows
        side = isqrt(columns)
        inner = [shape[-1], prod(shape[-2:]), side if side * side == columns else 1]
        for period in (*inner, 1):
            seen.add((rows, period if period < columns or columns == 1 else 1, False))
        seen.add((rows, 1, True))
    yield from sorted(one for one in seen if (one[0] if one[2] else count // one[0]) <= MOST_COLUMNS)


def _level_candidates(span: TensorSpan, place: Place, held: Array) -> Iterator[Levels]:
    if span.dtype in ("float16", "float32"):
        yield from _palette_candidates(span, place, held)
        if span.dtype == "float32":
            yield from _scaled_candidates(span, place, held)
        return
    if span.dtype not in ELEMENT_BYTES:
        return
    values = held.view(np.dtype(span.dtype).newbyteorder("<"))
    low, high = int(values.min()), int(values.max())
    if max(-low, high) >= min(LARGEST, 1 << 16):
        return
    for offset in _offsets(values, low):
        top = max(high - offset, offset - low)
        plain = Levels(place.length, span.dtype, 1, 1, offset, balanced=top >= _CHAIN, base=place.base)
        yield from _laid_out(plain, span.shape)
        if _CHAIN <= top <= 256:
            fresh = replace(plain, base=NO_BASE, top=top)
            yield from (one for one in _laid_out(fresh, span.shape) if not one.across and one.period == 1)


def _laid_out(piece: Levels, shape: tuple[int, ...]) -> Iterator[Levels]:
    for rows, period, across in _layouts(shape):
        yield replace(piece, rows=rows, period=period, across=across)


def _offsets(values: Array, low: int) -> list[int]:
    """What the levels may be centred at: zero, and the most frequent value."""
    shifted = values.astype(np.int64) - low
    frequent = int(np.bincount(shifted).argmax()) + low
    return [frequent] if low >= 0 else sorted({0, frequent})


def _palette_candidates(span: TensorSpan, place: Place, held: Array) -> Iterator[Levels]:
    element = "word16" if span.dtype == "float16" else "word32"
    words, index = palette(held, element)
    if len(words) > min(MOST_VALUES, len(index) // 2):
        return
    zero = int(np.flatnonzero(words == 0)[0]) if (words == 0).any() else int(np.bincount(index).argmax())
    balanced = max(zero, len(words) - 1 - zero) >= _CHAIN
    plain = Levels(place.length, element, 1, 1, zero, balanced=balanced, values=len(words))
    yield from _laid_out(plain, span.shape)


def _scaled_candidates(span: TensorSpan, place: Place, held: Array) -> Iterator[Levels]:
    """By output channel, by the last axis' neighbours, or with one scale for all."""
    values = held.view("<f4")
    for rows in sorted({one[0] for one in _layouts(span.shape) if not one[2]} | {1}):
        found = scaled_rows(values.reshape(rows, -1))
        if found is None or rows > MOST_VALUES or values.size // rows > MOST_COLUMNS:
            continue
        balanced = int(np.abs(found[1]).max()) >= _CHAIN
        for period in sorted({one[1] for one in _layouts(span.shape) if one[0] == rows} or {1}):
            yield Levels(place.length, "float32", rows, period, balanced=balanced)
