"""Tables made by hand, and stories of runs that chose from them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from featherweight.contracts import Cost, CostForm, Goal, Keep, Option, Quantity, Step, Story, Table
from featherweight.planning.allocate import allocate
from featherweight.planning.plans import plan_of
from tests.report.stories import attempt, story


def table(seed: int, layers: int = 8, options: int = 7, units: int = 0, keeps: int = 5, priced: bool = False) -> Table:
    """A chain of layers whose cheaper options diverge more; every unit lies between two of them."""
    rng = np.random.default_rng(seed)
    rows, widths = {}, {}
    for number in range(layers):
        name, (high, wide) = f"block{number}.conv", rng.choice([8, 16, 32, 64], 2).tolist()
        sensitivity = 10 ** rng.uniform(-4, -1)
        made = []
        for at in range(options):
            bits = 32 if at == 0 else int(rng.choice([2, 3, 4, 5, 6, 8, 16]))
            size, macs = (bits, 4, 1, 24), (int(64 * rng.uniform(0.5, 1)) if at else 64, 0, 0, 0)
            package = (0.1 * bits, 0.3, 0.0, 7.125) if priced else (0.0,) * 4
            form = CostForm(size, macs, (9, 1, 0, 0), package, (3e-5, 1e-4, 0.0, 0.004) if priced else (0.0,) * 4)
            divergence = float(sensitivity * 4.0 ** (5 - bits) * rng.uniform(0.3, 3)) if at else 0.0
            steps = (Step("quantization", {"weights": f"int{bits}", "scale": 1e-7 * at}),) if at else ()
            made.append(Option(name, steps, form.at(high, wide), divergence, divergence, form))
        rows[name], widths[name] = tuple(made), (high, wide)
    found, names = {}, list(rows)
    for number in range(units):
        name, reader = names[number], names[number + 1]
        width, sensitivity = min(widths[name][0], widths[reader][1]), 10 ** rng.uniform(-4, -1)
        found[name] = tuple(
            Keep(
                name, (Step("pruning", {"keep": width - gone}),) if gone else (), {name: gone}, {reader: gone},
                Cost(4 * gone, gone, gone), sensitivity * gone**2 / width**2, sensitivity * gone**2 / width**2,
            )
            for gone in sorted({int(0.8 * width * at / keeps) for at in range(keeps)})
        )  # fmt: skip
    return Table(rows, (), Cost(1_000, 500, 0, 2.5, 0.01), widths, found)


def whole(made: Table, quantity: Quantity) -> float:
    return made.fixed.of(quantity) + sum(row[0].cost.of(quantity) for row in made.options.values())


def told(made: Table, goal: Goal | None = None) -> Story:
    """A story whose attempts lost a point, and half a point: at most a tenth, and a twentieth, of all divergence."""
    goal, one = goal or Goal(), story()
    worst = sum(max(option.divergence for option in row) for row in made.options.values())
    attempts = []
    for number, (divergence, drop) in enumerate([(worst / 10, 0.01), (worst / 20, 0.005)], 1):
        choice = allocate(made, Goal(), divergence)
        assert choice is not None
        chosen = plan_of("5f" * 32, "litert", choice, made.fixed)
        tried = attempt(number, choice.divergence, 1.1 * divergence, choice.cost.size_bytes + 1_100, 3 * drop, chosen)
        attempts.append(replace(tried, macs=choice.cost.macs, check=replace(tried.check, drop=drop)))
    return replace(one, table=made, goal=goal, plan=attempts[-1].plan, attempts=tuple(attempts))
