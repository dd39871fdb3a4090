"""The latency table's file: kept by device, bounded, refused where it belongs elsewhere, never lost half-way."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from featherweight.contracts import RunError, TargetError
from featherweight.planning.latency.latencies import FOLDER_VARIABLE, Clock, Latencies, cached_latencies, read_latencies
from featherweight.targets.litert import LiteRT

CLOCK = Clock("litert", "ai-edge-litert 2", "a phone", 1)


def _written(path, **changes):
    Latencies(CLOCK, path, {"a kernel": 0.5}, {"a network": 2.0}).save()
    document = json.loads(path.read_text()) | changes
    path.write_text(json.dumps(document))
    return path


def test_what_is_saved_is_read(tmp_path) -> None:
    found = read_latencies(_written(tmp_path / "t.json"), CLOCK)
    assert (found.kernels, found.networks) == ({"a kernel": 0.5}, {"a network": 2.0})


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"device": "another phone"}, "another phone"),
        ({"runtime": "ai-edge-litert 3"}, "ai-edge-litert 3"),
        ({"target": "onnxruntime"}, "onnxruntime"),
        ({"threads": 4}, "threads '4'"),
    ],
)
def test_a_table_of_another_device_is_refused(tmp_path, changes, words) -> None:
    with pytest.raises(TargetError, match=words):
        read_latencies(_written(tmp_path / "t.json", **changes), CLOCK)


@pytest.mark.parametrize(
    "changes",
    [
        {"featherweight_latencies": 2},
        {"kernels": None},
        {"kernels": {"a": "fast"}},
        {"kernels": {"a": True}},
        {"kernels": {"a": -1.0}},
        {"kernels": {"a": float("nan")}},
        {"kernels": {"a": 1e9}},
        {"kernels": {"x" * 2000: 1.0}},
        {"networks": [1.0]},
        {"networks": {str(number): 1.0 for number in range(100_001)}},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_a_broken_table_is_refused_in_one_line(tmp_path, changes) -> None:
    with pytest.raises(RunError) as caught:
        read_latencies(_written(tmp_path / "t.json", **changes), CLOCK)
    assert "\n" not in caught.value.got
    assert len(caught.value.got) < 400


@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b"\xff\xfe", b"[" * 100_000, b" " * (17 << 20)])
def test_what_is_no_table_is_refused(tmp_path, content) -> None:
    (tmp_path / "t.json").write_bytes(content)
    with pytest.raises(RunError):
        read_latencies(tmp_path / "t.json", CLOCK)


def test_the_cache_is_one_file_a_clock_and_a_broken_one_is_written_over(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv(FOLDER_VARIABLE, str(tmp_path / "own"))
    first = cached_latencies(LiteRT())
    assert not first.kernels
    first.kernels["a kernel"] = 1.0
    first.save()
    (file,) = (tmp_path / "own").iterdir()
    assert cached_latencies(LiteRT()).kernels == {"a kernel": 1.0}
    file.write_text("{")
    again = cached_latencies(LiteRT())
    assert not again.kernels
    again.kernels["another"] = 2.0
    again.save()
    assert cached_latencies(LiteRT()).kernels == {"another": 2.0}
    assert [one.name for one in (tmp_path / "own").iterdir()] == [file.name]


@pytest.mark.parametrize(
    ("cache", "expected"), [("own cache", "own cache/featherweight"), ("", "home/.cache/featherweight")]
)
def test_without_a_folder_of_its_own_it_lies_where_caches_lie(tmp_path, monkeypatch, cache, expected) -> None:
    monkeypatch.delenv(FOLDER_VARIABLE, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / cache) if cache else "")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    path = cached_latencies(LiteRT()).path
    assert path is not None
    assert path.parent == tmp_path / expected


def test_two_processes_add_to_each_other(tmp_path) -> None:
    path = tmp_path / "t.json"
    one, two = Latencies(CLOCK, path), Latencies(CLOCK, path)
    one.kernels["a"], two.kernels["b"] = 1.0, 2.0
    one.save()
    two.save()
    assert read_latencies(path, CLOCK).kernels == {"a": 1.0, "b": 2.0}
    Latencies(replace(CLOCK, device="elsewhere"), path, {"c": 3.0}).save()
    assert read_latencies(path, replace(CLOCK, device="elsewhere")).kernels == {"c": 3.0}
