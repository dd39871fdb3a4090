"""What changing types takes: counted as on the network that ships, and priced by whole networks."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from featherweight.methods import METHODS
from featherweight.planning.activations import Activations
from featherweight.planning.latency.conversions import Conversions
from featherweight.planning.latency.kernels import kernels_in, kernels_of
from featherweight.planning.latency.latencies import Clock, Latencies
from featherweight.planning.latency.pricing import with_latency
from featherweight.planning.latency.standin import stand_in
from tests.planning.bare import DYNAMIC, STATIC, KnownTarget, bare_table, chosen, converted, linear_ms, small

TARGET = KnownTarget(linear_ms)
LAYERS = ("start", "depth", "inner", "outer", "end")


def _counted():
    network, prunable = small()
    table = bare_table(network, prunable)
    kernels = kernels_in(table, network, TARGET.capability, METHODS)
    return table, Conversions.of(table, kernels, Activations(network, TARGET, prunable.coupling), prunable.coupling)


@pytest.mark.parametrize(
    ("integer", "elements"),
    [
        ((), 0),
        (("outer",), 64 * 8 * 8 + 32 * 8 * 8),  # its input; its output, which a real addition reads
        (("start",), 3 * 16 * 16 + 32 * 8 * 8),
        (("start", "depth"), 3 * 16 * 16 + 32 * 8 * 8),  # nothing in between
        (("end",), 32 + 10),
    ],
)
def test_what_changes_its_type_by_hand(integer, elements) -> None:
    table, conversions = _counted()
    assert conversions.elements(chosen(table, {"": (), **dict.fromkeys(integer, STATIC)})) == elements


@settings(max_examples=10, deadline=None)
@given(
    steps=st.lists(st.sampled_from([(), STATIC, DYNAMIC]), min_size=5, max_size=5),
    keeps=st.fixed_dictionaries({"start": st.integers(0, 2), "inner": st.integers(0, 2)}),
)
def test_it_is_what_the_shipped_network_changes(steps, keeps) -> None:
    network, prunable = small()
    table, conversions = _counted()
    choice = chosen(table, dict(zip(LAYERS, steps, strict=True)), keeps)
    made = stand_in(network, choice, TARGET, METHODS, prunable.coupling)
    assert conversions.elements(choice) == pytest.approx(converted(made))


def test_mixed_choices_get_their_price_at_every_width() -> None:
    network, prunable = small()
    target, latencies = KnownTarget(linear_ms, price=2e-6), Latencies(Clock("known", "known 1", "here"))
    table, conversions = with_latency(
        bare_table(network, prunable), network, target, METHODS, latencies, prunable.coupling
    )
    assert conversions.ms_per_element == pytest.approx(2e-6, rel=0.02)
    generator = np.random.default_rng(0)
    for keeps in ({}, {"start": 2}, {"inner": -1}):
        picked = generator.integers(3, size=len(LAYERS))
        steps = {name: ((), STATIC, DYNAMIC)[at] for name, at in zip(LAYERS, picked, strict=True)}
        choice = chosen(table, steps, keeps)
        made = stand_in(network, choice, target, METHODS, prunable.coupling)
        runs = [
            one
            for layer in made.network.layers
            for one in kernels_of(layer, made.network.module.get_submodule(layer.name))
        ]
        expected = 1.5 * sum(map(linear_ms, runs)) + 0.25 + 2e-6 * converted(made)
        found = table.fixed.milliseconds + choice.cost.milliseconds + conversions.milliseconds(choice)
        assert found == pytest.approx(expected, rel=5e-3)


def test_what_takes_no_time_costs_nothing_and_narrower_never_more() -> None:
    network, prunable = small()
    latencies = Latencies(Clock("known", "known 1", "here"))
    table, conversions = with_latency(
        bare_table(network, prunable), network, TARGET, METHODS, latencies, prunable.coupling
    )
    wide, narrow = (chosen(table, {"": (), "outer": STATIC}, keeps) for keeps in ({}, {"inner": -1}))
    assert 0 <= conversions.milliseconds(wide) <= 1e-3 * table.fixed.milliseconds
    assert conversions.elements(narrow) < conversions.elements(wide)
