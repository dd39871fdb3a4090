"""Milliseconds for the table: kernels are measured, layers follow, whole networks correct both.

Every kernel family is measured at a few widths, and ``a·rows·columns + b·rows + c·columns + d`` with terms that aren't
negative is fitted around each layer's own width, where it counts most. Then a handful of whole networks tells how the
sum of its layers makes the time of a network, ``T = Σ slope · t + price · e + rest`` with a slope for every arithmetic
and a price for the ``e`` elements that change their type between layers. The rest – additions, pooling, the call
itself – stays whatever is chosen, so removing work that saves no time earns nothing.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy.optimize import lsq_linear, nnls

from featherweight.contracts import Choice, CostForm, Keep, Option, RealTerms, Table, describe
from featherweight.methods import Method
from featherweight.network.capture import Network
from featherweight.network.channels import Coupling
from featherweight.planning.activations import Activations
from featherweight.planning.latency.conversions import Conversions
from featherweight.planning.latency.kernels import Family, Kernel, Kernels, kernels_in
from featherweight.planning.latency.latencies import Latencies
from featherweight.planning.latency.standin import stand_in
from featherweight.planning.latency.timing import time_kernels, time_networks
from featherweight.planning.widths import narrowed
from featherweight.targets.seam import Target

_CHAINED = 5  # kernels of a family that are measured for its chains
_NEAR = 0.25  # octaves within which a measurement counts in full
_LEAST_MS = 1e-4  # below it a relative error means nothing
_ALIKE = 0.05  # how much a difference of slopes counts beside a relative error
_RUNS_OF_LAYERS = (1, 2, 4)  # of one arithmetic, in the networks that mix them
_STEEPEST = 2.0  # whole networks correct the sum of their layers, they don't overrule it


def with_latency(
    table: Table,
    network: Network,
    target: Target,
    methods: Sequence[Method],
    latencies: Latencies,
    coupling: Coupling | None = None,
) -> tuple[Table, Conversions]:
    """The table with milliseconds in every option's form and cost and in the fixed cost, and what comes on top.

    A choice takes ``table.fixed.milliseconds + choice.cost.milliseconds + conversions.milliseconds(choice)``: a value
    changes its type between two layers, so that time belongs to no option.

    Args:
        table: of ``network``.
        network: the dense network.
        target: its runtime is timed here and now, for what ``latencies`` doesn't know.
        methods: the catalogue that the table was made from.
        latencies: what was measured before; what is measured now is added and saved.
        coupling: the network's coupled channels, where the table has keeps.

    Raises:
        LoweringError: the target can't hold a kernel or a network that must be timed.
    """
    kernels = kernels_in(table, network, target.capability, methods)
    points = measuring_points(table, kernels, target.capability.channel_multiple)
    time_kernels(points, target, latencies)
    fits = _Fits.of(points, latencies)
    timed = _with_terms(table, {name: [fits.terms(one) for one in row] for name, row in kernels.items()})
    conversions = Conversions.of(table, kernels, Activations(network, target, coupling), coupling)
    kinds = _kinds(kernels)
    probes = {network_name(network, choice): choice for choice in probing_choices(timed, kernels)}
    makers = {
        name: lambda choice=choice: stand_in(network, choice, target, methods, coupling)
        for name, choice in probes.items()
    }
    time_networks(makers, target, latencies)
    sums = np.array([[_sum_of(choice, timed, kernels, kind) for kind in kinds] for choice in probes.values()])
    elements = np.array([conversions.elements(choice) for choice in probes.values()])
    slopes, price, rest = _corrected(sums, elements, np.array([latencies.networks[name] for name in probes]))
    factors = dict(zip(kinds, slopes.tolist(), strict=True))
    scaled = {
        name: [_times(fits.terms(one), factors[_arithmetic(one)]) for one in row] for name, row in kernels.items()
    }
    priced = replace(_with_terms(table, scaled), fixed=replace(table.fixed, milliseconds=rest))
    return priced, replace(conversions, ms_per_element=price)


def measuring_points(table: Table, kernels: Mapping[str, Sequence[Kernels]], multiple: int) -> list[Kernel]:
    """The kernels to measure: all that run alone, narrower where channels can go, and a few of the others.

    Args:
        table: its keeps say which widths can shrink.
        kernels: of every layer's options.
        multiple: channel counts that the target likes.
    """
    rows = {layer for units in table.keeps.values() for keep in units for layer, lost in keep.rows.items() if lost}
    columns = {
        layer for units in table.keeps.values() for keep in units for layer, lost in keep.columns.items() if lost
    }
    points: dict[Kernel, None] = {}
    chained: dict[Family, dict[Kernel, None]] = {}
    for layer, options in kernels.items():
        for row in options:
            if len(row) == 1:
                points.update(dict.fromkeys(_narrower(row[0], layer in rows, layer in columns, multiple)))
                continue
            for kernel in row:
                chained.setdefault(kernel.family, {})[kernel] = None
    for some in chained.values():
        points.update(dict.fromkeys(_spread(sorted(some, key=lambda one: (one.rows * one.columns, one.rows)))))
    return list(points)


def _narrower(kernel: Kernel, fewer_rows: bool, fewer_columns: bool, multiple: int) -> list[Kernel]:
    """A kernel at its own width, and at about a half and a quarter of what can shrink."""
    if kernel.family.gathered or kernel.family.groups > 1:
        return [kernel]  # sets of channels: at this width only
    found = [kernel]
    halves = [(_part(kernel.rows, 2, multiple) if fewer_rows else kernel.rows, kernel.columns)]
    halves += [(kernel.rows, _part(kernel.columns, 2, multiple) if fewer_columns else kernel.columns)]
    halves += [
        (
            _part(kernel.rows, 4, multiple) if fewer_rows else kernel.rows,
            _part(kernel.columns, 4, multiple) if fewer_columns else kernel.columns,
        )
    ]
    found += [replace(kernel, rows=rows, columns=columns) for rows, columns in halves]
    return found


def _part(width: int, share: int, multiple: int) -> int:
    """About a share of a width, aligned, at least one aligned step where it has one."""
    return min(width, max(multiple, round(width / share / multiple) * multiple))


def _spread(ordered: Sequence[Kernel]) -> list[Kernel]:
    if len(ordered) <= _CHAINED:
        return list(ordered)
    return [ordered[round(at)] for at in np.linspace(0, len(ordered) - 1, _CHAINED)]


@dataclass(frozen=True)
class _Fits:
    """Measurements of every family: (n, 3), rows, columns and milliseconds."""

    families: Mapping[Family, np.ndarray]

    @classmethod
    def of(cls, points: Sequence[Kernel], latencies: Latencies) -> _Fits:
        found: dict[Family, list[tuple[int, int, float]]] = {}
        for kernel in points:
            found.setdefault(kernel.family, []).append((kernel.rows, kernel.columns, latencies.kernels[str(kernel)]))
        return cls({family: np.array(sorted(rows), dtype=float) for family, rows in found.items()})

    def terms(self, kernels: Kernels) -> RealTerms:
        """Of a layer whose option runs on these kernels: the first reads its columns, the last gives its rows."""
        total = np.zeros(4)
        for position, kernel in enumerate(kernels):
            terms = fitted_terms(self.families[kernel.family], kernel.rows, kernel.columns)
            total += _of_layer(terms, kernel, first=position == 0, last=position == len(kernels) - 1)
        a, b, c, d = total.tolist()
        return a, b, c, d


def fitted_terms(measured: np.ndarray, rows: int, columns: int) -> np.ndarray:
    """Terms of ``a·rows·columns + b·rows + c·columns + d``, none negative, that fit best around a width.

    Relative errors count, each by how near its width lies in octaves.

    Args:
        measured: (n, 3), rows, columns and milliseconds.
        rows, columns: the width.

    Returns:
        (4,).
    """
    r, c, ms = measured.T
    scale = np.array([rows * columns, rows, columns, 1.0])
    # What was measured at one width alone says nothing of that width: a constant then explains as much.
    varies = np.array([np.ptp(r) > 0 and np.ptp(c) > 0, np.ptp(r) > 0, np.ptp(c) > 0, True])
    design = np.stack([r * c, r, c, np.ones_like(r)], axis=1) / scale * varies
    distance = np.abs(np.log2(r / rows)) + np.abs(np.log2(c / columns))
    weight = 1 / ((_NEAR + distance) * np.maximum(ms, _LEAST_MS))
    found, _ = nnls(design * weight[:, None], ms * weight)
    return found / scale


def _of_layer(terms: np.ndarray, kernel: Kernel, *, first: bool, last: bool) -> np.ndarray:
    """A kernel's terms as terms of its layer's widths: what lies inside a chain doesn't change with them."""
    a, b, c, d = terms
    if kernel.family.gathered:
        return np.array([0, 0, 0, a * kernel.rows * kernel.columns + b * kernel.rows + c * kernel.columns + d])
    if not last:
        a, b, c, d = 0.0, 0.0, c + a * kernel.rows, d + b * kernel.rows
    if not first:
        a, b, c, d = 0.0, b + a * kernel.columns, 0.0, d + c * kernel.columns
    return np.array([a, b, c, d])


def _with_terms(table: Table, terms: Mapping[str, Sequence[RealTerms]]) -> Table:
    """The table with these terms, one for each option of each layer."""
    options = {
        name: tuple(_timed(option, one, table.widths[name]) for option, one in zip(row, terms[name], strict=True))
        for name, row in table.options.items()
    }
    return replace(table, options=options)


def _timed(option: Option, terms: RealTerms, widths: tuple[int, int]) -> Option:
    cost = option.cost
    form = option.form or CostForm((0, 0, 0, cost.size_bytes), (0, 0, 0, cost.macs), (0, 0, 0, cost.parameters))
    form = replace(form, milliseconds=terms)
    return replace(option, form=form, cost=replace(cost, milliseconds=form.at(*widths).milliseconds))


def probing_choices(table: Table, kernels: Mapping[str, Sequence[Kernels]]) -> list[Choice]:
    """Whole networks worth timing, the network as it is first.

    All on each arithmetic that the table has, at full width and about half as wide; and runs of layers on integers
    between such on reals, which change the types of values in between.
    """
    kinds = _kinds(kernels)
    whole = {unit: row[0] for unit, row in table.keeps.items()}
    half = {unit: row[len(row) // 2] for unit, row in table.keeps.items()}
    widths = [whole] if half == whole else [whole, half]
    plain = [dict.fromkeys(kernels, kind) for kind in kinds]
    found = [_choice(table, kernels, wanted, keeps) for keeps in widths for wanted in plain]
    if {"float32", "int8"} <= set(kinds):
        found += [_choice(table, kernels, _in_turns(list(kernels), run), whole) for run in _RUNS_OF_LAYERS]
    return found


def _in_turns(layers: Sequence[str], run: int) -> dict[str, str]:
    """So many layers on integers, as many on reals, and so on."""
    return {name: ("int8", "float32")[at // run % 2] for at, name in enumerate(layers)}


def _arithmetic(kernels: Kernels) -> str:
    return kernels[0].family.arithmetic


def _kinds(kernels: Mapping[str, Sequence[Kernels]]) -> list[str]:
    """The arithmetics of a table, that of the network as it is first."""
    found = {_arithmetic(one) for row in kernels.values() for one in row}
    return sorted(found, key=lambda kind: (kind != "float32", kind))


def _sum_of(choice: Choice, table: Table, kernels: Mapping[str, Sequence[Kernels]], kind: str) -> float:
    """Milliseconds of a choice's layers that compute on one arithmetic."""
    total = 0.0
    for name, option in choice.layers.items():
        at = [one.steps for one in table.options[name]].index(option.steps)
        total += option.cost.milliseconds * (_arithmetic(kernels[name][at]) == kind)
    return total


def _choice(
    table: Table, kernels: Mapping[str, Sequence[Kernels]], kinds: Mapping[str, str], keeps: Mapping[str, Keep]
) -> Choice:
    """Every layer on the arithmetic that is wanted of it; as it is where it can't."""
    narrow = narrowed(table, keeps)
    layers = {}
    for name, row in narrow.options.items():
        runs = [_arithmetic(one) if len(one) == 1 else "" for one in kernels[name]]
        layers[name] = row[runs.index(kinds[name]) if kinds[name] in runs else 0]
    return Choice(layers, keeps)


def network_name(network: Network, choice: Choice) -> str:
    """What a latency table calls the network of a choice: the network's fingerprint and a SHA-256 of what was done."""
    told = [f"{name}: {describe(option.steps)}" for name, option in choice.layers.items()]
    told += [f"{name}: {describe(keep.steps)}" for name, keep in choice.keeps.items()]
    done = hashlib.sha256("\n".join(told).encode()).hexdigest()
    return f"{network.fingerprint()} {done}"


def _corrected(sums: np.ndarray, elements: np.ndarray, measured: np.ndarray) -> tuple[np.ndarray, float, float]:
    """Slopes, price and rest of ``measured = sums · slopes + price · elements + rest``, none negative.

    Relative errors are least, and slopes not far from one another.

    Args:
        sums: (networks, kinds), milliseconds of the layers on each arithmetic.
        elements: (networks,), those that change their type.
        measured: (networks,), milliseconds.
    """
    count = sums.shape[1]
    scale, most = np.maximum(measured, _LEAST_MS), max(float(elements.max()), 1.0)
    design = np.column_stack([sums, elements / most, np.ones(len(sums))]) / scale[:, None]
    alike = np.column_stack([_ALIKE * (np.eye(count) - 1 / count), np.zeros((count, 2))])
    wanted = np.concatenate([np.ones(len(sums)), np.zeros(count)])
    upper = [*[_STEEPEST] * count, np.inf, np.inf]
    *slopes, price, rest = lsq_linear(np.vstack([design, alike]), wanted, bounds=(np.zeros(count + 2), upper)).x
    return np.array(slopes), float(price) / most, float(rest)


def _times(terms: RealTerms, factor: float) -> RealTerms:
    a, b, c, d = (factor * one for one in terms)
    return a, b, c, d
