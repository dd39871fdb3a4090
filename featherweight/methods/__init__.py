"""The catalogue of compression methods: one file a family, one line here.

Pruning acts on coupled units and comes first; chains of the families that act on layers are tried in this order.
"""

from featherweight.methods.binarization import Binarization
from featherweight.methods.entropy import Entropy
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
    Entropy(),
)

FOR_PACKAGES: tuple[Method, ...] = (*(m for m in METHODS if m.name != "entropy"), Entropy(package=True))
"""The catalogue where a package is counted: coarse grids join. Single zeros and shared values stay a plan's to ask
for: the table would grow by what a coarse grid's levels, most of them zero, can express too."""

FAMILIES: tuple[Pruning | Method, ...] = (Pruning(), *METHODS)

__all__ = ["FAMILIES", "FOR_PACKAGES", "METHODS", "Method", "Pruning"]
