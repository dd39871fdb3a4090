"""A package of a given size: ResNet-20 in 75 kB and ResNet-56 in 200 kB, for LiteRT, without labels or training.

The goal is "at most 0.5 points lost, 95 % sure, and no more than so many bytes to download". Accuracy is that of the
unpacked file, run in LiteRT on the 6,000 test images that the search never saw; the certificate says what these prove.

    python benchmarks/resnet_package.py [20 | 56] [FOLDER]     a folder keeps the run, and continues one
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path

import numpy as np
from _data import RESULTS, cifar10, cifar_resnet

from featherweight import Data, Goal, compress, target_by_name
from featherweight.packaging import unpack

LIMITS = {20: 75_000, 56: 200_000}
DROP = 0.005


def _accuracy(path: Path, data: Data) -> float:
    run = target_by_name("litert").load(path)
    outputs = np.concatenate([run(tuple(x.numpy() for x in batch.inputs)) for batch in data.test.batches(64)])
    return float((outputs.argmax(1) == data.test.labels).mean())


def row(depth: int, data: Data, folder: Path) -> dict[str, object]:
    """One network under its limit."""
    start = time.perf_counter()
    goal = Goal(max_drop=DROP, max_package_bytes=LIMITS[depth])
    outcome = compress(cifar_resnet(depth), data, goal, out=folder)
    seconds = time.perf_counter() - start
    with tempfile.TemporaryDirectory() as room:
        (unpacked,) = unpack(outcome.package, Path(room) / "artefact.tflite")
        after = _accuracy(unpacked, data)
    timing = outcome.story.compressed.timing.median_ms, outcome.story.original.timing.median_ms
    return {
        "network": f"ResNet-{depth}",
        "limit": LIMITS[depth],
        "package_bytes": outcome.package.stat().st_size,
        "file_bytes": outcome.artefact.stat().st_size,
        "original_package_bytes": outcome.story.original.package_bytes,
        "accuracy": {"original": _accuracy(outcome.original, data), "unpacked": after},
        "median_ms": {"artefact": timing[0], "original": timing[1]},
        "met": outcome.met,
        "certificate": asdict(outcome.certificate),
        "attempts": [
            {"package_bytes": one.package_bytes, "predicted": one.predicted_divergence, "lost": one.check.lost,
             "gained": one.check.gained, "measured": one.measured_divergence}
            for one in outcome.story.attempts
        ],
        "seconds": round(seconds),
    }  # fmt: skip


def main() -> None:
    """Run both, or the one that is named, and write ``results/resnet_package.json``."""
    depths = [int(word) for word in sys.argv[1:] if word.isdigit()] or list(LIMITS)
    folders = [Path(word) for word in sys.argv[1:] if not word.isdigit()]
    path, data = RESULTS / "resnet_package.json", cifar10()
    results = json.loads(path.read_text()) if path.exists() else {}
    for depth in depths:
        with tempfile.TemporaryDirectory() as room:
            results[f"ResNet-{depth}"] = row(depth, data, folders[0] if folders else Path(room) / "run")
        told = {key: results[f"ResNet-{depth}"][key] for key in ("package_bytes", "accuracy", "met", "seconds")}
        print(depth, told, results[f"ResNet-{depth}"]["certificate"]["statement"])
        path.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
