from __future__ import annotations

import textwrap

import pytest
import torch
from torch import nn

from featherweight.contracts import ModelError
from featherweight.frontends import load_model

NETWORK = """
    import torch
    from torch import nn

    def made():
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.BatchNorm1d(4), nn.Linear(4, 2))

    def returns_class(): return nn.Linear
    def returns_state(): return made().state_dict()
    def returns_nothing(): return None
    def no_parameters(): return nn.ReLU()
    def lazy(): return nn.LazyLinear(3)
    def on_meta(): return nn.Linear(2, 2, device="meta")

    def nan_weight():
        model = made()
        model[3].weight.data[0, 1] = float("nan")
        return model

    def infinite_weight():
        model = made()
        model[0].bias.data[:2] = float("-inf")
        return model

    def nan_buffer():
        model = made()
        model[2].running_var[0] = float("nan")
        return model

    def masked():
        model = made()
        model.register_buffer("mask", torch.tensor([0.0, float("-inf")]))
        return model
"""


@pytest.fixture
def network(tmp_path):
    path = tmp_path / "net.py"
    path.write_text(textwrap.dedent(NETWORK))
    return str(path)


def test_function_gives_the_module_as_it_was_made(network):
    model = load_model(f"{network}:made")
    assert isinstance(model, nn.Sequential)
    assert model.training


@pytest.mark.parametrize(
    ("function", "told"),
    [
        ("returns_class", "the class Linear"),
        ("returns_state", "with --weights"),
        ("returns_nothing", "a NoneType"),
        ("no_parameters", "a ReLU without any"),
        ("lazy", "weight has no shape yet"),
        ("on_meta", "weight is on the meta device"),
        ("nan_weight", r"1 of 8 values of the parameter 3\.weight are NaN or infinite"),
        ("infinite_weight", r"2 of 4 values of the parameter 0\.bias are NaN or infinite"),
        ("nan_buffer", r"1 of 4 values of the buffer 2\.running_var are NaN or infinite"),
    ],
)
def test_what_is_no_sound_module_is_refused(network, function, told):
    with pytest.raises(ModelError, match=told):
        load_model(f"{network}:{function}")


def test_infinite_masks_are_no_fault(network):
    assert torch.isinf(load_model(f"{network}:masked").get_buffer("mask")).any()


@pytest.mark.parametrize("source", ["weights.safetensors", "net.pt", "net.onnx", "net.keras"])
def test_weights_in_place_of_a_model(source):
    with pytest.raises(ModelError, match="A model is a function that builds it"):
        load_model(source)


def test_weights_beside_an_exported_program():
    with pytest.raises(ModelError, match="brings its own weights"):
        load_model("net.pt2", "weights.safetensors")


def test_weights_are_put_in_and_checked(network, tmp_path):
    state = {name: torch.full_like(value, 2) for name, value in load_model(f"{network}:made").state_dict().items()}
    torch.save(state, tmp_path / "two.pt")
    assert all((value == 2).all() for value in load_model(f"{network}:made", str(tmp_path / "two.pt")).parameters())
    state["0.bias"] = torch.full((4,), float("nan"))
    torch.save(state, tmp_path / "nan.pt")
    with pytest.raises(ModelError, match=r"4 of 4 values of the parameter 0\.bias"):
        load_model(f"{network}:made", str(tmp_path / "nan.pt"))
