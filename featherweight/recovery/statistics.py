"""Statistics put right after compression: batch normalisation, and the mean of every layer's output."""

from __future__ import annotations

import torch
from torch import nn

from featherweight.methods.seam import leaves
from featherweight.network.capture import Network, capture
from featherweight.network.modules import copied, shift_bias
from featherweight.network.surgery import Slim
from featherweight.observation.evidence import OBSERVED_KINDS
from featherweight.observation.walk import Passage, walk
from featherweight.tasks.data import Split

_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


def reestimate_batch_norm(network: Network, split: Split, *, size: int = 32) -> Network:
    """Every batch normalisation that is left gets the mean and variance of what it now receives.

    A cumulative average over the samples (``momentum=None``), all other modules in evaluation mode. A network without
    any comes back as it is.
    """
    if not any(isinstance(module, _NORMS) for module in network.module.modules()):
        return network
    module = copied(network.module)
    norms = [child for child in module.modules() if isinstance(child, _NORMS) and child.track_running_stats]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None
        norm.train()
    with torch.no_grad():
        for batch in split.batches(size):
            module(*batch.inputs)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    return capture(module.eval(), network.example)


def correct_bias(slim: Slim, compressed: Network, split: Split) -> Network:
    """Give every layer's output the mean that it should have there, shortcuts repaired, in execution order.

    ``b ← b + E[y] − E[ỹ]`` per channel, with ``ỹ`` from the compressed and already corrected prefix (Nagel et al. 2019,
    arXiv:1906.04721, section 4.2, measured instead of derived).

    Args:
        slim: the dense network, beside what pruning left of it.
        compressed: the latter with layers replaced under the same names.
        split: calibration samples, all held at once.
    """
    module = copied(compressed.module)

    def visit(passage: Passage) -> nn.Module | None:
        layer = passage.layer
        if not layer.replaceable:
            return None
        own = module.get_submodule(layer.name)
        found = own(passage.given)
        if layer.kind in OBSERVED_KINDS and passage.target is not None:
            channel = 1 if layer.geometry else found.ndim - 1
            over = [axis for axis in range(found.ndim) if axis != channel]
            shift = passage.target.double().mean(over) - found.double().mean(over)
            if bool(shift.any()):
                shift_bias(leaves(own)[-1], shift)
        return own

    walk(slim, split.take(range(len(split))).inputs, visit)
    return capture(module, compressed.example)
