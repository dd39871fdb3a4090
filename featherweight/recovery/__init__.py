"""Recovery: what a compressed network gets back without training."""

from __future__ import annotations

from featherweight.network.capture import Network
from featherweight.network.grids import Compressed
from featherweight.network.surgery import Slim
from featherweight.recovery.biases import fit_biases
from featherweight.recovery.grids import DEFAULT, fit_grids
from featherweight.recovery.statistics import correct_bias
from featherweight.targets.seam import Target
from featherweight.tasks.data import Split


def recover(
    slim: Slim,
    compressed: Network,
    split: Split,
    target: Target,
    ranges: str = DEFAULT,
    untouched: frozenset[str] = frozenset(),
) -> Compressed:
    """Correct biases, fit the grids of activations, and make sure that biases fit what kernels add up in.

    Batch norms that couldn't be folded keep their statistics: every layer was refit to what the dense network puts out
    there, so what reaches them is what they were made for. Estimating them anew from a few samples would undo that.

    Args:
        slim: the dense network, beside what pruning left of it.
        compressed: what a plan made of that.
        split: unlabelled calibration samples.
        target: says which values lie on integer grids.
        ranges: how grids are found where a layer doesn't say.
        untouched: layers whose biases stay as they are.
    """
    corrected = correct_bias(slim, compressed, split, untouched)
    return fit_biases(fit_grids(corrected, target.place(corrected), split, ranges))
