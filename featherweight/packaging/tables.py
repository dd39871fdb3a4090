"""The integer tables that encoder and decoders share, each a few lines of integer arithmetic.

Nothing here is floating point: the C decoder computes the same numbers on any machine.

Notation: a probability is that of a one, in 1/65536; its logit ("stretch") is in 1/256 nats, from −2048 to 2047.
"""

from __future__ import annotations

import numpy as np

Array = np.ndarray

_DECAY = 4278222812  # round(exp(-1/256) · 2³²)
_ONE = 1 << 32
BUCKETS = 16
SCALES = 24
ESCAPE = 192  # the first magnitude of the last bucket
COUNTS = 1024


def squash_table() -> Array:
    """(4096,) int32: logit + 2048 → probability, the logistic function; never 0 and never 65536."""
    low = np.zeros(2049, dtype=np.int64)
    power = _ONE
    for step in range(2049):
        low[step] = (65536 * power) // (_ONE + power)
        power = (power * _DECAY) >> 32
    return np.concatenate([low[:0:-1], 65536 - low[:2048]]).astype(np.int32)


def stretch_table(squash: Array) -> Array:
    """(4096,) int32: probability / 16 → the smallest logit whose probability reaches it."""
    wanted = np.arange(4096) * 16 + 8
    return np.minimum(np.searchsorted(squash, wanted, side="left") - 2048, 2047).astype(np.int32)


def rate_table() -> Array:
    """(1024,) int32: observations so far → how far a state moves, in 1/65536.

    It makes a state the estimator (ones + 3/4) / (n + 3/2).
    """
    return (131072 // (2 * np.arange(COUNTS) + 3)).astype(np.int32)


def bucket_starts() -> Array:
    """(16,) int32: the smallest magnitude of each bucket: 0, 1, 2, 3, 4, 6, 8, 12, …, 192, two to the octave."""
    starts = [0, 1, 2, 3]
    while len(starts) < BUCKETS:
        power = 1 << (len(starts) // 2)
        starts += [power, power + power // 2]
    return np.array(starts, dtype=np.int32)


def bucket_table(starts: Array) -> Array:
    """(193,) uint8: magnitude, 192 standing for all above, → bucket."""
    return (np.searchsorted(starts, np.arange(ESCAPE + 1), side="right") - 1).astype(np.uint8)


def scale_table() -> Array:
    """(16384,) uint8: a mean magnitude in 1/16 → one of 24 scales, two to the octave: ⌊2 log2(1 + mean / 4)⌋."""
    shifted = np.arange(16384, dtype=np.int64) + 4
    octave = np.array([int(value).bit_length() - 3 for value in shifted])
    half = shifted * shifted >= (np.int64(1) << (2 * octave + 5))
    return np.minimum(2 * octave + half, SCALES - 1).astype(np.uint8)


def cost_table() -> Array:
    """(4097,) float64: probability / 16 → bits that an event of that probability costs; for estimates only."""
    return -np.log2(np.maximum(np.arange(4097), 0.5) / 4096)


SQUASH = squash_table()
STRETCH = stretch_table(SQUASH)
RATES = rate_table()
STARTS = bucket_starts()
BUCKET = bucket_table(STARTS)
SCALE = scale_table()
COST = cost_table()
