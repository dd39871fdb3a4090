"""The catalogue of compression methods: one file a family, one line here. Chains are tried in this order."""

from featherweight.methods.lowrank import LowRank
from featherweight.methods.quantization import Quantization
from featherweight.methods.seam import Method

METHODS: tuple[Method, ...] = (
    LowRank(),
    Quantization(),
)

__all__ = ["METHODS", "Method"]
