"""The main job on real networks: ResNet-20 and ResNet-56 on CIFAR-10, without labels or training, on both targets.

Side by side in one run: the float file, plain static int8 from the runtime's own tool (ai-edge-quantizer, or ONNX
Runtime's ``quantize_static``), and two of ours under "at most 0.5 points lost, 95 % sure": the smallest file, and the
fastest that is no larger than plain int8. Both come from one table. Accuracy on the 6,000 test images that no search
saw; milliseconds of all files are taken in turns.

    python benchmarks/resnet_int8.py [20 | 56] [litert | onnxruntime] [FOLDER]    a folder keeps the runs
"""

from __future__ import annotations

import importlib
import json
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from _data import RESULTS, cifar10, cifar_resnet

from featherweight import Data, Goal, Outcome, compress, target_by_name
from featherweight.audit.verify import outputs_of
from featherweight.network import capture, fold_batch_norm
from featherweight.network.grids import Compressed

DROP = 0.005
CALIBRATION = 256


def _accuracy(path: Path, target: str, data: Data) -> float:
    outputs = outputs_of(target_by_name(target).load(path), data.test, f"running {path.name}")
    return float((outputs.argmax(1) == data.test.labels).mean())


def ai_edge_quantizer(depth: int, data: Data, original: Path, out: Path) -> None:
    """Static int8 from litert-torch's own float file, channels last as that tool likes them."""
    del original
    quantizer = importlib.import_module("ai_edge_quantizer.quantizer")
    recipe = importlib.import_module("ai_edge_quantizer.recipe")
    converter = importlib.import_module("litert_torch")
    network = converter.to_channel_last_io(cifar_resnet(depth), args=[0]).eval()
    whole = out.with_name(f"named-{out.name}")
    converter.convert(network, (torch.zeros(1, 32, 32, 3),)).export(str(whole))
    made = quantizer.Quantizer(str(whole), recipe.static_wi8_ai8())
    images = data.train.take(range(CALIBRATION)).inputs[0].numpy().transpose(0, 2, 3, 1)
    samples = [{"args_0": np.ascontiguousarray(images[i : i + 1])} for i in range(CALIBRATION)]
    result = made.quantize(made.calibrate({"serving_default": samples}))
    out.write_bytes(bytes(result.quantized_model or b""))


def quantize_static(depth: int, data: Data, original: Path, out: Path) -> None:
    """Static int8 with a scale for every output channel, from our float file, as ONNX Runtime's guide does it."""
    del depth
    quantization = importlib.import_module("onnxruntime.quantization")
    ready = out.with_name(f"ready-{out.name}")
    importlib.import_module("onnxruntime.quantization.shape_inference").quant_pre_process(str(original), str(ready))
    images = data.train.take(range(CALIBRATION)).inputs[0].numpy()
    name = importlib.import_module("onnxruntime").InferenceSession(str(ready)).get_inputs()[0].name

    class Reader(quantization.CalibrationDataReader):
        """One image at a time."""

        def __init__(self) -> None:
            self.left = iter({name: images[i : i + 1]} for i in range(CALIBRATION))

        def get_next(self) -> Mapping[str, np.ndarray] | None:
            return next(self.left, None)

    quantization.quantize_static(str(ready), str(out), Reader(), per_channel=True)


PLAIN = {"litert": ai_edge_quantizer, "onnxruntime": quantize_static}


def _ours(depth: int, target: str, data: Data, folder: Path, limit: int) -> Iterator[tuple[str, Outcome, float]]:
    """The smallest file, and the fastest within so many bytes; their files under names of their own."""
    goals = {
        "smallest": Goal(max_drop=DROP),
        "fastest": Goal(max_drop=DROP, minimize="latency", max_size_bytes=limit),
    }
    for name, goal in goals.items():
        start = time.perf_counter()
        outcome = compress(cifar_resnet(depth), data, goal, target_by_name(target), out=folder / "run")
        seconds = time.perf_counter() - start
        kept = folder / f"{name}{outcome.artefact.suffix}"
        kept.write_bytes(outcome.artefact.read_bytes())
        yield name, outcome, round(seconds, 1)


def row(depth: int, target: str, data: Data, folder: Path) -> dict[str, Any]:
    """One network on one target."""
    folder.mkdir(parents=True, exist_ok=True)
    runtime = target_by_name(target)
    original = folder / f"original{runtime.suffix}"
    network = fold_batch_norm(capture(cifar_resnet(depth), data.train.take(range(2)).inputs))
    runtime.lower(Compressed(network), original)
    plain = folder / f"plain{runtime.suffix}"
    PLAIN[target](depth, data, original, plain)
    made = list(_ours(depth, target, data, folder, plain.stat().st_size))
    files = {"float": original, "plain int8": plain}
    files |= {name: folder / f"{name}{runtime.suffix}" for name, _, _ in made}
    timings = runtime.benchmark(list(files.values()), runs=400, threads=1)
    return {
        "network": f"ResNet-{depth}",
        "target": target,
        "plain int8 from": PLAIN[target].__name__,
        "files": {
            name: {
                "bytes": path.stat().st_size,
                "accuracy": round(_accuracy(path, target, data), 5),
                "median_ms": round(timing.median_ms, 4),
            }
            for (name, path), timing in zip(files.items(), timings, strict=True)
        },
        "goals": {
            name: {
                "met": outcome.met,
                "seconds": seconds,
                "macs": [outcome.story.original.macs, outcome.story.compressed.macs],
                "certificate": asdict(outcome.certificate),
            }
            for name, outcome, seconds in made
        },
        "device": made[0][1].story.device,
    }


def main() -> None:
    """Run all, or what is named, and write ``results/resnet_int8.json``."""
    words = sys.argv[1:]
    depths = [int(word) for word in words if word.isdigit()] or [20, 56]
    targets = [word for word in words if word in PLAIN] or list(PLAIN)
    kept = [Path(word) for word in words if not word.isdigit() and word not in PLAIN]
    path, data = RESULTS / "resnet_int8.json", cifar10()
    rows = json.loads(path.read_text()) if path.exists() else []
    for depth in depths:
        for target in targets:
            with tempfile.TemporaryDirectory() as room:
                made = row(depth, target, data, (kept[0] if kept else Path(room)) / f"{target}-{depth}")
            same = (made["network"], made["target"])
            rows = [*(one for one in rows if (one["network"], one.get("target")) != same), made]
            print(*same, json.dumps(made["files"]), flush=True)
            for name, one in made["goals"].items():
                print(" ", name, one["seconds"], "s:", one["certificate"]["statement"], flush=True)
            path.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
