"""Quantization: fewer bits for weights, and integer kernels where activations lie on grids too.

Weights lie on affine grids with one scale for every output channel. Scales start where the squared error, weighted with
the variances of the inputs, is least; GPTQ then rounds under the layer's own covariance
(:mod:`featherweight.numerics.gptq`), and below six bits levels and scales are improved by turns
(:mod:`featherweight.numerics.rounding`). float16 halves the bytes at next to no error. Activations of an int8 layer lie
on asymmetric grids for whole tensors; the recovery stage finds their ranges, the target says where they stand (Jacob et
al. 2018, arXiv:1712.05877; Nagel et al. 2021, arXiv:2106.08295, section 3).

Fewer than 8 bits are levels ``−(2^(bits−1) − 1) … 2^(bits−1) − 1`` in bytes, on the same int8 kernels: the file doesn't
shrink, an entropy-coded package of it does. Costs say so, and such options are offered only to who asks for them.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from featherweight.contracts import PlanError, Refusal
from featherweight.methods.seam import Settings, Subject, leaves
from featherweight.network.composition import moments_within
from featherweight.network.encodings import (
    AffineEncoding,
    CodebookEncoding,
    HalfEncoding,
    MaskEncoding,
    chain_of,
    encode,
    weight_type,
)
from featherweight.network.modules import copied, weight_of
from featherweight.numerics.affine import (
    AffineGrid,
    asymmetric_grid,
    fit_asymmetric_rows,
    fit_symmetric,
    symmetric_grid,
)
from featherweight.numerics.gptq import RowGrids, gptq
from featherweight.numerics.rounding import round_weight

_WORTH_SEARCHING = 5
_MOST_BITS = 8
_SETTINGS = frozenset({"weights", "bits", "activations", "symmetric", "rounding"})
_HALF = {"weights": "float16", "activations": "float32"}


@dataclass(frozen=True, slots=True)
class Quantization:
    """The quantization family.

    Settings are ``weights`` (float16 or int8), ``activations``: "int8" (on static ranges), "dynamic" (on ranges found
    per inference) or "float32"; and for int8 weights ``bits`` (2 to 8; 8 where it is left out), ``symmetric`` (true)
    and ``rounding`` (gptq or nearest; gptq). Static ones are offered; the others are a plan's to ask for, since they
    take as many bytes and more time, which the table doesn't count.

    Attributes:
        bits: bit widths that are offered; a plan may ask for any.
    """

    name = "quantization"
    follows = frozenset({"lowrank", "sharing", "sparsity"})
    bits: tuple[int, ...] = (8,)

    def options(self, subject: Subject) -> tuple[list[Settings], list[Refusal]]:
        """float16 storage and static int8, as far as the target has kernels for them."""
        settings: list[Settings] = []
        refusals: list[Refusal] = []
        static: Settings = {"weights": "int8", "activations": "int8"}
        offers = {
            "float16": [_HALF],
            "int8": [static if bits == _MOST_BITS else {**static, "bits": bits} for bits in self.bits],
        }
        for kind, wanted in offers.items():
            if subject.layer.kind in subject.capability.layer_kinds.get(kind, frozenset()):
                settings += wanted
            else:
                reason = f"{subject.capability.target} has no {kind} kernel for a {subject.layer.kind} layer"
                refusals.append(Refusal(subject.layer.name, f"{self.name} {kind}", reason))
        return settings, refusals

    def apply(self, subject: Subject, settings: Settings) -> nn.Module:
        """The same modules with encoded weights.

        Raises:
            PlanError: settings that make no sense, or weights that a target has a type for already.
        """
        wanted = None if dict(settings) == _HALF else _Rounding.of(settings, subject.layer.name)
        module = copied(subject.module)
        parts = leaves(module)
        if wanted is not None and wanted.dynamic:
            _check_dynamic(subject)
        if any(weight_type(part) != "float32" for part in parts):
            raise PlanError("A weight is encoded once.", f"{subject.layer.name!r} twice", "drop one of the steps")
        for position, part in enumerate(parts):
            if wanted is None:
                if not bool(torch.isfinite(weight_of(part).half()).all()):
                    raise PlanError(
                        "float16 holds magnitudes up to 65504.",
                        f"larger weights in {subject.layer.name!r}",
                        "write weights: int8 there",
                    )
                encode(part, HalfEncoding())
                continue
            covariance = subject.covariance
            if len(parts) > 1:  # of what the parts before it, rounded already, make of the inputs
                covariance = moments_within(parts, subject.covariance[0])[position].unsqueeze(0)
            wanted.encode(part, covariance)
        return module


def _check_dynamic(subject: Subject) -> None:
    if subject.layer.kind not in subject.capability.dynamic_kinds:
        raise PlanError(
            "Ranges per inference need a kernel that finds them.",
            f"{subject.capability.target} has none for {subject.layer.name!r}, a {subject.layer.kind} layer",
            "write activations: int8 or float32 there",
        )


@dataclass(frozen=True, slots=True)
class _Rounding:
    """How int8 weights are made."""

    bits: int
    integer: bool
    symmetric: bool
    compensated: bool
    dynamic: bool = False

    @classmethod
    def of(cls, settings: Settings, layer: str) -> _Rounding:
        """From settings, checked."""
        bits, symmetric = settings.get("bits", _MOST_BITS), settings.get("symmetric", True)
        activations, rounding = settings.get("activations"), settings.get("rounding", "gptq")
        known = settings.get("weights") == "int8" and not set(settings) - _SETTINGS
        fits = type(bits) is int and 2 <= bits <= _MOST_BITS and type(symmetric) is bool
        if not (known and fits and activations in ("int8", "dynamic", "float32") and rounding in ("gptq", "nearest")):
            raise PlanError(
                "Quantization knows weights=float16 with activations=float32; and weights=int8 with activations=int8, "
                "dynamic or float32, bits from 2 to 8, symmetric=true or false, rounding=gptq or nearest.",
                f"{dict(settings)} for {layer!r}",
                "write {weights: int8, activations: int8}",
            )
        if not symmetric and activations != "float32" and bits == _MOST_BITS:
            raise PlanError(
                "Integer kernels take 8-bit weights without a zero point.",
                f"{dict(settings)} for {layer!r}",
                "write symmetric: true, fewer bits, or activations: float32",
            )
        return cls(int(bits), activations == "int8", symmetric is True, rounding == "gptq", activations == "dynamic")

    def encode(self, part: nn.Module, covariance: torch.Tensor) -> None:
        """Round a module's weight and put it on its grid, in place; zeros and shared values stay such."""
        weight = weight_of(part)
        rows = weight.reshape(len(covariance), -1, covariance.shape[-1]).double()
        shared = any(isinstance(encoding, CodebookEncoding) for encoding in chain_of(part))
        grids = RowGrids.of(self._grid(rows, covariance, whole=shared), len(rows))
        if shared or not self.compensated:
            # Equal weights must stay equal: each is rounded by itself, and none is clipped onto another.
            rounded = grids.nearest(rows)
        else:
            masks = [encoding.mask for encoding in chain_of(part) if isinstance(encoding, MaskEncoding)]
            free = torch.stack(masks).all(0).view(rows.shape) if masks else None
            if self.bits > _WORTH_SEARCHING:
                rounded = gptq(rows, covariance, grids, free)
            else:
                rounded, grids = round_weight(rows, covariance, grids, free)
        encode(part, AffineEncoding(self._stored(grids), 0, self.integer, self.dynamic), rounded)

    def _grid(self, rows: torch.Tensor, covariance: torch.Tensor, *, whole: bool) -> AffineGrid:
        """One grid for every output channel of (g, n, d) rows, over all its weights or clipped where that is better."""
        flat = rows.flatten(0, 1)
        if whole:
            if self.symmetric:
                return symmetric_grid(flat.abs().amax(1), self.bits)
            return asymmetric_grid(flat.amin(1), flat.amax(1), self.bits)
        importance = covariance.double().diagonal(dim1=1, dim2=2)
        floor = importance.mean() * 1e-6 + 1e-30  # inputs that never varied in calibration may still vary
        spread = (importance + floor).unsqueeze(1).expand(rows.shape).flatten(0, 1)
        return (fit_symmetric if self.symmetric else fit_asymmetric_rows)(flat, self.bits, spread)

    def _stored(self, grids: RowGrids) -> AffineGrid:
        """The grids as one per channel. Integer kernels want no zero point: there levels count from zero instead."""
        scale, low = grids.scale.flatten().float(), grids.low.flatten().to(torch.int64)
        steps = int(grids.high.max() - grids.low.min()) if self.symmetric else 2**self.bits - 1
        if self.symmetric:
            return AffineGrid(scale, torch.zeros_like(low), -(steps // 2), steps // 2)
        if self.integer or self.dynamic:
            return AffineGrid(scale, torch.zeros_like(low), -steps, steps)
        lowest = -(2 ** (self.bits - 1))
        return AffineGrid(scale, lowest - low, lowest, lowest + steps)
