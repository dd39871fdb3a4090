"""Moving operations against brute force: every element of the result carries the label of the element it came from."""

from __future__ import annotations

import math

import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn

from featherweight.network.capture import capture
from featherweight.network.channels.passes import run_pass
from featherweight.network.channels.trace import Trace

BATCH = 3


@st.composite
def moves(draw):
    """A width, and a chain of reshapes and permutations of it, the batch staying in front or folded in."""
    width = draw(st.sampled_from([8, 12, 24]))
    chain = []
    for _ in range(draw(st.integers(1, 3))):
        sizes, rest = [], width
        while rest > 1 and len(sizes) < 3:
            sizes.append(draw(st.sampled_from([d for d in range(1, rest + 1) if rest % d == 0])))
            rest //= sizes[-1]
        sizes.append(rest)
        chain.append((sizes, draw(st.permutations(range(len(sizes)))), draw(st.booleans())))
    return width, chain


def moved(x: torch.Tensor, chain: list) -> torch.Tensor:
    batch = x.shape[0]
    for sizes, order, fold in chain:
        x = x.reshape(batch, *sizes).permute(0, *(axis + 1 for axis in order))
        if fold:
            x = x.flatten(0, 1).unflatten(0, (-1, sizes[order[0]]))
    return x


class Chain(nn.Module):
    def __init__(self, width: int, chain: list) -> None:
        super().__init__()
        self.a, self.chain = nn.Linear(2, width), chain

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return moved(self.a(x), self.chain).tanh().sum()[None].expand(x.shape[0])


def labels_of_elements(trace: Trace, node: str, shape: torch.Size) -> list[torch.Tensor]:
    """For every axis of a value: its free labels, spread over all elements; -1 where none."""
    spread = []
    for dim, axis in enumerate(trace.values[node].axes):
        if axis is not None:
            roots = trace.atoms.find(axis.labels)
            roots[trace.atoms.frozen(axis.labels)] = -1
            period = torch.from_numpy(roots).repeat_interleave(axis.inner)
            view = [1] * len(shape)
            view[dim] = shape[dim]
            spread.append(period.repeat(shape[dim] // len(period)).view(view).expand(shape))
    return spread


@settings(max_examples=40, suppress_health_check=[HealthCheck.too_slow])
@given(moves(), st.sampled_from(["inner", "outer"]))
def test_labels_move_as_elements_do(case, mode):
    width, chain = case
    graph = capture(Chain(width, chain), torch.randn(BATCH, 2)).graph
    trace = run_pass(graph, mode, {})
    source = next(node for node in graph.graph.nodes if "linear" in node.name)
    last = next(node for node in graph.graph.nodes if "tanh" in node.name)
    sources = labels_of_elements(trace, source.name, torch.Size((BATCH, width)))
    came_from = sources[0] if sources else torch.full((BATCH, width), -1)
    expected = moved(came_from, chain)
    carried = labels_of_elements(trace, last.name, expected.shape)
    assert math.prod(expected.shape) == BATCH * width
    found = torch.full(expected.shape, -1)
    for labels in carried:
        assert ((found == -1) | (labels == -1)).all(), "only one axis carries labels here"
        found = torch.where(labels == -1, found, labels)
    assert torch.equal(found, expected)
