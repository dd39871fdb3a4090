"""An adaptive binary range coder whose probabilities are mixed from several contexts.

One function codes a bit in three modes (encode, decode, or only count what it would cost), so that the models above are
written once and can't differ between the two sides.

- **Coder**: a carryless binary range coder on 32-bit bounds (Witten, Neal and Cleary 1987; the interval is halved in
  proportion to the probability, whole equal top bytes leave it).
- **State**: 22 bits of probability and a count; the step is 1 / (n + 3/2) up to a limit, so a state learns at the
  Krichevsky–Trofimov pace and then forgets slowly.
- **Mixing**: logits of the contexts' probabilities, weighted, by online gradient descent on the coding cost (Mattern
  2012, "Mixing strategies in data compression"). A state that has seen nothing starts from the first context's.

All arithmetic is on integers; ``decoder/featherweight_decoder.c`` does the same.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit

from featherweight.packaging.tables import COST, RATES, SQUASH, STRETCH

Array = np.ndarray
Int = int | np.integer  # what compiled code knows as one

ENCODE, DECODE, MEASURE = 0, 1, 2
HALF = 1 << 15
LIMIT = 255  # observations after which a state forgets
LEARNING = 6  # of the mixing weights, in 2⁻¹⁸ per logit and probability step
WEIGHT_ONE = 1 << 16
WEIGHT_BOUND = 1 << 20
FRESH = np.uint32((1 << 31) | 0)  # probability one half, nothing seen

# Registers of a coder: bounds, decoder's window, position, mode, bits in 2⁻²⁰, whether the buffer ran over.
LOW, HIGH, WINDOW, PLACE, MODE, SPENT, FULL = range(7)


def registers(mode: int) -> Array:
    """(7,) int64: a coder that has seen nothing."""
    made = np.zeros(7, dtype=np.int64)
    made[HIGH], made[MODE] = 0xFFFFFFFF, mode
    return made


class Mixed(NamedTuple):
    """What a model has learnt; it goes on from tensor to tensor.

    Attributes:
        states: (n,) uint32, a probability of one in the upper 22 bits and a count in the lower 10.
        weights: (mixtures, k) int32, 65536 is one.
        places: (k,) int64 into ``states``: what the next bit is mixed from; fresh states start from the first's.
        logits: (k,) int64, room to work in.
    """

    states: Array
    weights: Array
    places: Array
    logits: Array


def mixed(states: int, mixtures: int, contexts: int) -> Mixed:
    """A model that has seen nothing, its contexts weighing the same."""
    return Mixed(
        np.full(states, FRESH, dtype=np.uint32),
        np.full((mixtures, contexts), WEIGHT_ONE // contexts, dtype=np.int32),
        np.zeros(contexts, dtype=np.int64),
        np.zeros(contexts, dtype=np.int64),
    )


def copied(known: Mixed) -> Mixed:
    """The same knowledge, to be tried out without harm."""
    return Mixed(*(part.copy() for part in known))


@njit(cache=True, error_model="numpy")
def start_decoding(reg: Array, buffer: Array) -> None:
    """Fill the decoder's window with the first four bytes."""
    for _ in range(4):
        reg[WINDOW] = (reg[WINDOW] << 8) | (buffer[reg[PLACE]] if reg[PLACE] < len(buffer) else 0)
        reg[PLACE] += 1


@njit(cache=True, error_model="numpy")
def finish_encoding(reg: Array, buffer: Array) -> Int:
    """Write what tells the last interval apart (missing bytes read as zero); the stream's length."""
    if reg[LOW] > 0:
        if reg[PLACE] < len(buffer):
            buffer[reg[PLACE]] = (reg[LOW] >> 24) + 1
        else:
            reg[FULL] = 1
        reg[PLACE] += 1
    return reg[PLACE]


@njit(cache=True, error_model="numpy", inline="always")
def code(bit: Int, chance: Int, reg: Array, buffer: Array) -> Int:
    """Code one bit whose probability of being one is ``chance`` / 65536; the bit (when decoding, the one read)."""
    if reg[MODE] == MEASURE:
        reg[SPENT] += np.int64(COST[(chance if bit else 65536 - chance) >> 4] * 1048576.0)
        return bit
    low, high = reg[LOW], reg[HIGH]
    width = high - low
    middle = low + (width >> 16) * chance + (((width & 0xFFFF) * chance) >> 16)
    if reg[MODE] == DECODE:
        bit = 1 if reg[WINDOW] <= middle else 0
    if bit:
        high = middle
    else:
        low = middle + 1
    while (low ^ high) & 0xFF000000 == 0:
        place = reg[PLACE]
        if reg[MODE] == ENCODE:
            if place < len(buffer):
                buffer[place] = high >> 24
            else:
                reg[FULL] = 1
        else:
            fresh = buffer[place] if place < len(buffer) else 0
            reg[WINDOW] = ((reg[WINDOW] << 8) & 0xFFFFFFFF) | fresh
        reg[PLACE] = place + 1
        low = (low << 8) & 0xFFFFFFFF
        high = ((high << 8) & 0xFFFFFFFF) | 0xFF
    reg[LOW], reg[HIGH] = low, high
    return bit


@njit(cache=True, error_model="numpy")
def code_plain(value: Int, bits: Int, reg: Array, buffer: Array) -> Int:
    """Code ``bits`` bits of equal chance, the highest first; the value."""
    made = 0
    for shift in range(bits - 1, -1, -1):
        made = (made << 1) | code((value >> shift) & 1, HALF, reg, buffer)
    return made


@njit(cache=True, error_model="numpy", inline="always")
def _learn(states: Array, place: Int, bit: Int) -> None:
    state = np.int64(states[place])
    chance, count = state >> 10, state & 1023
    chance += (((bit << 22) - bit - chance) * RATES[count]) >> 16
    states[place] = (chance << 10) | (count + 1 if count < LIMIT else count)


@njit(cache=True, error_model="numpy", inline="always")
def code_alone(bit: Int, states: Array, place: Int, reg: Array, buffer: Array) -> Int:
    """Code one bit by a single adaptive state."""
    chance = min(max(np.int64(states[place]) >> 16, 32), 65504)
    bit = code(bit, chance, reg, buffer)
    _learn(states, place, bit)
    return bit


@njit(cache=True, error_model="numpy", inline="always")
def code_mixed(bit: Int, mixture: Int, count: Int, known: Mixed, reg: Array, buffer: Array) -> Int:
    """Code one bit by mixture ``mixture`` of the first ``count`` states that ``known.places`` names.

    A bit that is to be decoded is ignored, and the one that was read comes back.
    """
    states, weights, places, logits = known.states, known.weights, known.places, known.logits
    parent = (np.int64(states[places[0]]) & ~1023) | 1
    total = 0
    for k in range(count):
        state = np.int64(states[places[k]])
        if k > 0 and state & 1023 == 0:
            state = parent
            states[places[k]] = parent
        logits[k] = STRETCH[state >> 20]
        total += weights[mixture, k] * logits[k]
    chance = np.int64(SQUASH[min(max(total >> 16, -2048), 2047) + 2048])
    bit = code(bit, chance, reg, buffer)
    error = ((bit << 16) - chance) * LEARNING
    for k in range(count):
        moved = weights[mixture, k] + ((logits[k] * error + 131072) >> 18)
        weights[mixture, k] = min(max(moved, -WEIGHT_BOUND), WEIGHT_BOUND)
        _learn(states, places[k], bit)
    return bit
