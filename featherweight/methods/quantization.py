"""Quantization: fewer bits for weights, and integer kernels where activations lie on grids too.

Weights of an int8 layer are symmetric with one scale for every output channel, their clipping chosen by the squared
error weighted with the second moments of the inputs; float16 halves the bytes at next to no error. Activations of an
int8 layer lie on asymmetric grids for whole tensors; the recovery stage finds their ranges, the target says where they
stand (Jacob et al. 2018, arXiv:1712.05877; Nagel et al. 2021, arXiv:2106.08295, section 3).
"""

from __future__ import annotations

import torch
from torch import nn

from featherweight.contracts import PlanError, Refusal
from featherweight.methods.seam import Settings, Subject, leaves
from featherweight.network.encodings import AffineEncoding, HalfEncoding, encode, weight_type
from featherweight.network.modules import copied, weight_of
from featherweight.numerics.affine import AffineGrid, fit_symmetric
from featherweight.observation.rows import weight_rows

_WANTED = ("float16", "int8")


class Quantization:
    """The quantization family; settings are ``weights`` and ``activations``."""

    name = "quantization"
    follows: frozenset[str] = frozenset({"lowrank"})

    def options(self, subject: Subject) -> tuple[list[Settings], list[Refusal]]:
        """float16 storage and static int8, as far as the target has kernels for them."""
        settings: list[Settings] = []
        refusals: list[Refusal] = []
        for kind in _WANTED:
            if subject.layer.kind in subject.capability.layer_kinds.get(kind, frozenset()):
                settings.append({"weights": kind, "activations": "int8" if kind == "int8" else "float32"})
            else:
                reason = f"{subject.capability.target} has no {kind} kernel for a {subject.layer.kind} layer"
                refusals.append(Refusal(subject.layer.name, f"{self.name} {kind}", reason))
        return settings, refusals

    def apply(self, subject: Subject, settings: Settings) -> nn.Module:
        """The same modules with encoded weights.

        Raises:
            PlanError: settings that name no type pair offered here.
        """
        pair = (settings.get("weights"), settings.get("activations"))
        if len(settings) != 2 or pair not in (("float16", "float32"), ("int8", "int8")):
            raise PlanError(
                "Quantization knows weights=float16 with activations=float32, and weights=int8 with activations=int8.",
                f"{dict(settings)} for {subject.layer.name!r}",
                "choose one of the two",
            )
        module = copied(subject.module)
        second_moment = _second_moment(subject.covariance, subject.mean)
        for position, leaf in enumerate(leaves(module)):
            if weight_type(leaf) != "float32":
                raise PlanError("A weight is encoded once.", f"{subject.layer.name!r} twice", "drop one of the steps")
            if pair[0] == "float16":
                encode(leaf, HalfEncoding())
                continue
            weight = weight_of(leaf)
            rows = weight_rows(subject.layer, weight) if position == 0 else weight.flatten(1).unsqueeze(0)
            encode(leaf, AffineEncoding(_grid(rows, second_moment), axis=0, integer=True))
            second_moment = rows.double() @ second_moment @ rows.double().transpose(1, 2)
        return module


def _second_moment(covariance: torch.Tensor, mean: torch.Tensor) -> torch.Tensor:
    mean = mean.double()
    return covariance.double() + mean.unsqueeze(2) * mean.unsqueeze(1)


def _grid(rows: torch.Tensor, second_moment: torch.Tensor) -> AffineGrid:
    """One scale for every output channel of (g, n, d) rows, errors weighted by the inputs' second moments."""
    importance = second_moment.diagonal(dim1=1, dim2=2)
    floor = importance.mean() * 1e-6 + 1e-30
    spread = (importance + floor).unsqueeze(1).expand_as(rows)
    return fit_symmetric(rows.flatten(0, 1), 8, spread.flatten(0, 1))
