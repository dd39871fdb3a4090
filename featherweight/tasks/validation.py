"""Whether data can support the work: checks before anything is spent on it."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch

from featherweight.contracts import DataError
from featherweight.tasks.classification import CLASSIFICATION
from featherweight.tasks.data import Data, Split
from featherweight.tasks.task import Task

_CHUNK = 256


def validate(data: Data, classes: int | None = None, task: Task = CLASSIFICATION, *, allow_leaks: bool = False) -> None:
    """Refuses data that nothing sound can come of. Reads every sample, a batch at a time.

    Args:
        data: to check.
        classes: how many the network tells apart, where that is known.
        task: whose rules the labels must follow.
        allow_leaks: whether the same sample may be in more than one split.

    Raises:
        DataError: an empty split, different sample shapes or types between splits, labels that don't suit the task,
            NaN or infinite inputs, samples that change from one reading to the next, leaks between splits, or groups
            that only one of validation and test has.
    """
    splits = data.splits()
    for name, split in splits.items():
        _check_filled(name, split)
    _check_shapes(splits)
    _check_groups(data)
    for name, split in splits.items():
        labels = split.labels
        if labels is not None:
            task.check_labels(name, labels, classes)
    for name, split in splits.items():
        _check_finite(name, split)
        _check_repeatable(name, split)
    if not allow_leaks:
        _check_leaks(splits)


def example_of(data: Data) -> tuple[torch.Tensor, ...]:
    """The inputs of the first samples, at most two: what a network is captured on. Only their shape matters.

    Raises:
        DataError: there are none, or they hold NaN or infinity.
    """
    name, split = next(iter(data.splits().items()))
    few = split.first(2)
    _check_filled(name, few)
    _check_finite(name, few)
    return few.take(range(len(few))).inputs


def _check_filled(name: str, split: Split) -> None:
    if not len(split):
        raise DataError("Every split holds samples.", f"no sample in {name}", "move some samples there")


def _check_shapes(splits: Mapping[str, Split]) -> None:
    """Compares the splits' first samples: shapes and types of the inputs."""
    described = {name: _describe(split.take(range(1)).inputs) for name, split in splits.items()}
    if len(set(described.values())) > 1:
        got = "; ".join(f"{name}: {text}" for name, text in described.items())
        raise DataError("Samples of all splits have one shape and type.", got, "prepare all splits alike")


def _describe(inputs: tuple[torch.Tensor, ...]) -> str:
    types = (str(tensor.dtype).removeprefix("torch.") for tensor in inputs)
    return ", ".join(f"{kind} {tuple(tensor.shape[1:])}" for kind, tensor in zip(types, inputs, strict=True))


def _check_groups(data: Data) -> None:
    """What validation data choose by, test data are to prove: both by groups of yours, or neither."""
    known = {"validation": data.validation.groups, "test": data.test.groups}
    missing = [name for name, groups in known.items() if groups is None]
    if len(missing) == 1:
        raise DataError(
            "Groups are given for both validation and test, or for neither.",
            f"no groups in {missing[0]}",
            f"give {missing[0]} as (x, y, groups), too, or leave them out of the other",
        )


def _check_finite(name: str, split: Split) -> None:
    bad = np.zeros(len(split), dtype=bool)
    seen = 0
    for batch in split.batches(_CHUNK):
        rows = len(batch.inputs[0])
        for tensor in batch.inputs:
            if tensor.is_floating_point() or tensor.is_complex():
                bad[seen : seen + rows] |= ~torch.isfinite(tensor).reshape(rows, -1).all(dim=1).cpu().numpy()
        seen += rows
    if bad.any():
        got = f"{int(bad.sum())} samples of {name} hold NaN or infinity; the first is {name}[{int(bad.argmax())}]"
        raise DataError("The network's inputs must be finite numbers.", got, "drop or mend these samples")


def _check_repeatable(name: str, split: Split) -> None:
    """Reads a few samples twice: random augmentation would make every figure a matter of luck."""
    few = range(min(8, len(split)))
    once, again = (split.take(few).inputs for _ in range(2))
    if not all(torch.equal(left, right) for left, right in zip(once, again, strict=True)):
        got = f"a first sample of {name} changed when it was read again"
        raise DataError(
            "A sample is the same whenever it is read.", got, "leave random augmentation out of the dataset"
        )


def _check_leaks(splits: Mapping[str, Split]) -> None:
    """Looks for equal samples in different splits, by the hash of their content."""
    first: dict[bytes, tuple[str, int]] = {}
    leaked: set[bytes] = set()
    pair = ""
    for name, split in splits.items():
        for index, digest in enumerate(split.digests()):
            home, position = first.setdefault(digest, (name, index))
            if home != name:
                pair = pair or f"{home}[{position}] is {name}[{index}]"
                leaked.add(digest)
    if leaked:
        raise DataError(
            "No sample may be in more than one split: what was seen before proves nothing.",
            f"{len(leaked)} in more than one; {pair}",
            "remove the duplicates before splitting",
        )
