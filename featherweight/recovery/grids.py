"""Grids for activations: ranges observed on the compressed network, each found by the search that its layer names."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from torch import fx

from featherweight.network.capture import Network
from featherweight.network.encodings import AffineEncoding, encoding_of
from featherweight.network.grids import Compressed
from featherweight.numerics.affine import AffineGrid
from featherweight.numerics.ranges import RANGE_SEARCHES
from featherweight.observation.evidence import ValueRange
from featherweight.observation.ranges import observe_ranges
from featherweight.targets.placement import Placement, integer_layers
from featherweight.tasks.data import Split

DEFAULT = "mse"


def fit_grids(network: Network, placement: Placement, split: Split, search: str = DEFAULT) -> Compressed:
    """Give every value that the target computes on integers an asymmetric int8 grid.

    It is found by one search for all, unless the layer that writes or reads the value names another (``ranges`` of its
    weight's encoding). Where the values of several layers share a grid and these name different searches, the last one
    in execution order decides: it reads what the others write.

    Args:
        network: compressed, with encodings on its weights.
        placement: which nodes lie on grids, and which share one.
        split: calibration samples; one pass.
        search: by a name of :data:`featherweight.numerics.ranges.RANGE_SEARCHES`, for layers that name none.
    """
    ranges = observe_ranges(network, split, placement.nodes) if placement.nodes else {}
    named = dict(_named(network, placement))
    grids: dict[str, AffineGrid] = {}
    for group in placement.groups:
        grids.update(dict.fromkeys(group, _grid(group, placement, ranges, named.get(group, search))))
    return Compressed(network, grids)


def _named(network: Network, placement: Placement) -> Iterator[tuple[tuple[str, ...], str]]:
    """Groups of nodes with the search that a layer names for its input and its output, in execution order."""
    group_of = {node: group for group in placement.groups for node in group}
    nodes = {node.name: node for node in network.graph.graph.nodes}
    for layer in integer_layers(network):
        encoding = encoding_of(network.module.get_submodule(layer.name))
        if not isinstance(encoding, AffineEncoding) or not encoding.ranges:
            continue
        call = nodes[layer.node]
        # where the call itself has no grid, the activation fused to it has
        output = call if call.name in group_of else next(iter(call.users))
        for node in (call.args[0], output):
            if isinstance(node, fx.Node) and node.name in group_of:
                yield group_of[node.name], encoding.ranges


def _grid(group: tuple[str, ...], placement: Placement, ranges: Mapping[str, ValueRange], search: str) -> AffineGrid:
    for node in group:
        if node in placement.fixed:
            scale, zero = placement.fixed[node]
            return AffineGrid(torch.tensor(scale), torch.tensor(zero), -128, 127)
    sample = torch.cat([ranges[node].sample for node in group])
    low, high = min(ranges[node].low for node in group), max(ranges[node].high for node in group)
    return RANGE_SEARCHES[search](sample, low, high, 8)
