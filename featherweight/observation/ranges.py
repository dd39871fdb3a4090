"""Ranges of a network's values, for the grids of its activations."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import torch
from torch import fx

from featherweight.network.capture import Network
from featherweight.observation.evidence import ValueRange, batches, sample_values, values_per_sample
from featherweight.tasks.data import Split


class _Ranges(fx.Interpreter):
    def __init__(self, network: Network, nodes: Collection[str], samples: int, seed: int) -> None:
        super().__init__(network.graph)
        self.nodes = frozenset(nodes)
        self.values_per_sample = values_per_sample(samples)
        self.generator = torch.Generator().manual_seed(seed)
        self.lows: dict[str, float] = {}
        self.highs: dict[str, float] = {}
        self.samples: dict[str, list[torch.Tensor]] = {}

    def run_node(self, n: fx.Node) -> object:
        result = super().run_node(n)
        if n.name in self.nodes and isinstance(result, torch.Tensor):
            self.lows[n.name] = min(self.lows.get(n.name, torch.inf), float(result.min()))
            self.highs[n.name] = max(self.highs.get(n.name, -torch.inf), float(result.max()))
            self.samples.setdefault(n.name, []).append(self._sample(result))
        return result

    def _sample(self, x: torch.Tensor) -> torch.Tensor:
        return sample_values(x, self.values_per_sample * len(x), self.generator)


def observe_ranges(
    network: Network, split: Split, nodes: Collection[str], *, size: int = 32, seed: int = 0
) -> Mapping[str, ValueRange]:
    """Extremes and a sample of the values of the named graph nodes, in one pass over unlabelled samples."""
    ranges = _Ranges(network, nodes, len(split), seed)
    with torch.no_grad():
        for inputs in batches(split, size, "measuring activation ranges"):
            ranges.run(*inputs)
    return {name: ValueRange(ranges.lows[name], ranges.highs[name], torch.cat(ranges.samples[name])) for name in nodes}
