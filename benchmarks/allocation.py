"""One table, many goals: how long each plan takes, and whether anything simpler does better.

A table with every family, coupled channels, package bytes, milliseconds and peak memory is built once for each network,
from unlabelled samples, for LiteRT. Then ten goals are planned from it, each under two budgets of divergence, without
touching the network. Beside every plan stand the plans of each family by itself under the same goal and budget, and,
for goals without limits, greedy: the swap that saves most for its divergence, again and again. Ours may never be worse.

    python benchmarks/allocation.py [LeNet-300-100 | LeNet-5 | ResNet-20 | ResNet-56 | MobileNetV2] …
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from _data import RESULTS
from _peers import alone, families, greedy
from lenet_packages import PROBLEMS as LENETS
from lenet_packages import trained
from low_bits import TARGET, cifar_problem, photograph_problem
from package_codec import mnist

from featherweight.contracts import Choice, Cost, Goal, Quantity, Table
from featherweight.methods import FOR_PACKAGES, Pruning
from featherweight.methods.pruning import Grounds, Prunable
from featherweight.network import Network, capture
from featherweight.network.grids import Compressed
from featherweight.observation import observe
from featherweight.packaging import pack
from featherweight.planning import Peak, allocate, build_table
from featherweight.planning.latency.latencies import Clock, Latencies
from featherweight.planning.latency.pricing import with_latency
from featherweight.planning.memory import Liveness
from featherweight.planning.units import with_keeps
from featherweight.tasks import CLASSIFICATION, Split

BUDGETS = (0.002, 0.02)
SECONDS = 2.0


def _lenet(name: str) -> tuple[Network, Split]:
    images, labels = mnist("train")
    images = images.view(-1, 1, 28, 28)
    problem = LENETS[name]
    module = trained(problem.make, problem.epochs, images[:55_000], labels[:55_000])
    return capture(module, (images[:2],)), Split.of(images[:1000])


def _resnet(depth: int) -> tuple[Network, Split]:
    problem = cifar_problem(depth, 512)
    return problem.network, problem.calibration


def _mobilenet() -> tuple[Network, Split]:
    problem = photograph_problem(250)
    return problem.network, problem.calibration


NETWORKS: Mapping[str, Callable[[], tuple[Network, Split]]] = {
    "LeNet-300-100": lambda: _lenet("LeNet-300-100"),
    "LeNet-5": lambda: _lenet("LeNet-5"),
    "ResNet-20": lambda: _resnet(20),
    "ResNet-56": lambda: _resnet(56),
    "MobileNetV2": _mobilenet,
}


@dataclass(frozen=True)
class Bench:
    """A network's table, and the peak memory of a choice."""

    table: Table
    peak: Peak
    seconds: float

    @classmethod
    def of(cls, network: Network, split: Split, folder: Path) -> Bench:
        """Build the table."""
        start = time.perf_counter()
        file = TARGET.lower(Compressed(network), folder / "original.tflite")
        packed = float(pack(folder / "original.tflite", folder / "original.fwp"))
        whole = replace(network.cost, size_bytes=file.size_bytes, package_bytes=packed)
        seen, prunable = observe(network, split), Prunable.of(network, Pruning())
        table = build_table(network, seen, split, CLASSIFICATION, TARGET.capability, FOR_PACKAGES, whole=whole)
        grounds = Grounds(seen, split, CLASSIFICATION, network)
        table = with_keeps(table, network, prunable, grounds, CLASSIFICATION, TARGET.capability)
        latencies = Latencies(Clock.here(TARGET))
        table, _ = with_latency(table, network, TARGET, FOR_PACKAGES, latencies, prunable.coupling)
        liveness = Liveness(network, TARGET, table, FOR_PACKAGES, prunable.coupling)
        return cls(table, liveness.peak_bytes, time.perf_counter() - start)

    @property
    def whole(self) -> Choice:
        """Everything as it is."""
        layers = {name: row[0] for name, row in self.table.options.items()}
        return Choice(layers, {name: row[0] for name, row in self.table.keeps.items()})

    def amount(self, choice: Choice, quantity: Quantity) -> float:
        """Of a choice, what is fixed counted too."""
        return self.peak(choice) if quantity == "memory" else (self.table.fixed + choice.cost).of(quantity)

    def goals(self) -> list[Goal]:
        """Ten: every quantity by itself, and limits on the others that leave something to do."""
        cost: Cost = self.table.fixed + self.whole.cost
        memory = self.peak(self.whole)
        return [
            *(Goal(minimize=quantity) for quantity in ("size", "package", "macs", "latency", "memory")),
            Goal(minimize="size", max_latency_ms=0.8 * cost.milliseconds),
            Goal(minimize="latency", max_size_bytes=round(0.3 * cost.size_bytes)),
            Goal(minimize="package", max_macs=round(0.95 * cost.macs)),
            Goal(minimize="macs", max_package_bytes=round(0.25 * cost.package_bytes)),
            Goal(
                minimize="size",
                max_latency_ms=0.9 * cost.milliseconds,
                max_macs=round(0.97 * cost.macs),
                max_memory_bytes=round(memory),
            ),
        ]

    def row(self, goal: Goal, budget: float) -> dict[str, Any]:
        """One goal: our plan, its seconds, and every peer's."""
        start = time.perf_counter()
        choice = allocate(self.table, goal, budget, self.peak)
        seconds = time.perf_counter() - start
        peers: dict[str, float | None] = {}
        for family in families(self.table):
            one = allocate(alone(self.table, family), goal, budget, self.peak)
            peers[family] = None if one is None else self.amount(one, goal.minimize)
        if not goal.limits and goal.minimize != "memory":
            peers["greedy"] = greedy(self.table, goal.minimize, budget) + self.table.fixed.of(goal.minimize)
        ours = None if choice is None else self.amount(choice, goal.minimize)
        found = [value for value in peers.values() if value is not None]
        return {
            "minimize": goal.minimize,
            "limits": {name: float(value) for name, value in goal.limits.items()},
            "budget": budget,
            "seconds": round(seconds, 3),
            "ours": ours,
            "peers": peers,
            "worse": bool(found) and (ours is None or ours > min(found) + 1e-9 * abs(min(found))),
        }


def studied(name: str, folder: Path) -> dict[str, Any]:
    """One network: its table, ten goals under two budgets, and what stands out."""
    bench = Bench.of(*NETWORKS[name](), folder)
    rows = [bench.row(goal, budget) for budget in BUDGETS for goal in bench.goals()]
    for row in rows:
        print(name, json.dumps(row), flush=True)
    table = bench.table
    return {
        "layers": len(table.options),
        "options": sum(map(len, table.options.values())),
        "units": len(table.keeps),
        "table_seconds": round(bench.seconds, 1),
        "slowest_plan_seconds": max(row["seconds"] for row in rows),
        "plans_over_two_seconds": sum(row["seconds"] > SECONDS for row in rows),
        "worse_than_a_peer": sum(bool(row["worse"]) for row in rows),
        "plans": rows,
    }


def main() -> None:
    """Run all, or the networks that are named, and write ``results/allocation.json``."""
    path = RESULTS / "allocation.json"
    results = json.loads(path.read_text()) if path.exists() else {}
    for name in sys.argv[1:] or NETWORKS:
        with tempfile.TemporaryDirectory() as folder:
            results[name] = studied(name, Path(folder))
        print(name, {key: value for key, value in results[name].items() if key != "plans"}, flush=True)
        path.write_text(json.dumps({one: results[one] for one in NETWORKS if one in results}, indent=1) + "\n")


if __name__ == "__main__":
    main()
