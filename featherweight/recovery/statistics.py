"""Statistics put right after compression: the mean of every layer's output."""

from __future__ import annotations

from torch import nn

from featherweight.methods.seam import leaves
from featherweight.network.capture import Network, capture
from featherweight.network.modules import copied, shift_bias
from featherweight.network.surgery import Slim
from featherweight.observation.evidence import OBSERVED_KINDS
from featherweight.observation.walk import Passage, walk
from featherweight.tasks.data import Split


def correct_bias(slim: Slim, compressed: Network, split: Split, untouched: frozenset[str] = frozenset()) -> Network:
    """Give every layer's output the mean that it should have there, shortcuts repaired, in execution order.

    ``b ← b + E[y] − E[ỹ]`` per channel, with ``ỹ`` from the compressed and already corrected prefix (Nagel et al. 2019,
    arXiv:1906.04721, section 4.2, measured instead of derived).

    Args:
        slim: the dense network, beside what pruning left of it.
        compressed: the latter with layers replaced under the same names.
        split: calibration samples, all held at once.
        untouched: layers that stay as they are.
    """
    module = copied(compressed.module)

    def visit(passage: Passage) -> nn.Module | None:
        layer = passage.layer
        if not layer.replaceable:
            return None
        own = module.get_submodule(layer.name)
        found = own(passage.given)
        if layer.name not in untouched and layer.kind in OBSERVED_KINDS and passage.target is not None:
            channel = 1 if layer.geometry else found.ndim - 1
            over = [axis for axis in range(found.ndim) if axis != channel]
            shift = passage.target.double().mean(over) - found.double().mean(over)
            if bool(shift.any()):
                shift_bias(leaves(own)[-1], shift)
        return own

    walk(slim, split.take(range(len(split))).inputs, visit)
    return capture(module, compressed.example)
