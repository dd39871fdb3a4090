"""The package: an artefact, or a network, entropy-coded for download, and back to the byte.

``pack``, ``unpack`` and ``info`` work on files; ``estimate_bits`` and ``real_bits`` tell planning what a tensor will
cost. The format is described in ``docs/package-format.md``; ``decoder/`` holds the same decoder in C99, for apps.

The coder's loops are compiled by numba, which takes half a second to load. So what stands here is loaded at first use.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from featherweight.packaging.files import PackageInfo, PieceInfo, info, pack, unpack
    from featherweight.packaging.rate import estimate_bits, real_bits
    from featherweight.packaging.spans import TensorSpan

__all__ = ["PackageInfo", "PieceInfo", "TensorSpan", "estimate_bits", "info", "pack", "real_bits", "unpack"]

_HOMES = {"estimate_bits": "rate", "real_bits": "rate", "TensorSpan": "spans"}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES.get(name, 'files')}"), name)
