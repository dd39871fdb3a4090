"""An ``.onnx`` file run and timed in ONNX Runtime."""

from __future__ import annotations

import json
import re
import statistics
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from featherweight.contracts import DataError, LoweringError, Timing
from featherweight.targets.seam import Runner

_WARM_UPS = 10
_TYPES = {"float": "float32", "double": "float64"}
_BATCH = 64  # samples at a time: activations of more need not fit


def read_model(content: bytes, origin: object = "the file") -> Any:
    """The file as a protocol buffer (``ModelProto``); ``origin`` names it in messages.

    Raises:
        LoweringError: it isn't one, or its weights lie in other files.
    """
    from google.protobuf.message import DecodeError  # noqa: PLC0415  (comes with onnx)
    from onnx import ModelProto, TensorProto  # noqa: PLC0415

    try:
        model = ModelProto.FromString(content)
    except DecodeError as error:
        raise _unloadable(origin, str(error)) from error
    outside = [one.name for one in model.graph.initializer if one.data_location == TensorProto.EXTERNAL]
    if outside:
        raise LoweringError(
            "An .onnx file must hold its own weights.",
            f"{origin}: {len(outside)} lie in other files ({', '.join(outside[:4])})",
            "save it as one file: onnx.save(model, path, save_as_external_data=False)",
        )
    return model


def _unloadable(origin: object, words: str) -> LoweringError:
    return LoweringError(
        "ONNX Runtime must load the file.",
        f"{origin}: {(words.splitlines() or ['it gave no reason'])[0][:300]}",
        "is it a whole .onnx file? convert it again",
    )


def _options(threads: int) -> Any:
    import onnxruntime  # noqa: PLC0415

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.log_severity_level = 4  # what goes wrong comes as an exception
    options.add_session_config_entry("session.force_spinning_stop", "1")  # several files are timed in turns
    return options


def session(content: bytes, options: Any = None, origin: object = "the file") -> Any:
    """A session of the runtime on the CPU, ready to run; ``origin`` names the file in messages.

    Raises:
        LoweringError: ONNX Runtime can't load the file.
    """
    import onnxruntime  # noqa: PLC0415

    read_model(content, origin)
    try:
        return onnxruntime.InferenceSession(
            content, options or _options(1), providers=["CPUExecutionProvider"], enable_fallback=False
        )
    except Exception as error:  # the runtime's exceptions share no other base
        raise _unloadable(origin, str(error)) from error


def optimized(content: bytes) -> Any:
    """The model as the runtime rewrites it for itself, kernels chosen; layouts of one processor left out."""
    import onnxruntime  # noqa: PLC0415

    options = _options(1)
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "optimized.onnx"
        options.optimized_model_filepath = str(path)
        session(content, options)
        return read_model(path.read_bytes())


def runner(path: Path) -> Runner:
    """A callable on batches: inputs as the network takes them, outputs as reals, batch first.

    A file for one sample is run sample by sample. So is one that finds ranges per inference, as it will be in use: its
    answers depend on what is inferred together.

    Raises:
        LoweringError: ONNX Runtime can't load the file, or it has several outputs.
    """
    content = path.read_bytes()
    made = session(content, origin=path)
    inputs, outputs = _inputs_of(made), made.get_outputs()
    if len(outputs) != 1:
        raise LoweringError(
            "A file to measure has one output.", f"{path}: {len(outputs)}", "convert the one that counts"
        )
    alone = any(node.op_type == "DynamicQuantizeLinear" for node in read_model(content).graph.node)
    size = _batch_size(path, inputs, 1 if alone else _BATCH)

    def run(batch: tuple[np.ndarray, ...]) -> np.ndarray:
        _check_samples(path, inputs, batch)
        given = {one.name: np.ascontiguousarray(x, type_of(one)) for one, x in zip(inputs, batch, strict=True)}
        rows = [
            _run(made, {name: x[at : at + size] for name, x in given.items()}) for at in range(0, len(batch[0]), size)
        ]
        return np.concatenate(rows)

    return run


def type_of(one: Any) -> str:
    """The type of a session's input or output, as numpy calls it where numpy has it."""
    kind = str(one.type).removeprefix("tensor(").removesuffix(")")
    return _TYPES.get(kind, kind)


def _inputs_of(made: Any) -> Sequence[Any]:
    """The inputs of a session.

    Raises:
        LoweringError: one isn't a tensor of numbers.
    """
    inputs = made.get_inputs()
    for one in inputs:
        if not one.type.startswith("tensor(") or not re.fullmatch(r"(float|u?int)[0-9]+|bool", type_of(one)):
            raise LoweringError(
                "Inputs of a file to measure are tensors of numbers.",
                f"{one.name!r} is a {one.type}",
                "export it with such inputs",
            )
    return inputs


def _run(made: Any, given: Mapping[str, np.ndarray]) -> np.ndarray:
    """The first output of one inference.

    Raises:
        LoweringError: the runtime can't run the file on what it was given.
    """
    try:
        return made.run(None, dict(given))[0]
    except Exception as error:  # the runtime's exceptions share no other base
        raise LoweringError(
            "ONNX Runtime must run the file.",
            (str(error).splitlines() or ["it gave no reason"])[0][:300],
            "is it meant for other inputs? convert it again",
        ) from error


def _batch_size(path: Path, inputs: Sequence[Any], free: int) -> int:
    """How many samples a file takes at once: one for all inputs of a fixed batch of 1, else ``free``."""
    sizes = {one.shape[0] if one.shape else None for one in inputs}
    if all(isinstance(size, str) or size is None for size in sizes):
        return free
    if sizes == {1}:
        return 1
    raise LoweringError(
        "A file to measure takes any number of samples, or one.",
        f"{path}: {', '.join(map(str, sizes))}",
        "export it with a free batch dimension",
    )


def _check_samples(path: Path, inputs: Sequence[Any], batch: tuple[np.ndarray, ...]) -> None:
    wanted = [tuple(one.shape[1:]) for one in inputs]
    given = [x.shape[1:] for x in batch]
    fits = len(wanted) == len(given) and all(
        len(one) == len(other)
        and all(isinstance(a, str) or a is None or a == b for a, b in zip(one, other, strict=True))
        for one, other in zip(wanted, given, strict=True)
    )
    if not fits:
        names = [", ".join(str(shape) for shape in shapes) for shapes in (wanted, given)]
        raise DataError(
            "Samples must have the shape that the file takes.",
            f"{names[1]} for {path}, which takes {names[0]}",
            "give the data that the network was made for",
        )
    whole = [
        one.name
        for one, x in zip(inputs, batch, strict=True)
        if np.issubdtype(x.dtype, np.floating) and not type_of(one).startswith("float")
    ]
    if whole:
        raise DataError(
            "A file that takes whole numbers needs whole numbers.",
            f"reals for {', '.join(whole)} of {path}, which says nothing of a scale",
            "give the data as the file takes them",
        )


def _sample(made: Any, seed: int = 0) -> Mapping[str, np.ndarray]:
    """One sample of noise; zeros where whole numbers go in."""
    generator = np.random.default_rng(seed)
    given = {}
    for one in _inputs_of(made):
        shape = [size if isinstance(size, int) else 1 for size in one.shape]
        real = type_of(one).startswith("float")
        given[one.name] = (generator.standard_normal(shape) if real else np.zeros(shape)).astype(type_of(one))
    return given


def benchmark(paths: Sequence[Path], *, runs: int = 100, threads: int = 1) -> list[Timing]:
    """Milliseconds for one sample of several files, taken in turns so that all meet the same machine."""
    made = [session(path.read_bytes(), _options(threads), path) for path in paths]
    given = [_sample(one) for one in made]
    for one, sample in zip(made, given, strict=True):
        for _ in range(_WARM_UPS):
            _run(one, sample)
    times: list[list[float]] = [[] for _ in made]
    for _ in range(runs):
        for one, sample, taken in zip(made, given, times, strict=True):
            start = time.perf_counter()
            one.run(None, sample)
            taken.append(1000 * (time.perf_counter() - start))
    return [Timing(statistics.median(t), float(np.percentile(t, 90)), runs, threads) for t in times]


def profile(path: Path, *, runs: int = 30) -> list[tuple[str, float]]:
    """(operator, median milliseconds) in execution order, from the runtime's own clock.

    It counts whole microseconds, cut off: half of one is added, the mean of what was cut.
    """
    with tempfile.TemporaryDirectory() as folder:
        options = _options(1)
        options.enable_profiling, options.profile_file_prefix = True, str(Path(folder) / "profile")
        made = session(path.read_bytes(), options, path)
        sample = _sample(made)
        for _ in range(runs + _WARM_UPS):
            _run(made, sample)
        events = json.loads(Path(made.end_profiling()).read_text())
    taken: dict[str, list[float]] = {}
    operators: dict[str, str] = {}
    for event in events:
        if event.get("cat") == "Node" and event["name"].endswith("_kernel_time"):
            key = f"{event['args']['node_index']}"
            operators[key] = event["args"]["op_name"]
            taken.setdefault(key, []).append((event["dur"] + 0.5) / 1000)
    return [(operators[key], statistics.median(times[_WARM_UPS:])) for key, times in taken.items()]
