"""Pins to what the table doesn't hold: priced like its own options where the methods can build them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from featherweight.contracts import Capability, Option, PlanError, Steps, Table
from featherweight.methods.seam import (
    Method,
    Subject,
    apply_steps,
    cost_form,
    predicted_error,
    subject_of,
    widths_of,
)
from featherweight.network.capture import Network
from featherweight.network.modules import copied
from featherweight.numerics.gram import shrunk
from featherweight.observation.evidence import Evidence
from featherweight.planning.calibration import divergence_curve
from featherweight.planning.rates import with_rate
from featherweight.planning.rules.addressing import Addressing, Said
from featherweight.planning.rules.rule import ANY, Rules

_UNKNOWN = 1e9  # JSON has no infinity


def with_pins(
    table: Table,
    network: Network,
    rules: Rules,
    evidence: Evidence,
    capability: Capability,
    methods: Sequence[Method],
) -> Table:
    """The table with the options that rules pin and that it doesn't hold yet.

    Their cost and error are as exact as those of any option; what the error does to the network's outputs is read off
    the curve through the layer's other options.

    Args:
        table: all options of the layers.
        network: the dense network.
        rules: what may be done.
        evidence: that the table was made from.
        capability: of the target.
        methods: the catalogue.

    Raises:
        PlanError: a pin that the methods can't build, or a name or kind that matches nothing.
    """
    addressing = Addressing.of(table, network, rules)
    options = dict(table.options)
    for layer in network.layers:
        row, seen = options.get(layer.name), evidence.layers.get(layer.name)
        said = _pinned(addressing, layer.name)
        if row is None or seen is None or said is None or any(option.steps == said.value for option in row):
            continue
        module = copied(network.module.get_submodule(layer.name))
        subject = subject_of(layer, module, shrunk(seen.covariance, seen.rows), seen.mean, seen.input_noise, capability)
        try:
            options[layer.name] = (*row, _option(subject, row, said.value, methods))
        except PlanError as error:
            raise PlanError(error.rule, f"{said}: {error.got}", error.remedy) from error
    return replace(table, options=options)


def _pinned(addressing: Addressing, layer: str) -> Said | None:
    """What pins a layer to some steps."""
    said = next((one for level in addressing.levels(layer, ("pin",)) for one in level), None)
    return None if said is None or said.value == ANY or layer in addressing.untouched else said


def _option(subject: Subject, row: Sequence[Option], steps: Steps, methods: Sequence[Method]) -> Option:
    module = apply_steps(subject, steps, methods)
    form = cost_form(subject.layer, module, subject.capability)
    if row[0].cost.package_bytes > 0:
        form = with_rate(form, subject.layer, module, subject.capability)
    state = replace(subject, module=module)
    error = predicted_error(state)
    known = sorted((option.error, option.divergence) for option in row if option.error > 0)
    divergence = divergence_curve([e for e, _ in known], [d for _, d in known], [error])[0]
    if not known:  # nothing tells what an error here means
        divergence = _UNKNOWN
    return Option(subject.layer.name, steps, form.at(*widths_of(subject.layer)), error, float(divergence), form)
