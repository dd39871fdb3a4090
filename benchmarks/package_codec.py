"""The package's coder beside zstd, brotli, xz and nncodec, on quantized weights of trained networks.

LeNet-300-100 (trained here on MNIST), ResNet-20 (CIFAR-10) and MobileNetV2 (ImageNet), every weight tensor on a
symmetric grid with one scale for each output channel, at 8, 4 and 3 bits, and at 4 bits with 50, 90 and 95 % of every
tensor zero. Ours are whole packages, headers and checksums counted, decoded by the C decoder and compared.

Peers live in an environment of their own (``pip install nncodec zstandard brotli``), because they need another numpy:
``FEATHERWEIGHT_PEERS`` names its Python. Times are processor times of the whole decoder process, the least of five, and
stand beside the time that ``xz`` takes to decode the same tensors on the same machine.
"""

from __future__ import annotations

import gzip
import json
import lzma
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from _data import RESULTS, ROOT, cifar_resnet, need
from torch import nn
from torch.nn import functional

from featherweight.packaging.package import Content, encode_package
from featherweight.packaging.spans import TensorSpan

_SETTINGS = ((8, 0.0), (4, 0.0), (3, 0.0), (4, 0.5), (4, 0.9), (4, 0.95))
_DECODER = Path(__file__).parents[1] / "featherweight" / "packaging" / "decoder"
_REPEATS = 5

Tensors = Mapping[str, np.ndarray]


def mnist(part: str) -> tuple[torch.Tensor, torch.Tensor]:
    """MNIST's "train" (60,000) or "t10k" images, (n, 784) between 0 and 1, and their digits."""
    need("mnist")

    def content(name: str, skip: int) -> np.ndarray:
        return np.frombuffer(gzip.decompress((ROOT / "mnist" / name).read_bytes()), dtype=np.uint8)[skip:].copy()

    images = torch.from_numpy(content(f"{part}-images-idx3-ubyte.gz", 16)).reshape(-1, 784).float() / 255
    return images, torch.from_numpy(content(f"{part}-labels-idx1-ubyte.gz", 8)).long()


def _lenet(epochs: int = 8, batch: int = 128) -> Tensors:
    images, labels = mnist("train")
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(784, 300), nn.ReLU(), nn.Linear(300, 100), nn.ReLU(), nn.Linear(100, 10))
    steps = epochs * (len(images) // batch)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in range(epochs):
        for rows in torch.randperm(len(images))[: steps // epochs * batch].reshape(-1, batch):
            optimizer.zero_grad()
            functional.cross_entropy(network(images[rows]), labels[rows]).backward()
            optimizer.step()
            schedule.step()
    return _matrices(network.state_dict())


def _mobilenet() -> Tensors:
    need("imagenet_mobile_models")
    (path,) = (ROOT / "imagenet_mobile_models").glob("mobilenetv2*.pt")
    held = torch.load(path, map_location="cpu", weights_only=True)
    return _matrices(held.get("state_dict", held))


def _matrices(state: Mapping[str, torch.Tensor]) -> Tensors:
    return {name: value.detach().float().numpy() for name, value in state.items() if value.ndim > 1}


def _levels(weight: np.ndarray, bits: int, zeros: float) -> np.ndarray:
    """Nearest levels of a weight, the smallest share ``zeros`` of it set to zero first."""
    weight = np.where(np.abs(weight) <= np.quantile(np.abs(weight), zeros), 0, weight) if zeros else weight
    rows = weight.reshape(len(weight), -1)
    top = 2 ** (bits - 1) - 1
    largest = np.abs(rows).max(1, keepdims=True)
    return np.round(rows * (top / np.where(largest == 0, 1, largest))).astype(np.int8).reshape(weight.shape)


def _content(levels: Tensors) -> Content:
    spans, output = [], b""
    for name, tensor in levels.items():
        spans.append(TensorSpan(len(output), tensor.nbytes, "int8", tensor.shape, name))
        output += tensor.tobytes()
    return Content({"weights": output}, spans={"weights": spans})


def _build(folder: Path) -> Path:
    program = folder / "fwdecode"
    sources = [str(_DECODER / name) for name in ("featherweight_decoder.c", "fwdecode.c")]
    subprocess.run([os.environ.get("CC", "cc"), "-std=c99", "-O3", *sources, "-o", str(program)], check=True)
    return program


def _seconds(command: list[str]) -> float:
    """The least processor time of a few runs: other work on the machine doesn't count."""
    found = []
    for _ in range(_REPEATS):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run(command, check=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        found.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    return min(found)


def _xz_seconds(content: bytes) -> float:
    packed, found = lzma.compress(content, preset=9), []
    for _ in range(_REPEATS):
        start = time.process_time()
        lzma.decompress(packed)
        found.append(time.process_time() - start)
    return min(found)


def _ours(levels: Tensors, program: Path, folder: Path) -> dict[str, float]:
    content = _content(levels)
    start = time.process_time()
    package = encode_package(content)
    encoding = time.process_time() - start
    packed, back = folder / "package.fwp", folder / "back"
    packed.write_bytes(package)
    decoding = _seconds([str(program), str(packed), str(back)])
    if back.read_bytes() != content.joined():
        raise SystemExit("the C decoder gave other bytes")
    return {
        "ours": len(package),
        "encoding_s": round(encoding, 2),
        "decoding_mb_per_s": round(len(content.joined()) / decoding / 1e6, 1),
        "decoding_over_xz": round(decoding / _xz_seconds(content.joined()), 1),
    }


def _peers(levels: Tensors, folder: Path) -> dict[str, float]:
    python = os.environ.get("FEATHERWEIGHT_PEERS")
    if python is None:
        return {}
    held = folder / "levels.npz"
    np.savez(held, allow_pickle=False, **levels)
    script = Path(__file__).with_name("_peer_codecs.py")
    clean = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run([python, str(script), str(held)], check=True, capture_output=True, env=clean)
    return json.loads(done.stdout)


def _entropy_bytes(levels: Tensors) -> int:
    """Zero-order entropy of every tensor: what an ideal coder without contexts, that knows all shares, would take."""
    bits = 0.0
    for tensor in levels.values():
        counts = np.unique(tensor, return_counts=True)[1]
        bits -= float((counts * np.log2(counts / counts.sum())).sum())
    return round(bits / 8)


def _rows(wanted: str) -> Iterator[dict[str, Any]]:
    networks = {
        "LeNet-300-100": _lenet,
        "ResNet-20": lambda: _matrices(cifar_resnet(20).state_dict()),
        "MobileNetV2": _mobilenet,
    }
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        program = _build(folder)
        for network, load in networks.items():
            tensors = load() if network.startswith(wanted) else {}
            for bits, zeros in _SETTINGS if tensors else ():
                levels = {key: _levels(weight, bits, zeros) for key, weight in tensors.items()}
                row: dict[str, Any] = {
                    "network": network,
                    "bits": bits,
                    "zeros": zeros,
                    "entropy": _entropy_bytes(levels),
                }
                row |= {"weights": sum(tensor.size for tensor in levels.values())}
                row |= _ours(levels, program, folder) | _peers(levels, folder)
                print(json.dumps(row), flush=True)
                yield row


def _summary(rows: list[dict[str, Any]]) -> dict[str, object]:
    names = [name for name in ("nncodec", "zstd -19", "brotli -11", "xz -9e") if all(name in row for row in rows)]
    ratios = {name: np.array([row["ours"] / row[name] for row in rows]) for name in names}
    return {
        "geometric_mean_ratio": {name: round(float(np.exp(np.log(r).mean())), 4) for name, r in ratios.items()},
        "largest_ratio": {name: round(float(r.max()), 4) for name, r in ratios.items()},
    }


def main(wanted: str = "") -> None:
    """All rows, printed; written as JSON where no network was singled out."""
    rows = list(_rows(wanted))
    result = {"summary": _summary(rows), "rows": rows}
    print(json.dumps(result["summary"], indent=2))
    if not wanted:
        RESULTS.mkdir(exist_ok=True)
        (RESULTS / "package_codec.json").write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(*sys.argv[1:])
