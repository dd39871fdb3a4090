"""What a tensor will cost in a package, for planning: the coder's own adaptive cost, nothing written."""

from __future__ import annotations

import numpy as np

from featherweight.contracts import DataError
from featherweight.packaging.choose import Place, choose_tensor
from featherweight.packaging.coder import MEASURE, SPENT, registers
from featherweight.packaging.levels import LARGEST, code_levels, level_model
from featherweight.packaging.spans import TensorSpan
from featherweight.packaging.streams import bytes_array, fresh_knowledge, measured_bits

Array = np.ndarray

_BALANCED_FROM = 16  # magnitudes, as the packer decides
_CONTEXTS = (6, 3)  # under the chain, under the tree
_NOTHING = np.zeros(0, dtype=np.uint8)


def estimate_bits(levels: Array, period: int = 1) -> float:
    """Bits of a tensor of levels alone in a package, without its description of about ten bytes.

    It is the exact adaptive cost under one layout, coded row by row; the packer tries a few, and what it learnt from
    earlier tensors helps it, so that it comes out a little below.

    Args:
        levels: (rows, columns) integers of magnitudes below 2²⁸; rows are output channels.
        period: inner extent of a row: kernel places, or input channels where those lie innermost; 1 for a linear layer.

    Raises:
        DataError: no matrix of integers, magnitudes that are too large, or a period that doesn't fit.
    """
    fits = levels.ndim == 2 and levels.size > 0 and np.issubdtype(levels.dtype, np.integer)
    if not fits or max(-int(levels.min()), int(levels.max())) >= LARGEST or not 0 < period <= levels.shape[1]:
        got = f"{levels.dtype} of shape {levels.shape}, period {period}"
        raise DataError("Levels are a matrix of integers below 2²⁸ in magnitude.", got, "give levels, not weights")
    values = np.ascontiguousarray(levels, dtype=np.int32)
    balanced = int(np.abs(values).max()) >= _BALANCED_FROM
    reg = registers(MEASURE)
    shape = np.array([period, int(balanced), 0, _CONTEXTS[balanced]])
    code_levels(values, np.zeros((0, 0), np.int32), np.zeros(0, np.int32), shape, level_model(), reg, _NOTHING)
    return float(reg[SPENT]) / (1 << 20)


def real_bits(values: Array) -> float:
    """Bits of a tensor of reals alone in a package: whatever the packer would choose, coded to its end.

    Args:
        values: float32 or float16, any shape with channels first; not empty.
    """
    held = bytes_array(np.ascontiguousarray(values).tobytes())
    known, place = fresh_knowledge(held, _NOTHING), Place(0, len(held))
    span = TensorSpan(0, len(held), str(values.dtype), tuple(values.shape))
    return measured_bits(choose_tensor(span, place, known), 0, known)
