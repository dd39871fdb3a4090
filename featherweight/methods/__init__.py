"""The catalogue of compression methods: one file a family, one line here.

Pruning acts on coupled units and comes first; chains of the families that act on layers are tried in this order.
"""

from featherweight.methods.binarization import Binarization
from featherweight.methods.grouping import Grouping
from featherweight.methods.lowrank import KINDS, LowRank
from featherweight.methods.pruning import Pruning
from featherweight.methods.quantization import Quantization
from featherweight.methods.seam import Method
from featherweight.methods.sharing import Sharing
from featherweight.methods.sparsity import Sparsity

METHODS: tuple[Method, ...] = (
    Sparsity(),
    LowRank(KINDS),
    Grouping(),
    Sharing(),
    Binarization(),
    Quantization(),
)

FAMILIES: tuple[Pruning | Method, ...] = (Pruning(), *METHODS)

__all__ = ["FAMILIES", "METHODS", "Method", "Pruning"]
