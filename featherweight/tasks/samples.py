"""Samples wherever they lie: in memory, or behind a dataset that makes them one by one.

Samples know their inputs and labels by row and nothing of splits. A new kind of storage is one class here or beside.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import numpy as np
import torch

from featherweight.contracts import DataError

_LONGEST_GROUP = 100  # characters of a group's name

Rows = range | np.ndarray
Array = np.ndarray | torch.Tensor


class Samples(Protocol):
    """What a split reads from."""

    def __len__(self) -> int: ...

    def inputs(self, rows: Rows) -> tuple[torch.Tensor, ...]:
        """The network's positional inputs at ``rows``, each (rows, ...)."""
        ...

    def labels(self) -> np.ndarray | None:
        """The labels of all samples, (samples,) or (samples, ...); None where there are none."""
        ...

    def digests(self, rows: Rows) -> list[bytes]:
        """A hash of each sample's content, labels left out: equal samples have equal hashes, on every machine."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class ArraySamples:
    """Samples in memory, or mapped into it.

    Attributes:
        arrays: one per input of the network, all with as many rows.
        targets: the labels, or None.
    """

    arrays: tuple[Array, ...]
    targets: np.ndarray | None

    def __post_init__(self) -> None:
        named = {f"input {index}": array for index, array in enumerate(self.arrays)}
        if self.targets is not None:
            named["labels"] = self.targets
        if not self.arrays or any(array.ndim == 0 for array in named.values()):
            got = f"{[tuple(array.shape) for array in named.values()]}"
            raise DataError("Inputs and labels have one row per sample.", got, "give arrays of shape (samples, ...)")
        lengths = {name: len(array) for name, array in named.items()}
        if len(set(lengths.values())) > 1:
            got = ", ".join(f"{length} in {name}" for name, length in lengths.items())
            raise DataError("Inputs and labels must have as many samples.", got, "give one label per sample")

    def __len__(self) -> int:
        return len(self.arrays[0])

    def inputs(self, rows: Rows) -> tuple[torch.Tensor, ...]:
        """Views where ``rows`` is a range, copies otherwise."""
        return tuple(as_tensor(picked(array, rows)) for array in self.arrays)

    def labels(self) -> np.ndarray | None:
        """The labels of all samples, or None."""
        return self.targets

    def digests(self, rows: Rows) -> list[bytes]:
        """A hash of each sample's values, types and shapes."""
        return sample_digests(self.inputs(rows))


@dataclass(frozen=True, eq=False)
class DatasetSamples:
    """Samples of a map-style dataset: anything with a length that gives ``x`` or ``(x, y)`` by index.

    ``x`` is an array, or a tuple of arrays where the network has several inputs. Only tuples pair things up: a list is
    an array of numbers.
    """

    dataset: Any

    def __len__(self) -> int:
        return len(self.dataset)

    def inputs(self, rows: Rows) -> tuple[torch.Tensor, ...]:
        """The inputs at ``rows``, stacked."""
        items = [self._item(int(row))[0] for row in rows]
        if not items:
            raise DataError("A batch needs samples.", "none", "ask for at least one")
        try:
            return tuple(torch.stack([as_tensor(value) for value in column]) for column in zip(*items, strict=True))
        except (RuntimeError, ValueError) as failure:
            raise DataError(
                "All samples must have as many inputs, of one shape and type.", str(failure), "resize or pad them"
            ) from failure

    def labels(self) -> np.ndarray | None:
        """The labels of all samples; the first call reads the whole dataset."""
        return self._labels

    @cached_property
    def _labels(self) -> np.ndarray | None:
        if not len(self) or self._item(0)[1] is None:  # the first tells for an unlabelled set, without reading it all
            return None
        labels = [self._item(row)[1] for row in range(len(self))]
        if any(label is None for label in labels):
            got = f"sample {next(row for row, label in enumerate(labels) if label is None)} has none"
            raise DataError("All samples of a dataset are labelled, or none is.", got, "label them, or drop the labels")
        return as_labels(labels)

    def digests(self, rows: Rows) -> list[bytes]:
        """A hash of each sample's values, types and shapes."""
        return sample_digests(self.inputs(rows))

    def _item(self, row: int) -> tuple[tuple[Any, ...], Any]:
        """One sample as its inputs and its label (None where it has none)."""
        try:
            item = self.dataset[row]
        except DataError:
            raise
        except Exception as failure:  # user code
            last = (str(failure).strip().splitlines() or [""])[-1]
            got = f"{type(failure).__name__}: {last}"
            remedy = "try dataset[index] in Python and mend the dataset"
            raise DataError(f"The dataset must give its sample {row}.", got, remedy) from failure
        if not isinstance(item, tuple):
            return (item,), None
        if len(item) not in (1, 2):
            got = f"{len(item)} values at index {row}"
            raise DataError("A dataset gives x or (x, y).", got, "several inputs go in one tuple: ((x1, x2), y)")
        x = item[0] if isinstance(item[0], tuple) else (item[0],)
        return x, item[1] if len(item) == 2 else None


def picked(array: Any, rows: Rows) -> Any:
    """The rows of an array: a view for a range."""
    if isinstance(rows, range):
        return array[rows.start : rows.stop : rows.step]
    return array[torch.from_numpy(rows)] if isinstance(array, torch.Tensor) else array[rows]


def as_tensor(value: Any) -> torch.Tensor:
    """A tensor over the same memory; a copy where torch can't share it (read-only, reversed, other byte order).

    Raises:
        DataError: what came holds no numbers, or numbers that torch doesn't have.
    """
    if isinstance(value, torch.Tensor):
        return value.detach()
    try:
        array = np.asarray(value)
    except (ValueError, TypeError, RuntimeError) as failure:
        raise _no_numbers(str(failure)) from failure
    if array.dtype.kind not in "biufc":
        raise _no_numbers(f"{type(value).__name__} of type {array.dtype}")
    array = array.astype(array.dtype.newbyteorder("="), copy=False)
    shared = array.flags.writeable and all(stride >= 0 for stride in array.strides)
    try:
        return torch.from_numpy(array if shared else array.copy())
    except TypeError as failure:
        raise _no_numbers(str(failure)) from failure


def as_labels(values: Any) -> np.ndarray:
    """Labels as an array: whole numbers and booleans as int64, real numbers as they are.

    Raises:
        DataError: they are no numbers, or of different shapes.
    """
    try:
        if isinstance(values, torch.Tensor):
            array = values.detach().cpu().numpy()
        elif isinstance(values, Sequence):
            array = np.asarray([np.asarray(value) for value in values])
        else:
            array = np.asarray(values)
    except (ValueError, TypeError, RuntimeError) as failure:
        raise DataError("Labels must be numbers of one shape.", str(failure), "give one number per sample") from failure
    if array.dtype.kind in "biu":
        return array.astype(np.int64, copy=False)
    if array.dtype.kind == "f":
        return array.astype(array.dtype.newbyteorder("="), copy=False)
    remedy = "number the classes from 0, for example with sklearn.preprocessing.LabelEncoder"
    raise DataError("Labels must be numbers.", f"labels of type {array.dtype}", remedy)


def as_groups(values: Any, samples: int) -> np.ndarray:
    """Groups as text, (samples,); whole numbers become their digits.

    Raises:
        DataError: they are neither whole numbers nor short texts, or not one for each sample.
    """
    array = np.asarray(values.detach().cpu() if isinstance(values, torch.Tensor) else values)
    if array.dtype == object and all(isinstance(one, str | int) for one in array.ravel()):
        array = array.astype(str)
    if array.shape != (samples,) or array.dtype.kind not in "biuU":
        got = f"groups of type {array.dtype} and shape {array.shape} for {samples} samples"
        raise DataError("Every sample has one group, a whole number or a short text.", got, "give (samples,) of them")
    named = array.astype(str)
    longest = max((len(one) for one in np.unique(named).tolist()), default=0)
    if longest > _LONGEST_GROUP:
        got = f"a name of {longest} characters"
        raise DataError(f"A group's name has {_LONGEST_GROUP} characters at most.", got, "give shorter names")
    return named


def sample_digests(inputs: Sequence[torch.Tensor]) -> list[bytes]:
    """SHA-256 of each sample: types and shapes of its inputs, then their bytes.

    Args:
        inputs: each (samples, ...).

    Returns:
        As many hashes as there are samples, 32 bytes each.
    """
    header = repr([(str(tensor.dtype), tuple(tensor.shape[1:])) for tensor in inputs]).encode()
    rows = len(inputs[0])
    flat = [tensor.detach().cpu().contiguous().reshape(rows, tensor[:1].numel()) for tensor in inputs]
    content = [tensor.view(torch.uint8).numpy() for tensor in flat]
    digests: list[bytes] = []
    for row in range(rows):  # a cryptographic hash has no vectorised form
        digest = hashlib.sha256(header)
        for values in content:
            digest.update(values[row])
        digests.append(digest.digest())
    return digests


def _no_numbers(got: str) -> DataError:
    return DataError(
        "The network's inputs must be arrays of numbers.",
        got,
        "turn every sample into a tensor or a numpy array of one shape",
    )
