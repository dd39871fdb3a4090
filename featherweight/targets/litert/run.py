"""A ``.tflite`` file run and timed in LiteRT."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from featherweight.contracts import DataError, LoweringError, Timing
from featherweight.targets.litert import flatbuffer
from featherweight.targets.litert.lower import quiet
from featherweight.targets.seam import Runner

_WARM_UPS = 10


def interpreter(model: Path | bytes, threads: int = 1) -> Any:
    """A LiteRT interpreter, ready to run.

    Raises:
        LoweringError: LiteRT can't load the file.
    """
    from ai_edge_litert.interpreter import Interpreter  # noqa: PLC0415

    path, content = (None, model) if isinstance(model, bytes) else (str(model), None)
    try:
        with quiet():
            made = Interpreter(model_path=path, model_content=content, num_threads=threads)
            made.allocate_tensors()
    except (ValueError, RuntimeError) as error:
        got = f"{path or 'the model'}: {str(error).splitlines()[0]}"
        raise LoweringError(
            "LiteRT must load the file.", got, "is it a whole .tflite file? convert it again"
        ) from error
    return made


def runner(path: Path) -> Runner:
    """A callable on batches: inputs as the network takes them (images NCHW), outputs as reals, batch first.

    Raises:
        LoweringError: LiteRT can't load the file, or it has several outputs.
    """
    made = interpreter(path)
    inputs, outputs = made.get_input_details(), made.get_output_details()
    if len(outputs) != 1:
        raise LoweringError(
            "A file to measure has one output.", f"{path}: {len(outputs)}", "convert the one that counts"
        )
    output = outputs[0]

    def run(batch: tuple[np.ndarray, ...]) -> np.ndarray:
        turned = [x.transpose(0, 2, 3, 1) if _is_image(x) else x for x in batch]
        _check_shapes(path, [tuple(d["shape"][1:]) for d in inputs], [x.shape[1:] for x in turned])
        rows = []
        for sample in range(len(turned[0])):
            for detail, x in zip(inputs, turned, strict=True):
                made.set_tensor(detail["index"], _given(x[sample : sample + 1], detail))
            made.invoke()
            rows.append(_real(made.get_tensor(output["index"]), output))
        return np.concatenate(rows)

    return run


def _check_shapes(path: Path, wanted: list[tuple[int, ...]], given: list[tuple[int, ...]]) -> None:
    if wanted != given:
        names = [", ".join(str(tuple(map(int, shape))) for shape in shapes) for shapes in (wanted, given)]
        raise DataError(
            "Samples must have the shape that the file takes.",
            f"{names[1]} for {path}, which takes {names[0]} (images as height, width, channels)",
            "give the data that the network was made for",
        )


def _given(x: np.ndarray, detail: dict[str, Any]) -> np.ndarray:
    """Values as an input takes them: reals are rounded to its grid where it has one."""
    scale, zero = detail["quantization"]
    if scale and np.issubdtype(x.dtype, np.floating) and np.issubdtype(detail["dtype"], np.integer):
        ends = np.iinfo(detail["dtype"])
        x = np.clip(np.round(x / scale) + zero, ends.min, ends.max)
    return np.ascontiguousarray(x, dtype=detail["dtype"])


def _real(y: np.ndarray, detail: dict[str, Any]) -> np.ndarray:
    """Values of an output as reals."""
    scale, zero = detail["quantization"]
    if scale and np.issubdtype(y.dtype, np.integer):
        return ((y.astype(np.float32) - zero) * scale).astype(np.float32)
    return np.array(y)


def _is_image(x: np.ndarray) -> bool:
    return x.ndim == 4 and np.issubdtype(x.dtype, np.floating)


def _fill(made: Any, seed: int = 0) -> None:
    generator = np.random.default_rng(seed)
    for detail in made.get_input_details():
        shape, kind = detail["shape"], detail["dtype"]
        real = np.issubdtype(kind, np.floating)
        values = generator.standard_normal(shape) if real else np.zeros(shape)
        made.set_tensor(detail["index"], values.astype(kind))


def benchmark(paths: Sequence[Path], *, runs: int = 100, threads: int = 1) -> list[Timing]:
    """Milliseconds for one sample of several files, taken in turns so that all meet the same machine."""
    made = [interpreter(path, threads) for path in paths]
    for one in made:
        _fill(one)
        for _ in range(_WARM_UPS):
            one.invoke()
    times: list[list[float]] = [[] for _ in made]
    for _ in range(runs):
        for one, taken in zip(made, times, strict=True):
            start = time.perf_counter()
            one.invoke()
            taken.append(1000 * (time.perf_counter() - start))
    return [Timing(statistics.median(t), float(np.percentile(t, 90)), runs, threads) for t in times]


def profile(path: Path, *, runs: int = 30) -> list[tuple[str, float]]:
    """(operator, median milliseconds) in execution order, each operator timed alone as a file of its own."""
    content = path.read_bytes()
    model = flatbuffer.read_model(content)
    names = flatbuffer.operator_names(model)
    rows = []
    for index in flatbuffer.running_operators(model):
        made = interpreter(flatbuffer.single_operator(content, index))
        _fill(made)
        taken = []
        for _ in range(runs + 3):
            start = time.perf_counter()
            made.invoke()
            taken.append(1000 * (time.perf_counter() - start))
        rows.append((names[index], statistics.median(taken[3:])))
    return rows
