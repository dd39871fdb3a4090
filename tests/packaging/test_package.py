from __future__ import annotations

import hashlib
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from featherweight.contracts import DataError
from featherweight.packaging.coder import DECODE, ENCODE, finish_encoding, registers, start_decoding
from featherweight.packaging.container import read_package, write_header, write_section
from featherweight.packaging.package import Content, decode_package, encode_package
from featherweight.packaging.pieces import Bytes, Cursor, Levels, Planes, Stored, describe, read_piece
from featherweight.packaging.streams import bytes_array, code_piece, fresh_knowledge
from tests.packaging.samples import content_of, every_kind, levels

KINDS = every_kind()
PACKAGE = encode_package(KINDS["int8, few"])
UPDATE = encode_package(content_of([levels(9, (20, 30), 2)]), content_of([levels(8, (20, 30), 2)]))


@pytest.mark.parametrize("name", KINDS)
def test_every_kind_comes_back_to_the_byte(name: str):
    content = KINDS[name]
    assert decode_package(encode_package(content)).files() == content.files


@settings(max_examples=40)
@given(st.data())
def test_any_tensor_in_any_layout_comes_back(data: st.DataObject):
    element = data.draw(st.sampled_from(["int8", "uint8", "int16", "uint16", "int32"]))
    rows, columns = data.draw(st.integers(1, 12)), data.draw(st.integers(1, 12))
    limit = np.iinfo(element)
    low, high = max(limit.min, -(1 << 20)), min(limit.max, 1 << 20)
    spread = data.draw(st.integers(0, 20))
    numbers = data.draw(
        st.lists(
            st.integers(low, high) | st.integers(0, min(spread, high)), min_size=rows * columns, max_size=rows * columns
        )
    )
    held = np.array(numbers, dtype=element).tobytes()
    across = data.draw(st.booleans())
    piece = Levels(
        length=len(held),
        element=element,
        rows=rows,
        period=data.draw(st.integers(1, rows if across else columns)),
        offset=data.draw(st.integers(-200, 200)),
        across=across,
        balanced=data.draw(st.booleans()),
        contexts=data.draw(st.integers(3, 6)),
        base=data.draw(st.sampled_from([-1, 0])),
    )
    base = bytes(len(held)) if piece.base == 0 else b""
    assert _there_and_back(piece, held, base) == held


def _there_and_back(piece: Levels | Bytes | Planes | Stored, held: bytes, base: bytes) -> bytes:
    reg, room = registers(ENCODE), np.zeros(len(held) * 8 + 4096, dtype=np.uint8)
    code_piece(piece, 0, fresh_knowledge(bytes_array(held), bytes_array(base)), reg, room)
    stream, output = room[: finish_encoding(reg, room)].copy(), np.zeros(len(held), dtype=np.uint8)
    reg = registers(DECODE)
    start_decoding(reg, stream)
    code_piece(piece, 0, fresh_knowledge(output, bytes_array(base)), reg, stream)
    return output.tobytes()


@given(st.binary(min_size=8, max_size=200), st.sampled_from([1, 2, 4, 8]), st.integers(0, 8))
def test_any_bytes_come_back(held: bytes, element: int, distance: int):
    held = held[: len(held) // 8 * 8]
    assert _there_and_back(Bytes(len(held), element, distance), held, b"") == held
    assert _there_and_back(Bytes(len(held), element, 0, 0), held, held[::-1]) == held
    assert _there_and_back(Stored(len(held)), held, b"") == held
    if element > 1:
        assert _there_and_back(Planes(len(held), element, 1), held, b"") == held


@pytest.mark.parametrize(
    "piece",
    [
        Stored(7),
        Bytes(300, 4, 4),
        Bytes(300, 1, 0, 12),
        Planes(400, 4, 3),
        Planes(400, 8, 0, 3),
        Levels(600, "int8", 20, 3, -7, across=True, balanced=True, contexts=4),
        Levels(600, "int16", 20, 15, base=5, contexts=6),
        Levels(600, "word32", 10, 5, 2, values=9),
        Levels(600, "uint8", 20, 30, 128, top=127),
    ],
)
def test_descriptions_come_back(piece: Stored | Bytes | Planes | Levels):
    assert read_piece(Cursor(describe(piece)), 1000, 1000) == piece


def test_a_mutated_package_gives_one_clear_error():
    @settings(max_examples=150)
    @given(st.integers(0, len(PACKAGE) - 1), st.integers(1, 255))
    def mutate(place: int, change: int):
        damaged = bytearray(PACKAGE)
        damaged[place] ^= change
        with pytest.raises(DataError):
            decode_package(bytes(damaged))

    mutate()


def test_a_truncated_or_lengthened_package_is_refused():
    for length in range(len(PACKAGE)):
        with pytest.raises(DataError):
            decode_package(PACKAGE[:length])
    with pytest.raises(DataError, match="after its end"):
        decode_package(PACKAGE + b"\0")


@settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow])
@given(st.binary(min_size=0, max_size=300), st.integers(0, 200))
def test_a_forged_stream_with_right_checksums_is_refused(stream: bytes, cut: int):
    """What no checksum catches: descriptions and streams that an attacker wrote."""
    header, sections = read_package(PACKAGE)
    forged = write_header(header) + b"".join(
        write_section(replace(one, stream=stream + one.stream[cut:])) for one in sections
    )
    try:
        assert decode_package(forged).output == KINDS["int8, few"].joined()  # the same stream by chance
    except DataError as error:
        assert error.rule  # noqa: PT017


def test_wrong_magic_and_version_say_so():
    with pytest.raises(DataError, match="begins with FWPK"):
        decode_package(b"PK\x03\x04 no package")
    with pytest.raises(DataError, match="version 1"):
        decode_package(PACKAGE[:4] + b"\x09" + PACKAGE[5:])


def test_the_header_bounds_what_is_allocated():
    header, sections = read_package(PACKAGE)
    longer = write_header(replace(header, length=(1 << 31) - 1)) + b"".join(map(write_section, sections))
    with pytest.raises(DataError, match="in no section"):
        decode_package(longer)
    narrower = write_header(replace(header, columns=1)) + b"".join(map(write_section, sections))
    with pytest.raises(DataError, match="wider"):
        decode_package(narrower)


def test_an_update_is_small_and_refuses_another_base():
    old, new = content_of([levels(8, (60, 50), 2)]), content_of([levels(8, (60, 50), 2)])
    changed = bytearray(new.joined())
    changed[40] ^= 1
    new = replace(new, files={"artefact": bytes(changed)})
    update = encode_package(new, old)
    assert decode_package(update, old.joined()).files() == new.files
    assert len(update) < 0.35 * len(encode_package(new))
    for wrong in (None, b"", new.joined(), old.joined()[:-1]):
        with pytest.raises(DataError, match="the version that it was made from"):
            decode_package(update, wrong)


def test_same_content_gives_same_bytes():
    assert encode_package(KINDS["int8, few"]) == PACKAGE


def test_several_files_come_back_by_name():
    files = {"state.safetensors": b"weights", "plan.yaml": b"plan: 1\n", "empty": b""}
    assert decode_package(encode_package(Content(files))).files() == files


@pytest.mark.parametrize("name", ["../up", "/root", "a/../b", "c:\\d", "", "a//b", "tab\t"])
def test_names_that_leave_the_folder_are_refused(name: str):
    package = encode_package(Content({name: b"content"}))
    with pytest.raises(DataError, match="the file"):
        decode_package(package).files()


def test_the_header_tells_the_sha256():
    assert read_package(PACKAGE)[0].sha256 == hashlib.sha256(KINDS["int8, few"].joined()).digest()
