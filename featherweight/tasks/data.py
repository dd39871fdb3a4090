"""Data in three splits: one to observe and train on, one to steer by, one to prove with."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch

from featherweight.contracts import DataError
from featherweight.tasks.samples import ArraySamples, DatasetSamples, Rows, Samples, as_groups, as_labels, picked

SPLITS = ("train", "validation", "test")
_CHUNK = 1024
_REMEDY = (
    'give {"train": (x, y), "validation": (x, y), "test": (x, y)} or a tuple of the three; '
    "x alone where there are no labels, ((x1, x2), y) for several inputs, (x, y, groups) with groups, "
    "or a map-style dataset; "
    "without train, calibration samples are synthesized"
)


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """A few samples.

    Attributes:
        inputs: the network's positional inputs, each (samples, ...). They may share memory with the user's arrays:
            read them only.
        labels: (samples,) or (samples, ...), or None.
    """

    inputs: tuple[torch.Tensor, ...]
    labels: torch.Tensor | None


@dataclass(frozen=True, eq=False)
class Split:
    """Some rows of samples, in order. Taking a part copies no samples.

    Attributes:
        samples: where the samples lie.
        rows: which of them belong to the split.
        tags: the group's name of every sample, (all samples,) text; None where there are no groups.
    """

    samples: Samples
    rows: Rows
    tags: np.ndarray | None = None

    @classmethod
    def of(cls, value: Any) -> Split:
        """A split over what a user gives: ``(x, y)``, ``x`` alone, a map-style dataset, or any of it with groups.

        Args:
            value: ``x`` is a numpy array or torch tensor (samples, ...), or a tuple of them for several inputs; ``y``
                has as many rows, or is None. Anything else with a length and an index is taken as a dataset. As
                ``(x, y, groups)`` or ``(dataset, None, groups)`` every sample also has a group: a whole number or a
                short text each.

        Raises:
            DataError: it is nothing of the kind, or its lengths differ.
        """
        if isinstance(value, Split):
            return value
        if isinstance(value, tuple) and len(value) == 3:
            x, y, groups = value
            dataset = y is None and not isinstance(x, tuple | list | np.ndarray | torch.Tensor)
            split = cls.of(x if dataset else (x, y))
            return replace(split, tags=as_groups(groups, len(split)))
        samples: Samples
        if isinstance(value, tuple):
            if len(value) != 2:
                raise DataError("A split is x, (x, y) or a map-style dataset.", f"{len(value)} values", _REMEDY)
            x, y = value
            inputs = x if isinstance(x, tuple) else (x,)
            samples = ArraySamples(tuple(_as_array(part) for part in inputs), None if y is None else as_labels(y))
        elif isinstance(value, np.ndarray | torch.Tensor):
            samples = ArraySamples((value,), None)
        elif _is_dataset(value):
            samples = DatasetSamples(value)
        else:
            raise DataError("A split is x, (x, y) or a map-style dataset.", f"a {type(value).__name__}", _REMEDY)
        return cls(samples, range(len(samples)))

    def __len__(self) -> int:
        return len(self.rows)

    @cached_property
    def labels(self) -> np.ndarray | None:
        """The labels, (samples,) or (samples, ...); None where there are none."""
        labels = self.samples.labels()
        return None if labels is None else picked(labels, self.rows)

    @property
    def groups(self) -> np.ndarray | None:
        """The group's name of each sample, (samples,) text; None where there are no groups."""
        return None if self.tags is None else picked(self.tags, self.rows)

    def take(self, indices: Sequence[int] | np.ndarray | range) -> Batch:
        """The samples at ``indices``, counted within the split.

        Raises:
            DataError: an index lies outside, or a sample can't be read.
        """
        part = self.subset(indices)
        labels = part.labels
        return Batch(part.samples.inputs(part.rows), None if labels is None else torch.tensor(labels))

    def batches(self, size: int) -> Iterator[Batch]:
        """All samples in order, ``size`` at a time; the last batch may be smaller.

        Raises:
            DataError: ``size`` isn't positive, or a sample can't be read.
        """
        if size < 1:
            raise DataError("A batch needs samples.", f"size = {size}", "give at least 1")
        return (self.take(range(start, min(start + size, len(self)))) for start in range(0, len(self), size))

    def first(self, count: int) -> Split:
        """The first ``count`` samples, or all where there are fewer.

        Raises:
            DataError: ``count`` is negative.
        """
        if count < 0:
            raise DataError("A number of samples can't be negative.", f"count = {count}", "give 0 or more")
        return self.subset(range(min(count, len(self))))

    def subset(self, indices: Sequence[int] | np.ndarray | range) -> Split:
        """The split of the samples at ``indices``, counted within this split.

        Raises:
            DataError: an index lies outside the split or is no whole number.
        """
        if len(indices) == 0:
            return replace(self, rows=range(0))
        if isinstance(indices, range) and indices.step > 0 and indices[0] >= 0 and indices[-1] < len(self):
            # A range of a range stays one: arrays then give views.
            return replace(self, rows=self.rows[indices.start : indices.stop : indices.step])
        chosen = np.asarray(indices)
        if chosen.ndim != 1 or chosen.dtype.kind not in "iu":
            got = f"an array of {chosen.dtype} with {chosen.ndim} axes"
            raise DataError("Samples are chosen by whole numbers.", got, "use numpy.flatnonzero for a mask")
        if not 0 <= int(chosen.min()) <= int(chosen.max()) < len(self):
            got = f"{int(chosen.min())} to {int(chosen.max())} in a split of {len(self)}"
            raise DataError("Samples are counted from 0 within their split.", got, "choose among what is there")
        chosen = chosen.astype(np.int64)
        if isinstance(self.rows, range):
            return replace(self, rows=self.rows.start + self.rows.step * chosen)
        return replace(self, rows=self.rows[chosen])

    def digests(self) -> Iterator[bytes]:
        """A hash of each sample's inputs, in order; equal samples have equal hashes."""
        for start in range(0, len(self), _CHUNK):
            yield from self.samples.digests(self.rows[start : start + _CHUNK])

    def fingerprint(self, name: str) -> str:
        """SHA-256 over samples, labels and groups, streamed; the same for equal contents, wherever they lie."""
        digest = hashlib.sha256()
        self.hash_into(digest, name)
        return digest.hexdigest()

    def hash_into(self, digest: hashlib._Hash, name: str) -> None:
        """Add everything in the split to a hash, under a name."""
        labels, groups = self.labels, self.groups
        described = "none" if labels is None else f"{labels.dtype.str} {labels.shape}"
        digest.update(f"{name} {len(self)} {described}\n".encode())
        for sample in self.digests():
            digest.update(sample)
        if labels is not None:
            digest.update(np.ascontiguousarray(labels).data)
        if groups is not None:
            digest.update("\n".join(["groups", *groups.tolist()]).encode("utf-8", "backslashreplace"))


@dataclass(frozen=True, slots=True, eq=False)
class Data:
    """Three splits. Search sees ``train`` and ``validation`` only; ``test`` is for the certificate.

    Attributes:
        train, validation, test: the splits; labels are there in both of validation and test or in none. Groups are
            used in validation and test.
        name: what to call the data in a report.
        class_names: the classes' names by their numbers, where they are known.
        data_free: whether there is no training split, by intention: ``train`` is empty then, and calibration samples
            are synthesized from what the network remembers of its training.
    """

    train: Split
    validation: Split
    test: Split
    name: str = "data"
    class_names: tuple[str, ...] = ()
    data_free: bool = False

    def __post_init__(self) -> None:
        if not (len(self.validation) and len(self.test)):
            return  # validate() speaks about empty splits; they don't tell whether there are labels
        if (self.validation.labels is None) != (self.test.labels is None):
            labelled = "validation" if self.test.labels is None else "test"
            raise DataError(
                "Validation and test data are both labelled, or both not.",
                f"labels in {labelled} only",
                "add the missing labels, or leave all out: the original's own answers serve then",
            )

    @classmethod
    def of(cls, value: Any, name: str = "data") -> Data:
        """Data from what a user gives.

        Args:
            value: a mapping with exactly ``train``, ``validation`` and ``test``, or a tuple of these three; each as
                ``Split.of`` takes it. A mapping with exactly ``validation`` and ``test`` is data-free.
            name: what to call the data.

        Raises:
            DataError: it is nothing of the kind.
        """
        if isinstance(value, Data):
            return value
        if isinstance(value, Mapping):
            if set(value) == set(SPLITS[1:]):
                value = {"train": Split.of(value["validation"]).first(0), **value}
                return replace(cls.of(value, name), data_free=True)
            if set(value) != set(SPLITS):
                got = ", ".join(map(str, value)) or "an empty mapping"
                raise DataError("Data has the splits train, validation and test.", got, _REMEDY)
            parts = tuple(value[split] for split in SPLITS)
        elif isinstance(value, tuple) and len(value) == 3:
            parts = value
        else:
            got = f"a {type(value).__name__}" + (f" of {len(value)}" if isinstance(value, tuple) else "")
            raise DataError("Data has the splits train, validation and test.", got, _REMEDY)
        train, validation, test = (Split.of(part) for part in parts)
        return cls(train, validation, test, name)

    def without_training(self) -> Data:
        """The same for a data-free run: no training sample is kept, hashed or looked at."""
        return replace(self, train=self.validation.first(0), data_free=True)

    def splits(self) -> dict[str, Split]:
        """The splits by name, in order; data-free ones have no training split."""
        parts = {} if self.data_free else {"train": self.train}
        return {**parts, "validation": self.validation, "test": self.test}

    def fingerprint(self) -> str:
        """SHA-256 over all samples and labels, streamed; the same for equal contents, wherever they lie."""
        digest = hashlib.sha256()
        for name, split in self.splits().items():
            split.hash_into(digest, name)
        return digest.hexdigest()


def _as_array(value: Any) -> np.ndarray | torch.Tensor:
    if isinstance(value, np.ndarray | torch.Tensor):
        return value
    try:
        return np.asarray(value)
    except (ValueError, TypeError, RuntimeError) as failure:
        got = f"a {type(value).__name__}: {failure}"
        raise DataError(
            "The network's inputs must be arrays of numbers.", got, "give samples of one shape"
        ) from failure


def _is_dataset(value: Any) -> bool:
    """Whether a value has a length and gives samples by index; text and mappings do so only by the letter."""
    return hasattr(value, "__len__") and hasattr(value, "__getitem__") and not isinstance(value, str | bytes | Mapping)
