"""Predicted against measured, on the files: plans spread over the front of ResNet-20 and MobileNetV2.

One table a network serves all plans: smallest file and smallest package by turns, under budgets from next to nothing to
far too much. Every plan becomes a LiteRT file; its bytes and its package's are counted, and it is run on labelled
images that calibration never saw: all 10,000 test images of CIFAR-10, 300 photographs. What the table promised stands
beside it. (Milliseconds have their own benchmark, ``latency_prediction.py``.)

    python benchmarks/plan_prediction.py [ResNet-20 | MobileNetV2] [plans]
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from _data import RESULTS
from low_bits import TARGET, Problem, cifar_problem, photograph_problem
from scipy.stats import rankdata

from featherweight.audit.verify import outputs_of
from featherweight.contracts import Goal, Plan, Table
from featherweight.methods import FOR_PACKAGES, Pruning
from featherweight.methods.apply import apply
from featherweight.methods.pruning import Grounds, Prunable, prune, select
from featherweight.network.grids import Compressed
from featherweight.network.surgery import Slim
from featherweight.observation import Evidence, observe
from featherweight.packaging import pack
from featherweight.planning import allocate, build_table
from featherweight.planning.plans import plan_of
from featherweight.planning.units import with_keeps
from featherweight.recovery import recover
from featherweight.tasks import Split, task_by_name

PROBLEMS = {"ResNet-20": lambda: cifar_problem(20, 512), "MobileNetV2": lambda: photograph_problem(128)}
BUDGETS = (1e-4, 0.3)
TASK = task_by_name("classification")


@dataclass(frozen=True)
class Bench:
    """A network with its table, ready to make plans of."""

    problem: Problem
    seen: Evidence
    prunable: Prunable
    table: Table
    reference: np.ndarray
    folder: Path

    @classmethod
    def of(cls, problem: Problem, folder: Path) -> Bench:
        """Build the table, and run the original."""
        network, split = problem.network, problem.calibration
        file = TARGET.lower(Compressed(network), folder / "original.tflite")
        rate = pack(folder / "original.tflite", folder / "original.fwp")
        whole = replace(network.cost, size_bytes=file.size_bytes, package_bytes=float(rate))
        seen, prunable = observe(network, split), Prunable.of(network, Pruning())
        table = build_table(network, seen, split, TASK, TARGET.capability, FOR_PACKAGES, whole=whole)
        table = with_keeps(table, network, prunable, Grounds(seen, split, TASK, network), TASK, TARGET.capability)
        images = Split.of((problem.images.numpy(), problem.labels))
        reference = outputs_of(TARGET.load(folder / "original.tflite"), images, "running the original")
        return cls(problem, seen, prunable, table, reference, folder)

    def row(self, goal: Goal, budget: float) -> dict[str, object]:
        """One plan: what the table promised, and what its file shows."""
        choice = allocate(self.table, goal, budget)
        assert choice is not None  # keeping everything diverges by nothing
        plan = plan_of("", TARGET.name, choice, self.table.fixed)
        start = time.perf_counter()
        path = self._made(plan)
        images = Split.of((self.problem.images.numpy(), self.problem.labels))
        outputs = outputs_of(TARGET.load(path), images, f"budget {budget:.2g}")
        right = [(one.argmax(1) == self.problem.labels).mean() for one in (self.reference, outputs)]
        fixed, cost = self.table.fixed, choice.cost
        return {
            "minimize": goal.minimize,
            "budget": budget,
            "predicted": {
                "bytes": fixed.size_bytes + cost.size_bytes,
                "package": round(fixed.package_bytes + cost.package_bytes),
                "divergence": choice.divergence,
            },
            "measured": {
                "bytes": path.stat().st_size,
                "package": pack(path, self.folder / "plan.fwp"),
                "divergence": float(TASK.divergence(self.reference, outputs)),
                "drop": round(float(right[0] - right[1]), 5),
            },
            "seconds": round(time.perf_counter() - start, 1),
        }

    def _made(self, plan: Plan) -> Path:
        network, split, coupling = self.problem.network, self.problem.calibration, self.prunable.coupling
        removals = select(network, coupling, plan, Grounds(self.seen, split, TASK, network)).removals
        slim = prune(network, coupling, removals) if removals else Slim.whole(network)
        small = apply(slim, plan, split, TARGET.capability, FOR_PACKAGES)
        path = self.folder / "plan.tflite"
        TARGET.lower(recover(slim, small, split, TARGET), path)
        return path


def summary(rows: list[dict]) -> dict[str, float]:
    """How far predictions were off: the worst for bytes, rank correlations for what plans cost the network."""

    def column(side: str, name: str) -> np.ndarray:
        return np.array([row[side][name] for row in rows], dtype=float)

    off = {name: np.abs(column("predicted", name) / column("measured", name) - 1) for name in ("bytes", "package")}
    promised = column("predicted", "divergence")
    ranks = rankdata(promised)
    drop, divergence = (np.corrcoef(ranks, rankdata(column("measured", what)))[0, 1] for what in ("drop", "divergence"))
    return {
        "bytes, median off": round(float(np.median(off["bytes"])), 5),
        "bytes, most off": round(float(off["bytes"].max()), 5),
        "package, median off": round(float(np.median(off["package"])), 5),
        "package, most off": round(float(off["package"].max()), 5),
        "rank correlation with the drop": round(float(drop), 4),
        "rank correlation with the divergence": round(float(divergence), 4),
    }


def main() -> None:
    """Run both networks, or the one that is named, and write ``results/plan_prediction.json``."""
    path = RESULTS / "plan_prediction.json"
    results = json.loads(path.read_text()) if path.exists() else {}
    names = [word for word in sys.argv[1:] if word in PROBLEMS] or list(PROBLEMS)
    count = next((int(word) for word in sys.argv[1:] if word.isdigit()), 30)
    for name in names:
        with tempfile.TemporaryDirectory() as folder:
            bench = Bench.of(PROBLEMS[name](), Path(folder))
            rows: list[dict] = []
            for number, budget in enumerate(np.geomspace(*BUDGETS, count)):
                goal = Goal(minimize="size" if number % 2 else "package")
                rows.append(bench.row(goal, float(budget)))
                print(name, json.dumps(rows[-1]), flush=True)
                if len(rows) > 2:
                    results[name] = {"summary": summary(rows), "plans": rows}
                    path.write_text(json.dumps(results, indent=1) + "\n")
        print(name, results[name]["summary"], flush=True)


if __name__ == "__main__":
    main()
