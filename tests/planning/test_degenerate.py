"""Networks that have nothing to tell – zeros, constants, dead channels, one sample: all families, the whole way.

The whole table is built, and every chain of families is applied in a plan and recovered. Nothing may be anything but a
finite number.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, replace

import pytest
import torch
from torch import nn

from featherweight.contracts import Option, Plan, Refusal, Steps, Table
from featherweight.methods import METHODS, Method, Pruning
from featherweight.methods.apply import apply
from featherweight.methods.binarization import Binarization
from featherweight.methods.entropy import Entropy
from featherweight.methods.pruning import Grounds, Prunable, prune, select
from featherweight.methods.quantization import Quantization
from featherweight.methods.seam import Settings, Subject
from featherweight.methods.sharing import Sharing
from featherweight.methods.sparsity import Sparsity
from featherweight.network import Network, capture
from featherweight.network.grids import with_grids
from featherweight.network.surgery import Slim
from featherweight.observation import observe
from featherweight.planning import build_table
from featherweight.planning.units import with_keeps
from featherweight.recovery import recover
from featherweight.targets.litert import LiteRT
from featherweight.tasks import REGRESSION
from featherweight.tasks.data import Split
from featherweight.testing import ANY_TARGET

_GROUPED = {kind: kinds | {"grouped_conv2d"} for kind, kinds in ANY_TARGET.layer_kinds.items()}
CAPABILITY = replace(ANY_TARGET, layer_kinds=_GROUPED)
_OFFERING: dict[str, Method] = {
    "sparsity": Sparsity(package=True),
    "sharing": Sharing(package=True),
    "binarization": Binarization(package=True),
    "entropy": Entropy(package=True),
    "quantization": Quantization(bits=(8, 2)),
}


class _Ends:
    """A family with the first and the last of its options alone: the mildest and the harshest, or two kinds."""

    def __init__(self, method: Method) -> None:
        self.method, self.name, self.follows = method, method.name, method.follows
        self.apply = method.apply

    def options(self, subject: Subject) -> tuple[list[Settings], list[Refusal]]:
        settings, refusals = self.method.options(subject)
        return settings[:: max(1, len(settings) - 1)], refusals


EVERY = tuple(_Ends(_OFFERING.get(method.name, method)) for method in METHODS)


class Small(nn.Module):
    """A convolution wide enough to be grouped, one for each channel, and two layers behind."""

    def __init__(self) -> None:
        super().__init__()
        self.wide = nn.Conv2d(16, 32, 3, padding=1)
        self.depth = nn.Conv2d(32, 32, 3, padding=1, groups=32, bias=False)
        self.hidden, self.answer = nn.Linear(32, 12), nn.Linear(12, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.depth(torch.relu(self.wide(x)))).mean((2, 3))
        return self.answer(torch.relu(self.hidden(x)))


def _zero(module: Small) -> None:
    for parameter in module.parameters():
        parameter.zero_()


def _constant(module: Small) -> None:
    for parameter in module.parameters():
        parameter.fill_(0.25)


def _dead(module: Small) -> None:
    """Channels that are never written, and channels that are never read."""
    module.wide.weight[::2] = 0.0
    module.wide.bias[::2] = -1.0
    module.depth.weight[:4] = 0.0
    module.hidden.weight[:, 8:] = 0.0
    module.answer.weight[:, 3:] = 0.0


def _nothing(module: Small) -> None:
    """Healthy."""


PROBLEMS: dict[str, tuple[Callable[[Small], None], torch.Tensor]] = {
    "zero weights": (_zero, torch.randn(8, 16, 4, 4)),
    "constant weights": (_constant, torch.randn(8, 16, 4, 4)),
    "dead channels": (_dead, torch.randn(8, 16, 4, 4)),
    "one sample": (_nothing, torch.randn(1, 16, 4, 4)),
    "samples of zeros": (_nothing, torch.zeros(8, 16, 4, 4)),
    "large values": (_nothing, torch.randn(8, 16, 4, 4) * 1e6),
}


def _made(name: str) -> tuple[Network, Split, Table, Prunable]:
    change, x = PROBLEMS[name]
    module = Small().eval()
    with torch.no_grad():
        change(module)
    network, split = capture(module, x[:2]), Split.of(x)
    seen = observe(network, split)
    table = build_table(network, seen, split, REGRESSION, CAPABILITY, EVERY, whole=network.cost)
    prunable = Prunable.of(network, Pruning())
    table = with_keeps(table, network, prunable, Grounds(seen, split, REGRESSION, network), REGRESSION, CAPABILITY)
    return network, split, table, prunable


def _methods(steps: Steps) -> tuple[str, ...]:
    return tuple(step.method for step in steps)


def _plans(table: Table) -> list[Plan]:
    """Plans in which every chain of families stands once, each by its harshest option, on one layer or another."""
    harshest: dict[str, dict[tuple[str, ...], Option]] = {}
    for layer, options in table.options.items():
        for one in sorted(options, key=lambda option: option.error):
            harshest.setdefault(layer, {})[_methods(one.steps)] = one
    left = {chain for offers in harshest.values() for chain in offers if chain}
    plans = []
    while left:
        choices = {}
        for layer, offers in harshest.items():
            chain = next((one for one in offers if one in left), ())
            left.discard(chain)
            choices[layer] = offers[chain].steps
        plans.append(Plan("", "litert", choices))
    return plans


@pytest.mark.parametrize("name", PROBLEMS)
def test_every_figure_of_the_table_and_every_plans_network_is_finite(name: str) -> None:
    network, split, table, prunable = _made(name)
    for option in (one for options in table.options.values() for one in options):
        figures = (option.error, option.divergence, *asdict(option.cost).values())
        assert all(math.isfinite(figure) and figure >= 0 for figure in figures), option
    for keep in (one for keeps in table.keeps.values() for one in keeps):
        assert all(map(math.isfinite, (keep.error, keep.divergence, *asdict(keep.saved).values()))), keep
    plans = _plans(table)
    used = {method for plan in plans for steps in plan.choices.values() for method in _methods(steps)}
    assert used == {method.name for method in METHODS}
    for plan in plans:
        _check(Slim.whole(network), plan, split)
    unit = next(iter(table.keeps))
    plan = Plan("", "litert", {unit: table.keeps[unit][-1].steps})
    removals = select(network, prunable.coupling, plan, Grounds(observe(network, split), split)).removals
    _check(prune(network, prunable.coupling, removals), plan, split)


def _check(slim: Slim, plan: Plan, split: Split) -> None:
    applied = apply(slim, plan, split, CAPABILITY, EVERY)
    built = recover(slim, applied, split, LiteRT())
    assert all(bool(torch.isfinite(value).all()) for value in built.network.module.state_dict().values()), plan.choices
    with torch.no_grad():
        assert bool(torch.isfinite(with_grids(built)(*split.take(range(len(split))).inputs)).all()), plan.choices
