from __future__ import annotations

import json
import struct
from pathlib import Path

import numpy as np
import pytest

from featherweight.contracts import DataError, RunError
from featherweight.packaging import estimate_bits, info, pack, unpack
from featherweight.packaging.package import Content, encode_package
from featherweight.packaging.spans import TensorSpan, tensor_spans
from tests.packaging.samples import content_of, levels


def _safetensors(tensors: dict[str, np.ndarray]) -> bytes:
    header, place = {}, 0
    for name, tensor in tensors.items():
        kind = {"int8": "I8", "float32": "F32"}[tensor.dtype.name]
        header[name] = {"dtype": kind, "shape": tensor.shape, "data_offsets": [place, place + tensor.nbytes]}
        place += tensor.nbytes
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + b"".join(tensor.tobytes() for tensor in tensors.values())


@pytest.fixture
def network(tmp_path: Path) -> Path:
    folder = tmp_path / "network"
    folder.mkdir()
    weights = {"first": levels(0, (20, 40), 2), "second": levels(1, (10, 64), 30)}
    (folder / "state.safetensors").write_bytes(_safetensors(weights))
    (folder / "plan.yaml").write_text("featherweight_plan: 1\n")
    return folder


def test_a_network_comes_back_file_by_file(network: Path, tmp_path: Path):
    size = pack(network, tmp_path / "net.fwp")
    assert size == (tmp_path / "net.fwp").stat().st_size
    written = unpack(tmp_path / "net.fwp", tmp_path / "back")
    assert [path.name for path in written] == ["state.safetensors", "plan.yaml"]
    for path in written:
        assert path.read_bytes() == (network / path.name).read_bytes()


def test_info_names_the_tensors_and_accounts_for_their_bits(network: Path, tmp_path: Path):
    size = pack(network, tmp_path / "net.fwp", description={"target": "litert"})
    told = info(tmp_path / "net.fwp")
    assert told.description == {"target": "litert"}
    assert told.package_bytes == size
    assert {piece.name for piece in told.pieces} >= {"first", "second"}
    coded = sum(piece.bits for piece in told.pieces) / 8
    assert 0 < size - coded < 250  # header, description, checksums
    first = next(piece for piece in told.pieces if piece.name == "first")
    assert first.elements == 800
    assert first.bits_per_element < first.entropy + 0.5


def test_an_update_of_a_file_is_refused_without_its_base(tmp_path: Path):
    old, new = tmp_path / "old.bin", tmp_path / "new.bin"
    old.write_bytes(bytes(range(200)) * 3)
    new.write_bytes(bytes(range(200)) * 2 + bytes(200))
    pack(new, tmp_path / "update.fwp", base=old)
    unpack(tmp_path / "update.fwp", tmp_path / "out.bin", base=old)
    assert (tmp_path / "out.bin").read_bytes() == new.read_bytes()
    for wrong in (None, new):
        with pytest.raises(DataError, match="the version that it was made from"):
            unpack(tmp_path / "update.fwp", tmp_path / "never.bin", base=wrong)
    assert not (tmp_path / "never.bin").exists()


def test_a_missing_file_and_an_empty_folder_are_told(tmp_path: Path):
    with pytest.raises(RunError):
        pack(tmp_path / "nothing", tmp_path / "out.fwp")
    with pytest.raises(DataError, match=r"state\.safetensors"):
        pack(tmp_path, tmp_path / "out.fwp")


def test_spans_of_safetensors_are_where_the_tensors_lie(network: Path):
    content = (network / "state.safetensors").read_bytes()
    first, second = tensor_spans("state.safetensors", content)
    assert content[first.offset : first.offset + first.length] == levels(0, (20, 40), 2).tobytes()
    assert (second.dtype, second.shape, second.name) == ("int8", (10, 64), "second")


@pytest.mark.parametrize("name", ["x.tflite", "x.onnx", "x.safetensors", "x.bin"])
def test_what_is_not_understood_has_no_spans(name: str):
    random = np.random.default_rng(0)
    for length in (0, 3, 8, 40, 400):
        assert tensor_spans(name, random.bytes(length)) == ()


@pytest.mark.parametrize(("spread", "shape"), [(0.4, (200, 100)), (2.0, (100, 144)), (30.0, (100, 100))])
def test_the_estimate_is_near_the_coded_size(spread: float, shape: tuple[int, int]):
    tensor = levels(3, shape, spread)
    coded = 8 * len(encode_package(content_of([tensor])))
    overhead = 8 * len(encode_package(content_of([np.zeros((1, 256), dtype=np.int8)])))
    assert estimate_bits(tensor.astype(np.int64)) == pytest.approx(coded - overhead, rel=0.02)


def test_the_estimate_refuses_what_are_no_levels():
    for wrong in (np.zeros((2, 2)), np.zeros(3, dtype=int), np.full((1, 1), 1 << 28)):
        with pytest.raises(DataError, match="matrix of integers"):
            estimate_bits(wrong)


def test_spans_that_lie_are_left_out():
    lying = TensorSpan(2, 100, "int8", (10, 11))
    content = content_of([levels(0, (20, 20), 2)])
    assert encode_package(type(content)(content.files, {}, {"artefact": (lying,)}))


def test_an_update_tells_of_itself_without_its_base(tmp_path: Path) -> None:
    old, new = tmp_path / "old.bin", tmp_path / "new.bin"
    old.write_bytes(bytes(range(200)) * 9)
    new.write_bytes(bytes(range(200)) * 9 + b"more")
    pack(new, tmp_path / "update.fwp", base=old)
    told = info(tmp_path / "update.fwp")
    assert (told.pieces, told.content_bytes) == ((), 1804)
    assert "name it with --base" in told.text()
    assert "name it with --base" not in info(tmp_path / "update.fwp", base=old).text()


def test_a_package_takes_no_file_that_it_was_made_from(tmp_path: Path) -> None:
    own = tmp_path / "own.bin"
    own.write_bytes(b"weights")
    with pytest.raises(RunError, match="made from"):
        pack(own, own)
    assert own.read_bytes() == b"weights"


@pytest.mark.parametrize("description", [{"x": object()}, {"x": "\ud800"}, {"x": "y" * (1 << 20)}])
def test_a_description_that_no_reader_would_take_is_refused(tmp_path: Path, description: dict) -> None:
    (tmp_path / "own.bin").write_bytes(b"weights")
    with pytest.raises(DataError, match="description"):
        pack(tmp_path / "own.bin", tmp_path / "own.fwp", description=description)
    assert not (tmp_path / "own.fwp").exists()


def test_a_description_does_not_hide_the_files(tmp_path: Path) -> None:
    (tmp_path / "own.bin").write_bytes(b"weights")
    pack(tmp_path / "own.bin", tmp_path / "own.fwp", description={"files": 1, "target": "litert"})
    assert unpack(tmp_path / "own.fwp", tmp_path / "out.bin")[0].read_bytes() == b"weights"


def test_nothing_is_unpacked_where_a_folder_stands_in_the_way(tmp_path: Path) -> None:
    (tmp_path / "own.bin").write_bytes(b"weights")
    pack(tmp_path / "own.bin", tmp_path / "own.fwp")
    (tmp_path / "out").mkdir()
    with pytest.raises(RunError, match="folder"):
        unpack(tmp_path / "own.fwp", tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.parametrize("names", [("a", "a/b"), ("a/b/c", "a/b"), ("a", "A"), ("A/b", "a")])
def test_files_that_would_share_a_place_are_refused_before_anything_is_written(
    names: tuple[str, str], tmp_path: Path
) -> None:
    forged = encode_package(Content(dict.fromkeys(names, b"content")))
    (tmp_path / "forged.fwp").write_bytes(forged)
    with pytest.raises(DataError, match="two files in one place"):
        unpack(tmp_path / "forged.fwp", tmp_path / "out")
    assert not (tmp_path / "out").exists()
