"""Evidence against brute force, within its memory bound, and saved without loss."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from featherweight.contracts import DataError
from featherweight.network import capture
from featherweight.network.surgery import Slim
from featherweight.observation import Passage, observe, observe_ranges, walk
from featherweight.observation.evidence import batch_size, gram_bytes, load_evidence, save_evidence
from featherweight.tasks.data import Split


def _network() -> nn.Sequential:
    torch.manual_seed(3)
    return nn.Sequential(nn.Conv2d(2, 4, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, 5)).double()


def test_moments_are_those_of_all_rows() -> None:
    module = _network()
    x = torch.randn(20, 2, 6, 6, dtype=torch.float64)
    network = capture(module, x[:2])
    seen = observe(network, Split.of(x), rows_per_layer=10**6)
    patches = nn.functional.unfold(x, 3, padding=1).transpose(1, 2).reshape(-1, 18)
    assert torch.allclose(seen.layers["0"].gram[0], patches.T @ patches / len(patches))
    assert torch.allclose(seen.layers["0"].mean[0], patches.mean(0))
    hidden = module[:3](x).detach()
    covariance = torch.cov(hidden.T, correction=0)
    assert torch.allclose(seen.layers["3"].covariance[0], covariance, atol=1e-12)
    assert torch.allclose(seen.outputs, module(x).detach().float())
    assert seen.samples == 20


def test_the_pass_is_repeatable_and_survives_the_disk(tmp_path: Path) -> None:
    x = torch.randn(9, 2, 6, 6, dtype=torch.float64)
    network = capture(_network(), x[:2])
    first, second = (observe(network, Split.of(x), rows_per_layer=50, seed=4) for _ in range(2))
    save_evidence(first, tmp_path)
    loaded = load_evidence(tmp_path)
    for name in first.layers:
        assert torch.equal(first.layers[name].gram, second.layers[name].gram)
        assert torch.equal(first.layers[name].gram, loaded.layers[name].gram)
        assert loaded.layers[name].input_noise == first.layers[name].input_noise
    assert torch.equal(first.outputs, loaded.outputs)


def test_a_gram_matrix_beyond_the_bound_is_refused_by_name() -> None:
    module = nn.Sequential(nn.Linear(400, 8), nn.ReLU(), nn.Linear(8, 2))
    x = torch.randn(10, 400)
    seen = observe(capture(module, x[:2]), Split.of(x), memory_bytes=1 << 20)
    assert list(seen.layers) == ["2"]
    (refusal,) = seen.refusals
    assert (refusal.subject, refusal.action) == ("0", "observe")


_MEASURED = """
import resource, torch
from torch import nn
from featherweight.network import capture
from featherweight.observation import observe
from featherweight.tasks.data import Split
torch.set_num_threads(1)
module = nn.Sequential(nn.Conv2d(3, 32, 3, padding=1), nn.ReLU(), nn.Conv2d(32, 32, 3, padding=1), nn.ReLU(),
                       nn.Conv2d(32, 32, 3, padding=1), nn.AdaptiveAvgPool2d(1))
x = torch.randn(200, 3, 64, 64)
network = capture(module, x[:2])
observe(network, Split.of(x[:2]), memory_bytes=1 << 26)
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
before = peak()
seen = observe(network, Split.of(x), memory_bytes={bound})
print(peak() - before)
"""


@pytest.mark.parametrize("mebibytes", [32, 128])
def test_the_memory_bound_is_kept(mebibytes: int) -> None:
    """The process' own peak, in a fresh interpreter."""
    code = _MEASURED.replace("{bound}", str(mebibytes << 20))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(done.stdout) <= mebibytes << 20


def test_the_batch_shrinks_with_the_bound() -> None:
    module = nn.Sequential(nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 16, 3, padding=1))
    network = capture(module, torch.randn(2, 3, 64, 64))
    positions = {layer.name: 256 for layer in network.layers}
    assert all(gram_bytes(layer) < 1 << 20 for layer in network.layers)
    sizes = [batch_size(network, list(network.layers), positions, mib << 20) for mib in (1, 16, 64, 4096)]
    assert sizes == sorted(sizes)
    assert (sizes[0], sizes[-1]) == (1, 64)


def test_no_samples_and_broken_outputs_are_refused() -> None:
    module = nn.Linear(3, 2)
    module.weight.data.copy_(torch.tensor([[9.0, -9.0, 9.0]]).expand(2, 3))
    network = capture(module, torch.randn(2, 3))
    with pytest.raises(DataError, match="Calibration needs samples"):
        observe(network, Split.of(torch.zeros(0, 3)))
    with pytest.raises(DataError, match="finite"):
        observe(network, Split.of(torch.full((4, 3), 3e38) * torch.tensor([1.0, -1.0, 1.0])))


def test_ranges_are_the_true_extremes() -> None:
    x = torch.randn(50, 3)
    network = capture(nn.Sequential(nn.Linear(3, 2), nn.ReLU()), x[:2])
    ranges = observe_ranges(
        network, Split.of(x), ["x", "relu"] if "x" in str(network.graph.graph) else ["input_1", "relu"]
    )
    assert ranges["relu"].low == 0.0
    assert ranges["relu"].high == pytest.approx(float(network.module(x).max()))
    assert set(ranges["relu"].sample.tolist()) <= set(network.module(x).flatten().tolist())


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cat([self.b(torch.relu(self.a(x))) + x, x.flip(0)], 1)


def test_the_walk_carries_both_networks_through_shortcuts() -> None:
    x = torch.randn(6, 4)
    network = capture(Residual(), x)
    other = nn.Linear(4, 4)
    given = {}

    def visit(passage: Passage) -> nn.Module | None:
        given[passage.layer.name] = passage
        return other if passage.layer.name == "a" else None

    dense, compressed = walk(Slim.whole(network), (x,), visit)
    own = network.module
    assert torch.allclose(dense, own(x))
    expected = torch.cat([own.b(torch.relu(other(x))) + x, x.flip(0)], 1)
    assert torch.allclose(compressed, expected)
    assert torch.equal(given["a"].given, x)
    assert torch.allclose(given["b"].given, torch.relu(other(x)))
    assert torch.allclose(given["b"].target, own.b(torch.relu(own.a(x))))
