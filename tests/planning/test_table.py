"""A layer's anchor is what the whole network says with that option alone in it."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from featherweight.methods import METHODS
from featherweight.methods.seam import apply_steps, leaves, subject_of
from featherweight.network.encodings import is_integer
from featherweight.network.modules import copied, replace_module
from featherweight.numerics.gram import shrunk
from featherweight.observation import observe
from featherweight.planning import build_table
from featherweight.planning.calibration import spread_anchors
from featherweight.planning.table import ANCHORS
from featherweight.tasks import REGRESSION
from featherweight.testing import ANY_TARGET, contract_problem


def test_anchors_are_measured_in_the_whole_network() -> None:
    network, split = contract_problem()
    evidence = observe(network, split)
    methods = [method for method in METHODS if method.name in ("quantization", "lowrank")]
    table = build_table(
        network, evidence, split, REGRESSION, ANY_TARGET, methods, whole=replace(network.cost, size_bytes=10**6)
    )
    inputs = split.take(range(len(split))).inputs
    seen_integer, kinds = False, set()
    for name, options in table.options.items():
        seen = evidence.layers[name]
        layer, original = network.layer(name), network.module.get_submodule(name)
        covariance = seen.covariance
        likely = shrunk(covariance, seen.rows)
        few = likely is not covariance
        kinds.add(few)
        subject = subject_of(layer, original, likely, seen.mean, seen.input_noise, ANY_TARGET)
        errors = [option.error for option in options]
        highest = 0.0
        for anchor in spread_anchors(errors, ANCHORS):
            built, whole = apply_steps(subject, options[anchor].steps, methods), copied(network.module)
            replace_module(whole, name, built)
            if is_integer(leaves(built)[0]):
                seen_integer = True
                whole.get_submodule(name).register_forward_pre_hook(lambda _, x, on=seen.input_grid: (on.round(x[0]),))
            with torch.no_grad():
                outputs = whole(*inputs).float().numpy()
            highest = max(highest, REGRESSION.divergence(evidence.outputs.numpy(), outputs))  # the curve is monotone
            if few:  # on samples not seen before more is to be expected than on those that weights were rounded for
                assert options[anchor].divergence >= highest * (1 - 1e-6)
            else:
                assert options[anchor].divergence == pytest.approx(highest, rel=1e-6)
    assert seen_integer
    assert kinds == {True, False}
    assert set(table.options) == {layer.name for layer in network.layers}
