"""Structured pruning without labels and without training: accuracy against MACs on ResNet-20 and ResNet-56, CIFAR-10.

1,000 unlabelled images, all 10,000 test images. At every point the same number of channels goes everywhere inside the
blocks (``keep``: the share that stays), by magnitude and by optimal-brain-surgeon choice without a repair, and by the
latter with the sequential refit; ``allocated`` is the refit with every unit's own width, chosen over measured
divergences. Torch-Pruning stands beside them at the MACs that it reaches, by three of its criteria, batch norm
re-estimated on the same images, where it is installed. The curve is drawn to ``results/pruning_resnet.svg``.
"""

from __future__ import annotations

import copy
import importlib
import json
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace

import numpy as np
import torch
from _curves import curves
from _data import RESULTS, cifar10, cifar_resnet
from torch import nn

from featherweight.contracts import Choice, Plan, Table
from featherweight.methods.apply import apply
from featherweight.methods.pruning import Grounds, Prunable, Pruning, prune, removals_for
from featherweight.methods.pruning.ranking import rank_groups
from featherweight.network import Network, capture, fold_batch_norm
from featherweight.network.surgery import Slim
from featherweight.observation import Evidence, observe
from featherweight.planning import build_table
from featherweight.planning.units import with_keeps
from featherweight.planning.widths import candidates, narrowed
from featherweight.tasks import CLASSIFICATION, Data, Split
from featherweight.testing import ANY_TARGET

RATIOS = (0.9, 0.77, 0.7, 0.58, 0.5, 0.4)
CALIBRATION = 1000
_CRITERIA = {"L2": "GroupMagnitudeImportance", "BN scale": "BNScaleImportance", "LAMP": "LAMPImportance"}
_FINE = replace(ANY_TARGET, channel_multiple=1)


def _everything(data: Data) -> tuple[torch.Tensor, np.ndarray]:
    parts = [split.take(range(len(split))) for split in (data.validation, data.test)]
    labels = [np.asarray(split.labels) for split in (data.validation, data.test)]
    return torch.cat([part.inputs[0] for part in parts]), np.concatenate(labels)


def _accuracy(module: nn.Module, images: torch.Tensor, labels: np.ndarray) -> float:
    with torch.no_grad():
        answers = [module(images[i : i + 500]).argmax(1).numpy() for i in range(0, len(images), 500)]
    return round(float((np.concatenate(answers) == labels).mean()), 4)


def _refit(slim: Slim, calibration: Split) -> tuple[Network, float]:
    start = time.perf_counter()
    fitted = apply(slim, Plan("", "", {}), calibration, ANY_TARGET, ())
    return fitted, round(time.perf_counter() - start, 1)


def _ours(depth: int, data: Data, images: torch.Tensor, labels: np.ndarray) -> dict[str, object]:
    calibration = data.train.first(CALIBRATION)
    network = fold_batch_norm(capture(cifar_resnet(depth), calibration.take(range(2)).inputs))
    start = time.perf_counter()
    prunable = Prunable.of(network, Pruning())
    evidence = observe(network, calibration)
    units = [unit for unit in prunable.coupling.units if len(unit.producers) == 1 and unit.consumers]
    orders = {
        criterion: {unit.name: rank_groups(network, unit, evidence, criterion, split=calibration) for unit in units}
        for criterion in ("magnitude", "obs")
    }
    shared = time.perf_counter() - start
    rows = []
    for ratio in RATIOS:
        row: dict[str, object] = {"keep": ratio}
        for criterion, order in orders.items():
            removals = {unit.name: removals_for(unit, order[unit.name], round(unit.groups * ratio)) for unit in units}
            slim = prune(network, prunable.coupling, removals)
            row["macs"] = round(slim.network.cost.macs / network.cost.macs, 4)
            row[criterion] = _accuracy(slim.network.module, images, labels)
            if criterion == "obs":
                fitted, row["seconds"] = _refit(slim, calibration)
                row["obs with refit"] = _accuracy(fitted.module, images, labels)
        rows.append(row)
        print(f"ResNet-{depth}", row, flush=True)
    start = time.perf_counter()
    table = build_table(network, evidence, calibration, CLASSIFICATION, _FINE, (), whole=network.cost)
    table = with_keeps(table, network, prunable, Grounds(evidence, calibration), CLASSIFICATION, _FINE)
    priced = time.perf_counter() - start
    allocated = list(_allocated((network, prunable, evidence), table, calibration, (images, labels)))
    return {
        "network": f"ResNet-{depth}",
        "accuracy": _accuracy(network.module, images, labels),
        "analysis_seconds": round(shared, 1),
        "table_seconds": round(priced, 1),
        "points": rows,
        "allocated": allocated,
    }


def _allocated(
    what: tuple[Network, Prunable, Evidence],
    table: Table,
    calibration: Split,
    test: tuple[torch.Tensor, np.ndarray],
) -> Iterator[dict[str, float]]:
    """Points along the trade of MACs against divergence, about a tenth of the MACs apart."""
    network, prunable, evidence = what
    whole, units = network.cost.macs, prunable.coupling
    orders = {unit: rank_groups(network, units.unit(unit), evidence, split=calibration) for unit in table.keeps}
    found = {}
    for keeps in candidates(table, "macs"):
        layers = {name: row[0] for name, row in narrowed(table, keeps).options.items()}
        found[(Choice(layers, keeps).cost.macs + table.fixed.macs) / whole] = keeps
    last = 1.0
    for share, keeps in sorted(found.items(), reverse=True):
        if not 0.38 <= share <= last - 0.06:
            continue
        last = share
        removals = {
            unit: removals_for(units.unit(unit), orders[unit], int(keep.steps[0].settings["keep"]))
            for unit, keep in keeps.items()
            if keep.steps
        }
        slim = prune(network, prunable.coupling, removals)
        fitted, seconds = _refit(slim, calibration)
        point = {
            "macs": round(slim.network.cost.macs / whole, 4),
            "predicted macs": round(share, 4),
            "accuracy": _accuracy(fitted.module, *test),
            "seconds": seconds,
        }
        print("allocated", point, flush=True)
        yield point


def _reestimated(module: nn.Module, split: Split) -> nn.Module:
    module = copy.deepcopy(module)
    for child in module.modules():
        if isinstance(child, nn.BatchNorm2d):
            child.reset_running_stats()
            child.momentum = None
            child.train()
    with torch.no_grad():
        for batch in split.batches(250):
            module(*batch.inputs)
    return module.eval()


def _torch_pruning(depth: int, data: Data, images: torch.Tensor, labels: np.ndarray) -> Iterator[dict[str, object]]:
    try:
        tp = importlib.import_module("torch_pruning")  # a peer, not a dependency
    except ImportError:
        print("torch-pruning isn't installed: its columns are left out")
        return
    example = data.train.take(range(1)).inputs[0]
    whole, _ = tp.utils.count_ops_and_params(cifar_resnet(depth), example)
    for words, criterion in _CRITERIA.items():
        for ratio in (0.05, 0.12, 0.2, 0.3):
            network = cifar_resnet(depth)
            pruner = tp.pruner.MagnitudePruner(
                network,
                example,
                importance=getattr(tp.importance, criterion)(),
                global_pruning=criterion == "LAMPImportance",
                pruning_ratio=ratio,
                ignored_layers=[network.linear],
            )
            try:
                pruner.step()
                macs, _ = tp.utils.count_ops_and_params(network, example)
            except (RuntimeError, ValueError) as error:
                yield {"criterion": words, "ratio": ratio, "failed": str(error).splitlines()[0]}
                continue
            repaired = _accuracy(_reestimated(network, data.train.first(CALIBRATION)), images, labels)
            yield {
                "criterion": words,
                "ratio": ratio,
                "macs": round(macs / whole, 4),
                "after batch norm": repaired,
            }


def _drawn(rows: list[dict]) -> str:
    """Accuracy against MACs as an SVG, one panel a network."""
    panels: dict[str, Mapping[str, list[tuple[float, float]]]] = {}
    for row in rows:
        lines = {
            "allocated, refit": [(p["macs"], p["accuracy"]) for p in row["allocated"]],
            "same ratio, refit": [(p["macs"], p["obs with refit"]) for p in row["points"]],
            "OBS, no repair": [(p["macs"], p["obs"]) for p in row["points"]],
            "magnitude, no repair": [(p["macs"], p["magnitude"]) for p in row["points"]],
        }
        for words in _CRITERIA:
            found = [p for p in row["torch-pruning"] if p["criterion"] == words and "macs" in p]
            lines[f"Torch-Pruning {words}, batch norm"] = [(p["macs"], p["after batch norm"]) for p in found]
        panels[row["network"]] = {name: sorted(line) for name, line in lines.items() if line}
    return curves(panels, "share of the MACs", "accuracy", (0.38, 1.0), (0.2, 0.95))


def main() -> None:
    """Run and write ``results/pruning_resnet.json`` and its picture."""
    data = cifar10()
    images, labels = _everything(data)
    rows = []
    for depth in (20, 56):
        row = _ours(depth, data, images, labels)
        row["torch-pruning"] = list(_torch_pruning(depth, data, images, labels))
        print(json.dumps(row["torch-pruning"]))
        rows.append(row)
        RESULTS.mkdir(exist_ok=True)
        (RESULTS / "pruning_resnet.json").write_text(json.dumps(rows, indent=1) + "\n")
    (RESULTS / "pruning_resnet.svg").write_text(_drawn(rows))


if __name__ == "__main__":
    main()
