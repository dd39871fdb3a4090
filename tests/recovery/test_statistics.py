"""Recovery: means and batch statistics put right, grids fitted."""

from __future__ import annotations

import copy

import torch
from torch import nn

from featherweight.contracts import Plan, Step
from featherweight.methods import METHODS
from featherweight.methods.apply import apply
from featherweight.network import Network, capture
from featherweight.network.surgery import Slim
from featherweight.recovery import recover
from featherweight.recovery.grids import fit_grids
from featherweight.recovery.statistics import correct_bias
from featherweight.targets.litert import LiteRT
from featherweight.targets.placement import Placement
from featherweight.tasks.data import Split
from featherweight.testing import ANY_TARGET, contract_problem


def _means(network: Network, x: torch.Tensor) -> torch.Tensor:
    """The mean of every channel of every layer's output, one after the other."""
    seen: list[torch.Tensor] = []

    def see(_: nn.Module, __: object, y: torch.Tensor) -> None:
        seen.append(y.mean(0) if y.ndim == 2 else y.mean((0, 2, 3)))

    handles = [network.module.get_submodule(layer.name).register_forward_hook(see) for layer in network.layers]
    network.module(x)
    for handle in handles:
        handle.remove()
    return torch.cat(seen)


def test_every_layers_mean_is_the_originals_again() -> None:
    network, split = contract_problem()
    module = copy.deepcopy(network.module)
    for layer in network.layers:
        own = module.get_submodule(layer.name)
        own.weight.data += 0.05 * torch.randn_like(own.weight)
    broken = capture(module, network.example)
    corrected = correct_bias(Slim.whole(network), broken, split)
    x = split.take(range(len(split))).inputs[0]
    means = {
        name: _means(one, x) for name, one in (("original", network), ("broken", broken), ("corrected", corrected))
    }
    assert (means["broken"] - means["original"]).abs().max() > 0.01
    assert torch.allclose(means["corrected"], means["original"], atol=1e-9)
    assert broken.module.grouped.bias is None


class Normed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm, self.second = nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Linear(8, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.second(self.norm(torch.relu(self.first(x))))


def test_batch_norms_that_stay_get_what_they_were_made_for() -> None:
    """Their statistics are the dense network's, and so is, after the refit, what reaches them."""
    torch.manual_seed(0)
    module = Normed()
    x = torch.randn(200, 6)
    with torch.no_grad():
        for _ in range(200):
            module.train()(x)
    network, split = capture(module.eval(), x[:2]), Split.of(x[:64])
    plan = Plan("n", "t", {"first": (Step("lowrank", {"rank": 4}),)})
    applied = apply(network, plan, split, ANY_TARGET, METHODS)
    recovered = recover(Slim.whole(network), applied, split, LiteRT()).network
    assert torch.equal(recovered.module.norm.running_mean, network.module.norm.running_mean)
    errors = [float((one.module(x) - network.module(x)).square().mean()) for one in (applied, recovered)]
    assert errors[1] < 1.2 * errors[0]


def test_grids_cover_what_was_seen_and_groups_share_one() -> None:
    network, split = contract_problem()
    nodes = [node.name for node in network.graph.graph.nodes if "relu" in node.name]
    placement = Placement((tuple(nodes[:2]), (nodes[2],)), {nodes[2]: (1 / 256, -128)})
    compressed = fit_grids(network, placement, split)
    first, second, third = (compressed.grids[node] for node in nodes[:3])
    assert first is second
    assert (float(third.scale), int(third.zero_point)) == (1 / 256, -128)
    assert float(first.scale) * 255 > 0.5


def test_recovery_does_not_undo_a_plan() -> None:
    network, split = contract_problem()
    made = apply(network, Plan("n", "t", {"wide": (Step("lowrank", {"rank": 8}),)}), split, ANY_TARGET, METHODS)
    corrected = correct_bias(Slim.whole(network), made, split)
    assert isinstance(corrected.module.wide, nn.Sequential)
    assert torch.equal(corrected.module.wide[0].weight, made.module.wide[0].weight)


def test_an_untouched_layer_keeps_its_bias_bit_for_bit() -> None:
    network, split = contract_problem()
    plan = Plan("", "", {layer.name: (Step("quantization", {"weights": "int8", "bits": 2, "activations": "float32"}),)
                         for layer in network.layers[:1]})  # fmt: skip
    small = apply(network, plan, split, ANY_TARGET, METHODS, untouched=frozenset({network.layers[1].name}))
    names = [layer.name for layer in network.layers]
    for untouched in (frozenset(names[1:2]), frozenset(names)):
        made = correct_bias(Slim.whole(network), small, split, untouched).module
        for name in untouched:
            before, after = (one.get_submodule(name) for one in (small.module, made))
            assert torch.equal(before.bias, after.bias)
    moved = correct_bias(Slim.whole(network), small, split).module
    assert any(not torch.equal(moved.get_submodule(n).bias, small.module.get_submodule(n).bias) for n in names)
