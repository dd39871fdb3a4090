"""Peak memory of a .tflite file, counted by hand."""

from __future__ import annotations

import torch
from torch import nn

from featherweight.network import capture
from featherweight.network.grids import Compressed
from featherweight.planning.latency.kernels import Family, Kernel, built
from featherweight.planning.latency.timing import with_any_grids
from featherweight.targets.litert import LiteRT

TARGET = LiteRT()


class Straight(nn.Module):
    """Two maps with another shape between them, which takes no bytes."""

    def __init__(self, arithmetic: str) -> None:
        super().__init__()
        family = Family(arithmetic, (1,))
        self.first, self.second = (built(Kernel(family, rows, columns)) for rows, columns in ((60, 100), (10, 30)))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.second(torch.relu(self.first(x)).reshape(-1, 2, 30)).flatten(1)


def test_reals(tmp_path) -> None:
    path = tmp_path / "made.tflite"
    TARGET.lower(Compressed(capture(Straight("float32"), torch.randn(2, 100))), path)
    assert TARGET.peak_memory(path) == 4 * (100 + 60)


def test_integers_count_the_input_twice_while_it_is_put_on_its_grid(tmp_path) -> None:
    path = tmp_path / "made.tflite"
    TARGET.lower(with_any_grids(capture(Straight("int8"), torch.randn(2, 100)), TARGET), path)
    assert TARGET.peak_memory(path) == 4 * 100 + 100


def test_values_that_are_still_needed_stay_live(tmp_path) -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Linear(20, 50), nn.Linear(50, 40)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = torch.relu(self.first(x))
            return torch.cat([y, torch.relu(self.second(y)), x], 1)

    path = tmp_path / "made.tflite"
    TARGET.lower(Compressed(capture(Twice(), torch.randn(2, 20))), path)
    assert TARGET.peak_memory(path) == 4 * (20 + 50 + 40 + 110)
    assert TARGET.runtime().startswith("ai-edge-litert ")
