"""Sizes under other people's coders; run by ``package_codec.py`` in an environment that has them.

    python _peer_codecs.py levels.npz

Each array of the file is a tensor of integer levels. Prints one JSON object: coder → bytes. Peers get every advantage:
general coders see all tensors as one stream, as bytes and (up to 4 bits) as packed nibbles, and the smaller counts;
``nncodec``'s compiled coder is asked for its payloads alone, without any header, with the best of its scan orders and
with its parameter search on and off.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import lzma
import sys
from pathlib import Path
from typing import Any

import brotli  # pyright: ignore[reportMissingImports]
import numpy as np
import zstandard  # pyright: ignore[reportMissingImports]


def _nncodec() -> Any:
    """The compiled coder alone: the package around it wants another torch."""
    spec = importlib.util.find_spec("nncodec")
    if spec is None or spec.origin is None:
        raise SystemExit("this Python has no nncodec")
    sys.path.insert(0, str(Path(spec.origin).parent / "extensions"))
    return importlib.import_module("deepCABAC")


def _nncodec_bytes(coder: Any, levels: np.ndarray) -> int:
    levels = np.ascontiguousarray(levels, dtype=np.int32)
    empty = (~levels.reshape(len(levels), -1).any(1)).astype(np.int32)
    sizes = []
    for scan in (0, 1, 2):
        for search in (0, 1):
            encoder = coder.Encoder()
            encoder.initCtxModels(10, search)
            off = np.zeros(2, dtype=np.int8)
            encoder.encodeLayer(levels, 0, scan, 1, 0, 1, empty, coder.HdspMode.AlwaysOff, off, 0, 0)
            sizes.append(len(encoder.finish().tobytes()))
    return min(sizes)


def _streams(tensors: list[np.ndarray]) -> list[bytes]:
    flat = np.concatenate([tensor.reshape(-1) for tensor in tensors]).astype(np.int8)
    streams = [flat.tobytes()]
    if np.abs(flat).max() < 8:
        even = np.append(flat, np.zeros(len(flat) % 2, dtype=np.int8)).view(np.uint8) & 15
        streams.append((even[::2] | even[1::2] << 4).tobytes())
    return streams


def _sizes(tensors: list[np.ndarray]) -> dict[str, int]:
    coder, streams = _nncodec(), _streams(tensors)
    best = zstandard.ZstdCompressor(level=19)
    return {
        "nncodec": sum(_nncodec_bytes(coder, tensor) for tensor in tensors),
        "zstd -19": min(len(best.compress(stream)) for stream in streams),
        "brotli -11": min(len(brotli.compress(stream, quality=11)) for stream in streams),
        "xz -9e": min(len(lzma.compress(stream, preset=9 | lzma.PRESET_EXTREME)) for stream in streams),
    }


if __name__ == "__main__":
    with np.load(sys.argv[1]) as held:
        print(json.dumps(_sizes([held[name] for name in held.files])))
