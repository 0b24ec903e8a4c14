"""Folders of images and bundled digits become splits of arrays."""

import hashlib
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from pixelmill.pipeline.config import Recipe
from pixelmill.pipeline.datasets import PreparedDataset, SplitName
from pixelmill.pipeline.datasets.class_folders import find_classes
from pixelmill.pipeline.datasets.download import download_dataset
from pixelmill.pipeline.datasets.image_folders import write_image_folder
from pixelmill.pipeline.datasets.preparation import prepare_dataset
from pixelmill.pipeline.errors import PixelmillError, RequestError, WorkError
from pixelmill.pipeline.images import decode
from pixelmill.pipeline.recipes import load_recipe
from tests.conftest import write_images
from tests.pipeline.decoding.bombs import jpeg_with_scans

# Run by each process that decodes: certain images crash its decoder, or meet an error in it.
CRASHING_DECODER = """
import os, signal
import pixelmill.pipeline.images

decode = pixelmill.pipeline.images.decode

def crash(data, *arguments):
    if data.endswith(b"kill"):
        os.kill(os.getpid(), signal.SIGKILL)
    if data.endswith(b"error"):
        raise KeyError("4:4:1")
    return decode(data, *arguments)

pixelmill.pipeline.images.decode = crash
"""
SPLITS: tuple[SplitName, ...] = ("train", "validation", "test")


def folder_recipe(folder: Path, *overrides: str) -> Recipe:
    sizes = ("image.height=8", "image.width=8", "image.channels=1")
    return load_recipe("folder", [f"dataset.path={folder}", *sizes, *overrides])


def prepare(recipe: Recipe, store: Path) -> PreparedDataset:
    return prepare_dataset(download_dataset(recipe.dataset, store), recipe, store)


@pytest.fixture
def pets(tmp_path: Path) -> Path:
    """Two classes of 20 different images each."""
    for seed, name in enumerate(("cat", "dog")):
        write_images(tmp_path / "pets" / name, 20, seed)
    return tmp_path / "pets"


def contents(dataset: PreparedDataset, split: SplitName) -> set[str]:
    return {hashlib.sha256(pixels.tobytes()).hexdigest() for pixels in dataset.split(split).pixels}


def test_every_image_lands_in_one_split_as_the_decoder_gives_it(pets: Path, tmp_path: Path) -> None:
    recipe = folder_recipe(pets)
    dataset = prepare(recipe, tmp_path / "store")
    assert dataset.class_names == ("cat", "dog")
    assert dataset.counts == {"train": 28, "validation": 4, "test": 8}
    wanted = {
        hashlib.sha256(decode(path.read_bytes(), recipe.image).pixels.tobytes()).hexdigest(): path.parent.name
        for path in pets.rglob("*.png")
    }
    found = {}
    for split in SPLITS:
        images = dataset.split(split)
        assert images.pixels.dtype == np.uint8
        for pixels, label in zip(images.pixels, images.labels, strict=True):
            found[hashlib.sha256(pixels.tobytes()).hexdigest()] = dataset.class_names[label]
    assert found == wanted


def test_whatever_an_image_does_it_is_rejected_alone(
    pets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "site").mkdir()
    (tmp_path / "site/sitecustomize.py").write_text(CRASHING_DECODER)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "site"))
    first, second, third = sorted((pets / "cat").iterdir())[:3]
    first.write_bytes(first.read_bytes() + b"kill")
    second.write_bytes(second.read_bytes() + b"error")
    third.write_bytes(jpeg_with_scans(3000, 5000))
    dataset = prepare(folder_recipe(pets, "dataset.max_unreadable_fraction=0.5"), tmp_path / "store")
    assert sum(dataset.counts.values()) == 37
    rejected = json.loads((dataset.folder / "rejected.json").read_text())
    errors = {Path(entry["path"]).name: entry["error"] for entry in rejected}
    assert set(errors) == {first.name, second.name, third.name}
    assert errors[first.name].startswith("worker_died: ")
    assert errors[second.name] == "corrupt: KeyError: '4:4:1'"
    assert errors[third.name].startswith("too_costly: ")


def test_the_digits_split_is_the_same_every_time(tmp_path: Path) -> None:
    recipe = load_recipe("digits")
    first, second = prepare(recipe, tmp_path / "a"), prepare(recipe, tmp_path / "b")
    for split in SPLITS:
        assert np.array_equal(first.split(split).pixels, second.split(split).pixels)
        assert np.array_equal(first.split(split).labels, second.split(split).labels)
    assert contents(first, "test").isdisjoint(contents(first, "train") | contents(first, "validation"))


def test_copies_of_an_image_never_straddle_a_split(pets: Path, tmp_path: Path) -> None:
    for path in list(pets.rglob("*.png")):
        shutil.copyfile(path, path.with_name(f"copy-{path.name}"))
    dataset = prepare(folder_recipe(pets), tmp_path / "store")
    assert sum(dataset.counts.values()) == 80
    parts = [contents(dataset, split) for split in SPLITS]
    assert sum(map(len, parts)) == len(set.union(*parts)) == 40


def test_a_prepared_dataset_is_found_again_wherever_its_folder_moved(pets: Path, tmp_path: Path) -> None:
    first = prepare(folder_recipe(pets), tmp_path / "store")
    moved = pets.rename(tmp_path / "moved")
    assert prepare(folder_recipe(moved), tmp_path / "store") == first
    other = prepare(folder_recipe(moved, "image.height=9"), tmp_path / "store")
    assert other.folder != first.folder


def test_damaged_tensors_are_refused(pets: Path, tmp_path: Path) -> None:
    dataset = prepare(folder_recipe(pets), tmp_path / "store")
    (damaged,) = dataset.tensors().folder.glob("*.npy")
    with damaged.open("r+b") as file:
        file.seek(-1, os.SEEK_END)
        last = file.read(1)
        file.seek(-1, os.SEEK_END)
        file.write(bytes([last[0] ^ 1]))
    recipe = folder_recipe(pets)
    raw = download_dataset(recipe.dataset, tmp_path / "store")
    with pytest.raises(WorkError, match=r"Remove .* prepared again"):
        prepare_dataset(raw, recipe, tmp_path / "store", verify_data=True)
    # Without reading them, a file that was cut off is noticed.
    os.truncate(damaged, 200)
    with pytest.raises(WorkError, match=r"has size 200; .* Remove .* prepared again"):
        prepare(recipe, tmp_path / "store")
    shutil.rmtree(dataset.tensors().folder)
    assert prepare(recipe, tmp_path / "store") == dataset
    assert contents(prepare(recipe, tmp_path / "store"), "test")


def test_a_separate_test_folder_is_used_completely(pets: Path, tmp_path: Path) -> None:
    for seed, name in enumerate(("cat", "dog")):
        write_images(tmp_path / "held-out" / name, 3, seed + 10)
    recipe = folder_recipe(pets, f"dataset.test_path={tmp_path / 'held-out'}")
    assert prepare(recipe, tmp_path / "store").counts == {"train": 36, "validation": 4, "test": 6}


def test_unreadable_files_are_left_out_and_listed(pets: Path, tmp_path: Path) -> None:
    (pets / "cat" / "broken.png").write_bytes(b"no image")
    recipe = folder_recipe(pets, "dataset.max_unreadable_fraction=0.1")
    dataset = prepare(recipe, tmp_path / "store")
    assert sum(dataset.counts.values()) == 40
    rejected = json.loads((dataset.folder / "rejected.json").read_text())
    assert [Path(row["path"]).name for row in rejected] == ["broken.png"]
    assert rejected[0]["error"].startswith("not_an_image: ")
    for split in SPLITS:
        assert len(dataset.split(split).pixels) == len(dataset.split(split).labels)


def test_too_many_unreadable_files_stop_the_run(pets: Path, tmp_path: Path) -> None:
    for index in range(5):
        (pets / "cat" / f"broken-{index}.png").write_bytes(f"no image {index}".encode())
    with pytest.raises(WorkError, match="5 of 45 images cannot be read"):
        prepare(folder_recipe(pets), tmp_path / "store")
    assert not [path for path in (tmp_path / "store/datasets").iterdir() if path.name[0] != "."]


def refuse(folder: Path, store: Path) -> PixelmillError:
    with pytest.raises(RequestError) as caught:
        prepare(folder_recipe(folder), store)
    return caught.value


def test_a_class_without_images_is_named(pets: Path, tmp_path: Path) -> None:
    (pets / "fox").mkdir()
    assert "class 'fox'" in str(refuse(pets, tmp_path / "store"))
    assert "has no images" in str(refuse(pets, tmp_path / "store"))


def test_a_class_with_one_image_is_named(pets: Path, tmp_path: Path) -> None:
    write_images(pets / "fox", 1, 5)
    error = refuse(pets, tmp_path / "store")
    assert "class 'fox'" in str(error)
    assert "has 1 image in " in str(error)


def test_a_class_of_copies_of_one_image_is_as_small(pets: Path, tmp_path: Path) -> None:
    (path,) = write_images(pets / "fox", 1, 5)
    for index in range(10):
        shutil.copyfile(path, path.with_name(f"copy-{index}.png"))
    assert "has 1 image in " in str(refuse(pets, tmp_path / "store"))


def test_a_folder_that_is_none_or_has_no_classes_is_refused(tmp_path: Path) -> None:
    assert "does not exist" in str(refuse(tmp_path / "nowhere", tmp_path / "store"))
    write_images(tmp_path / "flat", 3)
    assert "0 subfolders" in str(refuse(tmp_path / "flat", tmp_path / "store"))


def test_classes_come_in_natural_order(tmp_path: Path) -> None:
    for name in ("10", "9", "1", "a2", "a10", "b", ".hidden"):
        (tmp_path / name).mkdir()
    assert [found.name for found in find_classes(tmp_path)] == ["1", "9", "10", "a2", "a10", "b"]


def test_a_split_written_as_files_decodes_to_the_same_arrays(pets: Path, tmp_path: Path) -> None:
    recipe = folder_recipe(pets)
    dataset = prepare(recipe, tmp_path / "store")
    test = dataset.split("test")
    folder = write_image_folder(dataset, "test", tmp_path / "files")
    files = sorted(folder.rglob("*.png"), key=lambda path: path.name)
    for path, pixels, label in zip(files, test.pixels, test.labels, strict=True):
        assert np.array_equal(decode(path.read_bytes(), recipe.image).pixels, pixels)
        assert path.parent.name == dataset.class_names[label]
