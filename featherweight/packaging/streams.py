"""Pieces coded one after the other by models that go on learning, in any of the coder's three modes."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numba import njit

from featherweight.packaging.coder import DECODE, MEASURE, MODE, SPENT, Mixed, code_plain, copied, registers
from featherweight.packaging.levels import LARGEST, code_levels, level_model
from featherweight.packaging.pieces import (
    ELEMENT_BYTES,
    NO_BASE,
    Bytes,
    Levels,
    Piece,
    Planes,
    Stored,
    broken,
    describe,
)
from featherweight.packaging.plain import code_bytes, match_table, plain_model

Array = np.ndarray
Int = int | np.integer  # what compiled code knows as one

_NOTHING = np.zeros(0, dtype=np.uint8)
_NO_LEVELS = np.zeros((0, 0), dtype=np.int32)


@dataclass(frozen=True, slots=True)
class Knowledge:
    """What both sides know at some place of a package.

    Attributes:
        output: (n,) uint8, the whole output; when decoding, known up to the place.
        base: (m,) uint8, the earlier version; empty where there is none.
        levels, plain: the models.
        matches: of the plain model.
    """

    output: Array
    base: Array
    levels: Mixed
    plain: Mixed
    matches: Array


def bytes_array(data: bytes) -> Array:
    """(n,) uint8, writable: the compiled loops are made for one kind of array only."""
    return np.frombuffer(bytearray(data), dtype=np.uint8)


def fresh_knowledge(output: Array, base: Array) -> Knowledge:
    """Nothing learnt yet."""
    return Knowledge(output, base, level_model(), plain_model(), match_table())


def measured_bits(piece: Piece, start: int, known: Knowledge) -> float:
    """Bits that a piece would take here, its description included; nothing is learnt from it."""
    trial = replace(known, levels=copied(known.levels)) if isinstance(piece, Levels) else _with_plain_copied(known)
    reg = registers(MEASURE)
    code_piece(piece, start, trial, reg, _NOTHING)
    return float(reg[SPENT]) / (1 << 20) + 8.0 * len(describe(piece))


def _with_plain_copied(known: Knowledge) -> Knowledge:
    return replace(known, plain=copied(known.plain), matches=known.matches.copy())


def code_piece(piece: Piece, start: int, known: Knowledge, reg: Array, buffer: Array) -> None:
    """Code one piece that begins at ``start`` of the output.

    Raises:
        DataError: decoding gave levels that the element can't hold.
    """
    if isinstance(piece, Stored):
        _store(known.output, start, piece.length, 1, reg, buffer)
    elif isinstance(piece, Bytes):
        walk = np.array([start, piece.length, 1, piece.element, piece.distance])
        reference = _reference(known.base, piece.base, piece.length)
        code_bytes(known.output, walk, reference, known.plain, known.matches, reg, buffer)
    elif isinstance(piece, Planes):
        _code_planes(piece, start, known, reg, buffer)
    else:
        _code_levels(piece, start, known, reg, buffer)


def _reference(base: Array, place: int, length: int) -> Array:
    return _NOTHING if place == NO_BASE else base[place : place + length]


@njit(cache=True, error_model="numpy")
def _store(out: Array, start: Int, count: Int, stride: Int, reg: Array, buffer: Array) -> None:
    for place in range(start, start + count * stride, stride):
        out[place] = code_plain(np.int64(out[place]), 8, reg, buffer)


@njit(cache=True, error_model="numpy")
def _code_words(words: Array, half_words: Int, reg: Array, buffer: Array) -> None:
    """Numbers of one or two half words, as they are."""
    for k in range(len(words)):
        made = 0
        for shift in range(16 * half_words - 16, -1, -16):
            made = made << 16 | code_plain((np.int64(words[k]) >> shift) & 0xFFFF, 16, reg, buffer)
        words[k] = made


def _code_planes(piece: Planes, start: int, known: Knowledge, reg: Array, buffer: Array) -> None:
    count = piece.length // piece.element
    reference = _reference(known.base, piece.base, piece.length)
    for plane in range(piece.element - 1, -1, -1):
        if piece.stored >> plane & 1:
            _store(known.output, start + plane, count, piece.element, reg, buffer)
            continue
        distance = 0 if plane == piece.element - 1 else -1
        walk = np.array([start + plane, count, piece.element, plane + 1, distance])
        held = np.ascontiguousarray(reference[plane :: piece.element])
        code_bytes(known.output, walk, held, known.plain, known.matches, reg, buffer)


def _code_levels(piece: Levels, start: int, known: Knowledge, reg: Array, buffer: Array) -> None:
    held = known.output[start : start + piece.length]
    decoding = reg[MODE] == DECODE
    words, levels = _split(piece, held) if not decoding else _room(piece)
    if len(words):
        _code_words(words, 1 if piece.element == "word16" else 2, reg, buffer)
    base = _NO_LEVELS
    if piece.base != NO_BASE:
        earlier = _integers(piece, known.base[piece.base : piece.base + piece.length])
        base = _in_order(piece, np.clip(earlier, 1 - LARGEST, LARGEST - 1).astype(np.int32))
    steps = np.zeros(len(levels) if piece.top else 0, dtype=np.int32)
    if piece.top and not decoding:
        steps = _steps(levels, piece.top)
    shape = np.array([piece.period, int(piece.balanced), piece.top, piece.contexts])
    code_levels(levels, base, steps, shape, known.levels, reg, buffer)
    if decoding:
        held[:] = _join(piece, words, levels)


def _in_order(piece: Levels, matrix: Array) -> Array:
    """The matrix in the order of coding, from the order in memory."""
    matrix = matrix.reshape(piece.rows, piece.columns)
    return np.ascontiguousarray(matrix.T if piece.across else matrix)


def _integers(piece: Levels, held: Array) -> Array:
    values = np.ascontiguousarray(held).view(np.dtype(piece.element).newbyteorder("<"))
    return values.astype(np.int64) - piece.offset


def _room(piece: Levels) -> tuple[Array, Array]:
    count = piece.values or (piece.rows if piece.element == "float32" else 0)
    return np.zeros(count, dtype=np.uint32), np.zeros(piece.coded_shape, dtype=np.int32)


def _split(piece: Levels, held: Array) -> tuple[Array, Array]:
    """A tensor's bytes as words that stand for themselves (palette, scales) and levels in the order of coding."""
    if piece.values:
        words, index = palette(held, piece.element)
        return words, _in_order(piece, (index - piece.offset).astype(np.int32))
    if piece.element == "float32":
        found = scaled_rows(held.view("<f4").reshape(piece.rows, piece.columns))
        if found is None:
            raise broken("rows that are no multiples of a scale")
        return found[0].view(np.uint32), found[1]
    return np.zeros(0, dtype=np.uint32), _in_order(piece, _integers(piece, held).astype(np.int32))


def _join(piece: Levels, words: Array, levels: Array) -> Array:
    """The bytes again: the inverse of ``_split``."""
    ordered = levels.T if piece.across else levels
    values = np.ascontiguousarray(ordered).reshape(-1).astype(np.int64) + piece.offset
    if piece.values:
        if values.min() < 0 or values.max() >= piece.values:
            raise broken("an index outside its palette")
        return words[values].astype("<u2" if piece.element == "word16" else "<u4").view(np.uint8)
    if piece.element == "float32":
        scales = np.repeat(words.view(np.float32).astype(np.float64), piece.columns)
        with np.errstate(all="ignore"):  # a forged scale may be anything
            return (values * scales).astype("<f4").view(np.uint8)
    kind = np.iinfo(piece.element)
    if values.min() < kind.min or values.max() > kind.max:
        raise broken(f"a level that {piece.element} can't hold")
    return values.astype(np.dtype(piece.element).newbyteorder("<")).view(np.uint8)


def palette(held: Array, element: str) -> tuple[Array, Array]:
    """The distinct numbers of a tensor, in rising order, and each number's index: ((k,) uint32, (n,) int64)."""
    whole, real = ("<u2", "<f2") if ELEMENT_BYTES[element] == 2 else ("<u4", "<f4")
    words, index = np.unique(held.view(whole), return_inverse=True)
    with np.errstate(invalid="ignore"):
        order = np.argsort(np.nan_to_num(words.view(real).astype(np.float64)), kind="stable")
    place = np.empty_like(order)
    place[order] = np.arange(len(order))
    return words[order].astype(np.uint32), place[index]


def scaled_rows(rows: Array) -> tuple[Array, Array] | None:
    """Rows that are a scale times whole numbers, to the bit.

    Args:
        rows: (n, m) float32.

    Returns:
        (n,) float32 scales and (n, m) int32 levels with ``float32(level · scale) == rows``; None where there are none.
        The scale is the smallest magnitude of the row, or that divided by a whole number up to 8.
    """
    if not np.isfinite(rows).all():
        return None
    wide = rows.astype(np.float64)
    smallest = np.where(wide == 0, np.inf, np.abs(wide)).min(1, keepdims=True)
    smallest[~np.isfinite(smallest)] = 1.0
    scales, levels = np.ones((len(rows), 1), dtype=np.float32), np.zeros(rows.shape, dtype=np.int64)
    left = np.ones(len(rows), dtype=bool)
    for divisor in range(1, 9):
        scale = (smallest / divisor).astype(np.float32)
        with np.errstate(all="ignore"):
            level = np.clip(np.nan_to_num(np.round(wide / scale)), -65535, 65535) + 0.0  # no level is -0
            exact = ((level * scale.astype(np.float64)).astype(np.float32).view(np.uint32) == rows.view(np.uint32)).all(
                1
            )
        fresh = left & exact
        scales[fresh], levels[fresh] = scale[fresh], level[fresh].astype(np.int64)
        left &= ~exact
        if not left.any():
            return scales[:, 0].copy(), levels.astype(np.int32)
    return None


def _steps(levels: Array, top: int) -> Array:
    """(rows,) int32: for each row the grid that explains its levels in the fewest bits; ``top`` where that is its own.

    The estimate is log2 of the grid for every level, and the entropy of which levels lie one off it, as they may where
    rounding was close.
    """
    rows, columns = levels.shape
    size = np.minimum(np.abs(levels.astype(np.int64)), top)
    index = size + np.arange(rows)[:, None] * (top + 1)
    counts = np.bincount(index.reshape(-1), minlength=rows * (top + 1)).reshape(rows, top + 1)
    steps, least = np.full(rows, top, dtype=np.int32), np.full(rows, np.log2(top))
    every = np.arange(top + 1)
    for step in range(top - 1, 0, -1):
        position = (2 * every * step + top) // (2 * top)
        scaled = 2 * position * top + step
        off = np.abs(scaled // (2 * step) - every)
        close = scaled % (2 * step) * 4 // step
        off[(off == 1) & (close > 0) & (close < 7)] = 2
        share = counts @ (off == 1) / columns
        bits = np.log2(step) + _binary_entropy(share) + share
        better = (counts @ (off > 1) == 0) & (bits < least)
        steps[better], least[better] = step, bits[better]
    return steps


def _binary_entropy(share: Array) -> Array:
    inside = np.clip(share, 1e-12, 1 - 1e-12)
    return -inside * np.log2(inside) - (1 - inside) * np.log2(1 - inside)
