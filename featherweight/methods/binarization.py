"""Binarization: weights of one sign or none, with a real scale for every output channel.

Binary weights are ±α (XNOR-Net), ternary ones add 0. Scales start at the optimum under uncorrelated inputs, exact in
closed form (:mod:`featherweight.numerics.binary`); weights settle on their levels one input after another, each making
up for those before it (:mod:`featherweight.numerics.sequential`); then every scale takes its least-squares value under
the whole covariance. No step ends worse than it began.

Runtimes for phones have no kernels for signs. What is won is the package: one or two bits a weight; the file stores
every value anyway, and its rows here cost the same bytes, honestly.
"""

from __future__ import annotations

import torch
from torch import nn

from featherweight.contracts import PlanError, Refusal
from featherweight.methods.seam import Settings, Subject, leaves, only_a_package
from featherweight.network.composition import moments_within
from featherweight.network.encodings import BinaryEncoding, MaskEncoding, chain_of, encode
from featherweight.network.modules import copied, weight_of
from featherweight.numerics.binary import fit_binary, fit_ternary, gram_scale, on_levels
from featherweight.numerics.sequential import settled

_KINDS = ("ternary", "binary")


class Binarization:
    """The family of signs; its one setting is ``kind``: "ternary" or "binary".

    Args:
        package: whether what counts is a package that takes fewer bytes for values that recur.
    """

    name = "binarization"
    follows: frozenset[str] = frozenset({"sparsity", "lowrank"})

    def __init__(self, package: bool = False) -> None:
        self.package = package

    def options(self, subject: Subject) -> tuple[list[Settings], list[Refusal]]:
        """Ternary and binary; after zeros were chosen, ternary alone."""
        if not self.package:
            return [], [only_a_package(subject, self.name)]
        masked = any(chain_of(leaf) for leaf in leaves(subject.module))
        return [{"kind": kind} for kind in _KINDS if kind == "ternary" or not masked], []

    def apply(self, subject: Subject, settings: Settings) -> nn.Module:
        """The same modules, their weights on signs.

        Raises:
            PlanError: settings that name no kind, weights that are encoded already, or zeros that binary can't hold.
        """
        kind = settings.get("kind")
        if set(settings) != {"kind"} or kind not in _KINDS:
            raise PlanError(
                "Binarization takes a kind, its one setting: ternary or binary.",
                f"{dict(settings)} for {subject.layer.name!r}",
                "{kind: ternary} loses less",
            )
        module = copied(subject.module)
        parts = leaves(module)
        chain = [encoding for part in parts for encoding in chain_of(part)]
        if any(not isinstance(encoding, MaskEncoding) for encoding in chain) or (chain and kind == "binary"):
            raise PlanError(
                "Weights become signs before they are rounded otherwise, and zeros need the kind with a zero.",
                f"kind={kind} for {subject.layer.name!r}, which is encoded already",
                "take kind=ternary after zeros, and drop other steps",
            )
        moments = [subject.covariance]
        if len(parts) > 1:
            moments = [one.unsqueeze(0) for one in moments_within(parts, subject.covariance[0])]
        for part, covariance in zip(parts, moments, strict=True):
            _binarize(part, covariance.double(), zero=kind == "ternary")
        return module


def _binarize(part: nn.Module, covariance: torch.Tensor, *, zero: bool) -> None:
    """Put a module's weight on signs, in place; zeros that a mask holds stay."""
    weight = weight_of(part)
    rows = weight.double().reshape(len(covariance), -1, covariance.shape[-1])
    masks = [encoding.mask for encoding in chain_of(part) if isinstance(encoding, MaskEncoding)]
    free = torch.stack(masks).all(0).view(rows.shape) if masks else torch.ones_like(rows, dtype=torch.bool)
    importance = covariance.diagonal(dim1=1, dim2=2).clamp(min=0.0)  # rounding leaves tiny negative variances
    spread = (importance + importance.mean() * 1e-6).unsqueeze(1) * free
    scale = fit_ternary(rows, spread) if zero else fit_binary(rows, spread)
    given = settled(rows, covariance, lambda some, at: on_levels(some, scale, zero=zero) * free[:, :, at])
    levels = given.sign()
    best = gram_scale(rows, levels, covariance, scale)
    encode(part, BinaryEncoding(best.flatten().to(weight.dtype), zero), levels * best.unsqueeze(2))
