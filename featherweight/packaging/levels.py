"""The model for tensors of integer levels: quantized weights, codebook indices, sparse tensors.

A level is written as the bucket of its magnitude, its sign, and its place in the bucket. Buckets are single values up
to 3 and two to the octave above; they are told by a chain of "greater than" decisions (small alphabets, zeros first:
DeepCABAC, Wiedemann et al. 2019, arXiv:1907.11900) or by a balanced tree of four decisions (many levels, where a chain
would be long). Each decision is mixed from the first three to six of these contexts, as many as pay
(with three, the sign follows the neighbours' signs alone)::

    0  none                                                  3  two levels before, one period back; or the base's level
    1  scale of the column, scale of the row                 4  the level before, the level above
    2  scale of the place in the period, of the period       5  the level one period back, scale of the column

"Scale" is a running mean magnitude. The period is the inner extent of a convolution's row (kernel places or input
channels), so that context 2 knows dead inputs and quiet kernel corners, and context 1 knows an output channel's grid.

Notation: levels are (rows, columns); x is what is coded, v the tensor's value: x = v, or v − base, or the position of
v on its row's own coarser grid.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit

from featherweight.packaging.coder import WEIGHT_ONE, Mixed, code_alone, code_mixed, code_plain, mixed
from featherweight.packaging.tables import BUCKET, ESCAPE, RATES, SCALE, STARTS

Array = np.ndarray
Int = int | np.integer  # what compiled code knows as one

CONTEXTS, FEWEST_CONTEXTS = 6, 3
_NODES, _PLACES = 32, 1024
_SIGNS = CONTEXTS * _NODES * _PLACES
_RESTS = _SIGNS + CONTEXTS * _PLACES
_ESCAPES = _RESTS + 64
_STEPS = _ESCAPES + 32
_TIES = _STEPS + 256
_STATES = _TIES + 16
_SIGN_MIXTURE, _MIXTURES = _NODES, _NODES + 1  # for each number of contexts
LARGEST = 1 << 28  # magnitudes that can be coded lie below
_KEPT = 30  # observations that a state keeps from one tensor to the next
_TREE = 16  # the first node of the balanced tree; the chain's are below
_LAST = 15  # the bucket of ESCAPE and more


def level_model() -> Mixed:
    """A model of levels that has seen nothing."""
    made = mixed(_STATES, _MIXTURES * (CONTEXTS + 1), CONTEXTS)
    for count in range(1, CONTEXTS + 1):
        made.weights[count * _MIXTURES : (count + 1) * _MIXTURES] = WEIGHT_ONE // count
    return made


class Neighbours(NamedTuple):
    """Running scales of one tensor, magnitudes times 256.

    Attributes:
        column: (columns,) int64.
        inside: (period,) int64, by place in the period.
        outside: (columns // period + 1,) int64, by period.
        here: (2,) int64, of the row and of the tensor.
    """

    column: Array
    inside: Array
    outside: Array
    here: Array


@njit(cache=True, error_model="numpy", inline="always")
def _scale(mean: Int) -> Int:
    return np.int64(SCALE[min(mean >> 4, 16383)])


@njit(cache=True, error_model="numpy", inline="always")
def _bucket(level: Int) -> Int:
    return np.int64(BUCKET[min(abs(level), ESCAPE)])


@njit(cache=True, error_model="numpy", inline="always")
def _side(level: Int) -> Int:
    return 1 if level > 0 else (2 if level < 0 else 0)


@njit(cache=True, error_model="numpy")
def image(position: Int, step: Int, top: Int) -> Int:
    """What ``position`` on a grid that ends at ``step`` is on one that ends at ``top``; ties go away from zero.

    A position beyond ``step``, which only a forged package has, counts as ``step``.
    """
    away = (2 * min(abs(position), step) * top + step) // (2 * step)
    return -away if position < 0 else away


@njit(cache=True, error_model="numpy")
def _gather(x: Array, base: Array, i: Int, j: Int, seen: Neighbours, out: Array) -> None:
    """The six contexts' places for magnitude (``out[:6]``) and sign (``out[6:12]``) of the level at (i, j).

    ``out[12]`` says how many contexts count, and stays.
    """
    period = len(seen.inside)
    a, b = j % period, j // period
    before = np.int64(x[i, j - 1]) if j > 0 else 0
    second = np.int64(x[i, j - 2]) if j > 1 else before
    back = np.int64(x[i, j - period]) if j >= period else before
    above = np.int64(x[i - 1, j]) if i > 0 else before
    column = seen.column[j] if i > 0 else (seen.inside[a] + (seen.outside[b] if a > 0 else seen.here[1])) >> 1
    scale, row = _scale(column), _scale(seen.here[0])
    near, far = min(_bucket(before), 11), min(_bucket(back), 11)
    up = min(_bucket(above), 11)
    out[0] = 0
    out[1] = scale * 24 + row
    out[2] = _scale(seen.inside[a]) * 24 + _scale(seen.outside[b])
    out[3] = min(near, 7) * 64 + min(_bucket(second), 7) * 8 + min(far, 7)
    out[4] = near * 12 + up
    out[5] = far * 12 + (scale >> 1)
    side, above_side, back_side = _side(before), _side(above) if i > 0 else 0, _side(back) if j >= period else 0
    out[6] = 0
    out[7] = side * 9 + above_side * 3 + back_side
    out[8] = side * 24 + row
    out[9] = side * 12 + near
    out[10] = back_side * 12 + far
    out[11] = above_side * 12 + up
    if base.size > 0:
        held = np.int64(base[i, j])
        known = min(abs(held), 63) * 2 + (1 if held < 0 else 0)
        out[3], out[9] = 512 + known, 64 + known


@njit(cache=True, error_model="numpy")
def _code_bucket(wanted: Int, balanced: bool, near: Array, model: Mixed, reg: Array, buffer: Array) -> Int:
    """The bucket of a magnitude, by four decisions of a tree or by a chain that ends at the first "not greater"."""
    node, reached, count = 1, 0, near[12]
    while True:
        slot = _TREE + node - 1 if balanced else reached
        for k in range(count):
            model.places[k] = (k * _PLACES + near[k]) * _NODES + slot
        if balanced:
            bit = (wanted >> (3 - reached)) & 1
        else:
            bit = 1 if wanted > reached else 0
        bit = code_mixed(bit, count * _MIXTURES + slot, count, model, reg, buffer)
        node = node * 2 + bit
        reached += 1 if balanced or bit else 0
        if balanced and reached == 4:
            return node - 16
        if not balanced and (not bit or reached == _LAST):
            return reached


@njit(cache=True, error_model="numpy")
def _code_sign(negative: Int, near: Array, model: Mixed, reg: Array, buffer: Array) -> Int:
    count = near[12]
    if count == FEWEST_CONTEXTS:
        return code_alone(negative, model.states, _SIGNS + near[7], reg, buffer)
    for k in range(count):
        model.places[k] = _SIGNS + k * _PLACES + near[6 + k]
    return code_mixed(negative, count * _MIXTURES + _SIGN_MIXTURE, count, model, reg, buffer)


@njit(cache=True, error_model="numpy")
def _code_rest(rest: Int, bucket: Int, model: Mixed, reg: Array, buffer: Array) -> Int:
    """The place inside a bucket: two adaptive bits, the others are as good as even."""
    width = (bucket - 2) >> 1
    prefix, made = 1, 0
    for shift in range(width - 1, max(width - 3, -1), -1):
        bit = code_alone((rest >> shift) & 1, model.states, _RESTS + bucket * 4 + prefix, reg, buffer)
        prefix, made = prefix * 2 + bit, made * 2 + bit
    if width > 2:
        left = width - 2
        made = (made << left) | code_plain(rest & ((1 << left) - 1), left, reg, buffer)
    return made


@njit(cache=True, error_model="numpy")
def _code_beyond(excess: Int, model: Mixed, reg: Array, buffer: Array) -> Int:
    """What a magnitude has beyond ESCAPE: an Exp-Golomb code of order 6, its prefix adaptive."""
    order = 0
    while order < 22:
        longer = 1 if excess >= (64 << (order + 1)) - 64 else 0
        if not code_alone(longer, model.states, _ESCAPES + order, reg, buffer):
            break
        order += 1
    low = (64 << order) - 64
    return low + code_plain(excess - low, 6 + order, reg, buffer)


@njit(cache=True, error_model="numpy")
def _code_level(wanted: Int, balanced: bool, near: Array, model: Mixed, reg: Array, buffer: Array) -> Int:
    size = abs(wanted)
    bucket = _code_bucket(_bucket(wanted), balanced, near, model, reg, buffer)
    if bucket == 0:
        return 0
    negative = _code_sign(1 if wanted < 0 else 0, near, model, reg, buffer)
    start = np.int64(STARTS[bucket])
    if bucket == _LAST:
        size = start + _code_beyond(size - start, model, reg, buffer)
    elif bucket >= 4:
        size = start + _code_rest(size - start, bucket, model, reg, buffer)
    else:
        size = start
    return -size if negative else size


@njit(cache=True, error_model="numpy")
def _observe(x: Int, i: Int, j: Int, seen: Neighbours) -> None:
    size = min(abs(x), 1 << 14) << 8
    period = len(seen.inside)
    a, b = j % period, j // period
    if i == 0:
        seen.column[j] = size
    else:
        seen.column[j] += ((size - seen.column[j]) * RATES[min(i, 14)]) >> 16
    seen.here[0] += ((size - seen.here[0]) * RATES[min(j + 2, 22)]) >> 16
    seen.inside[a] += (size - seen.inside[a]) >> 5
    seen.outside[b] += (size - seen.outside[b]) >> 5
    seen.here[1] += (size - seen.here[1]) >> 6


@njit(cache=True, error_model="numpy")
def _code_step(step: Int, model: Mixed, reg: Array, buffer: Array) -> Int:
    """A row's own grid, 1 to 256, by a tree of adaptive states."""
    node = 1
    for shift in range(7, -1, -1):
        node = node * 2 + code_alone(((step - 1) >> shift) & 1, model.states, _STEPS + node, reg, buffer)
    return node - 255


@njit(cache=True, error_model="numpy")
def _code_tie(off: Int, position: Int, step: Int, top: Int, model: Mixed, reg: Array, buffer: Array) -> Int:
    """How far a level lies from its image: 0, or −1 or 1 where rounding was close, within an eighth of a tie."""
    close = ((2 * min(abs(position), step) * top + step) % (2 * step)) * 4 // step
    if 0 < close < 7 or not code_alone(1 if off != 0 else 0, model.states, _TIES + close, reg, buffer):
        return 0
    return -1 if code_alone(1 if off < 0 else 0, model.states, _TIES + 8 + close, reg, buffer) else 1


@njit(cache=True, error_model="numpy")
def _code_position(
    v: Int, grid: Array, near: Array, balanced: bool, model: Mixed, reg: Array, buffer: Array
) -> tuple[Int, Int]:
    """A level on its row's own grid (``grid`` is its step and the top): the position there, and the level."""
    step, top = grid[0], grid[1]
    wanted = image(v, top, step)
    position = _code_level(wanted, balanced, near, model, reg, buffer)
    if step == top:
        return position, position
    meant = image(position, step, top)
    return position, meant + _code_tie(v - meant, position, step, top, model, reg, buffer)


@njit(cache=True, error_model="numpy")
def _refresh(states: Array) -> None:
    for k in range(len(states)):
        if states[k] & 1023 > _KEPT:
            states[k] = (states[k] & 0xFFFFFC00) | _KEPT


@njit(cache=True, error_model="numpy")
def code_levels(v: Array, base: Array, steps: Array, shape: Array, model: Mixed, reg: Array, buffer: Array) -> None:
    """Code a tensor of levels; when decoding, ``v`` and ``steps`` are filled.

    Args:
        v: (rows, columns) int32; magnitudes below LARGEST, and so are the base's.
        base: of the same shape, the levels of an earlier version; or empty, (0, 0).
        steps: (rows,) int32, each row's own grid; or empty, (0,).
        shape: (4,) int64: the period, whether the tree is balanced, the top of the rows' grids, the number of contexts.
        model: what is known, and what is learnt.
        reg, buffer: the coder.
    """
    rows, columns = v.shape
    period, balanced, top = shape[0], shape[1] != 0, shape[2]
    x = np.zeros((rows, columns), dtype=np.int32)
    seen = Neighbours(
        np.zeros(columns, dtype=np.int64),
        np.zeros(period, dtype=np.int64),
        np.zeros(columns // period + 1, dtype=np.int64),
        np.zeros(2, dtype=np.int64),
    )
    near, grid = np.zeros(13, dtype=np.int64), np.array([top, top])
    near[12] = shape[3]
    _refresh(model.states)
    for i in range(rows):
        seen.here[0] = seen.here[1]
        if len(steps) > 0:
            steps[i] = grid[0] = _code_step(steps[i], model, reg, buffer)
        for j in range(columns):
            _gather(x, base, i, j, seen, near)
            if len(steps) > 0:
                x[i, j], v[i, j] = _code_position(np.int64(v[i, j]), grid, near, balanced, model, reg, buffer)
            else:
                held = np.int64(base[i, j]) if base.size > 0 else 0
                x[i, j] = _code_level(np.int64(v[i, j]) - held, balanced, near, model, reg, buffer)
                v[i, j] = x[i, j] + held
            _observe(np.int64(x[i, j]), i, j, seen)
