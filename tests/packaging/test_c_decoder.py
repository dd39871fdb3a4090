from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

import featherweight.packaging
from featherweight.packaging.package import Content, encode_package
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
