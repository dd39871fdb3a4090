from __future__ import annotations

import shutil
from collections import Counter
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from featherweight.contracts import DataError
from featherweight.tasks import read_image_folder, validate
from featherweight.tasks.images import _made_splits

CLASSES = ("ant", "bee", "cat")


def pixels(seed, shape=(6, 5, 3)):
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def save(path, array, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path, **options)
    return path


@pytest.fixture
def folder(tmp_path):
    """Three classes of ten different images each."""
    root = tmp_path / "animals"
    for label, name in enumerate(CLASSES):
        for index in range(10):
            save(root / name / f"{index}.png", pixels(label * 100 + index))
    return root


def labels_of(split):
    return split.labels.tolist()


def pictures(split):
    return [picture.path for picture in np.array(split.samples.pictures, dtype=object)[split.rows]]


def test_made_splits_are_stratified_and_cover_everything(folder):
    data = read_image_folder(folder)
    assert data.class_names == CLASSES
    assert data.name == "animals"
    for split, each in zip(data.splits().values(), (6, 2, 2), strict=True):
        assert Counter(labels_of(split)) == {0: each, 1: each, 2: each}
        assert [path.parent.name for path in pictures(split)] == [CLASSES[label] for label in labels_of(split)]
    paths = [path for split in data.splits().values() for path in pictures(split)]
    assert sorted(paths) == sorted(folder.glob("*/*.png"))
    validate(data, 3)


def test_made_splits_follow_the_seed(folder):
    one, same, other = (read_image_folder(folder, seed=seed) for seed in (0, 0, 1))
    assert one.fingerprint() == same.fingerprint() != other.fingerprint()
    assert set(pictures(one.test)) != set(pictures(other.test))


def test_first_samples_are_of_mixed_classes(folder):
    assert len(set(labels_of(read_image_folder(folder).train.first(9)))) == 3


@given(st.lists(st.integers(3, 40), min_size=2, max_size=5), st.integers(0, 1000))
def test_stratification_is_within_one_sample(counts, seed):
    targets = np.repeat(np.arange(len(counts)), counts)
    digests = [f"{index}".encode() for index in range(len(targets))]
    names = [f"{label}" for label in range(len(counts))]
    homes = _made_splits(digests, targets, names, np.random.default_rng(seed))
    for label, count in enumerate(counts):
        parts = np.bincount(homes[targets == label], minlength=3)
        assert parts.min() >= 1
        assert abs(parts - count * np.array([0.6, 0.2, 0.2])).max() <= 1


@given(st.lists(st.integers(0, 12), min_size=30, max_size=60), st.integers(0, 1000))
def test_equal_files_go_to_the_same_side(contents, seed):
    contents = [*range(13), *contents]
    targets = np.array([content % 2 for content in contents])
    digests = [bytes([content]) for content in contents]
    homes = _made_splits(digests, targets, ("even", "odd"), np.random.default_rng(seed))
    for content in set(contents):
        assert len({home for home, other in zip(homes, contents, strict=True) if other == content}) == 1


def test_copies_of_a_file_are_kept_together(folder):
    for index in range(5):
        shutil.copy(folder / "ant" / "0.png", folder / "ant" / f"copy{index}.png")
    data = read_image_folder(folder)
    validate(data, 3)
    assert sum(len(split) for split in (data.train, data.validation, data.test)) == len(list(folder.rglob("*.png")))


def test_images_are_rgb_float_channels_first(folder):
    data = read_image_folder(folder)
    batch = data.test.take([1, 0])
    (images,) = batch.inputs
    assert images.shape == (2, 3, 6, 5)
    assert images.dtype == torch.float32
    assert images.is_contiguous()
    for image, path in zip(images, [pictures(data.test)[index] for index in (1, 0)], strict=True):
        wanted = np.asarray(Image.open(path), dtype=np.float32).transpose(2, 0, 1) / 255
        np.testing.assert_allclose(image.numpy(), wanted, rtol=1e-6)


def test_grey_only_where_all_are(tmp_path):
    for name in ("a", "b"):
        for index in range(3):
            save(tmp_path / name / f"{index}.png", pixels(10 * ord(name) + index, (4, 4)))
    assert read_image_folder(tmp_path).train.take([0]).inputs[0].shape == (1, 1, 4, 4)
    save(tmp_path / "a" / "coloured.png", pixels(9, (4, 4, 3)))
    assert read_image_folder(tmp_path).train.take([0]).inputs[0].shape == (1, 3, 4, 4)


def test_all_endings_and_colour_modes(tmp_path):
    grey = Image.fromarray(pixels(5, (8, 8)))
    made = {
        "a.PNG": Image.fromarray(pixels(1, (8, 8, 4))),
        "b.jpg": Image.fromarray(pixels(2, (8, 8, 3))),
        "c.jpeg": grey,
        "d.bmp": Image.fromarray(pixels(3, (8, 8, 3))),
        "e.webp": Image.fromarray(pixels(4, (8, 8, 3))),
        "f.png": Image.fromarray(pixels(6, (8, 8, 3))).quantize(8),
        "g.png": grey.convert("1"),
        "h.jpg": Image.fromarray(pixels(7, (8, 8, 4))).convert("CMYK"),
        "i.png": grey.convert("LA"),
    }
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        for name, image in made.items():
            options: dict[str, Any] = {"transparency": bytes(range(8))} if name == "f.png" else {}
            shifted = image if folder == "one" else image.transpose(Image.Transpose.ROTATE_90)
            shifted.save(tmp_path / folder / name, **options)
    data = read_image_folder(tmp_path)
    validate(data, 2)
    assert sum(len(split) for split in data.splits().values()) == 2 * len(made)


def test_resizing_is_antialiased_bilinear(tmp_path):
    for name in ("a", "b"):
        for index in range(3):
            save(tmp_path / name / f"{index}.png", pixels(10 * ord(name) + index, (8 + index, 6, 3)))
    data = read_image_folder(tmp_path, size=(4, 2))
    (image,) = data.train.take([0]).inputs
    assert image.shape == (1, 3, 4, 2)
    with Image.open(pictures(data.train)[0]) as original:
        wanted = np.asarray(original.resize((2, 4), Image.Resampling.BILINEAR), dtype=np.float32) / 255
    np.testing.assert_allclose(image[0].numpy(), wanted.transpose(2, 0, 1), rtol=1e-6)
    assert data.fingerprint() != read_image_folder(tmp_path, size=(2, 4)).fingerprint()


@pytest.mark.parametrize("validation", ["val", "validation"])
def test_given_splits_are_kept(folder, tmp_path, validation):
    root = tmp_path / "split"
    for number, split in enumerate(("train", validation, "test")):
        for name in CLASSES:
            for index in range(number, 9, 3):
                target = root / split / name / f"{index}.png"
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(folder / name / f"{index}.png", target)
    data = read_image_folder(root)
    assert data.class_names == CLASSES
    for split, name in zip(data.splits().values(), ("train", validation, "test"), strict=True):
        assert {path.parent.parent.name for path in pictures(split)} == {name}
    validate(data, 3)

    shutil.copy(root / "train" / "ant" / "0.png", root / "test" / "bee" / "again.png")
    shutil.copy(root / "train" / "ant" / "0.png", root / validation / "bee" / "again.png")
    with pytest.raises(DataError, match=r"1 in more than one; .*train/ant/0\.png is .*/bee/again\.png"):
        read_image_folder(root)


def test_given_splits_must_be_three(folder):
    for name in ("train", "test"):
        shutil.copytree(folder / "ant", folder / name / "ant")
    with pytest.raises(DataError, match=r"train, validation and test, and nothing beside.*\n.*ant, bee, cat, test"):
        read_image_folder(folder)
    for name in CLASSES:
        shutil.rmtree(folder / name)
    with pytest.raises(DataError, match=r"and nothing beside.*\n.*got: test, train|got: test, train"):
        read_image_folder(folder)
    for name in ("val", "validation"):
        shutil.copytree(folder / "train", folder / name)
    with pytest.raises(DataError, match="test, train, val, validation"):
        read_image_folder(folder)


def test_other_files_and_hidden_ones_are_left_alone(folder):
    (folder / "README.txt").write_text("about")
    (folder / "ant" / "Thumbs.db").write_bytes(b"x")
    (folder / "ant" / ".hidden.png").write_bytes(b"x")
    (folder / ".cache").mkdir()
    assert sum(len(split) for split in read_image_folder(folder).splits().values()) == 30


def test_files_that_are_no_images_are_counted_and_named(folder):
    for index in range(5):
        (folder / "bee" / f"{index}.png").write_bytes(b"no image")
    with pytest.raises(DataError, match=r"5 that don't: .*bee/0\.png, .*bee/1\.png, .*bee/2\.png and 2 more"):
        read_image_folder(folder)


def test_files_that_break_off_are_counted_over_all(folder):
    for name in ("ant", "cat"):
        path = folder / name / "3.png"
        path.write_bytes(path.read_bytes()[:-60])
    data = read_image_folder(folder)
    with pytest.raises(DataError, match=r"2 that don't: .*ant/3\.png, .*cat/3\.png"):
        validate(data, 3)


def test_only_the_named_formats_are_decoded(folder):
    Image.fromarray(pixels(0)).save(folder / "ant" / "0.png", format="GIF")
    with pytest.raises(DataError, match=r"1 that don't: .*ant/0\.png"):
        read_image_folder(folder)


@pytest.mark.parametrize("limit", [10, 20])
def test_decompression_bombs(folder, monkeypatch, limit):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)  # 30 pixels: an error above twice the limit, else a warning
    with pytest.raises(DataError, match=rf"at most {limit} pixels.*\n.*ant/0\.png"):
        read_image_folder(folder)


def test_sizes_that_differ(folder):
    save(folder / "bee" / "large.png", pixels(1, (60, 50, 3)))
    with pytest.raises(DataError, match=r"2 sizes \(height x width\): 30 of 6 x 5, 1 of 60 x 50"):
        read_image_folder(folder)
    assert read_image_folder(folder, size=(6, 5)).test.take([0]).inputs[0].shape == (1, 3, 6, 5)


def test_deep_images_would_lose_their_depth(folder):
    save(folder / "bee" / "deep.png", np.arange(30, dtype=np.uint16).reshape(6, 5) * 2000)
    with pytest.raises(DataError, match=r"8 bits per channel.*\n.*1 with more: .*deep\.png"):
        read_image_folder(folder)


def test_links_that_lead_outside(folder, tmp_path):
    outside = save(tmp_path / "secret" / "s.png", pixels(0))
    link = folder / "ant" / "link.png"
    link.symlink_to(outside)
    with pytest.raises(DataError, match=r"aren't followed.*\n.*link\.png leads outside"):
        read_image_folder(folder)
    link.unlink()
    (folder / "dog").symlink_to(outside.parent)
    with pytest.raises(DataError, match=r"aren't followed.*\n.*dog leads outside"):
        read_image_folder(folder)


def test_links_within_the_folder_are_followed(folder):
    (folder / "ant" / "link.png").symlink_to(folder / "ant" / "0.png")
    assert sum(len(split) for split in read_image_folder(folder).splits().values()) == 31


def test_a_link_to_the_folder_itself(folder, tmp_path):
    (tmp_path / "link").symlink_to(folder)
    assert read_image_folder(tmp_path / "link").fingerprint() == read_image_folder(folder).fingerprint()


def test_folders_that_hold_too_little(tmp_path, folder):
    with pytest.raises(DataError, match="must exist"):
        read_image_folder(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="no folder with images"):
        read_image_folder(tmp_path / "empty")
    (folder / "dog").mkdir()
    with pytest.raises(DataError, match=r"none in .*dog"):
        read_image_folder(folder)
    shutil.rmtree(folder / "dog")
    for index in range(2, 10):
        (folder / "bee" / f"{index}.png").unlink()
    shutil.copy(folder / "bee" / "0.png", folder / "bee" / "copy.png")
    with pytest.raises(DataError, match=r"three images of its own.*\n.*2 in bee"):
        read_image_folder(folder)
    shutil.rmtree(folder / "bee")
    shutil.rmtree(folder / "cat")
    with pytest.raises(DataError, match=r"at least two classes.*\n.*ant in"):
        read_image_folder(folder)


def test_a_size_that_means_nothing(folder):
    with pytest.raises(DataError, match=r"size = \(0, 4\)"):
        read_image_folder(folder, size=(0, 4))
