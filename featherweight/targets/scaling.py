"""Encoded weights that a file doesn't hold: what the conversion made of them, told in the network's own words."""

from __future__ import annotations

import torch

from featherweight.contracts import LoweringError
from featherweight.network.capture import Network
from featherweight.targets.placement import values_read

_aten = torch.ops.aten
_SCALING = frozenset(
    {
        _aten.batch_norm.default, _aten.mul.Tensor, _aten.mul_.Tensor, _aten.div.Tensor, _aten.div_.Tensor,
        _aten.neg.default,
    }
)  # fmt: skip


def scaling_beside(network: Network, layer: str) -> list[str]:
    """The operations that scale what a layer reads or makes, by name ("batch_norm"); a converter may take them in.

    Args:
        network: any.
        layer: its name; one that isn't among the network's layers has no neighbours.
    """
    own = {one.node for one in network.layers if one.name == layer}
    nodes = [node for node in network.graph.graph.nodes if node.name in own]
    beside = [one for node in nodes for one in (*values_read(node), *node.users)]
    return [str(one.target).split(".")[1] for one in beside if one.target in _SCALING]


def weight_missing(network: Network, layer: str, type_name: str) -> LoweringError:
    """The error for an encoded weight that isn't in the file.

    Args:
        network: whose layer it is.
        layer: its name.
        type_name: of its encoding.
    """
    rule, found = "The file must hold the network's own weights.", scaling_beside(network, layer)
    if not found:
        remedy = "this is a fault of the conversion: report it with the plan; another plan may avoid it"
        return LoweringError(rule, f"the {type_name} weight of {layer!r} isn't in it", remedy)
    return LoweringError(
        rule,
        f"the converter multiplied {' and '.join(dict.fromkeys(found))} beside {layer!r} into its {type_name} weight",
        "leave this layer at float32 or give it int8 weights and activations; a torch.nn.BatchNorm of its own right "
        "behind a layer is folded first and in nobody's way",
    )
