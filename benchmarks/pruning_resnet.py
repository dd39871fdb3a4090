"""Structured pruning without labels and without training: accuracy against MACs on ResNet-20 and ResNet-56, CIFAR-10.

Inner channels of every block, the same keep-ratio everywhere, 512 unlabelled images, all 10,000 test images. Columns:
magnitude and optimal-brain-surgeon choice without a repair, the same choice with the sequential refit, and
Torch-Pruning (LAMP, global, then batch norm re-estimated on 1,000 images) at the MACs it reaches, where it is there.
"""

from __future__ import annotations

import copy
import importlib
import json
import time
from collections.abc import Iterator

import numpy as np
import torch
from _data import RESULTS, cifar10, cifar_resnet
from torch import nn

from featherweight.methods.pruning import kept_channels, prune, rank_groups, removals_for
from featherweight.network import capture, fold_batch_norm
from featherweight.network.channels import analyse
from featherweight.network.surgery import confirm
from featherweight.observation import observe
from featherweight.recovery.refit import refit_network
from featherweight.tasks import Data, Split

RATIOS = (0.9, 0.8, 0.7, 0.6, 0.5, 0.4)
CALIBRATION = 512


def _everything(data: Data) -> tuple[torch.Tensor, np.ndarray]:
    parts = [split.take(range(len(split))) for split in (data.validation, data.test)]
    labels = [np.asarray(split.labels) for split in (data.validation, data.test)]
    return torch.cat([part.inputs[0] for part in parts]), np.concatenate(labels)


def _accuracy(module: nn.Module, images: torch.Tensor, labels: np.ndarray) -> float:
    with torch.no_grad():
        answers = [module(images[i : i + 500]).argmax(1).numpy() for i in range(0, len(images), 500)]
    return round(float((np.concatenate(answers) == labels).mean()), 4)


def _ours(depth: int, data: Data, images: torch.Tensor, labels: np.ndarray) -> dict[str, object]:
    calibration = data.train.first(CALIBRATION)
    network = fold_batch_norm(capture(cifar_resnet(depth), calibration.take(range(2)).inputs))
    start = time.perf_counter()
    coupling = confirm(network, analyse(network.graph))
    evidence = observe(network, calibration)
    units = [unit for unit in coupling.units if len(unit.producers) == 1 and unit.consumers]
    rankings = {
        criterion: {unit.name: rank_groups(network, unit, evidence, criterion) for unit in units}
        for criterion in ("magnitude", "obs")
    }
    shared = time.perf_counter() - start
    rows = []
    for ratio in RATIOS:
        row: dict[str, object] = {"keep": ratio}
        for criterion, ranking in rankings.items():
            start = time.perf_counter()
            removals = {unit.name: removals_for(unit, ranking[unit.name], ratio) for unit in units}
            smaller = prune(network, coupling, removals)
            row["macs"] = round(smaller.cost.macs / network.cost.macs, 4)
            row[criterion] = _accuracy(smaller.module, images, labels)
            if criterion == "obs":
                start = time.perf_counter()
                fitted = refit_network(network, smaller, kept_channels(coupling, removals, network), calibration)
                row["seconds"] = round(time.perf_counter() - start, 1)
                row["obs with refit"] = _accuracy(fitted.module, images, labels)
        rows.append(row)
        print(f"ResNet-{depth}", row)
    whole = _accuracy(network.module, images, labels)
    return {"network": f"ResNet-{depth}", "accuracy": whole, "analysis_seconds": round(shared, 1), "points": rows}


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
        print("torch-pruning isn't installed: its column is left out")
        return
    example = data.train.take(range(1)).inputs[0]
    whole, _ = tp.utils.count_ops_and_params(cifar_resnet(depth), example)
    for ratio in (0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4):
        network = cifar_resnet(depth)
        pruner = tp.pruner.MagnitudePruner(
            network,
            example,
            importance=tp.importance.LAMPImportance(),
            global_pruning=True,
            pruning_ratio=ratio,
            ignored_layers=[network.linear],
        )
        try:
            pruner.step()
            macs, _ = tp.utils.count_ops_and_params(network, example)
            plain = _accuracy(network, images, labels)
        except (RuntimeError, ValueError) as error:
            yield {"ratio": ratio, "failed": str(error).splitlines()[0]}
            continue
        repaired = _accuracy(_reestimated(network, data.train.first(1000)), images, labels)
        yield {"ratio": ratio, "macs": round(macs / whole, 4), "accuracy": plain, "after batch norm": repaired}


def main() -> None:
    """Run and write ``results/pruning_resnet.json``."""
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


if __name__ == "__main__":
    main()
