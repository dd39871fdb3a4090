"""Grids for activations: ranges observed on the compressed network, chosen by squared error."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from featherweight.network.capture import Network
from featherweight.network.grids import Compressed
from featherweight.numerics.affine import AffineGrid, fit_asymmetric
from featherweight.observation.ranges import observe_ranges
from featherweight.targets.placement import Placement
from featherweight.tasks.data import Split


def fit_grids(network: Network, placement: Placement, split: Split) -> Compressed:
    """Give every value that the target computes on integers the asymmetric int8 grid with the least squared error.

    Args:
        network: compressed, with encodings on its weights.
        placement: which nodes lie on grids, and which share one.
        split: calibration samples; one pass.
    """
    ranges = observe_ranges(network, split, placement.nodes) if placement.nodes else {}
    grids: dict[str, AffineGrid] = {}
    for group in placement.groups:
        grids.update(dict.fromkeys(group, _grid(group, placement, ranges)))
    return Compressed(network, grids)


def _grid(group: tuple[str, ...], placement: Placement, ranges: Mapping) -> AffineGrid:
    for node in group:
        if node in placement.fixed:
            scale, zero = placement.fixed[node]
            return AffineGrid(torch.tensor(scale), torch.tensor(zero), -128, 127)
    sample = torch.cat([ranges[node].sample for node in group])
    return fit_asymmetric(sample, min(ranges[n].low for n in group), max(ranges[n].high for n in group))
