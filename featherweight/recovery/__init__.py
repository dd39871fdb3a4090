"""Recovery: what a compressed network gets back without training."""

from __future__ import annotations

from featherweight.network.capture import Network
from featherweight.network.grids import Compressed
from featherweight.recovery.grids import fit_grids
from featherweight.recovery.statistics import correct_bias, reestimate_batch_norm
from featherweight.targets.seam import Target
from featherweight.tasks.data import Split


def recover(original: Network, compressed: Network, split: Split, target: Target) -> Compressed:
    """Re-estimate batch normalisation, correct biases, and fit the grids of activations.

    Args:
        original: the dense network.
        compressed: what a plan made of it.
        split: unlabelled calibration samples.
        target: says which values lie on integer grids.
    """
    normed = reestimate_batch_norm(compressed, split)
    corrected = correct_bias(original, normed, split)
    return fit_grids(corrected, target.place(corrected), split)
