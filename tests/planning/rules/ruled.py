"""A network with every kind of tie, and tables for it that are made up."""

from __future__ import annotations

import functools

import torch
from hypothesis import strategies as st
from torch import nn

from featherweight.contracts import Cost, CostForm, Keep, Option, Step, Steps, Table
from featherweight.network import Network, capture

INT8 = (Step("quantization", {"weights": "int8", "activations": "int8"}),)
INT4 = (Step("quantization", {"weights": "int8", "activations": "int8", "bits": 4}),)
HALF = (Step("quantization", {"weights": "float16", "activations": "float32"}),)
DYNAMIC = (Step("quantization", {"weights": "int8", "activations": "dynamic"}),)
LOWRANK = (Step("lowrank", {"rank": 8}),)
LOWRANK_INT8 = (*LOWRANK, *INT8)
SPATIAL = (Step("lowrank", {"kind": "spatial", "rank": 8}),)
SHARED = (Step("sharing", {"values": 16}),)
TERNARY = (Step("binarization", {"kind": "ternary"}),)
COARSE = (Step("entropy", {"step": 1.0, "activations": "int8"}),)
STEPS: tuple[Steps, ...] = (INT8, INT4, HALF, DYNAMIC, LOWRANK, LOWRANK_INT8, SPATIAL, SHARED, TERNARY, COARSE)

WIDTHS = {"stem": (16, 3), "depth": (16, 1), "block.one": (16, 16), "block.two": (16, 16), "head": (4, 16)}
KINDS = {"stem": "conv2d", "depth": "depthwise_conv2d", "block.one": "conv2d", "block.two": "conv2d", "head": "linear"}


class _Ruled(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, padding=1)
        self.depth = nn.Conv2d(16, 16, 3, padding=1, groups=16)
        self.block = nn.Sequential()
        self.block.one = nn.Conv2d(16, 16, 1)
        self.block.two = nn.Conv2d(16, 16, 1)
        self.head = nn.Linear(16, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.depth(torch.relu(self.stem(x))))
        x = x + self.block.two(torch.relu(self.block.one(x)))
        return self.head(torch.relu(x).mean((2, 3)))


@functools.cache
def ruled_network() -> Network:
    """stem, depth and block.two are tied by the shortcut; block.one stands alone; head has no channels to spare."""
    return capture(_Ruled(), torch.randn(2, 3, 6, 6))


def keep_step(count: int) -> Step:
    return Step("pruning", {"keep": count})


def made_table(rows: dict[str, list[Steps]], counts: dict[str, list[int]]) -> Table:
    """A table with these options beside the empty one; bytes fall and divergence rises along each row."""
    options = {}
    for layer, row in rows.items():
        forms = [CostForm((max(40 - 3 * n, 4), 0, 0, 0), (10, 0, 0, 0), (10, 0, 0, 0)) for n in range(len(row) + 1)]
        options[layer] = tuple(
            Option(layer, steps, form.at(*WIDTHS[layer]), 0.1 * n, 0.01 * n, form)
            for n, (steps, form) in enumerate(zip([(), *row], forms, strict=True))
        )
    rows_of = {"stem": ("stem", "depth", "block.two"), "block.one": ("block.one",)}
    columns_of = {"stem": ("block.one", "head"), "block.one": ("block.two",)}
    keeps = {
        unit: tuple(
            Keep(
                unit, (keep_step(left),) if left < 16 else (),
                {layer: 16 - left for layer in rows_of[unit] if layer in rows},
                {layer: 16 - left for layer in columns_of[unit] if layer in rows},
                Cost(0, 0, 0), 0.2 * (16 - left), 0.02 * (16 - left),
            )
            for left in [16, *unit_counts]
        )
        for unit, unit_counts in counts.items()
    }  # fmt: skip
    return Table(options, (), Cost(10, 10, 10), {layer: WIDTHS[layer] for layer in rows}, keeps)


def whole_table() -> Table:
    """All layers with all options, and both units."""
    return made_table({layer: list(STEPS) for layer in WIDTHS}, {"stem": [14, 12, 8, 4], "block.one": [12, 8, 4]})


_some = st.lists(st.sampled_from(range(len(STEPS))), unique=True, max_size=6).map(lambda at: [STEPS[n] for n in at])
tables = st.builds(
    made_table,
    st.fixed_dictionaries(dict.fromkeys(WIDTHS, _some)),
    st.fixed_dictionaries(
        {
            unit: st.lists(st.sampled_from([14, 12, 8, 4]), unique=True, max_size=3).map(lambda c: sorted(c)[::-1])
            for unit in ("stem", "block.one")
        }
    ),
)
