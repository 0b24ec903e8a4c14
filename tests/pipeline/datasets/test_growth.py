"""A dataset that changes: no image that was in a split ever moves, and nothing is decoded twice."""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from skimage import data

from pixelmill.pipeline.config import Recipe
from pixelmill.pipeline.datasets import PreparedDataset
from pixelmill.pipeline.datasets.division import ModelHistory
from pixelmill.pipeline.datasets.download import download_dataset
from pixelmill.pipeline.datasets.ledger import ledger_folder
from pixelmill.pipeline.datasets.preparation import prepare_dataset
from pixelmill.pipeline.datasets.prune import prune_tensors, unused_segments
from pixelmill.pipeline.datasets.tensors import TensorStore
from pixelmill.pipeline.errors import GateRefused
from pixelmill.pipeline.image_encoding import encode_png
from pixelmill.pipeline.recipes import load_recipe
from tests.conftest import write_images

EACH = 20


def recipe_of(folder: Path, *overrides: str) -> Recipe:
    sizes = ("image.height=8", "image.width=8", "image.channels=1", "name=pets")
    return load_recipe("folder", [f"dataset.path={folder}", *sizes, *overrides])


def prepare(recipe: Recipe, store: Path, class_names: tuple[str, ...] = ()) -> PreparedDataset:
    history = ModelHistory(ledger_folder(store, recipe.name), class_names)
    return prepare_dataset(download_dataset(recipe.dataset, store), recipe, store, history)


def splits_of(dataset: PreparedDataset) -> dict[str, str]:
    rows = dataset.rows(columns=["sha256", "split"])
    return dict(zip(rows["sha256"].to_pylist(), rows["split"].to_pylist(), strict=True))


def decoded(dataset: PreparedDataset) -> int:
    return len(dataset.tensors().read_index(["row"]))


@pytest.fixture
def pets(tmp_path: Path) -> Path:
    for seed, name in enumerate(("cat", "dog")):
        write_images(tmp_path / "pets" / name, EACH, seed)
    return tmp_path / "pets"


def add_one(pets: Path) -> None:
    (path,) = write_images(pets / "more", 1, 90)
    path.rename(pets / "cat/new.png")
    (pets / "more").rmdir()


def add_a_tenth(pets: Path) -> None:
    for path in write_images(pets.parent / "more", EACH // 10, 91):
        path.rename(pets / "dog" / f"new-{path.name}")


def double(pets: Path) -> None:
    for seed, name in enumerate(("cat", "dog"), 92):
        for path in write_images(pets.parent / "more", EACH, seed):
            path.rename(pets / name / f"new-{path.name}")


def delete_some(pets: Path) -> None:
    for path in sorted(pets.rglob("*.png"))[::7]:
        path.unlink()


def rename_all(pets: Path) -> None:
    for index, path in enumerate(sorted(pets.rglob("*.png"), reverse=True)):
        path.rename(path.with_name(f"renamed-{index}.png"))


def relabel_one(pets: Path) -> None:
    (pets / "cat/00003.png").rename(pets / "dog/relabelled.png")


@pytest.mark.parametrize(
    "change", [add_one, add_a_tenth, double, delete_some, rename_all, relabel_one], ids=lambda f: f.__name__
)
def test_no_change_of_the_folder_moves_another_image(
    change: Callable[[Path], None], pets: Path, tmp_path: Path
) -> None:
    before = prepare(recipe_of(pets), tmp_path / "store")
    known, contents = splits_of(before), decoded(before)
    change(pets)
    after = prepare(recipe_of(pets), tmp_path / "store")
    found = splits_of(after)
    assert {sha256: known[sha256] for sha256 in found if sha256 in known} == {
        sha256: split for sha256, split in found.items() if sha256 in known
    }
    assert decoded(after) == contents + len(found.keys() - known.keys())


def test_a_class_that_lost_its_test_images_gets_new_ones_and_nothing_moves(
    pets: Path, tmp_path: Path
) -> None:
    before = prepare(recipe_of(pets), tmp_path / "store")
    known = splits_of(before)
    for name in before.names("test"):
        if name.startswith("cat/"):
            (pets / name).unlink()
    without = prepare(recipe_of(pets), tmp_path / "store")
    assert any(
        line.startswith("no test image of 'cat': their recall is not judged") for line in without.warnings
    )
    assert splits_of(without).items() <= known.items()
    for path in write_images(pets.parent / "more", 3, 95):
        path.rename(pets / "cat" / f"new-{path.name}")
    after = prepare(recipe_of(pets), tmp_path / "store")
    assert not after.warnings
    found = splits_of(after)
    assert {sha256: found[sha256] for sha256 in splits_of(without)} == splits_of(without)
    cats = after.rows(columns=["split", "label"]).filter(pc.field("label") == 0)
    assert set(cats["split"].to_pylist()) == {"train", "validation", "test"}


def test_a_folder_that_moved_is_the_same_dataset(pets: Path, tmp_path: Path) -> None:
    first = prepare(recipe_of(pets), tmp_path / "store")
    moved = pets.rename(tmp_path / "moved")
    assert prepare(recipe_of(moved), tmp_path / "store") == first
    # On an empty store, too, the splits are the same.
    again = prepare(recipe_of(moved), tmp_path / "other")
    assert splits_of(again) == splits_of(first)
    assert again.fingerprint == first.fingerprint
    for split in ("train", "validation", "test"):
        assert np.array_equal(again.split(split).pixels, first.split(split).pixels)


def test_fingerprint_and_tensors_depend_on_neither_names_nor_order(pets: Path, tmp_path: Path) -> None:
    first = prepare(recipe_of(pets), tmp_path / "store")
    rename_all(pets)
    second = prepare(recipe_of(pets), tmp_path / "store")
    assert second.fingerprint == first.fingerprint
    assert second.folder != first.folder
    assert np.array_equal(second.split("train").pixels, first.split("train").pixels)


def test_an_unchanged_file_is_not_read_again(pets: Path, tmp_path: Path) -> None:
    recipe = recipe_of(pets)
    first = download_dataset(recipe.dataset, tmp_path / "store")
    # Content of the same size and time is noticed only when all files are read.
    path = pets / "cat/00000.png"
    status, content = path.stat(), bytearray(path.read_bytes())
    content[-1] ^= 1
    with path.open("r+b") as file:
        file.write(content)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    changed = path.stat().st_ctime_ns != status.st_ctime_ns
    second = download_dataset(recipe.dataset, tmp_path / "store")
    assert (second.fingerprint == first.fingerprint) or changed
    third = download_dataset(recipe.dataset, tmp_path / "store", verify_data=True)
    assert third.fingerprint != first.fingerprint


def test_the_order_of_the_classes_is_kept(pets: Path, tmp_path: Path) -> None:
    assert prepare(recipe_of(pets), tmp_path / "store", ("dog", "cat")).class_names == ("dog", "cat")
    write_images(pets / "ape", EACH, 70)
    grown = prepare(recipe_of(pets), tmp_path / "store", ("dog", "cat"))
    assert grown.class_names == ("dog", "cat", "ape")
    shutil.rmtree(pets / "dog")
    with pytest.raises(GateRefused, match="'dog'"):
        prepare(recipe_of(pets), tmp_path / "store", ("dog", "cat"))
    allowed = recipe_of(pets, "dataset.allow_removed_classes=true")
    kept = prepare(allowed, tmp_path / "store", ("dog", "cat"))
    assert kept.class_names == ("dog", "cat", "ape")
    assert set(kept.split("train").labels.tolist()) == {1, 2}


def test_jpeg_storage_is_nearly_the_same_and_smaller(tmp_path: Path) -> None:
    scene = np.asarray(data.astronaut(), np.uint8)  # type: ignore[no-untyped-call]
    for name, start in (("left", 0), ("right", 200)):
        (tmp_path / "scenes" / name).mkdir(parents=True)
        for index in range(6):
            part = scene[20 * index : 20 * index + 200, start + index : start + index + 200]
            (tmp_path / "scenes" / name / f"{index}.png").write_bytes(encode_png(part.copy()))
    sizes = ("image.height=96", "image.width=96", "image.channels=3", "dataset.near_duplicates=false")
    raw_pixels = prepare(recipe_of(tmp_path / "scenes", *sizes), tmp_path / "store")
    jpeg = prepare(recipe_of(tmp_path / "scenes", *sizes, "image.storage=jpeg"), tmp_path / "store")
    assert splits_of(jpeg) == splits_of(raw_pixels)
    for split in ("train", "validation", "test"):
        one, two = (np.asarray(dataset.split(split).pixels, int) for dataset in (raw_pixels, jpeg))
        assert one.shape == two.shape
        assert 0 < np.abs(one - two).mean() < 3
    sizes_of = [
        sum(path.stat().st_size for path in dataset.tensors().folder.glob("*.*[!t]"))
        for dataset in (raw_pixels, jpeg)
    ]
    assert sizes_of[1] < sizes_of[0] / 3


def test_only_tensors_that_no_dataset_needs_are_removed(pets: Path, tmp_path: Path) -> None:
    first = prepare(recipe_of(pets), tmp_path / "store")
    add_one(pets)
    second = prepare(recipe_of(pets), tmp_path / "store")
    assert unused_segments(tmp_path / "store") == {}
    shutil.rmtree(second.folder)
    folder = first.tensors().folder
    assert unused_segments(tmp_path / "store") == {folder: [2]}
    assert {path.name for path in prune_tensors(tmp_path / "store")} == {"00000002.npy", "00000002.parquet"}
    assert TensorStore(tmp_path / "store", recipe_of(pets).image).segment_numbers() == [1]
    assert prepare(recipe_of(pets), tmp_path / "store").counts == second.counts


def test_nothing_is_removed_while_somebody_reads_or_prepares(pets: Path, tmp_path: Path) -> None:
    store = tmp_path / "store"
    dataset = prepare(recipe_of(pets), store)
    pixels, folder = dataset.split("train").pixels, dataset.tensors().folder
    shutil.rmtree(dataset.folder)
    assert unused_segments(store) == {folder: [1]}
    assert prune_tensors(store) == []
    assert pixels[:3].shape == (3, 8, 8, 1)
    del pixels
    with TensorStore(store, recipe_of(pets).image).in_use():
        assert prune_tensors(store) == []
    assert len(prune_tensors(store)) == 2
    assert unused_segments(store) == {}


PREPARING = """
import sys, threading
from pathlib import Path
from pixelmill.pipeline.datasets import preparation
from pixelmill.pipeline.datasets.division import ModelHistory
from pixelmill.pipeline.datasets.download import download_dataset
from pixelmill.pipeline.recipes import load_recipe

if __name__ == "__main__":
    folder, store, *overrides = sys.argv[1:]
    recipe = load_recipe("folder", [f"dataset.path={folder}", *overrides])
    divide = preparation.divide_images

    def divide_later(*arguments):
        print("decoded", flush=True)
        sys.stdin.readline()
        return divide(*arguments)

    preparation.divide_images = divide_later
    dataset = preparation.prepare_dataset(download_dataset(recipe.dataset, Path(store)), recipe, Path(store))
    print(dataset.split("train").pixels[:].shape[0], flush=True)
"""


def test_pruning_leaves_what_another_process_has_decoded_and_not_yet_published(
    pets: Path, tmp_path: Path
) -> None:
    script, store = tmp_path / "preparing.py", tmp_path / "store"
    script.write_text(PREPARING)
    sizes = ("image.height=8", "image.width=8", "image.channels=1", "name=pets")
    command = [sys.executable, str(script), str(pets), str(store), *sizes]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as preparing:
        assert preparing.stdin is not None
        assert preparing.stdout is not None
        while "decoded" not in preparing.stdout.readline():
            assert preparing.poll() is None
        assert list(unused_segments(store).values()) == [[1]]
        assert prune_tensors(store) == []
        preparing.stdin.write("\n")
        preparing.stdin.flush()
        assert preparing.stdout.read().split()[-1] == "28"
    assert prune_tensors(store) == []


def test_stored_tensors_are_indexed_like_an_array(pets: Path, tmp_path: Path) -> None:
    prepare(recipe_of(pets), tmp_path / "store")
    double(pets)
    pixels = prepare(recipe_of(pets), tmp_path / "store").split("train").pixels
    whole = np.asarray(pixels)
    assert (pixels.shape, pixels.nbytes, len(pixels)) == (whole.shape, whole.nbytes, len(whole))
    assert np.array_equal(pixels[-1], whole[-1])
    assert np.array_equal(pixels[3:40:5], whole[3:40:5])
    chosen = np.array([5, 0, 33, 5, -1])
    assert np.array_equal(pixels[chosen], whole[chosen])
    assert np.array_equal(np.stack(list(pixels)), whole)
    with pytest.raises(IndexError):
        pixels[len(whole)]


def test_the_catalogue_says_what_was_listed(pets: Path, tmp_path: Path) -> None:
    raw = download_dataset(recipe_of(pets).dataset, tmp_path / "store")
    table = pq.read_table(raw.catalogue.path)
    assert len(table) == 2 * EACH
    assert table["error"].null_count == len(table)


KILLED_WRITER = """
import os, signal, sys
from pathlib import Path
from pixelmill.pipeline.datasets import tensor_writer
from pixelmill.pipeline.datasets.division import ModelHistory
from pixelmill.pipeline.datasets.download import download_dataset
from pixelmill.pipeline.datasets.preparation import prepare_dataset
from pixelmill.pipeline.recipes import load_recipe

if __name__ == "__main__":
    folder, store, *overrides = sys.argv[1:]
    recipe = load_recipe("folder", [f"dataset.path={folder}", *overrides])
    tensor_writer._SEGMENT_ROWS = 8
    write_index = tensor_writer.write_index

    def write_and_count(path, *arguments):
        write_index(path, *arguments)
        if path.stem == "00000002":
            os.kill(os.getpid(), signal.SIGKILL)

    tensor_writer.write_index = write_and_count
    prepare_dataset(download_dataset(recipe.dataset, Path(store)), recipe, Path(store))
"""


def test_a_killed_preparation_keeps_the_segments_it_finished(pets: Path, tmp_path: Path) -> None:
    recipe = recipe_of(pets)
    script = tmp_path / "killed.py"
    script.write_text(KILLED_WRITER)
    sizes = ("image.height=8", "image.width=8", "image.channels=1", "name=pets")
    command = [sys.executable, str(script), str(pets), str(tmp_path / "store"), *sizes]
    done = subprocess.run(command, capture_output=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr
    store = TensorStore(tmp_path / "store", recipe.image)
    assert store.segment_numbers() == [1, 2]
    kept = store.data_path(1).stat().st_mtime_ns
    dataset = prepare(recipe, tmp_path / "store")
    assert dataset.tensors().segment_numbers() == [1, 2, 3]
    assert decoded(dataset) == 2 * EACH
    assert store.data_path(1).stat().st_mtime_ns == kept
    assert not [path for path in store.folder.iterdir() if "pixelmill-tmp" in path.name]
