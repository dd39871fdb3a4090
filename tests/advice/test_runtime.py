"""What a runtime makes of a graph, from figures made up."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

from featherweight.advice import families, runtime
from featherweight.testing import ANY_TARGET
from tests.advice.surveyed import surveyed


def convolutions() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 16, 3), nn.Hardswish(), nn.Conv2d(16, 12, 3), nn.ReLU(), nn.Conv2d(12, 8, 1))


def test_kinds_without_a_kernel_are_told_once() -> None:
    kinds = {"float32": frozenset({"conv2d"}), "float16": frozenset({"conv2d"}), "int8": frozenset()}
    capability = replace(ANY_TARGET, layer_kinds=kinds)
    known = surveyed(convolutions(), 3, 8, 8, capability=capability)
    (one,) = runtime.missing_kernels(known)
    assert (one.kind, one.subject, one.finding) == ("blocks", "0, 2, 4", "no int8 kernel for conv2d")
    assert one.macs == known.network.cost.macs
    assert one.size_bytes == known.network.cost.size_bytes
    assert "float16" in one.remedy
    assert list(runtime.missing_kernels(surveyed(convolutions(), 3, 8, 8))) == []
    told = list(runtime.missing_kernels(replace(known, obstacle="the converter fell over")))
    assert told[-1].reason == "the converter fell over"


def test_operators_in_reals_between_integers_are_told_with_their_time() -> None:
    operators = [
        ("QUANTIZE", 0.1), ("CONV_2D", 1.0), ("DEQUANTIZE", 0.1), ("HARD_SWISH", 0.6), ("QUANTIZE", 0.1),
        ("CONV_2D", 1.0), ("HARD_SWISH", 0.2), ("DEQUANTIZE", 0.1),
    ]  # fmt: skip
    types = {
        "QUANTIZE float32": 2,
        "DEQUANTIZE int8": 2,
        "CONV_2D int8": 2,
        "HARD_SWISH float32": 1,
        "HARD_SWISH int8": 1,
    }
    known = surveyed(convolutions(), 3, 8, 8, integer=(500, operators, types), operators=[("CONV_2D", 10.0)])
    curve, conversions = runtime.islands(known)
    assert (curve.subject, curve.finding) == ("HARD_SWISH", "1 time in reals in the int8 file")
    assert curve.milliseconds == pytest.approx(0.4)  # one of two, of 0.8 ms together
    assert curve.share == pytest.approx(0.04)
    assert conversions.finding.startswith("4 times")
    assert conversions.milliseconds == pytest.approx(0.4)


def test_a_whole_chain_of_integers_has_no_islands() -> None:
    operators = [("QUANTIZE", 0.1), ("CONV_2D", 1.0), ("DEQUANTIZE", 0.1)]
    types = {"QUANTIZE float32": 1, "DEQUANTIZE int8": 1, "CONV_2D int8": 1}
    assert list(runtime.islands(surveyed(convolutions(), 3, 8, 8, integer=(500, operators, types)))) == []
    assert list(runtime.islands(surveyed(convolutions(), 3, 8, 8))) == []


def test_curves_are_told_and_clipping_isn_t() -> None:
    operators = [("CONV_2D", 8.0), ("HARD_SWISH", 1.0), ("RELU", 1.0), ("GELU", 0.01)]
    (one,) = runtime.curves(surveyed(convolutions(), 3, 8, 8, operators=operators))
    assert (one.subject, one.kind, one.milliseconds) == ("HARD_SWISH", "helps", pytest.approx(1.0))


def test_moving_values_is_told_in_one() -> None:
    operators = [("CONV_2D", 8.0), ("TRANSPOSE", 1.0), ("PAD", 0.5), ("TRANSPOSE", 0.5)]
    (one,) = runtime.movements(surveyed(convolutions(), 3, 8, 8, operators=operators))
    assert (one.kind, one.subject, one.milliseconds) == ("does not help", "TRANSPOSE, PAD", pytest.approx(2.0))
    assert "2 × TRANSPOSE, 1 × PAD" in one.finding
    assert list(runtime.movements(surveyed(convolutions(), 3, 8, 8))) == []


def test_layers_are_timed_where_kernels_and_layers_match() -> None:
    operators = [("CONV_2D", 5.0), ("HARD_SWISH", 0.1), ("CONV_2D", 3.0), ("CONV_2D", 0.1)]
    known = surveyed(convolutions(), 3, 8, 8, operators=operators)
    assert runtime.layer_times(known) == pytest.approx({"0": 5.0, "2": 3.0, "4": 0.1})
    (one,) = runtime.overhead(known)
    assert (one.subject, one.kind, one.milliseconds) == ("4", "does not help", pytest.approx(0.1))
    assert runtime.layer_times(surveyed(convolutions(), 3, 8, 8, operators=operators[:2])) == {}
    assert list(runtime.overhead(surveyed(convolutions(), 3, 8, 8, operators=operators[:2]))) == []


def test_times_alone_are_scaled_to_the_time_of_the_whole() -> None:
    known = surveyed(convolutions(), 3, 8, 8, operators=[("CONV_2D", 6.0), ("GELU", 4.0)])
    slower = replace(known, original=replace(known.original, milliseconds=20.0))
    (one,) = runtime.curves(slower)
    assert one.milliseconds == pytest.approx(8.0)
    assert one.share == pytest.approx(0.4)


def test_channels_that_don_t_fill_the_tiles() -> None:
    capability = replace(ANY_TARGET, channel_multiple=8)
    known = surveyed(convolutions(), 3, 8, 8, capability=capability)
    (one,) = runtime.shapes(known)
    assert (one.kind, one.subject, one.finding) == ("blocks", "2", "12 output channels, no multiple of 8")
    assert one.macs == pytest.approx(known.network.layer("2").cost.macs * 4 / 16)
    assert one.remedy == "8 channels would cost 50% less"


class Sum(nn.Module):
    """Two layers whose outputs are added and put out, behind one that may have any width."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.one, self.other = nn.Linear(6, 12), nn.Linear(12, 10), nn.Linear(12, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.first(x).relu()
        return torch.softmax(self.one(x) + self.other(x), 1)


class Tokens(nn.Module):
    """A position for every token, and tokens on an axis of the output."""

    def __init__(self) -> None:
        super().__init__()
        self.places = nn.Parameter(torch.zeros(5, 6))
        self.hidden, self.last = nn.Linear(6, 12), nn.Linear(12, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(self.hidden(x + self.places).relu())


@pytest.mark.parametrize(
    ("module", "shape", "narrow"),
    [
        (nn.Sequential(nn.Linear(6, 12), nn.ReLU(), nn.Linear(12, 10)), (6,), {"0"}),
        (nn.Sequential(nn.Conv2d(3, 12, 3), nn.ReLU(), nn.Conv2d(12, 10, 1), nn.Flatten()), (3, 8, 8), {"0"}),
        (nn.Sequential(nn.Conv2d(3, 12, 1), nn.ReLU(), nn.ConvTranspose2d(12, 10, 2)), (3, 4, 4), {"0"}),
        (nn.Sequential(nn.ConvTranspose2d(16, 12, 2), nn.ReLU(), nn.Conv2d(12, 10, 1)), (16, 4, 4), {"0"}),
        (Sum(), (6,), {"first"}),
        (Tokens(), (5, 6), {"hidden"}),
    ],
    ids=["linear", "flattened", "transposed last", "transposed first", "sum", "tokens"],
)
def test_nobody_is_told_to_change_the_number_of_the_networks_outputs(
    module: nn.Module, shape: tuple[int, ...], narrow: set[str]
) -> None:
    known = surveyed(module, *shape, capability=replace(ANY_TARGET, channel_multiple=8))
    found = list(runtime.shapes(known))
    assert {one.subject for one in found} == narrow
    assert all(one.finding == "12 output channels, no multiple of 8" for one in found)


# ------------------------------------------------------------------------------------------------------------ families


def test_int8_is_told_as_it_was_measured() -> None:
    known = surveyed(convolutions(), 3, 8, 8, integer=(2000, [("CONV_2D", 0.25)], {}))
    (one,) = families.integers(known)
    assert (one.size_bytes, one.milliseconds) == (known.original.size_bytes - 2000, 0.75)
    slower = surveyed(convolutions(), 3, 8, 8, integer=(2000, [("CONV_2D", 3.0)], {}))
    helps, hinders = families.integers(slower)
    assert (helps.kind, helps.milliseconds) == ("helps", 0.0)
    assert (hinders.kind, hinders.milliseconds) == ("does not help", 2.0)
    assert list(families.integers(surveyed(convolutions(), 3, 8, 8))) == []


def test_float16_halves_the_weights() -> None:
    known = surveyed(convolutions(), 3, 8, 8)
    (one,) = families.halves(known)
    assert one.size_bytes == 2 * sum(la.cost.parameters - la.weight_shape[0] for la in known.network.layers)


def test_half_the_channels_counts_both_sides_of_a_weight() -> None:
    known = surveyed(convolutions(), 3, 8, 8)
    (one,) = families.half_channels(known)
    first, second, third = (layer.cost.macs for layer in known.network.layers)
    assert one.macs == pytest.approx(first / 2 + second * 3 / 4 + third / 2)


def test_half_of_low_rank_takes_only_layers_that_can_be_factorised() -> None:
    known = surveyed(nn.Sequential(nn.Linear(32, 64), nn.ReLU(), nn.Linear(64, 4)), 32)
    (one,) = families.fewer_ranks(known)
    assert one.macs == known.network.layer("0").cost.macs / 2


def test_what_only_a_package_gains_from() -> None:
    found = list(families.storage_only(surveyed(convolutions(), 3, 8, 8)))
    assert {one.subject for one in found} == {"zeros and shared values", "fewer than 8 bits"}
    assert {one.kind for one in found} == {"does not help"}
    assert all("--minimize package" in one.remedy for one in found)


def test_the_description_of_a_small_network_counts() -> None:
    (one,) = families.description(surveyed(nn.Linear(4, 2), 4))
    assert one.size_bytes == 100
    assert list(families.description(surveyed(convolutions(), 3, 8, 8))) == []
