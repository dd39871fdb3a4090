from __future__ import annotations

import argparse
import io
import os
import pickle
import zipfile

import pytest
import torch
from safetensors.torch import save_file, save_model
from torch import nn

from featherweight.contracts import ModelError
from featherweight.frontends.weights import load_weights


class Payload:
    """Unpickled freely, it creates a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def network(seed):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(8, 3))


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(5, 3)
        self.head = nn.Linear(3, 5, bias=False)
        self.head.weight = self.embed.weight


def assert_equal_state(left, right):
    theirs = right.state_dict()
    assert left.state_dict().keys() == theirs.keys()
    assert all(torch.equal(value, theirs[name]) for name, value in left.state_dict().items())


@pytest.mark.parametrize("nest", [None, "state_dict", "model", "model_state_dict"])
@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod.", "module._orig_mod."])
def test_checkpoints_of_every_layout(tmp_path, nest, prefix):
    source, model = network(1), network(2)
    state = {prefix + name: value for name, value in source.state_dict().items()}
    path = tmp_path / "weights.pt"
    torch.save(state if nest is None else {nest: state, "epoch": 3}, path)
    load_weights(model, path)
    assert_equal_state(model, source)


def test_checkpoint_of_the_old_format(tmp_path):
    source, model = network(1), network(2)
    torch.save(source.state_dict(), tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    load_weights(model, tmp_path / "old.pth")
    assert_equal_state(model, source)


def test_safetensors(tmp_path):
    source, model = network(1), network(2)
    save_file(source.state_dict(), tmp_path / "weights.safetensors")
    load_weights(model, tmp_path / "weights.safetensors")
    assert_equal_state(model, source)


def test_a_prefix_of_the_models_own_stays(tmp_path):
    source, model = (nn.ModuleDict({"module": network(seed)}) for seed in (1, 2))
    torch.save(source.state_dict(), tmp_path / "weights.pt")
    load_weights(model, tmp_path / "weights.pt")
    assert_equal_state(model, source)


def test_tied_weights_may_be_stored_once(tmp_path):
    source, model = Tied(), Tied()
    save_model(source, tmp_path / "tied.safetensors")
    load_weights(model, tmp_path / "tied.safetensors")
    assert_equal_state(model, source)
    assert model.head.weight is model.embed.weight


def test_smaller_floats_are_widened(tmp_path):
    source, model = network(1), network(2)
    save_file(
        {name: value.half() if value.is_floating_point() else value for name, value in source.state_dict().items()},
        tmp_path / "half.safetensors",
    )
    load_weights(model, tmp_path / "half.safetensors")
    assert torch.equal(model.get_parameter("0.weight"), source.get_parameter("0.weight").half().float())


def changed(changes):
    state = dict(network(1).state_dict())
    for name, value in changes.items():
        if value is None:
            del state[name]
        else:
            state[name] = value
    return state


@pytest.mark.parametrize(
    ("state", "told"),
    [
        (changed({"0.bias": None, "3.weight": None}), r"2 missing: 0\.bias \(2,\), 3\.weight \(3, 8\)"),
        (changed({"extra": torch.ones(4)}), r"1 unexpected: extra \(4,\)"),
        (changed({"3.bias": torch.ones(7)}), r"1 of another shape: 3\.bias: file \(7,\), model \(3,\)"),
        (changed({"3.bias": torch.ones(3, dtype=torch.int8)}), r"1 of another type: 3\.bias: file torch\.int8"),
        (changed({"3.bias": torch.ones(3).to_sparse()}), r"another type: 3\.bias: file .*sparse_coo"),
        (changed({"3.bias": torch.ones(3, device="meta")}), r"another type: 3\.bias: file .*meta"),
        (
            changed({name: None for name in network(1).state_dict() if not name.startswith("3")}),
            r"7 missing: .*, .*, .* and 4 more",
        ),
        (changed({"0.bias": None, "extra": torch.ones(1)}), r"1 missing: .*; 1 unexpected: "),
    ],
    ids=["missing", "unexpected", "shape", "type", "sparse", "meta", "many", "both"],
)
def test_weights_that_dont_fit(tmp_path, state, told):
    model = network(2)
    torch.save(state, tmp_path / "weights.pt")
    with pytest.raises(ModelError, match=told):
        load_weights(model, tmp_path / "weights.pt")
    assert_equal_state(model, network(2))


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ([torch.ones(1)], "holds a list"),
        (torch.ones(1), "holds a Tensor"),
        ({}, "holds nothing"),
        ({"epoch": 3, "lr": 0.1}, "holds epoch: int, lr: float"),
        ({"state_dict": {"a": 3}}, "holds a: int"),
        ({3: torch.ones(1)}, "must map names to tensors"),
    ],
)
def test_checkpoints_without_weights(tmp_path, content, told):
    torch.save(content, tmp_path / "weights.pt")
    with pytest.raises(ModelError, match=told):
        load_weights(network(2), tmp_path / "weights.pt")


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("wrap", [lambda payload: payload, lambda payload: {"state_dict": {"0.bias": payload}}])
def test_a_pickle_that_runs_code_is_refused_unopened(tmp_path, zipped, wrap):
    proof, path = tmp_path / "proof", tmp_path / "weights.pt"
    torch.save(wrap(Payload(proof)), path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(ModelError, match=r"can run code.*\n.*asks for posix\.mkdir.*\n.*safetensors"):
        load_weights(network(2), path)
    assert not proof.exists()
    torch.load(path, weights_only=False)
    assert proof.exists()  # the trap was armed


def test_a_plain_pickle_is_refused_unopened(tmp_path):
    proof, path = tmp_path / "proof", tmp_path / "weights.bin"
    path.write_bytes(pickle.dumps({"0.bias": Payload(proof)}))
    with pytest.raises(ModelError, match="a pickle of another kind"):
        load_weights(network(2), path)
    assert not proof.exists()


def test_harmless_objects_are_refused_by_name(tmp_path):
    path = tmp_path / "weights.pt"
    torch.save({"state_dict": network(1).state_dict(), "args": argparse.Namespace(lr=1)}, path)
    with pytest.raises(ModelError, match=r"asks for argparse\.Namespace"):
        load_weights(network(2), path)
    torch.save(network(1), path)
    with pytest.raises(ModelError, match=r"asks for torch\.nn\.modules\.container\.Sequential"):
        load_weights(network(2), path)


def saved_bytes(**options):
    buffer = io.BytesIO()
    torch.save(network(1).state_dict(), buffer, **options)
    return buffer.getvalue()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"no weights at all",
        saved_bytes()[:-50],
        saved_bytes()[:100],
        saved_bytes(_use_new_zipfile_serialization=False)[:-50],
        b"PK\x05\x06" + bytes(18),
    ],
    ids=["empty", "garbage", "cut", "start", "old-cut", "empty-zip"],
)
def test_broken_checkpoints(tmp_path, content):
    (tmp_path / "weights.pt").write_bytes(content)
    with pytest.raises(ModelError, match=r"weights\.pt"):
        load_weights(network(2), tmp_path / "weights.pt")


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"garbage, and then some more of it",
        (2**62).to_bytes(8, "little") + b"{}",
        (2).to_bytes(8, "little") + b"[]",
        b'\x40\x00\x00\x00\x00\x00\x00\x00{"w":{"dtype":"F32","shape":[4],"data_offsets":[0,16]}}        ' + b"\0\0",
    ],
    ids=["empty", "garbage", "huge-header", "no-object", "cut"],
)
def test_broken_safetensors(tmp_path, content):
    (tmp_path / "weights.safetensors").write_bytes(content)
    with pytest.raises(ModelError, match="whole safetensors file"):
        load_weights(network(2), tmp_path / "weights.safetensors")


def test_truncated_safetensors(tmp_path):
    path = tmp_path / "weights.safetensors"
    save_file(network(1).state_dict(), path)
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(ModelError, match="whole safetensors file"):
        load_weights(network(2), path)


def test_archives_that_unpack_to_more_are_refused(tmp_path):
    plain, packed = tmp_path / "plain.pt", tmp_path / "packed.pt"
    torch.save({"0.bias": torch.zeros(100_000)}, plain)
    with zipfile.ZipFile(plain) as source, zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as target:
        for entry in source.namelist():
            target.writestr(entry, source.read(entry))
    with pytest.raises(ModelError, match=r"unpacks to 4\d\d,\d\d\d"):
        load_weights(network(2), packed)


def test_torchscript_is_told_from_a_checkpoint(tmp_path):
    with zipfile.ZipFile(tmp_path / "script.pt", "w") as archive:
        for name in ("constants.pkl", "data.pkl", "version"):
            archive.writestr(f"script/{name}", b"3\n")
    with pytest.raises(ModelError, match="TorchScript archive"):
        load_weights(network(2), tmp_path / "script.pt")


def test_missing_file(tmp_path):
    with pytest.raises(ModelError, match="must exist"):
        load_weights(network(2), tmp_path / "none.pt")
