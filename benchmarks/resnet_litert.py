"""The main job on real networks: ResNet-20 and ResNet-56 on CIFAR-10, for LiteRT, without labels or training.

Side by side in one run: the float file, plain static int8 from ai-edge-quantizer (where it is there), and ours under
"at most 0.5 points lost". Accuracy on the 6,000 test images that the search never saw; milliseconds interleaved.
"""

from __future__ import annotations

import importlib
import json
import tempfile
import time
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from _data import RESULTS, cifar10, cifar_resnet

from featherweight import Data, Goal, Outcome, compress, target_by_name


def _accuracy(path: Path, data: Data) -> float:
    run = target_by_name("litert").load(path)
    outputs = np.concatenate([run(tuple(x.numpy() for x in batch.inputs)) for batch in data.test.batches(64)])
    return float((outputs.argmax(1) == data.test.labels).mean())


def _plain_int8(depth: int, data: Data, out: Path) -> Path | None:
    """Static int8 from ai-edge-quantizer with 256 calibration images, from litert-torch's own float file."""
    try:
        quantizer = importlib.import_module("ai_edge_quantizer.quantizer")
        recipe = importlib.import_module("ai_edge_quantizer.recipe")
        converter = importlib.import_module("litert_torch")
    except ImportError:
        print("ai-edge-quantizer isn't installed: its column is left out")
        return None
    network = converter.to_channel_last_io(cifar_resnet(depth), args=[0]).eval()
    whole = out.with_name(f"named-{out.name}")
    converter.convert(network, (torch.zeros(1, 32, 32, 3),)).export(str(whole))
    made = quantizer.Quantizer(str(whole), recipe.static_wi8_ai8())
    images = data.train.take(range(256)).inputs[0].numpy().transpose(0, 2, 3, 1)
    samples = [{"args_0": np.ascontiguousarray(images[i : i + 1])} for i in range(256)]
    result = made.quantize(made.calibrate({"serving_default": samples}))
    out.write_bytes(bytes(result.quantized_model or b""))
    return out


def _row(depth: int, data: Data, drop: float, folder: Path) -> dict[str, object]:
    start = time.perf_counter()
    outcome: Outcome = compress(cifar_resnet(depth), data, Goal(max_drop=drop), out=folder / f"resnet{depth}")
    seconds = time.perf_counter() - start
    plain = _plain_int8(depth, data, folder / f"plain{depth}.tflite")
    files = {"float": outcome.original, "featherweight": outcome.artefact}
    if plain is not None:
        files["ai-edge-quantizer"] = plain
    timings = target_by_name("litert").benchmark(list(files.values()), runs=200, threads=1)
    figures = {
        name: {"bytes": path.stat().st_size, "accuracy": _accuracy(path, data), "median_ms": timing.median_ms}
        for (name, path), timing in zip(files.items(), timings, strict=True)
    }
    return {
        "network": f"ResNet-{depth}",
        "goal_max_drop": drop,
        "met": outcome.met,
        "verdict": outcome.verdict,
        "seconds": round(seconds, 1),
        "files": figures,
        "macs": [outcome.story.original.macs, outcome.story.compressed.macs],
        "certificate": asdict(outcome.certificate),
        "attempts": [
            {"predicted": a.predicted_divergence, "measured": a.measured_divergence, "bytes": a.size_bytes}
            for a in outcome.story.attempts
        ],
        "device": outcome.story.device,
    }


def main() -> None:
    """Run and write ``results/resnet_litert.json``."""
    data = cifar10()
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for depth in (20, 56):
            rows.append(_row(depth, data, 0.005, Path(folder)))
            print(json.dumps(rows[-1], indent=1))
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "resnet_litert.json").write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
