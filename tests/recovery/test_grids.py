"""Grids of activations: found by the search that a plan names, and there in the file."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from featherweight.contracts import Plan, Step
from featherweight.methods import METHODS
from featherweight.methods.apply import apply, rebuild
from featherweight.methods.quantization import Quantization
from featherweight.network import Network, capture
from featherweight.network.grids import Compressed
from featherweight.network.surgery import Slim
from featherweight.numerics.affine import fit_asymmetric
from featherweight.numerics.ranges import RANGE_SEARCHES
from featherweight.observation.ranges import observe_ranges
from featherweight.recovery import recover
from featherweight.recovery.grids import fit_grids
from featherweight.targets.litert import LiteRT, flatbuffer
from featherweight.tasks.data import Split
from featherweight.testing import contract_problem, subjects

TARGET = LiteRT()
INT8 = {"weights": "int8", "activations": "int8"}


@pytest.fixture(scope="module")
def problem() -> tuple[Network, Split]:
    """Three layers in a row, and samples with rare outliers, so that every search answers differently."""
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 8), nn.Linear(8, 3)).eval()
    x = torch.randn(400, 6)
    return capture(module, x[:2]), Split.of(x * (1 + 30 * (torch.rand(400, 6) < 0.002)))


def built_with(problem: tuple[Network, Split], *ranges: str) -> Compressed:
    """The network on static int8, each layer with its own search; an empty name leaves it out."""
    network, split = problem
    steps = [(Step("quantization", {**INT8, "ranges": name} if name else INT8),) for name in ranges]
    plan = Plan("", "litert", dict(zip(("0", "2", "3"), steps, strict=True)))
    applied = apply(network, plan, split, TARGET.capability, METHODS)
    return recover(Slim.whole(network), applied, split, TARGET)


def described(problem: tuple[Network, Split], built: Compressed, search: str) -> dict[str, tuple]:
    """What a search makes of the values that were seen, node by node."""
    seen = observe_ranges(built.network, problem[1], tuple(built.grids))
    return {node: RANGE_SEARCHES[search](one.sample, one.low, one.high, 8).describe() for node, one in seen.items()}


@pytest.mark.parametrize("search", list(RANGE_SEARCHES))
def test_every_search_reaches_the_file_as_numerics_says(problem, tmp_path: Path, search: str) -> None:
    built = built_with(problem, search, search, search)
    found = {node: grid.describe() for node, grid in built.grids.items()}
    assert len(found) == 4
    assert found == described(problem, built, search)
    others = [described(problem, built, other) for other in RANGE_SEARCHES if other != search]
    assert all(found != other for other in others)
    path = tmp_path / "artefact.tflite"
    TARGET.lower(built, path)
    graph = flatbuffer.read_model(path.read_bytes()).subgraphs[0]
    scales = {float(t.quantization.scale[0]) for t in graph.tensors if t.quantization is not None and _scaled(t)}
    assert {row[0] for row in found.values()} <= scales


def _scaled(tensor) -> bool:
    return tensor.quantization.scale is not None and len(tensor.quantization.scale) == 1


def test_the_default_is_the_least_squared_error(problem) -> None:
    built = built_with(problem, "", "", "")
    assert {node: grid.describe() for node, grid in built.grids.items()} == described(problem, built, "mse")
    seen = observe_ranges(built.network, problem[1], tuple(built.grids))
    for node, one in seen.items():
        assert built.grids[node].describe() == fit_asymmetric(one.sample, one.low, one.high).describe()


def test_a_layer_speaks_for_what_it_reads_and_writes_and_its_reader_has_the_last_word(problem) -> None:
    built = built_with(problem, "", "minmax", "percentile")
    by = {search: described(problem, built, search) for search in RANGE_SEARCHES}
    given, hidden, middle, answer = built.grids  # in execution order
    wanted = {given: "mse", hidden: "minmax", middle: "percentile", answer: "percentile"}
    assert {node: grid.describe() for node, grid in built.grids.items()} == {
        node: by[search][node] for node, search in wanted.items()
    }
    alone = built_with(problem, "entropy", "", "")
    assert alone.grids[hidden].describe() == described(problem, alone, "entropy")[hidden]
    assert alone.grids[answer].describe() == described(problem, alone, "mse")[answer]


def test_a_network_that_is_rebuilt_still_knows_its_searches(problem) -> None:
    network, split = problem
    plan = Plan("", "litert", {"2": (Step("quantization", {**INT8, "ranges": "percentile"}),)})
    applied = apply(network, plan, split, TARGET.capability, METHODS)
    again = rebuild(network, plan, applied.module.state_dict(), TARGET.capability, METHODS)
    grids = [fit_grids(one, TARGET.place(one), split).grids for one in (applied, again)]
    assert [g.describe() for g in grids[0].values()] == [g.describe() for g in grids[1].values()]


def test_a_catalogue_may_offer_another_search() -> None:
    subject = subjects(*contract_problem())["wide"]
    assert {**INT8, "ranges": "percentile"} in Quantization(ranges="percentile").options(subject)[0]
    assert INT8 in Quantization().options(subject)[0]
