"""Recovery: what a compressed network gets back without training."""

from __future__ import annotations

from featherweight.network.capture import Network
from featherweight.network.grids import Compressed
from featherweight.network.surgery import Slim
from featherweight.recovery.grids import fit_grids
from featherweight.recovery.statistics import correct_bias, reestimate_batch_norm
from featherweight.targets.seam import Target
from featherweight.tasks.data import Split


def recover(slim: Slim, compressed: Network, split: Split, target: Target) -> Compressed:
    """Re-estimate batch normalisation, correct biases, and fit the grids of activations.

    Args:
        slim: the dense network, beside what pruning left of it.
        compressed: what a plan made of that.
        split: unlabelled calibration samples.
        target: says which values lie on integer grids.
    """
    normed = reestimate_batch_norm(compressed, split)
    corrected = correct_bias(slim, normed, split)
    return fit_grids(corrected, target.place(corrected), split)
