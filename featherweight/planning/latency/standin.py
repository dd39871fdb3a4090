"""A choice made into a network that runs like the real one and answers nothing: for timing, not for use.

What decides the time are shapes and kernels, so no data is needed: the first groups go instead of the worst, steps act
under neutral statistics, and all activations lie on one grid.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from featherweight.contracts import Choice, Keep
from featherweight.methods import Method
from featherweight.methods.apply import assemble, neutral_subject
from featherweight.methods.pruning import prune
from featherweight.methods.seam import apply_steps
from featherweight.network.capture import Network
from featherweight.network.channels import Coupling
from featherweight.network.grids import Compressed
from featherweight.planning.latency.kernels import shaping
from featherweight.planning.latency.timing import with_any_grids
from featherweight.targets.seam import Target


def groups_gone(keeps: Mapping[str, Keep], coupling: Coupling) -> dict[str, int]:
    """Unit → how many of its groups go, for units that lose any."""
    counts = {
        name: coupling.unit(name).groups - int(step.settings["keep"])
        for name, keep in keeps.items()
        for step in keep.steps
    }
    return {name: count for name, count in counts.items() if count}


def stand_in(
    network: Network, choice: Choice, target: Target, methods: Sequence[Method], coupling: Coupling | None = None
) -> Compressed:
    """The network of a choice.

    Args:
        network: the dense network.
        choice: of its table.
        target: says where grids stand.
        methods: the catalogue.
        coupling: the network's coupled channels; only a choice that keeps them all can do without.
    """
    gone = groups_gone(choice.keeps, coupling) if coupling is not None else {}
    if coupling is not None and gone:
        network = prune(network, coupling, {name: range(count) for name, count in gone.items()}).network
    made = {}
    for name, option in choice.layers.items():
        steps = shaping(option)
        if steps:
            subject = neutral_subject(network.layer(name), network.module.get_submodule(name), target.capability)
            made[name] = apply_steps(subject, steps, methods)
    return with_any_grids(assemble(network, made) if made else network, target)
