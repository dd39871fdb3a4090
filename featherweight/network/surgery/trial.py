"""Trying out: which attributes must change for forward to run and agree, found by running it.

Trials run on generic weights: the network's own, stirred by seeded noise. So the outcome is the same for a trained
network and for a fresh one of the same class, and layers that start at zero can't hide a mistake.
"""

from __future__ import annotations

import copy
import itertools
import traceback
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

import torch
from torch import fx, nn

from featherweight.contracts import ModelError
from featherweight.network.capture import Network
from featherweight.network.surgery.attributes import Guess

Attributes = frozenset[tuple[str, str]]
"""(class, attribute): all modules of one class are treated alike."""

_SEED = 20
_TOLERANCE = {torch.float64: 1e-8, torch.float32: 1e-3}
_LOOSE = 5e-2
_REMEDY = "take sizes from the tensor (x.shape, -1) or from attributes of the module, so that they can follow"


@dataclass(frozen=True, slots=True, eq=False)
class Subject:
    """A module, its graph, and the weights of both.

    Attributes:
        module: runs with its own weights.
        graph: of the module.
        weights: graph attribute → the module's tensor, where it isn't the graph's own.
        example: inputs.
    """

    module: nn.Module
    graph: fx.GraphModule
    weights: Mapping[str, torch.Tensor]
    example: tuple[torch.Tensor, ...]


def real_subject(network: Network) -> Subject:
    """The network as it is."""
    return Subject(network.module, network.graph, {}, network.example)


def generic_subject(network: Network) -> Subject:
    """The network with its weights stirred; the same noise whatever the weights, scaled to each of them."""
    module = copy.deepcopy(network.module)
    generator = torch.Generator().manual_seed(_SEED)
    with torch.no_grad():
        for parameter in module.parameters():
            noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64).to(parameter)
            parameter.add_(noise, alpha=float(parameter.std(correction=0)) or 0.1)
    weights = dict(module.named_parameters(remove_duplicate=False))
    return Subject(module, network.graph, weights, network.example)


class Trial:
    """Changes attributes of one module in place, and runs it."""

    def __init__(self, module: nn.Module, found: Sequence[Guess], example: Sequence[torch.Tensor]) -> None:
        self._module, self._example = module, example
        self._targets = [(guess, module.get_submodule(guess.module)) for guess in found]
        self._before = [getattr(owner, guess.attribute) for guess, owner in self._targets]
        self._firm = frozenset((guess.owner, guess.attribute) for guess in found if not guess.doubtful)
        self._doubtful = sorted({(guess.owner, guess.attribute) for guess in found} - self._firm)

    def selections(self) -> Iterator[Attributes]:
        """First the certain ones alone, then with all doubtful ones, then with some of them, then fewer."""
        yield self._firm
        if self._doubtful:
            yield self._firm | set(self._doubtful)
        for size in range(1, len(self._doubtful)):
            for more in itertools.combinations(self._doubtful, size):
                yield self._firm | set(more)
        for size in range(len(self._firm)):
            for fewer in itertools.combinations(sorted(self._firm), size):
                yield frozenset(fewer)

    def run(self, selection: Attributes) -> list[torch.Tensor]:
        """The outputs with exactly these attributes changed.

        Raises:
            ModelError: the user's forward fails with them.
        """
        for (guess, owner), before in zip(self._targets, self._before, strict=True):
            chosen = (guess.owner, guess.attribute) in selection
            setattr(owner, guess.attribute, guess.value if chosen else before)
        try:
            return run(self._module, self._example)
        except Exception as error:  # a user's forward may raise anything when sizes don't fit
            raise _baked_in(error) from error

    def without_idle(self, selection: Attributes) -> Attributes:
        """The selection without doubtful attributes that make no difference: they name something else."""
        output = self.run(selection)
        for attribute in sorted(selection & set(self._doubtful)):
            try:
                same = self.run(selection - {attribute})
            except ModelError:  # then the attribute is needed
                continue
            if all(a.shape == b.shape and torch.equal(a, b) for a, b in zip(output, same, strict=True)):
                selection -= {attribute}
        return selection


def run(module: nn.Module, example: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    """All tensors that the module gives back, without gradients."""
    with torch.no_grad():
        return list(_tensors(module(*example)))


def _tensors(output: Any) -> Iterator[torch.Tensor]:
    if isinstance(output, torch.Tensor):
        yield output
    elif isinstance(output, dict):
        yield from _tensors(tuple(output.values()))
    elif isinstance(output, (list, tuple)):
        for part in output:
            yield from _tensors(part)


def finite(outputs: Sequence[torch.Tensor]) -> bool:
    """Whether no output has a NaN or an infinity."""
    return all(bool(torch.isfinite(tensor).all()) for tensor in outputs)


def compare(outputs: Sequence[torch.Tensor], reference: Sequence[torch.Tensor]) -> None:
    """Check outputs against the masked reference.

    Raises:
        ModelError: they differ by more than rounding can explain.
    """
    for got, wanted in zip(outputs, reference, strict=True):
        message = _difference(got, wanted)
        if message:
            raise ModelError(
                "The smaller network must agree with the original whose channels are silenced.",
                message,
                "look for sizes in forward that change what it computes; leave the unit as it is meanwhile",
            )


def _difference(got: torch.Tensor, wanted: torch.Tensor) -> str:
    if got.shape != wanted.shape:
        return f"an output of {tuple(got.shape)} instead of {tuple(wanted.shape)}"
    if wanted.numel() == 0 or not wanted.is_floating_point():
        return ""
    settled = torch.isfinite(wanted)
    if not torch.equal(settled, torch.isfinite(got)):
        return "other outputs are infinite or NaN"
    largest = float(wanted[settled].abs().max()) if bool(settled.any()) else 0.0
    error = float((got - wanted)[settled].abs().max()) if bool(settled.any()) else 0.0
    if error <= _TOLERANCE.get(wanted.dtype, _LOOSE) * max(largest, 1e-30):
        return ""
    return f"outputs differ by {error:.3g}, the largest being {largest:.3g}"


def _baked_in(error: Exception) -> ModelError:
    """What a person is told when forward fails with fewer channels: the line, and what it said."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if "/torch/" not in frame.filename]
    outside = [frame for frame in frames if "/featherweight/" not in frame.filename.replace("\\", "/")]
    place = f"{PurePath(outside[-1].filename).name}:{outside[-1].lineno}: {outside[-1].line}" if outside else "forward"
    message = str(error).splitlines()[0] if str(error) else type(error).__name__
    return ModelError("Forward must run with fewer channels.", f"{place}: {message}", _REMEDY)
