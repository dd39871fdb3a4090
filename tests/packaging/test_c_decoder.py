from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import featherweight.packaging
from featherweight.packaging.coder import DECODE, registers, start_decoding
from featherweight.packaging.container import Header, Section, write_header, write_section
from featherweight.packaging.package import Content, encode_package
from featherweight.packaging.pieces import Bytes, Levels, Piece
from featherweight.packaging.streams import bytes_array, code_piece, fresh_knowledge
from tests.packaging.samples import content_of, every_kind, levels

DECODER = Path(featherweight.packaging.__file__).parent / "decoder"
STRICT = ["-std=c99", "-Wall", "-Wextra", "-Werror", "-pedantic"]
SANITIZED = ["-O1", "-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"]

Decode = Callable[[bytes, bytes | None], tuple[int, bytes | None, str]]


@pytest.fixture(scope="module", params=["gcc", "clang"])
def decode(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Decode:
    """The command-line decoder, with sanitizers: (package, base) to (exit code, output, complaint)."""
    if shutil.which(request.param) is None:
        pytest.skip(f"no compiler {request.param} on this machine")
    folder = tmp_path_factory.mktemp("decoder")
    sources = [DECODER / "featherweight_decoder.c", DECODER / "fwdecode.c"]
    subprocess.run([request.param, *STRICT, *SANITIZED, *sources, "-o", folder / "fwdecode"], check=True)

    def run(package: bytes, base: bytes | None) -> tuple[int, bytes | None, str]:
        (folder / "in").write_bytes(package)
        (folder / "base").write_bytes(base or b"")
        out = folder / "out"
        out.unlink(missing_ok=True)
        words = [folder / "fwdecode", folder / "in", out, *([] if base is None else [folder / "base"])]
        done = subprocess.run(words, capture_output=True, text=True, env=os.environ | {"LC_ALL": "C"}, check=False)
        return done.returncode, out.read_bytes() if out.exists() else None, done.stderr

    return run


@pytest.mark.parametrize("name", every_kind())
def test_c_gives_the_bytes_that_python_packed(decode: Decode, name: str):
    content = every_kind()[name]
    assert decode(encode_package(content), None) == (0, content.joined(), "")


def test_c_decodes_an_update_and_refuses_another_base(decode: Decode):
    old, new = content_of([levels(1, (30, 40), 2)], b"graph"), content_of([levels(2, (30, 40), 2)], b"Graph")
    update = encode_package(new, old)
    assert decode(update, old.joined()) == (0, new.joined(), "")
    for wrong in (None, b"", new.joined()):
        code, output, complaint = decode(update, wrong)
        assert (code, output) == (1, None)
        assert "an update of another version" in complaint


def test_c_refuses_what_is_damaged_or_cut_off(decode: Decode):
    package = encode_package(Content({"artefact": b"a graph and its names"}))
    for place in range(0, len(package), 5):
        damaged = package[:place] + bytes([package[place] ^ 255]) + package[place + 1 :]
        for broken in (damaged, package[:place]):
            code, output, complaint = decode(broken, None)
            assert (code, output) == (1, None)
            assert complaint.startswith("fwdecode: ")


def _forged(pieces: list[Piece], stream: bytes) -> tuple[bytes, bytes]:
    """A package whose stream nobody encoded, and what Python makes of it."""
    output, coded, reg = (
        np.zeros(sum(piece.length for piece in pieces), np.uint8),
        bytes_array(stream),
        registers(DECODE),
    )
    known, place = fresh_knowledge(output, bytes_array(b"")), 0
    start_decoding(reg, coded)
    for piece in pieces:
        code_piece(piece, place, known, reg, coded)
        place += piece.length
    held = output.tobytes()
    header = Header(len(held), hashlib.sha256(held).digest(), 4096, 1, {"files": [["a", len(held)]]})
    return write_header(header) + write_section(Section(tuple(pieces), stream)), held


@pytest.mark.parametrize("contexts", [3, 4, 5, 6])
@pytest.mark.parametrize("balanced", [False, True])
@pytest.mark.parametrize("likely", [0, 255, None])
def test_c_and_python_agree_on_streams_that_nobody_encoded(
    decode: Decode, contexts: int, balanced: bool, likely: int | None
):
    """They drive states, weights and levels to where no tensor would."""
    random = np.random.default_rng(contexts)
    stream = random.integers(0, 256, 6000).astype(np.uint8)
    if likely is not None:
        stream[random.random(6000) < 0.98] = likely
    pieces: list[Piece] = [
        Levels(4 * 20 * 30, "int32", 20, 6, 5, across=one, balanced=balanced, contexts=contexts)
        for one in (False, True)
    ]
    pieces[1:1] = [
        Levels(4 * 300, "int32", 10, 5, balanced=not balanced, contexts=9 - contexts, top=40),
        Bytes(200, 4, 4),
    ]
    package, held = _forged(pieces, stream.tobytes())
    assert decode(package, None) == (0, held, "")
