"""Sharing: the weights of a layer share a few values.

The values are the exact optimum of weighted k-means on the line (:mod:`featherweight.numerics.codebook`), every weight
weighted by the variance of its input: the error of the output under uncorrelated inputs. Then weights settle on the
values one input after another, each making up for those before it under the whole covariance
(:mod:`featherweight.numerics.sequential`). Where zeros were chosen before, zero is one of the values and zeros stay.

Indices are worth something only where the package that ships the file is entropy-coded: the file stores every value
anyway, and its rows here cost the same bytes, honestly.
"""

from __future__ import annotations

import torch
from torch import nn

from featherweight.contracts import PlanError, Refusal
from featherweight.methods.seam import Settings, Subject, leaves, only_a_package
from featherweight.network.composition import moments_within
from featherweight.network.encodings import CodebookEncoding, MaskEncoding, chain_of, encode
from featherweight.network.modules import copied, weight_of
from featherweight.numerics.codebook import fit_codebook, nearest
from featherweight.numerics.sequential import settled

_COUNTS = (4, 8, 16, 32, 64)
_MOST_VALUES = 4096
_WEIGHTS_PER_VALUE = 8  # with fewer, the codebook is a good part of what it saves


class Sharing:
    """The family of shared values; its one setting is ``values``.

    Args:
        package: whether what counts is a package that takes fewer bytes for values that recur.
    """

    name = "sharing"
    follows: frozenset[str] = frozenset({"sparsity", "lowrank"})

    def __init__(self, package: bool = False) -> None:
        self.package = package

    def options(self, subject: Subject) -> tuple[list[Settings], list[Refusal]]:
        """4 to 64 values, as far as the layer has many more weights than that."""
        name = subject.layer.name
        if not self.package:
            return [], [only_a_package(subject, self.name)]
        smallest = min(weight_of(leaf).numel() for leaf in leaves(subject.module))
        settings: list[Settings] = [{"values": n} for n in _COUNTS if n * _WEIGHTS_PER_VALUE <= smallest]
        if not settings:
            reason = f"{smallest} weights are too few to share values: the codebook would take what it saves"
            return [], [Refusal(name, self.name, reason)]
        return settings, []

    def apply(self, subject: Subject, settings: Settings) -> nn.Module:
        """The same modules, their weights on codebooks of this many values each.

        Raises:
            PlanError: settings that name no number of values, or weights that are encoded already.
        """
        values = settings.get("values")
        if set(settings) != {"values"} or type(values) is not int or not 2 <= values <= _MOST_VALUES:
            raise PlanError(
                f"Sharing takes a number of values, its one setting, from 2 to {_MOST_VALUES}.",
                f"{dict(settings)} for {subject.layer.name!r}",
                "{values: 16} is the usual choice",
            )
        module = copied(subject.module)
        parts = leaves(module)
        if any(not isinstance(encoding, MaskEncoding) for part in parts for encoding in chain_of(part)):
            raise PlanError(
                "Values are shared before they are rounded otherwise.",
                f"{subject.layer.name!r} is encoded already",
                f"put {self.name} before the other step, or drop one of them",
            )
        moments = [subject.covariance]
        if len(parts) > 1:
            moments = [one.unsqueeze(0) for one in moments_within(parts, subject.covariance[0])]
        for part, covariance in zip(parts, moments, strict=True):
            _share(part, covariance, values)
        return module


def _share(part: nn.Module, covariance: torch.Tensor, count: int) -> None:
    """Put a module's weight on a codebook, in place; zeros that a mask holds stay."""
    weight = weight_of(part)
    rows = weight.reshape(len(covariance), -1, covariance.shape[-1])
    masks = [encoding.mask for encoding in chain_of(part) if isinstance(encoding, MaskEncoding)]
    free = torch.stack(masks).all(0).view(rows.shape) if masks else torch.ones_like(rows, dtype=torch.bool)
    codebook = _codebook(rows, free, covariance, count, pinned_zero=bool(masks)).to(rows.device)
    given = settled(rows, covariance, lambda some, at: torch.where(free[:, :, at], nearest(some, codebook), 0.0))
    encode(part, CodebookEncoding(codebook.to(weight.dtype)), given)


def _codebook(
    rows: torch.Tensor, free: torch.Tensor, covariance: torch.Tensor, count: int, *, pinned_zero: bool
) -> torch.Tensor:
    """The best values for the free weights, each weighted by the variance of its input; always ``count`` entries."""
    importance = covariance.double().diagonal(dim1=1, dim2=2).clamp(min=0.0)  # rounding leaves tiny negative variances
    floor = importance.mean() * 1e-6  # inputs that never varied in calibration may still vary
    spread = (importance + floor).unsqueeze(1).expand(rows.shape)
    if not bool(free.any()):
        return torch.zeros(count, dtype=torch.float64)
    found = fit_codebook(rows[free], count, spread[free], pinned_zero=pinned_zero)
    return torch.cat([found, found[-1:].expand(count - len(found))])  # a layer may have fewer distinct weights
