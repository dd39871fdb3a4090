"""What options take in a package, against files that are really packed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from featherweight.contracts import Step
from featherweight.methods import FOR_PACKAGES
from featherweight.methods.apply import neutral_subject
from featherweight.methods.seam import apply_steps, cost_form
from featherweight.network import capture
from featherweight.network.capture import Network
from featherweight.network.grids import Compressed
from featherweight.network.modules import copied, replace_module
from featherweight.packaging import pack
from featherweight.planning.rates import weight_bits, with_rate
from featherweight.targets import target_by_name


def _network() -> Network:
    torch.manual_seed(0)
    layers = nn.Sequential(
        nn.Conv2d(3, 32, 3), nn.ReLU(), nn.Conv2d(32, 64, 3), nn.ReLU(), nn.Flatten(), nn.Linear(64 * 16, 100)
    )
    return capture(layers.eval(), (torch.randn(2, 3, 8, 8),))


STEPS = {
    "kept": (),
    "half": (Step("quantization", {"weights": "float16", "activations": "float32"}),),
    "int8": (Step("quantization", {"weights": "int8", "activations": "float32"}),),
    "three bits": (Step("quantization", {"weights": "int8", "bits": 3, "activations": "float32"}),),
    "coarse": (Step("entropy", {"step": 1.0, "activations": "float32"}),),
    "factors": (Step("lowrank", {"rank": 16}), Step("entropy", {"step": 0.5, "activations": "float32"})),
}


@pytest.mark.parametrize("name", STEPS)
def test_the_estimate_is_what_the_package_grows_by(name: str, tmp_path: Path) -> None:
    """The linear layer's share: the package with it, less the package with the layer emptied to zeros."""
    network, target = _network(), target_by_name("litert")
    layer = network.layer("5")
    subject = neutral_subject(layer, network.module.get_submodule("5"), target.capability)
    module = apply_steps(subject, STEPS[name], FOR_PACKAGES)

    def packed(replacement: nn.Module, file: str) -> int:
        whole = copied(network.module)
        replace_module(whole, "5", replacement)
        target.lower(Compressed(capture(whole, network.example)), tmp_path / f"{file}.tflite")
        return pack(tmp_path / f"{file}.tflite", tmp_path / f"{file}.fwp")

    empty = nn.Linear(64 * 16, 100)
    nn.init.zeros_(empty.weight)
    nn.init.zeros_(empty.bias)
    grown = packed(module, "with") - packed(empty, "without")
    form = with_rate(cost_form(layer, module, target.capability), layer, module, target.capability)
    assert form.at(100, 1024).package_bytes == pytest.approx(grown, rel=0.13 if name == "factors" else 0.05, abs=500)


def test_rates_hold_at_other_widths() -> None:
    network, capability = _network(), target_by_name("litert").capability
    layer = network.layer("2")
    subject = neutral_subject(layer, network.module.get_submodule("2"), capability)
    module = apply_steps(subject, STEPS["coarse"], FOR_PACKAGES)
    form = with_rate(cost_form(layer, module, capability), layer, module, capability)
    whole, half = form.at(64, 32), form.at(32, 32)
    constant = form.package_bytes[3]
    assert half.package_bytes - constant == pytest.approx((whole.package_bytes - constant) / 2)
    assert replace(form, package_bytes=(0.0,) * 4) == cost_form(layer, module, capability)


def test_reals_take_nearly_all_their_bits_and_zeros_none() -> None:
    linear = nn.Linear(256, 128)
    assert 24 < weight_bits(linear) < 30
    with torch.no_grad():
        linear.weight[:, ::2] = 0.0
    assert weight_bits(linear) == pytest.approx(1 + 27 / 2, abs=1.5)
    nn.init.zeros_(linear.weight)
    assert weight_bits(linear) == pytest.approx(0.0, abs=0.01)  # one value in a palette


def test_levels_take_what_the_coder_says() -> None:
    network, capability = _network(), target_by_name("litert").capability
    layer = network.layer("5")
    subject = neutral_subject(layer, network.module.get_submodule("5"), capability)
    bits = [
        weight_bits(apply_steps(subject, (Step("entropy", {"step": step, "activations": "float32"}),), FOR_PACKAGES))
        for step in (0.5, 1.0, 2.0)
    ]
    assert bits == sorted(bits, reverse=True)
    # A uniform source of spread σ on a step of 0.5 σ has √12 / 0.5 levels at most.
    assert np.log2(np.sqrt(12) / 0.5) - 0.5 < bits[0] < np.log2(np.sqrt(12) / 0.5) + 0.2


def test_kept_reals_take_what_the_packer_takes(tmp_path: Path) -> None:
    """Weights that lie on a grid already take a quarter of what their type says, and no estimate sees that."""
    torch.manual_seed(0)
    plain, gridded = torch.randn(256, 1024), (torch.randn(256, 1024) * 20).round() * 0.0123
    for weight, most in ((plain, 32), (gridded, 8)):
        linear = nn.Linear(1024, 256)
        linear.weight.data = weight
        network = capture(nn.Sequential(linear, nn.ReLU()).eval(), (torch.randn(2, 1024),))
        path = tmp_path / "whole.tflite"
        target_by_name("litert").lower(Compressed(network), path)
        packed = pack(path, tmp_path / "whole.fwp")
        bits = weight_bits(linear, coded=True)
        assert bits < most
        assert bits * weight.numel() / 8 == pytest.approx(packed, abs=2500)  # names, biases, the graph


def test_a_step_that_all_channels_share_is_told_once() -> None:
    network, capability = _network(), target_by_name("litert").capability
    layer = network.layer("2")
    subject = neutral_subject(layer, network.module.get_submodule("2"), capability)
    forms = []
    for name in ("coarse", "int8"):
        module = apply_steps(subject, STEPS[name], FOR_PACKAGES)
        forms.append(with_rate(cost_form(layer, module, capability), layer, module, capability))
    shared, own = (form.package_bytes[1] for form in forms)
    assert shared == pytest.approx(own * (4 + 8 / 64) / 12)
