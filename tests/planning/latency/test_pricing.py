"""Milliseconds in the table: against a target whose times are a known function, and once in LiteRT itself."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from featherweight.contracts import LoweringError
from featherweight.methods import METHODS
from featherweight.methods.apply import neutral_subject
from featherweight.methods.pruning import Prunable
from featherweight.methods.seam import apply_steps
from featherweight.network import capture
from featherweight.network.channels import Coupling
from featherweight.planning.latency.kernels import Family, Kernel, built, input_of, kernels_in, kernels_of
from featherweight.planning.latency.latencies import Clock, Latencies, read_latencies
from featherweight.planning.latency.pricing import fitted_terms, measuring_points, probing_choices, with_latency
from featherweight.planning.latency.standin import stand_in
from featherweight.planning.latency.timing import time_kernels
from featherweight.planning.widths import narrowed
from featherweight.targets.litert import LiteRT
from featherweight.targets.onnxruntime import OnnxRuntime
from tests.planning.bare import DYNAMIC, OFFERED, RANK, STATIC, KnownTarget, bare_table, chosen, linear_ms, small


def _timed(target, ranked=(), latencies=None):
    network, prunable = small()
    table = bare_table(network, prunable, ranked)
    latencies = latencies or Latencies(Clock("known", "known 1", "here"))
    timed, _ = with_latency(table, network, target, METHODS, latencies, prunable.coupling)
    return network, prunable, timed, latencies


def test_times_that_are_linear_come_back_exactly_at_every_width() -> None:
    network, prunable, table, _ = _timed(KnownTarget(linear_ms), ranked=("outer",))
    assert table.fixed.milliseconds == pytest.approx(0.25, rel=1e-3)
    for keeps in ({}, {"start": 2, "inner": -1}, {"start": -1}):
        for steps in ({"": ()}, {"": STATIC}, {"": DYNAMIC}, {"": STATIC, "inner": (), "end": DYNAMIC}):
            choice = chosen(table, steps, keeps)
            made = stand_in(network, choice, LiteRT(), METHODS, prunable.coupling).network
            runs = [one for layer in made.layers for one in kernels_of(layer, made.module.get_submodule(layer.name))]
            expected = 1.5 * sum(map(linear_ms, runs)) + 0.25
            assert table.fixed.milliseconds + choice.cost.milliseconds == pytest.approx(expected, rel=2e-3)
    factors = next(option for option in table.options["outer"] if option.steps == RANK)
    module = apply_steps(
        neutral_subject(network.layer("outer"), network.module.get_submodule("outer"), LiteRT.capability), RANK, METHODS
    )
    expected = 1.5 * sum(map(linear_ms, kernels_of(network.layer("outer"), module)))
    assert factors.cost.milliseconds == pytest.approx(expected, rel=2e-3)


def test_options_that_run_on_the_same_kernel_share_its_time() -> None:
    target = KnownTarget(linear_ms)
    network, _, table, latencies = _timed(target)
    assert all(row[1].cost.milliseconds == row[2].cost.milliseconds > 0 for row in table.options.values())
    kernels = kernels_in(table, network, target.capability, METHODS)
    assert [len(set(row)) for row in kernels.values()] == [3] * len(OFFERED and kernels)
    assert len(latencies.kernels) == len(set(measuring_points(table, kernels, 8)))


def test_removing_work_that_saves_no_time_earns_nothing() -> None:
    _, _, table, _ = _timed(KnownTarget(lambda kernel: 0.0 if kernel.rows == kernel.columns == 8 else 0.05))
    narrow = narrowed(table, {unit: row[-1] for unit, row in table.keeps.items()})
    for name, row in table.options.items():
        for option, thinner in zip(row, narrow.options[name], strict=True):
            assert thinner.cost.milliseconds == pytest.approx(option.cost.milliseconds, rel=1e-6)
            assert option.form is not None
            assert option.form.milliseconds[:3] == pytest.approx((0, 0, 0), abs=1e-9)


def test_layers_in_several_operators_are_timed_whole() -> None:
    spread, whole = (_timed(KnownTarget(linear_ms, spreads=spreads))[2] for spreads in (True, False))
    for name, row in spread.options.items():
        found = [option.cost.milliseconds for option in row]
        assert found == pytest.approx([option.cost.milliseconds for option in whole.options[name]], rel=1e-6)


def test_what_is_known_is_not_measured_again() -> None:
    _, _, first, latencies = _timed(KnownTarget(linear_ms))
    again = KnownTarget(linear_ms)
    network, _, second, _ = _timed(again, latencies=latencies)
    assert (again.timed, again.lowered) == (0, 0)
    assert second == first
    name, *_ = latencies.networks  # the original: the one that others are timed beside
    del latencies.networks[name]
    _timed(again, latencies=latencies)
    assert (again.timed, again.lowered) == (0, 1)
    kernels = kernels_in(second, network, again.capability, METHODS)
    assert len(latencies.networks) == len(probing_choices(second, kernels))


def test_an_interrupted_measurement_goes_on_where_it_stopped(tmp_path) -> None:
    network, prunable = small()
    target = KnownTarget(linear_ms, tells=3)  # one file of kernels
    kernels = kernels_in(bare_table(network, prunable), network, target.capability, METHODS)
    points = measuring_points(bare_table(network, prunable), kernels, 8)
    clock = Clock("known", "known 1", "here")
    with pytest.raises(KeyboardInterrupt):
        time_kernels(points, target, Latencies(clock, tmp_path / "latency.json"))
    kept = read_latencies(tmp_path / "latency.json", clock)
    assert 0 < len(kept.kernels) < len(set(points))
    time_kernels(points, KnownTarget(linear_ms), kept)
    assert set(kept.kernels) == {str(kernel) for kernel in points}
    assert kept.kernels[str(points[0])] == pytest.approx(linear_ms(points[0]))
    assert read_latencies(tmp_path / "latency.json", clock) == kept


def test_a_kernel_that_the_target_refuses_is_an_error() -> None:
    class Refusing(KnownTarget):
        def lower(self, compressed, path):
            raise LoweringError("rule", "got", "remedy")

    with pytest.raises(LoweringError, match="rule"):
        _timed(Refusing(linear_ms))


@settings(max_examples=50)
@given(
    terms=st.tuples(*[st.floats(0, 1e-3)] * 3, st.floats(1e-3, 1)),
    widths=st.lists(st.tuples(st.integers(1, 16), st.integers(1, 16)), min_size=1, max_size=12, unique=True),
)
def test_the_fit_is_monotone_and_exact_where_times_are_of_its_form(terms, widths) -> None:
    sizes = np.array(widths, dtype=float) * 8
    r, c = sizes.T
    ms = np.stack([r * c, r, c, np.ones_like(r)], axis=1) @ np.array(terms)
    found = fitted_terms(np.column_stack([sizes, ms]), int(r[0]), int(c[0]))
    assert (found >= 0).all()
    assert np.stack([r * c, r, c, np.ones_like(r)], axis=1) @ found == pytest.approx(ms, rel=1e-6)


def test_a_measured_width_counts_most_at_itself() -> None:
    steps = np.array([[8, 16, 0.036], [16, 16, 0.037], [32, 16, 0.071]])  # tiles of 16: no line goes through these
    for rows, columns, ms in steps.tolist():
        a, b, c, d = fitted_terms(steps, rows, columns)
        assert a * rows * columns + b * rows + c * columns + d == pytest.approx(ms, rel=0.08)


def test_a_kernel_rebuilt_is_the_same_kernel() -> None:
    network, prunable = small()
    table = bare_table(network, prunable, ranked=("outer",))
    found = kernels_in(table, network, LiteRT.capability, METHODS)
    for kernel in set(itertools.chain(*itertools.chain(*found.values()))):
        from_scratch = built(kernel)
        layer = _alone(from_scratch, input_of(kernel, 2))
        assert kernels_of(*layer) == (kernel,)


def _alone(module, x):
    class Alone(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one = module

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.one(x)

    network = capture(Alone(), x)
    return network.layers[0], network.module.get_submodule("one")


class Plain(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.wide, self.end = nn.Conv2d(8, 64, 3, padding=1), nn.Linear(64, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.end(torch.relu(self.wide(x)).mean((2, 3)))


@pytest.mark.parametrize("target", [LiteRT(), OnnxRuntime()], ids=["litert", "onnxruntime"])
def test_real_runtimes_tell_kernels_apart(target) -> None:
    """A kernel of a hundred times the work takes longest wherever it stands: no runtime runs them in another order."""
    latencies = Latencies(Clock.here(target))
    family = Family("float32", (16, 16), (3, 3), (1, 1), (1, 1), (1, 1))
    kernels = [Kernel(family, rows, rows) for rows in (8, 96, 16)]
    time_kernels(kernels, target, latencies)
    assert max(latencies.kernels, key=latencies.kernels.__getitem__) == str(kernels[1])


def test_litert_times_a_table() -> None:
    target, network = LiteRT(), capture(Plain(), torch.randn(2, 8, 16, 16))
    table = bare_table(network, Prunable(Coupling((), (), (), {})), offered=((),))
    latencies = Latencies(Clock.here(target))
    timed, conversions = with_latency(table, network, target, METHODS, latencies)
    assert conversions.milliseconds(chosen(timed, {"": ()})) == 0
    (measured,) = latencies.networks.values()
    whole = timed.fixed.milliseconds + chosen(timed, {"": ()}).cost.milliseconds
    assert whole == pytest.approx(measured, rel=0.05)  # one network and two unknowns: it fits
    assert len(latencies.kernels) == 2
