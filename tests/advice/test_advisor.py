"""The advisor on real targets: what it measures, what it sorts, what it prints."""

from __future__ import annotations

import json

import pytest
import torch
from torch import nn

import featherweight as fw
from featherweight.advice import Advised, advise
from featherweight.advice.survey import KINDS
from featherweight.contracts import UsageError
from featherweight.network import capture
from featherweight.targets import target_by_name
from tests import jobs
from tests.jobs import HERE, refused, tell


class _Swish(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.Hardswish())
        self.body = nn.Conv2d(16, 16, 3, padding=1)
        self.head = nn.Linear(16, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        return self.head((self.body(x) * torch.tanh(x).exp()).mean((2, 3)))


@pytest.fixture(scope="module", params=["litert", "onnxruntime"])
def advised(request: pytest.FixtureRequest) -> Advised:
    torch.manual_seed(0)
    module = _Swish().eval()
    state = {name: value.clone() for name, value in module.state_dict().items()}
    network = capture(module, torch.randn(2, 3, 16, 16))
    found = advise(network, target_by_name(request.param))
    assert all(torch.equal(value, state[name]) for name, value in module.state_dict().items())
    return found


def test_the_original_is_measured(advised: Advised) -> None:
    assert advised.size_bytes > 4 * sum(p.numel() for p in _Swish().parameters()) * 0.9
    assert advised.milliseconds > 0
    assert advised.macs == 27 * 16 * 256 + 16 * 9 * 16 * 256 + 160
    assert sum(place.share for place in advised.operators) == pytest.approx(1.0)
    assert [place.name for place in advised.layers] == ["body", "stem.0", "head"]


def test_what_helps_comes_first_and_the_largest_share_before_smaller_ones(advised: Advised) -> None:
    keys = [(KINDS.index(one.kind), -one.share) for one in advised.advice]
    assert keys == sorted(keys)
    assert {one.kind for one in advised.advice} == set(KINDS)
    assert all(one.subject and one.finding and one.reason for one in advised.advice)


def test_int8_was_tried_and_its_islands_found(advised: Advised) -> None:
    told = {one.subject: one for one in advised.advice}
    assert "3 of 3 layers on int8" in told["int8 everywhere"].finding
    assert told["int8 everywhere"].size_bytes > 0
    assert any("in reals in the int8 file" in one.finding for one in advised.advice)
    assert ("head", "channels can't be pruned") in {(one.subject, one.finding) for one in advised.advice}


def test_it_reads_as_text_and_as_json(advised: Advised) -> None:
    text, record = advised.text(), advised.record()
    for word in (advised.target, "Where the milliseconds are", "What helps", "What stands in the way", "does not help"):
        assert word in text
    assert json.loads(json.dumps(record)) == record
    assert [one["subject"] for one in record["advice"]] == [one.subject for one in advised.advice]


def test_a_network_without_kernels_is_told_so() -> None:
    module = nn.Sequential(nn.Conv3d(1, 2, 3), nn.ReLU(), nn.Flatten(), nn.Unflatten(1, (2, 27)))
    found = advise(capture(module.eval(), torch.randn(2, 1, 5, 5, 5)), target_by_name("onnxruntime"))
    told = {one.finding: one for one in found.advice}
    assert told["no int8 kernel for conv3d"].kind == "blocks"
    assert "no int8 kernel for any of its layers (conv3d)" in told["int8 can't be had on this target"].reason


# ------------------------------------------------------------------------------------------------ Python and the shell


def test_data_and_shape_give_the_same_findings() -> None:
    by_data = fw.advise(jobs.network(), "onnxruntime", jobs.data())
    by_shape = fw.advise(jobs.network(), "onnxruntime", shape=(6,))
    # What was timed differs from run to run.
    first, second = ([one for one in found.advice if not one.milliseconds] for found in (by_data, by_shape))
    assert [one for one in first if one.share] == [one for one in second if one.share]
    assert {one.subject for one in first} >= {"float16 weights", "2", "zeros and shared values"}
    with pytest.raises(UsageError, match="neither"):
        fw.advise(jobs.network())
    with pytest.raises(UsageError, match="both"):
        fw.advise(jobs.network(), "litert", jobs.data(), shape=(6,))


def test_the_command_line_says_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    model = f"{HERE}:network"
    told = tell(capsys, "advise", model, "--shape", "6", "--target", "onnxruntime")
    assert (told.code, told.err) == (0, "")
    assert told.out.startswith("on onnxruntime: ")
    record = json.loads(
        tell(capsys, "advise", model, "--data", f"{HERE}:data", "--target", "onnxruntime", "--json").out
    )
    assert (record["target"], record["macs"]) == ("onnxruntime", 144)
    assert set(record["advice"][0]) == {
        "kind", "subject", "finding", "reason", "remedy", "size_bytes", "milliseconds", "macs", "share",
    }  # fmt: skip


def test_what_the_command_line_refuses(capsys: pytest.CaptureFixture[str]) -> None:
    model = f"{HERE}:network"
    assert "--shape 3,32,32" in refused(capsys, 2, "--shape 3,32,32", "advise", model)
    assert "'abacus'" in refused(capsys, 6, "'abacus'", "advise", model, "--shape", "6", "--target", "abacus")
    assert "example input" in refused(capsys, 3, "must run", "advise", model, "--shape", "7")
    assert "shape" in refused(capsys, 2, "shape", "advise", model, "--shape", "0")
