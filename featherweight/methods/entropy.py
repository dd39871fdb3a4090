"""Entropy-coded quantization: one coarse step a layer, levels chosen on error and bits together.

What a package saves is bits, not bytes: a level that is frequent costs next to nothing, zero least of all. So the grid
isn't made short but coarse, the same for all outputs of a layer, and every level is chosen on
``tr(D C Dᵀ) + λ · bits`` (:mod:`featherweight.numerics.ratedistortion`). Most weights of a coarse grid are zero: what
pruning single weights is after comes with it, at the exchange rate that saves most.

The file stores a byte a level anyway: its rows are offered only where a package is counted.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import nn

from featherweight.contracts import PlanError, Refusal
from featherweight.methods.seam import Settings, Subject, leaves, only_a_package
from featherweight.network.composition import moments_within
from featherweight.network.encodings import AffineEncoding, MaskEncoding, chain_of, encode, weight_type
from featherweight.network.modules import copied, weight_of
from featherweight.numerics.affine import AffineGrid
from featherweight.numerics.ratedistortion import MOST, round_for_rate

_STEPS = (0.25, 0.35, 0.5, 0.7, 1.0, 1.4, 2.0)
_STEPS_OF_FACTORS = (0.25, 0.5, 1.0)
_SMALLEST, _LARGEST = 1e-3, 1e2


class Entropy:
    """The family of entropy-coded quantization.

    Settings are ``step``, the grid's step in units of the root mean square of the layer's weights, and ``activations``:
    "int8" (on static ranges) or "float32".

    Args:
        package: whether what counts is a package.
    """

    name = "entropy"
    follows: frozenset[str] = frozenset({"lowrank", "sparsity"})

    def __init__(self, package: bool = False) -> None:
        self.package = package

    def options(self, subject: Subject) -> tuple[list[Settings], list[Refusal]]:
        """Seven steps from an eighth of the weights' spread to twice as much; three of a layer in factors."""
        name = subject.layer.name
        if not self.package:
            return [], [only_a_package(subject, self.name)]
        if subject.layer.kind not in subject.capability.layer_kinds.get("int8", frozenset()):
            reason = f"{subject.capability.target} has no int8 kernel for a {subject.layer.kind} layer"
            return [], [Refusal(name, self.name, reason)]
        steps = _STEPS if len(leaves(subject.module)) == 1 else _STEPS_OF_FACTORS
        return [{"step": step, "activations": "int8"} for step in steps], []

    def apply(self, subject: Subject, settings: Settings) -> nn.Module:
        """The same modules, their weights on coarse grids.

        Raises:
            PlanError: settings that make no sense, or weights that are encoded already.
        """
        step, activations = settings.get("step"), settings.get("activations")
        fits = type(step) in (int, float) and math.isfinite(step) and _SMALLEST <= step <= _LARGEST  # type: ignore[arg-type]
        if not fits or set(settings) != {"step", "activations"} or activations not in ("int8", "float32"):
            raise PlanError(
                f"Entropy-coded quantization takes a step, from {_SMALLEST} to {_LARGEST} root mean squares of the "
                "weights, and activations: int8 or float32.",
                f"{dict(settings)} for {subject.layer.name!r}",
                "write {step: 0.7, activations: int8}",
            )
        module = copied(subject.module)
        parts = leaves(module)
        if any(weight_type(part) != "float32" for part in parts):
            raise PlanError("A weight is encoded once.", f"{subject.layer.name!r} twice", "drop one of the steps")
        for position, part in enumerate(parts):
            covariance = subject.covariance
            if len(parts) > 1:  # of what the parts before it, rounded already, make of the inputs
                covariance = moments_within(parts, subject.covariance[0])[position].unsqueeze(0)
            _encode(part, covariance, float(step), integer=activations == "int8")  # type: ignore[arg-type]
        return module


def _encode(part: nn.Module, covariance: torch.Tensor, step: float, *, integer: bool) -> None:
    """Put a module's weight on a coarse grid, in place; zeros that a mask holds stay."""
    weight = weight_of(part)
    rows = weight.reshape(len(covariance), -1, covariance.shape[-1]).double()
    masks = [encoding.mask for encoding in chain_of(part) if isinstance(encoding, MaskEncoding)]
    free = torch.stack(masks).all(0).view(rows.shape) if masks else None
    held = rows if free is None or not bool(free.any()) else rows[free]
    spread = float(held.square().mean().sqrt())
    # Levels must fit a byte; a layer of zeros has any step.
    scale = max(step * spread, float(rows.abs().max()) / (MOST - 0.5)) or 1.0
    stored = float(np.float32(scale))
    levels = round_for_rate(rows, covariance, stored, free)
    count = weight.shape[0]
    grid = AffineGrid(torch.full((count,), stored), torch.zeros(count, dtype=torch.int64), -MOST, MOST)
    encode(part, AffineEncoding(grid, 0, integer), levels.double() * stored)
