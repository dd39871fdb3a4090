"""int8 without any data: ResNet-20 on CIFAR-10, from its weights and the shape of its input alone.

Calibration inputs are synthesized from batch-norm statistics, neighbours equalized, every layer put on static int8.
Both files run in LiteRT on all 10,000 test images, which nothing before has seen. Beside it the same network calibrated
on 1,000 unlabelled training images.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from _data import RESULTS, cifar10, cifar_resnet

from featherweight.api import quantize
from featherweight.audit.verify import outputs_of
from featherweight.datafree import int8_plan
from featherweight.methods import METHODS
from featherweight.methods.apply import apply
from featherweight.network import capture, fold_batch_norm
from featherweight.network.surgery import Slim
from featherweight.recovery import recover
from featherweight.targets import target_by_name
from featherweight.tasks import Data

TARGET = target_by_name("litert")
SHAPE = (3, 32, 32)


def accuracy(path: Path, data: Data) -> float:
    """Share of right answers of a file on all test images, in the target's runtime."""
    model = TARGET.load(path)
    right = [outputs_of(model, split).argmax(1) == np.asarray(split.labels) for split in (data.validation, data.test)]
    return round(float(np.concatenate(right).mean()), 4)


def with_images(depth: int, data: Data, path: Path) -> None:
    """The same file, calibrated on unlabelled training images."""
    network = fold_batch_norm(capture(cifar_resnet(depth), data.train.take(range(2)).inputs))
    plan, _ = int8_plan(network, network.fingerprint(), TARGET.capability)
    images = data.train.first(1000)
    applied = apply(network, plan, images, TARGET.capability, METHODS)
    TARGET.lower(recover(Slim.whole(network), applied, images, TARGET), path)


def row(depth: int, folder: Path) -> dict[str, object]:
    """One network: float, int8 without data, int8 with images."""
    data = cifar10()
    start = time.perf_counter()
    made = quantize(cifar_resnet(depth), SHAPE, TARGET, out=folder)
    seconds = round(time.perf_counter() - start, 1)
    with_images(depth, data, folder / "images.tflite")
    return {
        "network": f"ResNet-{depth}",
        "test_images": len(data.validation) + len(data.test),
        "float": accuracy(folder / made.original.file, data),
        "data_free": accuracy(folder / made.artefact.file, data),
        "with_images": accuracy(folder / "images.tflite", data),
        "bytes": [made.original.size_bytes, made.artefact.size_bytes],
        "equalized": len(made.equalized),
        "loss": [round(one, 3) for one in made.loss],
        "seconds": seconds,
    }


def main() -> None:
    """Run ResNet-20, or the depths that are named, and write ``results/data_free.json``."""
    path = RESULTS / "data_free.json"
    rows = {one["network"]: one for one in json.loads(path.read_text())} if path.exists() else {}
    for depth in map(int, sys.argv[1:] or ["20"]):
        with tempfile.TemporaryDirectory() as folder:
            made = row(depth, Path(folder))
        rows[made["network"]] = made
        print(made, flush=True)
        path.write_text(json.dumps(list(rows.values()), indent=1) + "\n")


if __name__ == "__main__":
    main()
