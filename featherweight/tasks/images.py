"""Images in folders, one folder a class: read into RGB (or grey) float32 NCHW in [0, 1], decoded when asked for."""

from __future__ import annotations

import hashlib
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from PIL import Image

from featherweight.contracts import DataError
from featherweight.tasks.data import SPLITS, Data, Split
from featherweight.tasks.samples import Rows

# Only these decoders are let near a stranger's file, whatever its ending says.
_FORMATS = ("PNG", "JPEG", "BMP", "WEBP")
_ENDINGS = (".png", ".jpg", ".jpeg", ".bmp", ".webp")
_ALIASES = {"val": "validation"}
_GREY = ("L", "1")
_DEEP = ("I", "F", "I;16", "I;16L", "I;16B", "I;16N")
_FRACTIONS = (0.2, 0.2)  # validation and test; the rest trains
_SHOWN = 3


@dataclass(frozen=True, slots=True)
class _Picture:
    """What the header of an image file tells, and the hash of the file."""

    path: Path
    size: tuple[int, int]
    mode: str
    digest: bytes


@dataclass(frozen=True, slots=True, eq=False)
class ImageSamples:
    """Image files, decoded when they are asked for.

    Attributes:
        pictures: the files, in order.
        targets: the class of each, (samples,) int64.
        size: (height, width) that every image is brought to, or None where all have one size already.
        mode: ``"RGB"``, or ``"L"`` for one grey channel.
    """

    pictures: tuple[_Picture, ...]
    targets: np.ndarray
    size: tuple[int, int] | None
    mode: Literal["RGB", "L"]

    def __len__(self) -> int:
        return len(self.pictures)

    def inputs(self, rows: Rows) -> tuple[torch.Tensor, ...]:
        """One tensor (rows, channels, height, width), float32 in [0, 1].

        Raises:
            DataError: files that don't decode, counted over all samples.
        """
        try:
            pixels = [self._pixels(self.pictures[int(row)]) for row in rows]
        except (OSError, SyntaxError, ValueError) as failure:
            broken = [picture.path for picture in self.pictures if not self._decodes(picture)]
            raise _undecodable(broken) from failure
        batch = torch.from_numpy(np.stack(pixels))
        batch = batch.unsqueeze(1) if self.mode == "L" else batch.permute(0, 3, 1, 2)
        return (batch.to(torch.float32, memory_format=torch.contiguous_format).div_(255.0),)

    def labels(self) -> np.ndarray | None:
        """The class numbers of all samples."""
        return self.targets

    def digests(self, rows: Rows) -> list[bytes]:
        """The files' hashes, together with how they are read."""
        how = f"{self.mode} {self.size}".encode()
        return [hashlib.sha256(how + self.pictures[int(row)].digest).digest() for row in rows]

    def _pixels(self, picture: _Picture) -> np.ndarray:
        """(height, width) or (height, width, 3), uint8."""
        with Image.open(picture.path, formats=_FORMATS) as image:
            # A palette with transparency needs the step over RGBA; the alpha channel itself is dropped.
            whole = image.convert("RGBA") if image.mode == "P" and "transparency" in image.info else image
            whole = whole.convert(self.mode)
            if self.size is not None:
                height, width = self.size
                whole = whole.resize((width, height), Image.Resampling.BILINEAR)
            return np.array(whole)

    def _decodes(self, picture: _Picture) -> bool:
        try:
            self._pixels(picture)
        except (OSError, SyntaxError, ValueError):
            return False
        return True


def read_image_folder(path: Path | str, size: tuple[int, int] | None = None, seed: int = 0) -> Data:
    """Data from image files, one folder a class.

    Args:
        path: holds ``class/*.png`` (or jpg, jpeg, bmp, webp), or ``train``, ``validation`` (or ``val``) and ``test``
            with such folders in each. Names that start with a dot, and files with other endings, are left alone.
        size: (height, width) to bring every image to, by antialiased bilinear resampling. Needed where they differ.
        seed: for the order of the samples, and for the splits where none are given: 60 / 20 / 20, stratified by class,
            copies of a file kept together.

    Returns:
        Samples (channels, height, width), one channel only if all images are grey. Classes are numbered by the sorted
        names of their folders, which ``class_names`` holds. EXIF orientation isn't applied.

    Raises:
        DataError: no images, too few to split, one class, a folder that doesn't belong, a link that leads outside,
            files that are no images or too large ones, sizes that differ, more than 8 bits per channel, or a file
            that is in more than one of the given splits.
    """
    root = Path(path)
    if not root.is_dir():
        raise DataError("The folder with the images must exist.", str(root), "check the path; it is relative to here")
    if size is not None and min(size) < 1:
        raise DataError("Images have a height and a width.", f"size = {size}", "give two positive numbers")
    given = _given_splits(root)
    files = {split: _files_by_class(folder, root) for split, folder in (given or {"": root}).items()}
    names = tuple(sorted({name for classes in files.values() for name in classes}))
    if len(names) < 2:
        got = ", ".join(names) or "no folder with images"
        raise DataError("Image data has at least two classes, one folder each.", f"{got} in {root}", f"see {_LAYOUT}")
    labelled = [
        (split, names.index(name), path)
        for split, classes in files.items()
        for name, paths in classes.items()
        for path in paths
    ]
    pictures = _read_headers([path for _, _, path in labelled])
    _check_pictures(pictures, size)
    targets = np.array([label for _, label, _ in labelled], dtype=np.int64)
    random = np.random.default_rng(seed)
    if given:
        homes = np.array([SPLITS.index(split) for split, _, _ in labelled])
        _check_given(pictures, homes)
    else:
        homes = _made_splits([picture.digest for picture in pictures], targets, names, random)
    # The files came class by class. Shuffled, the first few of a split stand for all of it.
    parts = [random.permutation(np.flatnonzero(homes == home)) for home in range(len(SPLITS))]
    mode = "L" if all(picture.mode in _GREY for picture in pictures) else "RGB"
    samples = ImageSamples(tuple(pictures), targets, size, mode)
    train, validation, test = (Split(samples, rows) for rows in parts)
    return Data(train, validation, test, root.resolve().name, names)


_LAYOUT = "the layout root/class/image.png, or root/{train,validation,test}/class/image.png"


def _given_splits(root: Path) -> dict[str, Path]:
    """The folders of the splits by name, or nothing where the folders are classes."""
    every = [folder for folder in _entries(root, root) if folder.is_dir()]
    folders = {_ALIASES.get(folder.name, folder.name): folder for folder in every}
    if "train" not in folders or not {"validation", "test"} & folders.keys():
        return {}
    if folders.keys() != set(SPLITS) or len(every) != len(SPLITS):
        got = f"{', '.join(folder.name for folder in every)} in {root}"
        raise DataError("Given splits are train, validation and test, and nothing beside.", got, f"use {_LAYOUT}")
    return {split: folders[split] for split in SPLITS}


def _files_by_class(folder: Path, root: Path) -> dict[str, list[Path]]:
    """The image files of every class folder, both sorted by name."""
    found: dict[str, list[Path]] = {}
    for entry in _entries(folder, root):
        if entry.is_dir():
            files = [file for file in _entries(entry, root) if file.suffix.lower() in _ENDINGS and file.is_file()]
            if not files:
                raise DataError("Every class folder holds images.", f"none in {entry}", f"use {_LAYOUT}")
            found[entry.name] = files
    return found


def _entries(folder: Path, root: Path) -> Iterator[Path]:
    """What a folder holds, by name. A link may point about inside ``root`` but not out of it."""
    inside = root.resolve()
    for entry in sorted(folder.iterdir()):
        if entry.name.startswith("."):
            continue
        if entry.is_symlink() and not entry.resolve().is_relative_to(inside):
            got = f"{entry} leads outside {root}"
            raise DataError("Links that leave the data's folder aren't followed.", got, "copy the files in")
        yield entry


def _read_headers(paths: Sequence[Path]) -> list[_Picture]:
    pictures: list[_Picture] = []
    broken: list[Path] = []
    for path in paths:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error", Image.DecompressionBombWarning)
                with path.open("rb") as file, Image.open(file, formats=_FORMATS) as image:
                    width, height, mode = *image.size, image.mode
                    file.seek(0)
                    digest = hashlib.file_digest(file, "sha256").digest()
        except (Image.DecompressionBombError, Image.DecompressionBombWarning) as failure:
            raise DataError(
                f"An image has at most {Image.MAX_IMAGE_PIXELS:,} pixels: a larger one could fill the memory.",
                f"{path}: {failure}",
                "scale it down first",
            ) from failure
        except (OSError, SyntaxError, ValueError):
            broken.append(path)
            continue
        pictures.append(_Picture(path, (height, width), mode, digest))
    if broken:
        raise _undecodable(broken)
    return pictures


def _check_pictures(pictures: Sequence[_Picture], size: tuple[int, int] | None) -> None:
    deep = [picture.path for picture in pictures if picture.mode in _DEEP]
    if deep:
        got = f"{len(deep)} with more: {_some(deep)}"
        raise DataError("Images have 8 bits per channel.", got, "convert them, or give the data as file.py:function")
    sizes = Counter(picture.size for picture in pictures)
    if size is None and len(sizes) > 1:
        common = ", ".join(f"{count} of {height} x {width}" for (height, width), count in sizes.most_common(_SHOWN))
        got = f"{len(sizes)} sizes (height x width): {common}"
        raise DataError("All images have one size, or are brought to one.", got, "give the network's input size")


def _check_given(pictures: Sequence[_Picture], homes: np.ndarray) -> None:
    """Refuses a file that lies in more than one of the given splits."""
    first: dict[bytes, int] = {}
    pairs: dict[bytes, tuple[Path, Path]] = {}
    for index, picture in enumerate(pictures):
        earlier = first.setdefault(picture.digest, index)
        if homes[earlier] != homes[index]:
            pairs.setdefault(picture.digest, (pictures[earlier].path, picture.path))
    if pairs:
        one, other = next(iter(pairs.values()))
        raise DataError(
            "No image may be in more than one split: what was seen before proves nothing.",
            f"{len(pairs)} in more than one; {one} is {other}",
            "remove the duplicates, or give the classes without splits and let them be made",
        )


def _made_splits(
    digests: Sequence[bytes], targets: np.ndarray, names: Sequence[str], random: np.random.Generator
) -> np.ndarray:
    """For each sample the number of its split: stratified by class, equal files together.

    Raises:
        DataError: a class with fewer than three different images that no class before it has.
    """
    groups: dict[bytes, list[int]] = {}
    for index, digest in enumerate(digests):
        groups.setdefault(digest, []).append(index)
    homes = np.zeros(len(digests), dtype=np.int64)
    for label, name in enumerate(names):
        own = [members for members in groups.values() if targets[members[0]] == label]
        if len(own) < len(SPLITS):
            got = f"{len(own)} in {name}"
            raise DataError("A class needs three images of its own to be split.", got, "add images, or leave it out")
        order = random.permutation(len(own))
        validation, test = (max(1, round(fraction * len(own))) for fraction in _FRACTIONS)
        for home, part in ((1, order[:validation]), (2, order[validation : validation + test])):
            homes[[index for group in part for index in own[group]]] = home
    return homes


def _undecodable(paths: Sequence[Path]) -> DataError:
    got = f"{len(paths)} that don't: {_some(paths)}"
    return DataError("Every image file must decode.", got, "remove these files or get them again")


def _some(paths: Sequence[Path]) -> str:
    more = f" and {len(paths) - _SHOWN} more" if len(paths) > _SHOWN else ""
    return ", ".join(str(path) for path in paths[:_SHOWN]) + more
