"""Pins to options that the table doesn't hold: priced as the table would have priced them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from featherweight.contracts import Cost, PlanError, Table, describe
from featherweight.methods import METHODS
from featherweight.network import Network, capture
from featherweight.observation import Evidence, observe
from featherweight.planning.rules.pins import with_pins
from featherweight.planning.rules.restriction import restricted
from featherweight.planning.rules.rulebook import parse_rules
from featherweight.planning.table import build_table
from featherweight.tasks import CLASSIFICATION
from featherweight.tasks.data import Split
from featherweight.testing import ANY_TARGET

INT6 = "{quantization: {weights: int8, activations: int8, bits: 6}}"


@pytest.fixture(scope="module")
def priced() -> tuple[Table, Network, Evidence]:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(24, 32), nn.ReLU(), nn.Linear(32, 4))
    split = Split.of(np.random.default_rng(0).normal(size=(64, 24)).astype(np.float32))
    network = capture(module, split.take(range(2)).inputs)
    evidence = observe(network, split)
    whole = Cost(10_000, network.cost.macs, network.cost.parameters, package_bytes=5_000.0)
    return build_table(network, evidence, split, CLASSIFICATION, ANY_TARGET, METHODS, whole=whole), network, evidence


def pinned(priced: tuple[Table, Network, Evidence], text: str, table: Table | None = None) -> Table:
    rules = parse_rules(f"featherweight_rules: 1\nlayers: {{{text}}}")
    full, network, evidence = priced
    return with_pins(table or full, network, rules, evidence, ANY_TARGET, METHODS)


def test_what_the_table_holds_is_left_alone(priced: tuple[Table, Network, Evidence]) -> None:
    for text in ("", "'0': {pin: []}", "'0': {pin: any}", "'0': {untouched: true}", "'0': {bits: 8}"):
        assert pinned(priced, text) == priced[0]
    assert pinned(priced, "'0': {pin: [{quantization: {weights: int8, activations: int8}}]}") == priced[0]


def test_an_option_taken_off_the_table_comes_back_as_it_was(priced: tuple[Table, Network, Evidence]) -> None:
    table = priced[0]
    row = sorted(table.options["0"], key=lambda option: option.error)
    for number in range(2, len(row) - 1):
        gone = row[number]
        rest = replace(table, options={**table.options, "0": tuple(o for o in table.options["0"] if o is not gone)})
        steps = ", ".join(f"{{{step.method}: {dict(step.settings)}}}" for step in gone.steps)
        found = pinned(priced, f"'0': {{pin: [{steps}]}}", rest).options["0"]
        again = found[-1]
        assert (found[:-1], again.steps) == (rest.options["0"], gone.steps)
        assert (again.cost, again.form) == (gone.cost, gone.form)
        assert again.error == pytest.approx(gone.error, rel=1e-12)
        low, high = row[number - 1].divergence, row[number + 1].divergence
        assert low * (1 - 1e-9) <= again.divergence <= high * (1 + 1e-9), describe(gone.steps)


def test_a_pin_to_bits_that_aren_t_offered_is_priced_and_can_then_be_chosen(
    priced: tuple[Table, Network, Evidence],
) -> None:
    table = pinned(priced, f"'2': {{pin: [{INT6}]}}")
    eight = next(o for o in table.options["2"] if describe(o.steps) == "quantization(weights=int8, activations=int8)")
    six = table.options["2"][-1]
    assert six.cost.size_bytes == eight.cost.size_bytes
    assert six.cost.package_bytes < eight.cost.package_bytes
    assert six.error > eight.error
    assert six.divergence > eight.divergence
    rules = parse_rules(f"featherweight_rules: 1\nlayers: {{'2': {{pin: [{INT6}]}}}}")
    assert restricted(table, priced[1], rules).options["2"] == (six,)
    with pytest.raises(PlanError, match="on the table"):
        restricted(priced[0], priced[1], rules)


def test_what_no_method_can_build_is_refused(priced: tuple[Table, Network, Evidence]) -> None:
    with pytest.raises(PlanError, match="rank"):
        pinned(priced, "'0': {pin: [{lowrank: {rank: 999}}]}")
    with pytest.raises(PlanError, match="follow"):
        pinned(priced, f"'0': {{pin: [{INT6}, {{lowrank: {{rank: 8}}}}]}}")


@pytest.mark.parametrize(
    ("place", "steps"), [("'0'", "lowrank: {rank: 999}"), ("'*'", "quantization: {weights: int4}")]
)
def test_the_rule_that_asks_for_it_is_named(priced: tuple[Table, Network, Evidence], place: str, steps: str) -> None:
    with pytest.raises(PlanError) as told:
        pinned(priced, f"{place}: {{pin: [{{{steps}}}]}}")
    assert told.value.got.startswith(f"layers.{place[1:-1]}.pin: ")
    assert "for '0'" in told.value.got


def test_where_nothing_can_be_had_a_pin_is_to_go(priced: tuple[Table, Network, Evidence]) -> None:
    table, network, _ = priced
    bare = replace(table, options={**table.options, "0": table.options["0"][:1]})
    rules = parse_rules(f"featherweight_rules: 1\nlayers: {{'0': {{pin: [{INT6}]}}}}")
    with pytest.raises(PlanError) as told:
        restricted(bare, network, rules)
    assert told.value.remedy == "take the pin away: there is nothing but keeping it as it is"
