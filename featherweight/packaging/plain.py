"""The model for bytes that are no levels: graphs, names, scales, floats.

A byte is eight decisions down a tree, each mixed from six contexts::

    0  none                               3  the three bytes before (hashed)
    1  the byte before                    4  the byte that the reference holds, and the place in the element
    2  the two bytes before (hashed)      5  the bit that the longest match expects, and the match's length

The reference of a byte is what lies some distance before it in the output (the same place of the previous element), the
more significant byte of the same number (where a tensor is coded plane by plane), or the same place of an earlier
version. The match model follows the last place in the output after which the same four bytes stood (Ziv and Lempel
1977 as a context, as in Mahoney's PAQ family). Under an earlier version, that is what a byte is expected to be, and
the length counts how long it has been right.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from featherweight.packaging.coder import Mixed, code_mixed, mixed

Array = np.ndarray
Int = int | np.integer  # what compiled code knows as one

CONTEXTS = 6
_HASHED = 1 << 18
_FIRST = 256
_SECOND = _FIRST + 65536
_THIRD = _SECOND + _HASHED
_REFERENCE = _THIRD + _HASHED
_MATCH = _REFERENCE + 8 * 65536
_STATES = _MATCH + 64
_HASH_BITS = 14
_LONGEST = 31


def plain_model() -> Mixed:
    """A model of bytes that has seen nothing; its mixtures are told apart by how long the match is."""
    return mixed(_STATES, _LONGEST + 1, CONTEXTS)


def match_table() -> Array:
    """(16384,) int64: hash of four bytes → the place after them, plus one; 0 is none."""
    return np.zeros(1 << _HASH_BITS, dtype=np.int64)


@njit(cache=True, error_model="numpy")
def _code_byte(wanted: Int, guess: Int, length: Int, rows: Array, known: Mixed, reg: Array, buffer: Array) -> Int:
    """One byte; ``rows`` holds where the contexts' states begin, ``guess`` what the match expects."""
    node = 1
    for shift in range(7, -1, -1):
        known.places[0] = node
        known.places[1] = _FIRST + rows[0] + node
        known.places[2] = _SECOND + ((rows[1] + node * 40503) & (_HASHED - 1))
        known.places[3] = _THIRD + ((rows[2] + node * 40503) & (_HASHED - 1))
        known.places[4] = _REFERENCE + rows[3] + node
        follows = length > 0 and (guess | 256) >> (shift + 1) == node
        known.places[5] = _MATCH + (length * 2 + ((guess >> shift) & 1) if follows else 0)
        bit = code_mixed((wanted >> shift) & 1, length if follows else 0, CONTEXTS, known, reg, buffer)
        node = node * 2 + bit
    return node - 256


@njit(cache=True, error_model="numpy")
def code_bytes(
    out: Array, walk: Array, reference: Array, known: Mixed, matches: Array, reg: Array, buffer: Array
) -> None:
    """Code ``count`` bytes of ``out`` from ``start``, every ``stride``-th; they are filled when decoding.

    Args:
        out: (n,) uint8, the whole output; what was coded before is known to both sides.
        walk: (5,) int64: start, count, stride, element size or (with a stride) plane, and how far the reference lies
            before (below 0: after) a byte; 0 is none.
        reference: (count,) uint8 of an earlier version; empty where the reference is in the output.
        known, matches: what is known, and what is learnt. Bytes with a stride are not looked up for matches.
        reg, buffer: the coder.
    """
    start, count, stride, element, distance = walk[0], walk[1], walk[2], walk[3], walk[4]
    rows = np.zeros(4, dtype=np.int64)
    match, run = 0, 0
    for k in range(count):
        place = start + k * stride
        one = np.int64(out[place - stride]) if k > 0 else 0
        two = np.int64(out[place - 2 * stride]) if k > 1 else 0
        three = np.int64(out[place - 3 * stride]) if k > 2 else 0
        held = 0
        if reference.size > 0:
            held = np.int64(reference[k])
        elif distance < 0 or (distance > 0 and k >= distance):
            held = np.int64(out[place - distance])
        phase = k % element if stride == 1 else element - 1
        rows[0] = one * 256
        rows[1] = (one + two * 256) * 9973
        rows[2] = (one + two * 256 + three * 65536) * 51803
        rows[3] = (phase * 256 + held) * 256
        if reference.size > 0:  # an earlier version is itself the match
            out[place] = _code_byte(np.int64(out[place]), held, min(run + 1, _LONGEST), rows, known, reg, buffer)
            run = run + 1 if out[place] == held else 0
            continue
        guess = np.int64(out[match]) if run > 0 else 0
        out[place] = _code_byte(np.int64(out[place]), guess, min(run, _LONGEST), rows, known, reg, buffer)
        if stride == 1:
            match, run = _follow(out, place, match, run, matches)


@njit(cache=True, error_model="numpy")
def _follow(out: Array, place: Int, match: Int, run: Int, matches: Array) -> tuple[Int, Int]:
    """The match after one more byte: it goes on, or is looked up anew."""
    if run > 0 and out[match] == out[place]:
        match, run = match + 1, run + 1
    else:
        run = 0
    if place < 3:
        return match, run
    last = np.int64(out[place]) | np.int64(out[place - 1]) << 8 | np.int64(out[place - 2]) << 16
    last = (last | np.int64(out[place - 3]) << 24) * 2654435761
    slot = (last >> 18) & ((1 << _HASH_BITS) - 1)
    if run == 0 and matches[slot] > 0:
        match, run = matches[slot], 1
    matches[slot] = place + 1
    return match, run
