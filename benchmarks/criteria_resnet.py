"""Criteria for channels beside one another: ResNet-20 on CIFAR-10, without labels and without training.

The same share of the channels inside every block goes. 256 unlabelled images for everything (Shapley values: the first
64), 1,000 test images for accuracy, plain and with the readers refit in closed form, all at once and not in sequence.
So the figures compare criteria; ``pruning_resnet.py`` has the curves of the whole method.
"""

from __future__ import annotations

import json
import time

import numpy as np
import torch
from _data import RESULTS, cifar10, cifar_resnet

from featherweight.methods.pruning.ranking import CRITERIA, rank_groups
from featherweight.network import Network, capture, fold_batch_norm
from featherweight.network.channels import ChannelUnit, analyse
from featherweight.network.surgery import silence
from featherweight.numerics.elimination import compensated
from featherweight.observation import Evidence, observe
from featherweight.observation.readers import readers_of
from featherweight.tasks import CLASSIFICATION, Split

SHARES = (0.3, 0.5)
CALIBRATION, FOR_SHAPLEY, TEST = 256, 64, 1000


def _refit(network: Network, unit: ChannelUnit, evidence: Evidence, gone: list[int]) -> dict[str, torch.Tensor]:
    """The readers' weights without these groups, and their biases."""
    found = {}
    for name, reader in readers_of(network, unit, evidence).items():
        columns = reader.columns[gone].flatten()
        fitted = compensated(reader.weight, reader.covariance, columns[columns >= 0])
        shift = (reader.weight - fitted) @ evidence.layers[name].mean[0]
        layer = network.layer(name)
        found[layer.weight] = fitted.reshape(layer.weight_shape).float()
        found[f"{name}.bias"] = (network.module.get_parameter(f"{name}.bias").detach().double() + shift).float()
    return found


def main() -> None:
    """Rank by every criterion, cut, refit, count right answers, write the JSON."""
    torch.set_num_threads(1)
    data = cifar10(CALIBRATION)
    test = data.validation.take(range(TEST))
    calibration = Split.of(data.train.take(range(CALIBRATION)).inputs[0])
    captured = capture(cifar_resnet(20), test.inputs[0][:2])
    network = fold_batch_norm(captured)
    evidence, coupling = observe(network, calibration), analyse(network.graph)
    inner = [unit for unit in coupling.units if "." in unit.name and unit.name.endswith("conv1")]
    unfolded = {unit.name: unit for unit in analyse(captured.graph).units}

    def accuracy(removals: dict[str, list[int]], weights: dict[str, torch.Tensor]) -> float:
        with torch.no_grad():
            outputs = silence(network.graph, coupling, removals, weights)(*test.inputs)
        scores = CLASSIFICATION.scores(outputs.numpy(), np.asarray(test.labels))
        return round(float(scores.mean()), 4)

    results: dict[str, object] = {"network": "ResNet-20", "test_images": TEST, "float": accuracy({}, {})}
    for criterion in CRITERIA:
        samples = calibration.first(FOR_SHAPLEY) if criterion == "shapley" else calibration
        start, orders = time.perf_counter(), {}
        for unit in inner:
            given = (captured, unfolded[unit.name]) if criterion == "bn-scale" else (network, unit)
            ranking = rank_groups(*given, evidence, criterion, split=samples, task=CLASSIFICATION)
            orders[unit.name] = ranking.order.tolist()
        row: dict[str, float] = {"seconds": round(time.perf_counter() - start, 1)}
        for share in SHARES:
            removals = {unit.name: orders[unit.name][: int(unit.groups * share)] for unit in inner}
            weights: dict[str, torch.Tensor] = {}
            for unit in inner:
                weights |= _refit(network, unit, evidence, removals[unit.name])
            row[f"{share:.0%} gone, plain"] = accuracy(removals, {})
            row[f"{share:.0%} gone, refit"] = accuracy(removals, weights)
        results[criterion] = row
        print(criterion, row, flush=True)
    (RESULTS / "criteria_resnet.json").write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
