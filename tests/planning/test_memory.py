"""Peak memory predicted for a choice is what is measured on its file, and what a hand counts."""

from __future__ import annotations

import time

import pytest
import torch
from torch import nn

from featherweight.methods import METHODS, Pruning
from featherweight.methods.pruning import Prunable
from featherweight.network import capture
from featherweight.network.channels import Coupling
from featherweight.planning.latency.standin import stand_in
from featherweight.planning.memory import Liveness, padded_share
from featherweight.targets.litert import LiteRT
from tests.planning.bare import DYNAMIC, RANK, STATIC, bare_table, chosen, small

TARGET = LiteRT()


@pytest.mark.parametrize(
    ("steps", "keeps"),
    [
        ({"": ()}, {}),
        ({"": STATIC}, {}),
        ({"": ()}, {"start": 2, "inner": -1}),
        ({"": STATIC}, {"start": -1, "inner": 2}),
        ({"": (), "inner": STATIC}, {}),
        ({"": STATIC, "outer": DYNAMIC}, {"inner": -1}),
        ({"": (), "outer": RANK}, {}),
        ({"": STATIC, "start": (), "outer": (*RANK, *STATIC)}, {}),
    ],
    ids=["float", "int8", "narrow", "narrow int8", "one int8", "one dynamic", "factors", "all at once"],
)
def test_the_prediction_is_what_the_file_takes(tmp_path, steps, keeps) -> None:
    network, prunable = small()
    table = bare_table(network, prunable, ranked=("outer",))
    choice = chosen(table, steps, keeps)
    predicted = Liveness(network, TARGET, table, METHODS, prunable.coupling).peak_bytes(choice)
    TARGET.lower(stand_in(network, choice, TARGET, METHODS, prunable.coupling), tmp_path / "made.tflite")
    assert predicted == TARGET.peak_memory(tmp_path / "made.tflite")


class Bordered(nn.Module):
    """Padded at the far borders only, as TensorFlow does where it strides."""

    def __init__(self) -> None:
        super().__init__()
        self.start, self.depth = nn.Conv2d(3, 16, 1), nn.Conv2d(16, 16, 3, stride=2, groups=16)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.depth(nn.functional.pad(torch.relu(self.start(x)), (0, 1, 0, 1))).mean((2, 3))


@pytest.mark.parametrize("steps", [(), STATIC, DYNAMIC], ids=["float", "int8", "dynamic"])
def test_real_kernels_pad_by_themselves(tmp_path, steps) -> None:
    network = capture(Bordered(), torch.randn(2, 3, 16, 16))
    table = bare_table(network, Prunable(Coupling((), (), (), {})))
    choice = chosen(table, {"": steps})
    TARGET.lower(stand_in(network, choice, TARGET, METHODS), tmp_path / "made.tflite")
    predicted = Liveness(network, TARGET, table, METHODS).peak_bytes(choice)
    assert predicted == TARGET.peak_memory(tmp_path / "made.tflite")


class Straight(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(100, 60), nn.Linear(60, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.second(torch.relu(self.first(x)))


def test_a_chain_counted_by_hand() -> None:
    network = capture(Straight(), torch.randn(2, 100))
    prunable = Prunable.of(network, Pruning())
    table = bare_table(network, prunable)
    liveness = Liveness(network, TARGET, table, METHODS, prunable.coupling)
    assert liveness.peak_bytes(chosen(table, {"": ()})) == 4 * (100 + 60)
    assert liveness.peak_bytes(chosen(table, {"": STATIC})) == 4 * 100 + 100  # the input, as real and on its grid
    keep = table.keeps["first"][-1].steps[0].settings["keep"]
    assert liveness.peak_bytes(chosen(table, {"": ()}, {"first": -1})) == 4 * (100 + keep)


def test_a_choice_takes_less_than_five_milliseconds() -> None:
    network, prunable = small()
    table = bare_table(network, prunable)
    liveness = Liveness(network, TARGET, table, METHODS, prunable.coupling)
    choices = [chosen(table, {"": steps}, {"inner": keep}) for steps in ((), STATIC) for keep in (0, 1, 2, -1)]
    liveness.peak_bytes(choices[0])
    taken = []
    for choice in choices * 3:
        start = time.process_time()
        liveness.peak_bytes(choice)
        taken.append(time.process_time() - start)
    assert min(taken) < 0.005


def test_padding_that_kernels_do_by_themselves_takes_no_copy() -> None:
    network, _ = small()
    assert padded_share(network.layer("start")) == 18 * 18 / (16 * 16)  # stride 2 and one before: not what "same" is
    assert padded_share(network.layer("outer")) == padded_share(network.layer("end")) == 1.0
