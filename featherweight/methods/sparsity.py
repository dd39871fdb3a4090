"""Sparsity: single weights become zero and stay zero; the layer keeps its shape.

A share of zeros wherever they hurt least, or a fixed pattern ("2:4": of every four consecutive inputs two stay), chosen
and compensated on the layer's own inputs (:mod:`featherweight.numerics.sparsity`). A convolution's pattern runs along
its input channels, position by position of the kernel, which is how kernels for such patterns read it.

Zeros cost as much as any weight wherever weights lie in the file one by one. They are worth something only where the
package that ships the file is entropy-coded, so that is the only place where this family offers options: its rows cost
the same bytes of the file, honestly.
"""

from __future__ import annotations

import math
import re

import torch
from torch import nn

from featherweight.contracts import PlanError, Refusal
from featherweight.methods.seam import Settings, Subject, effective_weight, leaves
from featherweight.network.encodings import MaskEncoding, chain_of, encode
from featherweight.network.modules import copied, set_weight, weight_of
from featherweight.numerics.sparsity import CRITERIA, Pattern, Runs, Share, sparsify

_SHARES = (0.5, 0.7, 0.9)
_PATTERNS = ("2:4",)
_LARGEST_RUN = 64
_SECONDS_OF_WORK = 5e8


class Sparsity:
    """The family of unstructured zeros; settings are ``zeros`` or ``pattern``, and ``criterion``.

    Where no criterion is given, zeros are chosen one by one (``obs``) in narrow layers, and in blocks (``sparsegpt``)
    where that would take more than seconds.

    Args:
        package: whether what counts is a package that takes fewer bytes for zeros.
    """

    name = "sparsity"
    follows: frozenset[str] = frozenset()

    def __init__(self, package: bool = False) -> None:
        self._package = package

    def options(self, subject: Subject) -> tuple[list[Settings], list[Refusal]]:
        """Half, seven tenths and nine tenths of zeros, and 2:4 where the inputs come in fours."""
        name = subject.layer.name
        if not self._package:
            reason = f"{subject.capability.target} stores a zero like any other weight: the file would not shrink"
            remedy = "count an entropy-coded package of the file, or remove whole channels"
            return [], [Refusal(name, self.name, reason, remedy)]
        settings: list[Settings] = [{"zeros": share} for share in _SHARES]
        refusals: list[Refusal] = []
        for pattern in _PATTERNS:
            of = _runs(pattern).of
            if _run_length(subject) % of == 0:
                settings.append({"pattern": pattern})
            else:
                reason = f"{_run_length(subject)} inputs can't be cut into runs of {of}"
                refusals.append(Refusal(name, f"{self.name} {pattern}", reason, "use zeros without a pattern there"))
        return settings, refusals

    def apply(self, subject: Subject, settings: Settings) -> nn.Module:
        """The same module with a masked weight; what stays is refit.

        Raises:
            PlanError: settings that say nothing of zeros, or more than one thing, or that don't fit the layer.
        """
        pattern, criterion = _pattern(subject, settings), settings.get("criterion", _affordable(subject))
        if criterion not in CRITERIA:
            raise PlanError(
                "The criterion must be one of the catalogue.", repr(criterion), f"one of: {', '.join(CRITERIA)}"
            )
        if len(leaves(subject.module)) > 1 or chain_of(subject.module):
            raise PlanError(
                "Zeros come first: they are chosen among a layer's own weights.",
                f"{subject.layer.name!r} is changed already",
                f"put {self.name} before the other steps, or leave it out",
            )
        order = _column_order(subject)
        chosen = effective_weight(subject)[..., order], subject.covariance[:, order][:, :, order]
        sparse = sparsify(*chosen, pattern, str(criterion))
        back = order.argsort()
        module = copied(subject.module)
        set_weight(module, sparse.weight[..., back])
        return encode(module, MaskEncoding(sparse.mask[..., back].reshape(weight_of(module).shape)))


def _affordable(subject: Subject) -> str:
    groups, rows, width = subject.weight.shape
    return "obs" if groups * rows * width**3 <= _SECONDS_OF_WORK else "sparsegpt"


def _run_length(subject: Subject) -> int:
    """Consecutive inputs of a row at one position of the kernel."""
    return subject.layer.weight_shape[1]


def _column_order(subject: Subject) -> torch.Tensor:
    """Columns by kernel position, then by input channel, so that runs lie along the channels."""
    shape = subject.layer.weight_shape
    return torch.arange(math.prod(shape[1:])).view(shape[1], -1).T.flatten()


def _runs(pattern: str) -> Runs:
    """``"2:4"`` as a value; zeros where it says nothing of the kind."""
    found = re.fullmatch(r"(\d{1,2}):(\d{1,2})", pattern)
    return Runs(int(found[1]), int(found[2])) if found else Runs(0, 0)


def _pattern(subject: Subject, settings: Settings) -> Pattern:
    zeros, pattern = settings.get("zeros"), settings.get("pattern")
    if set(settings) - {"criterion"} == {"zeros"} and type(zeros) is float and 0.0 < zeros < 1.0:
        return Share(zeros)
    runs = _runs(pattern) if isinstance(pattern, str) else Runs(0, 0)
    sound = 0 < runs.keep < runs.of <= _LARGEST_RUN
    if set(settings) - {"criterion"} != {"pattern"} or not sound or _run_length(subject) % runs.of:
        raise PlanError(
            "Sparsity takes zeros between 0 and 1, or a pattern n:m with n < m whose m divides the layer's inputs.",
            f"{dict(settings)} for {subject.layer.name!r}, {_run_length(subject)} inputs wide",
            "{zeros: 0.5} leaves every other weight",
        )
    return runs
