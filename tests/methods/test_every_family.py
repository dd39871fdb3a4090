"""Every family and kind, alone and after one another: the predicted error and cost are those of the built layer.

The error is the mean squared difference of the layer's outputs on the very samples of the evidence, in float64. Bytes
are counted on the tensors that the built layer stores, MACs by capture.
"""

from __future__ import annotations

import functools
from dataclasses import replace

import pytest
import torch
from torch import nn

from featherweight.contracts import Step, Steps
from featherweight.methods import METHODS
from featherweight.methods.apply import neutral_subject
from featherweight.methods.seam import Subject, apply_steps, cost_of, effective_weight, leaves, predicted_error
from featherweight.methods.sparsity import CRITERIA
from featherweight.network import Network, capture
from featherweight.network.encodings import AffineEncoding, HalfEncoding, carrier, encoding_of, holds, is_integer
from featherweight.network.grouped import PermutedConvolution
from featherweight.network.modules import bias_of, weight_of
from featherweight.numerics.gram import output_error
from featherweight.testing import ANY_TARGET, MethodContract, contract_problem, subjects

TARGET = replace(ANY_TARGET, dynamic_kinds=ANY_TARGET.layer_kinds["int8"] | {"grouped_conv2d"})
CONVOLUTIONS, LAYERS = ("full",), ("full", "depth", "grouped", "wide")
INT8 = Step("quantization", {"weights": "int8", "activations": "int8"})
TERNARY, SHARED = Step("binarization", {"kind": "ternary"}), Step("sharing", {"values": 8})
SPARSE, SETS = Step("sparsity", {"zeros": 0.5}), Step("grouping", {"groups": 3})
COARSE = Step("entropy", {"step": 0.5, "activations": "int8"})
PAIR = Step("lowrank", {"rank": 2})
SPATIAL = Step("lowrank", {"kind": "spatial", "rank": 4})
TUCKER = Step("lowrank", {"kind": "tucker2", "rank_in": 2, "rank_out": 8})

ROUNDED = [
    Step("quantization", {"weights": "int8", "activations": activations, "bits": bits, "symmetric": symmetric})
    for bits in range(2, 9)
    for symmetric in (True, False)
    for activations in ("int8", "dynamic", "float32")
    if symmetric or bits < 8 or activations == "float32"  # integer kernels take no zero point
]
CASES: list[tuple[str, Steps]] = [
    *(("full", (step,)) for step in ROUNDED),
    *(("wide", (step,)) for step in ROUNDED[::4]),
    *((name, (step,)) for step in (ROUNDED[0], ROUNDED[-1], INT8) for name in ("depth", "grouped")),
    *((name, (Step("quantization", {**INT8.settings, "rounding": "nearest"}),)) for name in LAYERS),
    *((name, (Step("quantization", {"weights": "float16", "activations": "float32"}),)) for name in LAYERS),
    *((name, (Step("sparsity", {"zeros": 0.5, "criterion": one}),)) for one in CRITERIA for name in ("full", "narrow")),
    *((name, (SPARSE,)) for name in LAYERS),
    ("wide", (Step("sparsity", {"pattern": "2:4"}),)),
    *((name, (step,)) for step in (TERNARY, Step("binarization", {"kind": "binary"}), SHARED) for name in LAYERS),
    *((name, (COARSE,)) for name in LAYERS),
    *((name, (PAIR,)) for name in ("full", "wide")),
    *((name, (step,)) for step in (SPATIAL, TUCKER, SETS) for name in CONVOLUTIONS),
    *((name, (first, INT8)) for first in (SPARSE, SHARED, TERNARY) for name in LAYERS),
    *(("full", (first, INT8)) for first in (PAIR, SPATIAL, TUCKER, SETS)),
    *(("full", (first, second)) for first in (PAIR, SPATIAL, TUCKER, SPARSE) for second in (SHARED, TERNARY, COARSE)),
    ("full", (SPARSE, SHARED, INT8)),
    ("full", (PAIR, TERNARY, INT8)),
    ("full", (SETS, ROUNDED[0])),
    ("full", (SETS, Step("quantization", {**INT8.settings, "activations": "dynamic"}))),
    ("full", (SETS, Step("quantization", {"weights": "float16", "activations": "float32"}))),
]


@functools.cache
def problem() -> tuple[Network, dict[str, Subject], dict[str, torch.Tensor]]:
    """The contract's network, its subjects, and what every layer reads."""
    network, split = contract_problem()
    reads = {layer.name: MethodContract._inputs(network, split, layer) for layer in network.layers}
    return network, subjects(network, split, TARGET), reads


@functools.cache
def _case(number: int) -> tuple[Subject, nn.Module, torch.Tensor]:
    """The subject, what was built of it, and what the layer reads."""
    name, steps = CASES[number]
    _, every, reads = problem()
    return every[name], apply_steps(every[name], steps, METHODS), reads[name]


def _id(number: int) -> str:
    name, steps = CASES[number]
    return f"{name}: {' > '.join(map(str, steps))}"


def test_no_family_is_missing() -> None:
    assert {step.method for _, steps in CASES for step in steps} == {method.name for method in METHODS}
    following = {(steps[-2].method, steps[-1].method) for _, steps in CASES if len(steps) > 1}
    allowed = {(first, method.name) for method in METHODS for first in method.follows}
    assert following == allowed


@pytest.mark.parametrize("number", range(len(CASES)), ids=_id)
def test_the_predicted_error_is_the_measured_one(number: int) -> None:
    subject, built, x = _case(number)
    with torch.no_grad():
        measured = float((built(x) - subject.module(x)).square().sum(1).mean())
    state = replace(subject, module=built, input_noise=0.0)
    predicted = output_error(effective_weight(state) - subject.weight.double(), subject.covariance)
    assert predicted == pytest.approx(measured, rel=0.01, abs=1e-15)
    assert measured > 1e-12
    # kernels within a chain round what lies between its parts: predicted on top, and no weights' doing
    rounds_within = any(map(is_integer, leaves(built)[1:]))
    assert (predicted_error(state) > predicted) if rounds_within else (predicted_error(state) == predicted)
    assert all(map(holds, leaves(built)))


@pytest.mark.parametrize("number", range(len(CASES)), ids=_id)
def test_predicted_bytes_parameters_and_macs_are_those_of_the_built_layer(number: int) -> None:
    subject, built, x = _case(number)
    cost = cost_of(subject.layer, built, TARGET)
    counted = capture(built, x[:2]).cost
    assert cost.macs == counted.macs
    assert cost.parameters == counted.parameters
    assert cost.size_bytes == sum(map(_stored_bytes, leaves(built)))


def _stored_bytes(part: nn.Module) -> int:
    """Bytes of a part's tensors in the types that they are stored in, with its bias and the scales of kernels."""
    encoding, weight = encoding_of(part), weight_of(carrier(part))
    channels = weight.shape[0]
    held = 4 * channels * (bias_of(part) is not None)  # 32 bits a channel whatever the kernel
    if isinstance(encoding, AffineEncoding):
        levels = encoding.grid.levels(weight, 0).to(torch.int8)
        held += levels.nbytes + encoding.scale.nbytes + 4 * channels  # the bias lies on a grid of its own
    else:
        held += (weight.half() if isinstance(encoding, HalfEncoding) else weight.float()).nbytes
    if isinstance(part, PermutedConvolution):
        held += part.inputs.to(torch.int32).nbytes + part.places.to(torch.int32).nbytes
    return held


@pytest.mark.parametrize("number", range(0, len(CASES), 7), ids=_id)
def test_a_built_layer_is_rebuilt_from_its_state(number: int) -> None:
    """Neutral statistics give the same structure, and the state every value: what a resumed run relies on."""
    subject, built, x = _case(number)
    again = apply_steps(neutral_subject(subject.layer, subject.module, TARGET), CASES[number][1], METHODS)
    again.load_state_dict(built.state_dict())
    assert torch.equal(again(x), built(x))
