"""What the words ``file.py:function`` and ``package.module:function`` stand for: a call of a user's function.

The function is the user's own code and runs with the user's rights. While it loads and runs, modules that lie beside
it can be imported; afterwards ``sys.path`` is as before. Its neighbours stay in ``sys.modules`` (torch and ``inspect``
look classes up there) until a function is resolved whose folder has modules of the same names: two folders may both
have a ``net.py``.
"""

from __future__ import annotations

import hashlib
import importlib
import inspect
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

from featherweight.contracts import FeatherweightError

_PREFIX = "_featherweight_source_"
_EXAMPLE = "write it as file.py:function or package.module:function"

# Folder → the names that modules of that folder took in ``sys.modules``.
_neighbours: dict[Path, set[str]] = {}


def resolve(source: str, error: type[FeatherweightError]) -> Any:
    """What the function behind ``source`` returns when it is called without arguments.

    Args:
        source: ``file.py:function`` or ``package.module:function``; a class counts as a function.
        error: the kind of error to raise, ``ModelError`` or ``DataError``.

    Raises:
        FeatherweightError: of the kind ``error``: the words are off, there is no such file, module or function, it
            wants arguments, or it raises. Errors of Featherweight's own pass through unchanged.
    """
    with _module_of(source, error) as module:
        return _call(_function(module, source, error, 0), source, error)


def function_of(source: str, error: type[FeatherweightError], arguments: int) -> Callable[..., Any]:
    """The function behind ``source`` itself, not called.

    Args:
        source: ``file.py:function`` or ``package.module:function``; a class counts as a function.
        error: the kind of error to raise.
        arguments: how many it will be called with, by position.

    Raises:
        FeatherweightError: as of :func:`resolve`, but for the call.
    """
    with _module_of(source, error) as module:
        return _function(module, source, error, arguments)


@contextmanager
def _module_of(source: str, error: type[FeatherweightError]) -> Iterator[ModuleType]:
    """The module that ``source`` names, loaded, while its neighbours can be imported."""
    place, _, name = source.rpartition(":")
    if not place or not name.isidentifier():
        raise error("A function of yours is named by a file or module, a colon and its name.", repr(source), _EXAMPLE)
    is_file = place.endswith(".py")
    folder = Path(place).resolve().parent if is_file else Path.cwd()
    with _importing_from(folder):
        yield _load_file(Path(place), error) if is_file else _load_module(place, error)


@contextmanager
def _importing_from(folder: Path) -> Iterator[None]:
    """Makes the modules of ``folder`` importable for a while, before those of the same names from other folders."""
    for other in _neighbours.keys() - {folder}:
        for name in {name for name in _neighbours[other] if _has(folder, name.partition(".")[0])}:
            _neighbours[other].discard(name)
            sys.modules.pop(name, None)
    path, known = list(sys.path), set(sys.modules)
    sys.path.insert(0, str(folder))
    importlib.invalidate_caches()
    try:
        yield
    finally:
        sys.path[:] = path
        new = {name for name in set(sys.modules) - known if name.partition(".")[0] not in known}
        _neighbours.setdefault(folder, set()).update(name for name in new if _lies_in(name, folder))


def _has(folder: Path, top: str) -> bool:
    return (folder / f"{top}.py").is_file() or (folder / top).is_dir()


def _lies_in(name: str, folder: Path) -> bool:
    """Whether the top-level package of module ``name`` is a file or folder directly inside ``folder``."""
    top = name.partition(".")[0]
    module = sys.modules.get(top)
    if module is None or top.startswith(_PREFIX):
        return False
    places = list(getattr(module, "__path__", ())) or [getattr(module, "__file__", None) or ""]
    return any(Path(place).resolve().parent == folder for place in places if place)


def _load_file(path: Path, error: type[FeatherweightError]) -> ModuleType:
    """Runs a file as a module under a name of its own, without writing bytecode beside it."""
    if not path.is_file():
        raise error("The file with the function must exist.", str(path), "check the path; it is relative to here")
    name = _PREFIX + hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:16]
    module = ModuleType(name)
    module.__file__ = str(path.resolve())
    # Dataclasses and torch look a class's module up by name while the file runs.
    sys.modules[name] = module
    try:
        exec(compile(path.read_bytes(), str(path), "exec"), vars(module))
    except (Exception, SystemExit) as failure:
        del sys.modules[name]
        raise _raised(f"{path} must load without an error.", failure, error) from failure
    return module


def _load_module(name: str, error: type[FeatherweightError]) -> ModuleType:
    if not all(part.isidentifier() for part in name.split(".")):
        raise error("The part before the colon must be a .py file or a module's dotted name.", repr(name), _EXAMPLE)
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as failure:
        if failure.name is not None and (name + ".").startswith(failure.name + "."):
            remedy = "check the name; modules are looked for here and among the installed packages"
            raise error("The module with the function must exist.", f"no module named {failure.name}", remedy) from None
        raise _raised(f"{name} must import without an error.", failure, error) from failure
    except (Exception, SystemExit) as failure:
        raise _raised(f"{name} must import without an error.", failure, error) from failure


def _function(module: ModuleType, source: str, error: type[FeatherweightError], arguments: int) -> Callable[..., Any]:
    name = source.rpartition(":")[2]
    function = getattr(module, name, None)
    if not callable(function):
        own = (key for key, value in vars(module).items() if inspect.isfunction(value) and not key.startswith("_"))
        found = ", ".join(sorted(own)) or "none"
        got = "nothing of that name" if function is None else f"a {type(function).__name__}, which can't be called"
        raise error(f"{source} must name a function.", got, f"functions in there: {found}")
    try:
        inspect.signature(function).bind(*range(arguments))
    except TypeError as failure:
        how = f"with {arguments} arguments" if arguments else "without arguments"
        remedy = "give its parameters defaults, or write a function around it"
        raise error(f"{source} must be callable {how}.", str(failure), remedy) from failure
    except ValueError:
        pass  # written in C, without a signature to ask; the call will tell
    return function


def _call(function: Callable[[], Any], source: str, error: type[FeatherweightError]) -> Any:
    try:
        return function()
    except FeatherweightError:
        raise
    except (Exception, SystemExit) as failure:
        raise _raised(f"{source} must return without an error.", failure, error) from failure


def _raised(rule: str, failure: BaseException, error: type[FeatherweightError]) -> FeatherweightError:
    """The failure of user code as one of ours: its kind, the last line of its message, and where it arose."""
    message = str(failure).strip().splitlines()
    got = ": ".join([type(failure).__name__, *message[-1:]])
    frames = traceback.extract_tb(failure.__traceback__)
    if frames and not isinstance(failure, SyntaxError):  # a syntax error's message holds the place already
        got += f" ({Path(frames[-1].filename).name}, line {frames[-1].lineno})"
    return error(rule, got, "call it from Python to see the whole traceback, and mend it there")
