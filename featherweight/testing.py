"""The published contract suites: what every method and every target must keep, ours and a user's own.

Write one test class and inherit a suite; pytest finds its tests::

    from featherweight.testing import MethodContract

    class TestLowRank(MethodContract):
        method = LowRank()
"""

from __future__ import annotations

import contextlib
import copy
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from torch import nn

from featherweight.contracts import Capability, PlanError
from featherweight.methods.seam import Method, Subject, cost_of, effective_weight, predicted_error, subject_of
from featherweight.network.capture import Layer, Network, capture
from featherweight.network.grids import Compressed
from featherweight.observation.evidence import observe
from featherweight.observation.rows import input_rows, output_rows, sample_positions
from featherweight.targets import Target
from featherweight.tasks.data import Split

_KINDS = frozenset({"linear", "conv1d", "conv2d", "depthwise_conv2d"})

ANY_TARGET = Capability(
    target="contract suite",
    weight_types=("float32", "float16", "int8"),
    activation_types=("float32", "int8"),
    layer_kinds=dict.fromkeys(("float32", "float16", "int8"), _KINDS),
    channel_multiple=4,
    bytes_per_channel={"float32": 0, "float16": 0, "int8": 8},
    bytes_per_layer=0,
)


class ContractNetwork(nn.Module):
    """Every layer kind that methods meet: full, strided, grouped and depthwise convolution, and linear."""

    def __init__(self) -> None:
        super().__init__()
        self.full = nn.Conv2d(3, 24, 3, padding=1)
        self.depth = nn.Conv2d(24, 24, 3, stride=2, padding=1, groups=24)
        self.grouped = nn.Conv2d(24, 16, 1, groups=2, bias=False)
        self.wide = nn.Linear(16 * 16, 48)
        self.narrow = nn.Linear(48, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(n, 3, 8, 8) → (n, 5)."""
        x = torch.relu(self.grouped(torch.relu(self.depth(torch.relu(self.full(x))))))
        return self.narrow(torch.relu(self.wide(x.flatten(1))))


def contract_problem(seed: int = 0) -> tuple[Network, Split]:
    """A captured float64 network with correlated inputs, and its calibration samples."""
    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        module = ContractNetwork().double()
    mixing = torch.randn(192, 192, generator=generator).double() / 14
    x = (torch.randn(64, 192, generator=generator).double() @ mixing).view(64, 3, 8, 8) + 0.3
    return capture(module, x[:2]), Split.of(x)


def subjects(network: Network, split: Split, capability: Capability = ANY_TARGET) -> dict[str, Subject]:
    """Every layer of a network as methods see it, under moments of all its rows."""
    seen = observe(network, split, rows_per_layer=10**9)
    made = {}
    for layer in network.layers:
        module, of = network.module.get_submodule(layer.name), seen.layers[layer.name]
        made[layer.name] = subject_of(layer, module, of.covariance, of.mean, of.input_noise, capability)
    return made


class MethodContract:
    """What every method keeps. Set ``method``."""

    method: ClassVar[Method]
    tolerance: ClassVar[float] = 0.01

    @staticmethod
    def _inputs(network: Network, split: Split, layer: Layer) -> torch.Tensor:
        kept: list[torch.Tensor] = []
        module = network.module.get_submodule(layer.name)
        handle = module.register_forward_pre_hook(lambda _, args: kept.append(args[0]))
        with torch.no_grad():
            network.module(*split.take(range(len(split))).inputs)
        handle.remove()
        return kept[0]

    def test_input_is_not_mutated(self) -> None:
        """Neither options nor apply changes the subject's module."""
        network, split = contract_problem()
        before = copy.deepcopy(network.module.state_dict())
        for subject in subjects(network, split).values():
            for settings in self.method.options(subject)[0]:
                self.method.apply(subject, settings)
        assert all(torch.equal(value, before[name]) for name, value in network.module.state_dict().items())

    def test_same_call_same_bytes(self) -> None:
        """Options and modules are repeatable to the bit."""
        network, split = contract_problem()
        for subject in subjects(network, split).values():
            first, again = self.method.options(subject), self.method.options(subject)
            assert first == again
            for settings in first[0]:
                one, two = (self.method.apply(subject, settings).state_dict() for _ in range(2))
                assert all(torch.equal(one[name], two[name]) for name in one)

    def test_predicted_error_is_the_measured_one(self) -> None:
        """``tr(D C Dᵀ)`` equals the layer's mean squared output error on the very rows it was computed from."""
        network, split = contract_problem()
        for name, subject in subjects(network, split).items():
            layer = network.layer(name)
            x = self._inputs(network, split, layer)
            at = sample_positions(layer, len(x), 10**9, torch.Generator())
            rows = input_rows(layer, x, at)
            for settings in self.method.options(subject)[0]:
                module = self.method.apply(subject, settings)
                state = Subject(**{**vars(subject), "module": module, "input_noise": 0.0})
                # Centred, since the bias takes the mean of the error.
                error = output_rows(layer, module(x) - subject.module(x), at)
                measured = float((error - error.mean(1, keepdim=True)).square().sum(2).mean(1).sum())
                predicted = predicted_error(state)
                assert abs(predicted - measured) <= self.tolerance * measured + 1e-12, (name, settings)
                effective = rows @ (effective_weight(state) - subject.weight).transpose(1, 2)
                assert torch.allclose(effective - effective.mean(1, keepdim=True), error - error.mean(1, keepdim=True))

    def test_predicted_cost_is_the_built_one(self) -> None:
        """Parameters and MACs are those that capture counts on the built layer."""
        network, split = contract_problem()
        for name, subject in subjects(network, split).items():
            layer = network.layer(name)
            x = self._inputs(network, split, layer)
            for settings in self.method.options(subject)[0]:
                module = self.method.apply(subject, settings)
                built = capture(module, x[:2])
                cost = cost_of(layer, module, subject.capability)
                assert cost.macs == built.cost.macs, (name, settings)
                assert cost.parameters == sum(p.numel() for p in module.parameters())

    def test_refusals_are_honest(self) -> None:
        """A layer without options has a reason, and options never come with a refusal of the whole method."""
        network, split = contract_problem()
        for name, subject in subjects(network, split).items():
            settings, refusals = self.method.options(subject)
            assert settings or refusals
            assert all(refusal.subject == name and refusal.reason for refusal in refusals)
            assert not any(refusal.action == self.method.name for refusal in refusals) or not settings

    def test_nonsense_settings_are_refused(self) -> None:
        """Settings that the method never offered raise PlanError."""
        network, split = contract_problem()
        subject = subjects(network, split)["wide"]
        refused = None
        with contextlib.suppress(PlanError):
            self.method.apply(subject, {"nonsense": -1})
            refused = False
        assert refused is None


class TargetContract:
    """What every target keeps. Set ``target``."""

    target: ClassVar[Target]
    tolerance: ClassVar[float] = 1e-4

    def test_a_real_network_runs_as_it_does_in_pytorch(self, tmp_path: Path) -> None:
        """Outputs of the lowered file agree with the captured network."""
        network, split = contract_problem()
        network = capture(network.module.float(), network.example[0].float())
        x = split.take(range(8)).inputs[0].float()
        path = tmp_path / f"real{self.target.suffix}"
        artefact = self.target.lower(Compressed(network), path)
        found = self.target.load(path)((x.numpy(),))
        expected = network.module(x).numpy()
        assert np.abs(found - expected).max() <= self.tolerance * np.abs(expected).max()
        assert artefact.size_bytes == path.stat().st_size
        assert sum(self.target.parts(path).values()) == artefact.size_bytes

    def test_lowering_twice_gives_the_same_bytes(self, tmp_path: Path) -> None:
        """The file depends on the network alone."""
        network, _ = contract_problem()
        network = capture(network.module.float(), network.example[0].float())
        hashes = {
            self.target.lower(Compressed(network), tmp_path / f"{name}{self.target.suffix}").sha256 for name in "ab"
        }
        assert len(hashes) == 1

    def test_files_are_timed_and_their_operators_too(self, tmp_path: Path) -> None:
        """Timings are positive, one a file; every operator of the file has its own."""
        network, _ = contract_problem()
        network = capture(network.module.float(), network.example[0].float())
        path = tmp_path / f"real{self.target.suffix}"
        self.target.lower(Compressed(network), path)
        timings = self.target.benchmark([path, path], runs=5, threads=1)
        assert len(timings) == 2
        assert all(0 < timing.median_ms <= timing.p90_ms for timing in timings)
        assert all(ms > 0 for _, ms in self.target.profile(path, runs=3))

    def test_peak_memory_is_the_count_by_hand(self, tmp_path: Path) -> None:
        """Of a chain, for one sample: what the first map reads and writes, four bytes a value; no constants."""
        chain = nn.Sequential(nn.Linear(100, 60), nn.ReLU(), nn.Linear(60, 10))
        assert self._peak(chain, torch.zeros(2, 100), tmp_path) == 4 * (100 + 60)

    def test_padding_takes_a_copy_where_the_target_says_so(self, tmp_path: Path) -> None:
        """Two-sided padding at a stride isn't "same": the peak is in the padding then, else in the convolution."""
        strided = nn.Sequential(nn.Conv2d(4, 4, 3, stride=2, padding=1), nn.AdaptiveAvgPool2d(1), nn.Flatten())
        beside = 18 * 18 if self.target.pads_apart else 8 * 8
        assert self._peak(strided, torch.zeros(2, 4, 16, 16), tmp_path) == 4 * 4 * (16 * 16 + beside)

    def _peak(self, module: nn.Module, example: torch.Tensor, folder: Path) -> int:
        path = folder / f"real{self.target.suffix}"
        self.target.lower(Compressed(capture(module, example)), path)
        return self.target.peak_memory(path)

    def test_the_runtime_has_a_name_and_a_version(self) -> None:
        """Times are kept under it: it says what ran, and is the same while the same is installed."""
        name, _, version = self.target.runtime().partition(" ")
        assert name
        assert version[:1].isdigit()
        assert self.target.runtime() == f"{name} {version}"
