"""Statistics put right after compression: batch normalisation, and the mean of every layer's output."""

from __future__ import annotations

import torch
from torch import nn

from featherweight.methods.seam import leaves
from featherweight.network.capture import Layer, Network, capture
from featherweight.network.modules import copied, shift_bias
from featherweight.observation.evidence import OBSERVED_KINDS
from featherweight.observation.walk import walk
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


def correct_bias(original: Network, compressed: Network, split: Split) -> Network:
    """Give every layer's output the mean that the original has there, in execution order.

    ``b ← b + E[y] − E[ỹ]`` per channel, with ``ỹ`` from the compressed and already corrected prefix (Nagel et al. 2019,
    arXiv:1906.04721, section 4.2, measured instead of derived).

    Args:
        original: the dense network.
        compressed: the same with layers replaced under the same names.
        split: calibration samples, all held at once.
    """
    module = copied(compressed.module)
    corrected = {layer.name for layer in original.layers if layer.replaceable and layer.kind in OBSERVED_KINDS}

    def visit(layer: Layer, dense: torch.Tensor, given: torch.Tensor) -> nn.Module | None:
        if not layer.replaceable:
            return None
        own = module.get_submodule(layer.name)
        if layer.name in corrected:
            channel = 1 if layer.geometry else dense.ndim - 1
            over = [axis for axis in range(dense.ndim) if axis != channel]
            shift = dense.double().mean(over) - own(given).double().mean(over)
            if bool(shift.any()):
                shift_bias(leaves(own)[-1], shift)
        return own

    walk(original, split.take(range(len(split))).inputs, visit)
    return capture(module, compressed.example)
