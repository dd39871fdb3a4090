from __future__ import annotations

import pytest
import torch
from torch import nn

from featherweight.contracts import ModelError
from featherweight.frontends import load_model
from tests.frontends.programs import MODEL, WEIGHTS, archive_of, entries_of, export, nodes


def test_program_computes_what_the_model_did(network, exported, tmp_path):
    (tmp_path / "net.pt2").write_bytes(exported)
    model = load_model(str(tmp_path / "net.pt2"))
    for batch in (1, 2, 7):
        x = torch.rand(batch, 1, 4, 4)
        ours, theirs = model(x), network(x)
        torch.testing.assert_close(ours["logits"], theirs["logits"], rtol=0, atol=0)
        torch.testing.assert_close(ours["mean"][0], theirs["mean"][0], rtol=0, atol=0)
    assert {name for name, _ in model.named_parameters()} == {name for name, _ in network.named_parameters()}


def test_program_takes_train_and_eval_and_can_be_exported_again(exported, tmp_path):
    (tmp_path / "net.pt2").write_bytes(exported)
    model = load_model(str(tmp_path / "net.pt2"))
    x = torch.rand(3, 1, 4, 4)
    before = model(x)["logits"]
    with torch.no_grad():
        model.train()(x)
    assert model.eval()(x)["logits"].shape == before.shape
    assert not model.training
    (tmp_path / "again.pt2").write_bytes(export(model, x))
    assert torch.equal(load_model(str(tmp_path / "again.pt2"))(x)["logits"], model(x)["logits"])


class Sizes(nn.Module):
    def forward(self, x, y):
        z = torch.nn.functional.interpolate(self.conv(x), scale_factor=2.0)
        return z.flatten(1, 2)[:, 1:], torch.einsum("bi,bj->bij", y, y)

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 2, 3, stride=2)


class Recurrent(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = nn.ModuleDict({"layer-1": nn.LSTM(3, 4, num_layers=2, batch_first=True, bidirectional=True)})

    def forward(self, x):
        return self.inner["layer-1"](x)[0][:, -1]


class Choice(nn.Module):
    def __init__(self):
        super().__init__()
        self.left, self.right = nn.Linear(3, 2), nn.Linear(3, 2)

    def forward(self, x):
        return torch.cond(x.sum() > 0, self.left, self.right, (x,))


def test_size_expressions_of_real_programs_pass(tmp_path):
    batch, height = torch.export.Dim("batch"), torch.export.Dim("height", min=6, max=64)
    model, args = Sizes().eval(), (torch.rand(2, 1, 8, 8), torch.rand(2, 3))
    program = torch.export.export(model, args, dynamic_shapes=({0: batch, 2: height}, {0: batch}))
    torch.export.save(program, tmp_path / "net.pt2")
    x, y = torch.rand(3, 1, 14, 8), torch.rand(3, 3)
    for ours, theirs in zip(load_model(str(tmp_path / "net.pt2"))(x, y), model(x, y), strict=True):
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize(
    ("model", "x"),
    [
        (Recurrent(), torch.rand(2, 5, 3)),
        (Choice(), torch.rand(2, 3)),
        (nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), torch.rand(2, 4, 8)),
    ],
    ids=["lstm", "cond", "transformer"],
)
def test_other_networks_pass(tmp_path, model, x):
    (tmp_path / "net.pt2").write_bytes(export(model.eval(), x))
    torch.testing.assert_close(load_model(str(tmp_path / "net.pt2"))(x), model(x))


def test_an_archive_rewritten_as_it_was_still_loads(tampered, network):
    path = tampered(MODEL, lambda document: document.update(guards_code=["L['x'].size()[1] == 1"]))
    x = torch.rand(2, 1, 4, 4)
    assert torch.equal(load_model(str(path))(x)["logits"], network(x)["logits"])


def test_broken_programs(tampered):
    def shorten(document):
        del document["graph_module"]["signature"]

    def enlarge(document):
        next(iter(document["config"].values()))["tensor_meta"]["sizes"] = [{"as_int": 10_000}] * 4

    for arguments in (
        {"entry": WEIGHTS, "change": enlarge},
        {"put": {MODEL: b"{"}},
        {"put": {MODEL: b"[" * 100_000}},
        {"put": {WEIGHTS: b"[]"}},
        {"entry": MODEL, "change": shorten},
        {"entry": MODEL, "change": lambda document: nodes(document)[0].update(metadata={"stack_trace": {}})},
    ):
        with pytest.raises(ModelError, match=r"must be whole|must be able to load"):
            load_model(str(tampered(**arguments)))


def test_what_is_no_program(exported, tmp_path):
    path = tmp_path / "net.pt2"
    with pytest.raises(ModelError, match="must exist"):
        load_model(str(path))
    for content in (b"", b"no archive", exported[:-200], exported[: len(exported) // 2]):
        path.write_bytes(content)
        with pytest.raises(ModelError, match=r"an archive written by torch\.export\.save|is cut short"):
            load_model(str(path))
    torch.save(nn.Linear(2, 2).state_dict(), path)
    with pytest.raises(ModelError, match="a checkpoint goes with --weights"):
        load_model(str(path))
    entries = entries_of(exported)
    del entries[MODEL]
    path.write_bytes(archive_of(entries))
    with pytest.raises(ModelError, match="lacks it"):
        load_model(str(path))


def test_programs_in_training_mode(tmp_path):
    path = tmp_path / "net.pt2"
    for model in (nn.Sequential(nn.Linear(3, 3), nn.Dropout()), nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3))):
        path.write_bytes(export(model.train(), torch.rand(4, 3)))
        with pytest.raises(ModelError, match=r"model\.eval\(\) before exporting"):
            load_model(str(path))


def test_weights_that_arent_finite(tmp_path):
    model = nn.Linear(2, 2)
    model.weight.data[0, 0] = float("nan")
    (tmp_path / "net.pt2").write_bytes(export(model, torch.rand(2, 2)))
    with pytest.raises(ModelError, match="1 of 4 values of the parameter weight"):
        load_model(str(tmp_path / "net.pt2"))
