"""Programs that want to run code are refused before torch sees them; where torch alone would run it, that is shown."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import os
import pickle
import warnings
import zipfile

import pytest
import torch

from featherweight.contracts import ModelError
from featherweight.frontends import load_model
from tests.frontends.programs import CONSTANTS, MODEL, WEIGHTS, entries_of, nodes


class Payload:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def load_freely(path):
    """What torch does with the file, whatever comes of it."""
    logging.disable(logging.CRITICAL)
    try:
        with contextlib.suppress(Exception), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.export.load(path).module()(torch.rand(2, 1, 4, 4))
    finally:
        logging.disable(logging.NOTSET)


def evaluated(proof):
    """Code that makes a folder, as a Python expression."""
    return f"__import__('os').mkdir('{proof}')"


def expression(document, text):
    for value in document["graph_module"]["graph"]["tensor_values"].values():
        for size in value["sizes"]:
            if "as_expr" in size:
                size["as_expr"]["expr_str"] = text


def test_a_size_expression_that_runs_code(tampered, tmp_path):
    proof = tmp_path / "proof"
    path = tampered(MODEL, lambda document: expression(document, evaluated(proof)))
    with pytest.raises(ModelError, match=r"can run code.*\n.*the size expression"):
        load_model(str(path))
    assert not proof.exists()
    load_freely(path)
    assert proof.exists()  # the trap was armed


@pytest.mark.parametrize(
    "text",
    [
        "().__class__",
        "Integer(1).func",
        "eval('1')",
        "Symbol('s0', positive=[])",
        "lambda: 0",
        "s0 if s0 else s1",
        "Integer(1) # '\n'",
        "Pow(Integer(9), Pow(Integer(9), Integer(9)))",
        "Pow(Integer(9), Integer(999))",
        "Symbol('__import__')",
        "+".join(["s0"] * 6000),
        "sympify('s0')",
    ],
)
def test_size_expressions_beyond_arithmetic(tampered, text):
    with pytest.raises(ModelError, match="the size expression"):
        load_model(str(tampered(MODEL, lambda document: expression(document, text))))


def test_an_operator_that_runs_code(tampered, tmp_path):
    proof = tmp_path / "proof"

    def change(document):
        first = nodes(document)[0]
        call = {
            "target": "torch.os.mkdir",
            "inputs": [{"name": "", "arg": {"as_string": str(proof)}, "kind": 1}],
            "outputs": [{"as_none": True}],
            "metadata": first["metadata"],
            "is_hop_single_tensor_return": None,
            "name": "made",
        }
        nodes(document).insert(0, call)

    path = tampered(MODEL, change)
    with pytest.raises(ModelError, match=r"the operator 'torch\.os\.mkdir'"):
        load_model(str(path))
    assert not proof.exists()


@pytest.mark.parametrize(
    "target",
    [
        "torch.ops.aten.from_file.default",
        "torch.ops.aten.save.default",
        "torch.ops.load_library",
        "torch.ops.loaded_libraries.add.x",
        "torch.ops.aten.__class__.__name__",
        "torch.ops.aten.conv2d.no_such",
        "torch.ops.inductor.resize_storage_bytes_.default",
        "torch.ops.higher_order.triton_kernel_wrapper_mutation",
        "torch.load",
        "_operator.methodcaller",
        "math.__loader__",
        "#ext:op",
        "anything",
    ],
)
def test_operators_beyond_computing(tampered, target):
    with pytest.raises(ModelError, match="the operator"):
        load_model(str(tampered(MODEL, lambda document: nodes(document)[0].update(target=target))))


def test_operators_hidden_under_names_of_the_files_own(tampered):
    """A key that the file may choose must not be taken for a field that holds free text."""

    def change(document):
        nodes(document)[0]["inputs"].append(
            {"name": "x", "arg": {"as_string_to_argument": {"metadata": {"as_operator": "torch.load"}}}, "kind": 2}
        )

    with pytest.raises(ModelError, match=r"the operator 'torch\.load'"):
        load_model(str(tampered(MODEL, change)))


@pytest.mark.parametrize("field", ["name", "as_name", "forward_arg_names", "graph"])
def test_names_that_would_be_pasted_into_code(tampered, tmp_path, field):
    code = f"x=({evaluated(tmp_path / 'proof')})"

    def change(document):
        if field == "name":
            nodes(document)[0]["name"] = code
        elif field == "as_name":
            nodes(document)[0]["inputs"][0]["arg"] = {"as_sym_int": {"as_name": code}}
        elif field == "forward_arg_names":
            document["graph_module"]["module_call_graph"][0]["signature"]["forward_arg_names"] = [code]
        else:
            graph = document["graph_module"]["graph"]
            graph["tensor_values"][code] = next(iter(graph["tensor_values"].values()))

    path = tampered(MODEL, change)
    with pytest.raises(ModelError, match=r"the name .x=\("):
        load_model(str(path))
    assert not (tmp_path / "proof").exists()


def test_a_keyword_that_runs_code(tampered, tmp_path):
    proof = tmp_path / "proof"

    def change(document):
        call = next(node for node in nodes(document) if "higher_order" in node["target"])
        call["inputs"].append({"name": f"a={evaluated(proof)}, b", "arg": {"as_int": 1}, "kind": 2})

    path = tampered(MODEL, change)
    with pytest.raises(ModelError, match=r"the name .a=__import__"):
        load_model(str(path))
    assert not proof.exists()
    load_freely(path)
    torch.set_grad_enabled(True)  # torch left them off when the trap sprang
    assert proof.exists()  # the trap was armed


@pytest.mark.parametrize(
    "spec",
    [
        {"type": "collections.namedtuple", "context": "null", "children_spec": []},
        {"type": "collections.defaultdict", "context": {"default_factory_module": "os"}, "children_spec": []},
        {"type": "builtins.dict", "context": '{"__enum__": true, "fqn": "antigravity:x"}', "children_spec": []},
        {"type": "builtins.dict", "context": '["a b"]', "children_spec": []},
        {"type": "builtins.dict", "context": '[["a"]]', "children_spec": []},
    ],
)
def test_trees_beyond_tuples_lists_and_dicts(tampered, spec):
    def change(document):
        signature = document["graph_module"]["module_call_graph"][0]["signature"]
        signature["out_spec"] = json.dumps([1, {"type": "builtins.tuple", "context": "null", "children_spec": [spec]}])

    with pytest.raises(ModelError, match="can run code"):
        load_model(str(tampered(MODEL, change)))


@pytest.mark.parametrize("path", ["__class__.forward", "conv.__dict__.weight", "a b", "conv;weight"])
def test_parameter_names_that_reach_into_classes(tampered, path):
    def change(document):
        specs = document["graph_module"]["signature"]["input_specs"]
        next(spec for spec in specs if "parameter" in spec)["parameter"]["parameter_name"] = path

    with pytest.raises(ModelError, match=f"the name '{path}'"):
        load_model(str(tampered(MODEL, change)))


def test_guards_are_never_run(tampered, tmp_path):
    proof = tmp_path / "proof"
    path = tampered(MODEL, lambda document: document.update(guards_code=[f"{evaluated(proof)} is None"]))
    load_model(str(path))(torch.rand(2, 1, 4, 4))
    assert not proof.exists()
    load_freely(path)
    assert proof.exists()  # the trap was armed


@pytest.mark.parametrize("config", [WEIGHTS, CONSTANTS])
def test_tensors_stored_as_pickles(tampered, tmp_path, config):
    proof = tmp_path / "proof"
    buffer = io.BytesIO()
    torch.save(Payload(proof), buffer)

    def change(document):
        payload = next(iter(document["config"].values()))
        payload["use_pickle"] = True

    prefix = "data/weights/weight_0" if config == WEIGHTS else "data/constants/tensor_0"
    path = tampered(config, change, put={prefix: buffer.getvalue()})
    with pytest.raises(ModelError, match="stored as a pickle"):
        load_model(str(path))
    assert not proof.exists()
    load_freely(path)
    assert proof.exists()  # the trap was armed


@pytest.mark.parametrize("kind", ["opaque_obj_0", "custom_obj_0"])
def test_objects_stored_as_pickles(tampered, tmp_path, kind):
    proof = tmp_path / "proof"

    def change(document):
        document["config"]["thing"] = {"path_name": kind, "is_param": False, "use_pickle": True, "tensor_meta": None}

    payload = {f"data/constants/{kind}": pickle.dumps(Payload(proof))}
    path = tampered(CONSTANTS, change, put=payload)
    with pytest.raises(ModelError, match=f"the entry data/constants/{kind}"):
        load_model(str(path))
    assert not proof.exists()
    if kind.startswith("opaque"):
        load_freely(path)
        assert proof.exists()  # the trap was armed


def test_sample_inputs_that_run_code(tampered, tmp_path):
    proof = tmp_path / "proof"
    buffer = io.BytesIO()
    torch.save(((Payload(proof),), {}), buffer)
    path = tampered(put={"data/sample_inputs/model.pt": buffer.getvalue()})
    with pytest.raises(ModelError, match=r"sample_inputs/model\.pt asks for posix\.mkdir"):
        load_model(str(path))
    assert not proof.exists()
    load_freely(path)
    assert proof.exists()  # the trap was armed


@pytest.mark.parametrize(
    "entry",
    ["data/weights/model.pt", "data/constants/model.pt", "data/aotinductor/model/a.so", "models/other.json", "x"],
)
def test_entries_that_dont_belong(tampered, entry):
    with pytest.raises(ModelError, match=f"the entry {entry}"):
        load_model(str(tampered(put={entry: b"x"})))


def test_custom_objects_in_the_program(tampered):
    def change(document):
        nodes(document)[0]["inputs"][0]["arg"] = {"as_custom_obj": {"name": "a", "class_fqn": "b"}}

    with pytest.raises(ModelError, match="a custom object"):
        load_model(str(tampered(MODEL, change)))


def test_tensors_that_claim_a_size_without_bytes(tampered):
    def change(document):
        payload = next(iter(document["config"].values()))
        payload["tensor_meta"]["sizes"] = [{"as_int": 2**40}]

    with pytest.raises(ModelError, match="without a byte"):
        load_model(str(tampered(WEIGHTS, change, put={"data/weights/weight_0": b""})))


def test_symbols_that_torch_would_count_up_to(tampered):
    def change(document):
        document["range_constraints"]["u9999999999"] = {"min_val": 0, "max_val": None}

    with pytest.raises(ModelError, match="the symbol 'u9999999999'"):
        load_model(str(tampered(MODEL, change)))


def test_the_old_format_is_refused_unopened(exported, tmp_path):
    proof, path = tmp_path / "proof", tmp_path / "net.pt2"
    buffer = io.BytesIO()
    torch.save(Payload(proof), buffer)
    names = ("serialized_exported_program.json", "serialized_constants.json", "serialized_example_inputs.json")
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("version", "8.20")
        archive.writestr("serialized_state_dict.json", buffer.getvalue())
        for name in names:
            archive.writestr(name, entries_of(exported)[MODEL] if "program" in name else b"")
    with pytest.raises(ModelError, match="one folder"):
        load_model(str(path))
    assert not proof.exists()


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_entries_that_come_twice(exported, tmp_path):
    path = tmp_path / "net.pt2"
    path.write_bytes(exported)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(archive.namelist()[0], b"")
    with pytest.raises(ModelError, match="every entry once"):
        load_model(str(path))
