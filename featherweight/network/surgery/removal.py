"""Surgery: a smaller network of the user's own classes, checked before it is handed out.

The order: cut parameters and buffers; set the sizes that PyTorch's modules keep; find which of the user's own
attributes must change by running the network; keep attention's scale; compare with the masked reference. A network that
fails any of it is refused with the line that stands in the way.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Iterable, Iterator

import numpy as np
import torch
from torch import nn

from featherweight.contracts import FeatherweightError, PlanError
from featherweight.network.capture import Network
from featherweight.network.channels.units import Coupling, Cut, Removals
from featherweight.network.surgery.attributes import guesses, update_known
from featherweight.network.surgery.scale import rescale
from featherweight.network.surgery.silence import silence
from featherweight.network.surgery.trial import (
    Attributes,
    Subject,
    Trial,
    compare,
    finite,
    generic_subject,
    real_subject,
    run,
)

_MOST_TRIES = 64


def remove(network: Network, coupling: Coupling, removals: Removals) -> nn.Module:
    """The network without these channel groups: a copy with smaller parameters; the input is untouched.

    Args:
        network: the captured network.
        coupling: of ``network.graph``, from ``analyse`` (and ``confirm``).
        removals: unit name → groups to remove. The same removals on a network of the same class give a module of the
            same shapes and attributes, whatever the weights; so these integers and a state dict rebuild it.

    Raises:
        PlanError: an unknown unit or group, or a unit that would lose all its groups.
        ModelError: forward holds a size that can't follow, or the result differs from the masked reference.
    """
    generic, real = generic_subject(network), real_subject(network)
    selections = None
    if finite(run(generic.module, generic.example)):
        selections = [operate(generic, generic, coupling, removals)[1]]
    return operate(real, generic, coupling, removals, selections)[0]


def operate(
    subject: Subject,
    generic: Subject,
    coupling: Coupling,
    removals: Removals,
    selections: Iterable[Attributes] | None = None,
) -> tuple[nn.Module, Attributes]:
    """Cut one subject, trying selections of attributes until it runs and agrees.

    Args:
        subject: what is cut.
        generic: where attention's rows are looked up.
        coupling, removals: as for :func:`remove`.
        selections: attributes to change; all sensible ones are tried where None.

    Returns:
        The smaller module and the attributes that changed.
    """
    cut = Cut(coupling, removals)
    nodes = list(subject.graph.graph.nodes)
    module = copy.deepcopy(subject.module)
    shrink_state(module, coupling, cut)
    with torch.no_grad():
        update_known(module, nodes, cut)
    reference = run(silence(subject.graph, coupling, removals, subject.weights), subject.example)
    trial = Trial(module, guesses(module, nodes, cut), subject.example)
    failure: FeatherweightError | None = None
    for selection in itertools.islice(trial.selections() if selections is None else selections, _MOST_TRIES):
        try:
            settled = trial.without_idle(selection) if selections is None else selection
            trial.run(settled)
            finished = copy.deepcopy(module)
            rescale(generic, finished, cut)
            compare(run(finished, subject.example), reference)
        except FeatherweightError as error:
            failure = failure or error
        else:
            return finished, settled
    raise failure or RuntimeError("no selection was tried")


def shrink_state(module: nn.Module, coupling: Coupling, cut: Cut) -> None:
    """Cut every parameter and buffer to what stays, and renumber index tensors; in place. Shared tensors stay so."""
    smaller: dict[int, torch.Tensor] = {}
    named = dict(itertools.chain(module.named_parameters(remove_duplicate=False), module.named_buffers()))
    indexed = dict(_renumberings(coupling, cut))
    for state in coupling.states:
        old = named.get(state)
        if old is None:
            continue
        new = old.detach()
        for axis, size in enumerate(old.shape):
            mask = cut.keep_state(state, axis, size)
            if mask is not None:
                if not mask.any():
                    raise PlanError(
                        "Every layer must keep at least one channel.",
                        f"nothing would be left of {state} along axis {axis}",
                        "keep more groups of the units that share this layer",
                    )
                new = new.index_select(axis, torch.from_numpy(np.flatnonzero(mask)).to(old.device))
        if state in indexed:
            new = torch.from_numpy(indexed[state]).to(new)[new]
        if new.shape != old.shape or state in indexed:
            new = new.contiguous()
            smaller[id(old)] = nn.Parameter(new, old.requires_grad) if isinstance(old, nn.Parameter) else new
    for owner in module.modules():
        for name, tensor in [*owner._parameters.items(), *owner._buffers.items()]:
            if tensor is not None and id(tensor) in smaller:
                setattr(owner, name, smaller[id(tensor)])


def _renumberings(coupling: Coupling, cut: Cut) -> Iterator[tuple[str, np.ndarray]]:
    """Index tensor → new number of every old index."""
    kept: dict[str, np.ndarray] = {}
    for number, partition in enumerate(coupling.partitions):
        for state, labels in partition.indexers:
            stay = ~cut.removed(number, labels)
            kept[state] = kept[state] & stay if state in kept else stay
    for state, stay in kept.items():
        if not stay.all():
            yield state, np.cumsum(stay) - 1
