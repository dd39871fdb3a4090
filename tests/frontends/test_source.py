from __future__ import annotations

import sys
import textwrap

import pytest

from featherweight.contracts import DataError, GoalError, ModelError
from featherweight.frontends.source import resolve


@pytest.fixture(autouse=True)
def clean_modules():
    known = set(sys.modules)
    yield
    for name in set(sys.modules) - known:
        del sys.modules[name]


@pytest.fixture
def write(tmp_path):
    def write_file(name, text):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text))
        return str(path)

    return write_file


def test_function_of_a_file_is_called(write):
    assert resolve(write("a.py", "def made(): return 41 + 1") + ":made", DataError) == 42


def test_class_counts_as_a_function(write):
    source = write("a.py", "class Made:\n    size = 3\n") + ":Made"
    assert resolve(source, ModelError).size == 3


def test_function_of_an_installed_module():
    assert resolve("collections:OrderedDict", DataError) == {}


def test_module_in_the_current_folder(write, tmp_path, monkeypatch):
    write("pack/__init__.py", "")
    write("pack/net.py", "def made(): return 'here'")
    monkeypatch.chdir(tmp_path)
    assert resolve("pack.net:made", ModelError) == "here"


def test_files_of_one_name_in_two_folders_stay_apart(write):
    for folder in ("one", "two"):
        write(f"{folder}/helper.py", f"NAME = {folder!r}")
        write(f"{folder}/net.py", "import helper\ndef made():\n    import late\n    return helper.NAME + late.NAME")
        write(f"{folder}/late.py", f"NAME = {folder!r}")
    one, two = (write(f"{folder}/unused.py", "").replace("unused.py", "net.py:made") for folder in ("one", "two"))
    assert [resolve(source, ModelError) for source in (one, two, one)] == ["oneone", "twotwo", "oneone"]


def test_neighbours_stay_where_nothing_clashes(write):
    write("one/layers_of_one.py", "class Layer: pass")
    one = resolve(
        write("one/net.py", "from layers_of_one import Layer\ndef made(): return Layer()") + ":made", ModelError
    )
    resolve(write("two/digits.py", "def made(): return 1") + ":made", DataError)
    assert sys.modules[type(one).__module__].Layer is type(one)


def test_a_file_changed_between_loads_is_read_again(write):
    source = write("a.py", "def made(): return 1") + ":made"
    assert resolve(source, DataError) == 1
    write("a.py", "def made(): return 2")  # same length, maybe the same second: bytecode caches would miss it
    assert resolve(source, DataError) == 2


def test_path_is_left_as_it_was_and_nothing_is_written(write, tmp_path):
    path = list(sys.path)
    resolve(write("a.py", "import sys\nsys.path.append('elsewhere')\ndef made(): return 1") + ":made", DataError)
    assert sys.path == path
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.py"]


def test_dataclasses_with_text_annotations_load(write):
    text = """
        from __future__ import annotations
        from dataclasses import dataclass
        @dataclass
        class Settings:
            width: int = 3
        def made(): return Settings().width
    """
    assert resolve(write("a.py", text) + ":made", DataError) == 3


@pytest.mark.parametrize("source", ["net.py", ":made", "net.py:", "net.py:two words", "a b:made", "a..b:made"])
def test_words_that_name_no_function(source):
    with pytest.raises(ModelError, match=r"file\.py:function"):
        resolve(source, ModelError)


def test_missing_file(tmp_path):
    with pytest.raises(DataError, match=r"must exist") as caught:
        resolve(f"{tmp_path}/nowhere.py:made", DataError)
    assert "nowhere.py" in caught.value.got


def test_missing_module():
    with pytest.raises(ModelError, match=r"no module named no_such_package"):
        resolve("no_such_package.inner:made", ModelError)


def test_missing_function_lists_those_there(write):
    source = write("a.py", "def build(): pass\ndef _hidden(): pass\nnumber = 3")
    with pytest.raises(ModelError, match=r"functions in there: build$"):
        resolve(source + ":made", ModelError)
    with pytest.raises(ModelError, match=r"a int, which can't be called"):
        resolve(source + ":number", ModelError)


def test_function_that_wants_arguments(write):
    with pytest.raises(ModelError, match=r"without arguments.*\n.*'width'"):
        resolve(write("a.py", "def made(width): pass") + ":made", ModelError)


@pytest.mark.parametrize(
    ("body", "told"),
    [
        ("def made(): raise ValueError('first\\nthe reason')", r"ValueError: the reason \(a\.py, line 1\)"),
        ("def made(): raise SystemExit", r"SystemExit \(a\.py, line 1\)"),
        ("x = 1\n1 / 0", r"ZeroDivisionError: division by zero \(a\.py, line 2\)"),
        ("x = 1\ndef made(:", r"SyntaxError: .*a\.py, line 2"),
        ("import no_such_thing", r"ModuleNotFoundError: No module named 'no_such_thing'"),
    ],
)
def test_errors_of_user_code_show_their_last_line_and_are_chained(write, body, told):
    with pytest.raises(DataError, match=told) as caught:
        resolve(write("a.py", body) + ":made", DataError)
    assert isinstance(caught.value.__cause__, BaseException)


def test_module_that_fails_inside_is_told_from_a_missing_one(write, tmp_path, monkeypatch):
    write("broken_here.py", "import no_such_thing")
    write("failing_here.py", "1 / 0")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ModelError, match=r"must import without an error.*\n.*no_such_thing"):
        resolve("broken_here:made", ModelError)
    with pytest.raises(ModelError, match=r"ZeroDivisionError"):
        resolve("failing_here:made", ModelError)


def test_our_own_errors_pass_through(write):
    text = "from featherweight.contracts import GoalError\ndef made(): raise GoalError('rule', 'got', 'remedy')"
    with pytest.raises(GoalError):
        resolve(write("a.py", text) + ":made", ModelError)


def test_installed_modules_are_never_put_away(write, tmp_path):
    resolve(write("one/a.py", "import colorsys\ndef made(): return 1") + ":made", DataError)
    kept = sys.modules["colorsys"]
    resolve(write("two/a.py", "def made(): return 1") + ":made", DataError)
    assert sys.modules["colorsys"] is kept
