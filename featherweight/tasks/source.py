"""What DATA on the command line stands for."""

from __future__ import annotations

from pathlib import Path

from featherweight.contracts import DataError
from featherweight.frontends.source import resolve
from featherweight.tasks.data import Data
from featherweight.tasks.images import read_image_folder


def load_data(source: str, size: tuple[int, int] | None = None, seed: int = 0) -> Data:
    """The data behind a word of the command line.

    Args:
        source: a folder of images by class, or ``file.py:function`` or ``package.module:function``, where the function
            takes nothing and returns what ``Data.of`` takes.
        size: (height, width) to bring the images of a folder to; a function has its own way to do so.
        seed: for the splits of a folder that has none.

    Raises:
        DataError: there is no such folder or function, what it gives is no data, or a size came with a function.
    """
    if Path(source).is_dir():
        return read_image_folder(source, size, seed)
    if ":" not in source:
        raise DataError(
            "Data is a folder of images by class, or a function of yours.",
            f"{source!r}, which is no folder",
            "check the path, or write file.py:function or package.module:function",
        )
    if size is not None:
        raise DataError("A size is for a folder of images.", f"{size} with {source}", "resize within the function")
    made = resolve(source, DataError)
    place, _, function = source.rpartition(":")
    return Data.of(made, f"{Path(place).name}:{function}")
