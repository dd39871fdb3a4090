"""Quantization: fewer bits for weights, and integer kernels where activations lie on grids too.

Weights lie on affine grids with one scale for every output channel. Scales start where the squared error, weighted with
the variances of the inputs, is least; GPTQ then rounds under the layer's own covariance
(:mod:`featherweight.numerics.gptq`), and below six bits levels and scales are improved by turns
(:mod:`featherweight.numerics.rounding`). float16 halves the bytes at next to no error. Activations of an int8 layer lie
on asymmetric grids for whole tensors; the recovery stage finds their ranges, the target says where they stand (Jacob et
al. 2018, arXiv:1712.05877; Nagel et al. 2021, arXiv:2106.08295, section 3).

How those ranges are found is a setting: by the least squared error unless it says otherwise
(:mod:`featherweight.numerics.ranges`).

Fewer than 8 bits are levels ``−(2^(bits−1) − 1) … 2^(bits−1) − 1`` in bytes, on the same int8 kernels: the file doesn't
shrink, an entropy-coded package of it does. Costs say so, and such options are offered only to who asks for them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import nn

from featherweight.contracts import Knobs, PlanError, Refusal
from featherweight.methods.seam import Method, Settings, Subject, leaves
from featherweight.network.composition import moments_within
from featherweight.network.encodings import (
    AffineEncoding,
    BinaryEncoding,
    CodebookEncoding,
    HalfEncoding,
    MaskEncoding,
    carrier,
    chain_of,
    encode,
    weight_type,
)
from featherweight.network.grouped import PermutedConvolution
from featherweight.network.modules import copied, weight_of
from featherweight.numerics.affine import (
    AffineGrid,
    asymmetric_grid,
    fit_asymmetric_rows,
    fit_symmetric,
    symmetric_grid,
)
from featherweight.numerics.gptq import DAMPING, RowGrids, gptq
from featherweight.numerics.ranges import RANGE_SEARCHES
from featherweight.numerics.rounding import round_weight

_WORTH_SEARCHING = 5
_MOST_BITS = 8
_SETTINGS = frozenset({"weights", "bits", "activations", "symmetric", "rounding", "ranges"})
_HALF = {"weights": "float16", "activations": "float32"}


@dataclass(frozen=True, slots=True)
class Quantization:
    """The quantization family.

    Settings are ``weights`` (float16 or int8), ``activations``: "int8" (on static ranges), "dynamic" (on ranges found
    per inference) or "float32"; and for int8 weights ``bits`` (2 to 8; 8 where it is left out), ``symmetric`` (true)
    and ``rounding`` (gptq or nearest; gptq). Static ranges are found by ``ranges`` (mse, percentile, entropy or minmax;
    mse). Static ones are offered; the others are a plan's to ask for, since they take as many bytes and more time,
    which the table doesn't count.

    Attributes:
        bits: bit widths that are offered; a plan may ask for any.
        ranges: how the ranges of what is offered are found; empty for the default.
        damping, largest_first: of GPTQ.
    """

    name = "quantization"
    follows = frozenset({"binarization", "grouping", "lowrank", "sharing", "sparsity"})
    bits: tuple[int, ...] = (8,)
    ranges: str = ""
    damping: float = DAMPING
    largest_first: bool = True

    def options(self, subject: Subject) -> tuple[list[Settings], list[Refusal]]:
        """float16 storage and static int8, as far as the target has kernels for them."""
        settings: list[Settings] = []
        refusals: list[Refusal] = []
        static: Settings = {
            "weights": "int8",
            "activations": "int8",
            **({"ranges": self.ranges} if self.ranges else {}),
        }
        offers = {
            "float16": [_HALF],
            "int8": [static if bits == _MOST_BITS else {**static, "bits": bits} for bits in self.bits],
        }
        for kind, wanted in offers.items():
            reason = ""
            if _kind(subject) not in subject.capability.layer_kinds.get(kind, frozenset()):
                reason = f"{subject.capability.target} has no {kind} kernel for a {_kind(subject)} layer"
            elif kind == "float16" and not all(map(_fits_half, leaves(subject.module))):
                reason = "its largest weights are beyond 65504, where float16 ends"
            if reason:
                refusals.append(Refusal(subject.layer.name, f"{self.name} {kind}", reason))
            else:
                settings += wanted
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
                if not _fits_half(part):
                    raise PlanError(
                        "float16 holds magnitudes up to 65504.",
                        f"larger weights in {subject.layer.name!r}",
                        "write weights: int8 there",
                    )
                encode(part, HalfEncoding())
                continue
            wanted.encode(part, _covariance(subject, parts, position), self.damping, self.largest_first)
        return module


def tuned(methods: Sequence[Method], knobs: Knobs) -> tuple[Method, ...]:
    """The catalogue with quantization rounding as the knobs say."""
    return tuple(
        replace(method, damping=knobs.rounding_damping, largest_first=knobs.largest_first)
        if isinstance(method, Quantization)
        else method
        for method in methods
    )


def _fits_half(part: nn.Module) -> bool:
    return bool(torch.isfinite(weight_of(part).half()).all())


def _covariance(subject: Subject, parts: list[nn.Module], position: int) -> torch.Tensor:
    """Of what a part reads, in the order of its stored weight: (g, d', d')."""
    part = parts[position]
    if isinstance(part, PermutedConvolution):
        columns = part.columns()
        return subject.covariance[0][columns.unsqueeze(2), columns.unsqueeze(1)]
    if len(parts) > 1:  # of what the parts before it, rounded already, make of the inputs
        return moments_within(parts, subject.covariance[0])[position].unsqueeze(0)
    return subject.covariance


def _kind(subject: Subject) -> str:
    """The subject's layer kind as capability data name it: that of a grouped convolution where grouping made it one."""
    grouped = any(isinstance(part, PermutedConvolution) for part in leaves(subject.module))
    return f"grouped_{subject.layer.kind}" if grouped else subject.layer.kind


def _check_dynamic(subject: Subject) -> None:
    kind = _kind(subject)
    if kind not in subject.capability.dynamic_kinds:
        raise PlanError(
            "Ranges per inference need a kernel that finds them.",
            f"{subject.capability.target} has none for {subject.layer.name!r}, a {kind} layer",
            "write activations: int8 or float32 there",
        )


def _check_words(settings: Settings, layer: str) -> None:
    """Settings of their own kind, each with its own answer."""
    if "block" in settings:
        raise PlanError(
            "A grid for every block of columns needs a kernel that reads one.",
            f"{dict(settings)} for {layer!r}: no target here has one, and blocks save nothing without it",
            "leave block out: every output channel has a grid of its own",
        )
    if "ranges" in settings and (settings["ranges"] not in RANGE_SEARCHES or settings.get("activations") != "int8"):
        raise PlanError(
            f"Ranges of static activations are found by one of: {', '.join(RANGE_SEARCHES)}; others have none to find.",
            f"{dict(settings)} for {layer!r}",
            "write activations: int8 and ranges: mse, or leave ranges out",
        )


@dataclass(frozen=True, slots=True)
class _Rounding:
    """How int8 weights are made."""

    bits: int
    integer: bool
    symmetric: bool
    compensated: bool
    dynamic: bool = False
    ranges: str = ""

    @classmethod
    def of(cls, settings: Settings, layer: str) -> _Rounding:
        """From settings, checked."""
        bits, symmetric = settings.get("bits", _MOST_BITS), settings.get("symmetric", True)
        activations, rounding = settings.get("activations"), settings.get("rounding", "gptq")
        ranges = settings.get("ranges", "")
        _check_words(settings, layer)
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
        compensated, dynamic = rounding == "gptq", activations == "dynamic"
        return cls(int(bits), activations == "int8", symmetric is True, compensated, dynamic, str(ranges))

    def encode(self, part: nn.Module, covariance: torch.Tensor, damping: float, largest_first: bool) -> None:
        """Round a module's weight and put it on its grid, in place; zeros and shared values stay such."""
        weight = weight_of(carrier(part))
        rows = weight.reshape(len(covariance), -1, covariance.shape[-1]).double()
        shared = any(isinstance(encoding, (CodebookEncoding, BinaryEncoding)) for encoding in chain_of(part))
        grids = RowGrids.of(self._grid(rows, covariance, whole=shared), len(rows))
        if shared or not self.compensated:
            # Equal weights must stay equal: each is rounded by itself, and none is clipped onto another.
            rounded = grids.nearest(rows)
        else:
            masks = [encoding.mask for encoding in chain_of(part) if isinstance(encoding, MaskEncoding)]
            free = torch.stack(masks).all(0).view(rows.shape) if masks else None
            if self.bits > _WORTH_SEARCHING:
                rounded = gptq(rows, covariance, grids, free, damping, largest_first)
            else:
                rounded, grids = round_weight(rows, covariance, grids, free, damping, largest_first)
        grid = self._stored(grids)
        encode(part, AffineEncoding(grid, 0, self.integer, dynamic=self.dynamic, ranges=self.ranges), rounded)

    def _grid(self, rows: torch.Tensor, covariance: torch.Tensor, *, whole: bool) -> AffineGrid:
        """One grid for every output channel of (g, n, d) rows, over all its weights or clipped where that is better."""
        flat = rows.flatten(0, 1)
        if whole:
            if self.symmetric:
                return symmetric_grid(flat.abs().amax(1), self.bits)
            return asymmetric_grid(flat.amin(1), flat.amax(1), self.bits)
        importance = covariance.double().diagonal(dim1=1, dim2=2).clamp(min=0.0)  # rounding leaves tiny negative ones
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
