"""Dataset folders as people have them: refused, or used with a warning for whatever is odd about them."""

import json
import os
import shutil
import unicodedata
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from pixelmill.pipeline.artifacts import read_manifest
from pixelmill.pipeline.config import FolderSource
from pixelmill.pipeline.datasets import RawDataset
from pixelmill.pipeline.datasets.catalogue import ListedImage
from pixelmill.pipeline.datasets.catalogue_rows import read_rows
from pixelmill.pipeline.datasets.download import download_dataset
from pixelmill.pipeline.datasets.duplicates import find_contradictions
from pixelmill.pipeline.datasets.folders import (
    check_folders,
    count_folder_classes,
    list_folder,
)
from pixelmill.pipeline.datasets.preparation import prepare_dataset
from pixelmill.pipeline.datasets.split_folders import is_split_name
from pixelmill.pipeline.errors import RequestError, WorkError
from pixelmill.pipeline.file_names import unescape
from pixelmill.pipeline.images import ImageFailure
from pixelmill.pipeline.recipes import load_recipe
from tests.conftest import write_images
from tests.s3 import S3Server, s3_server


@pytest.fixture(scope="module")
def s3() -> Iterator[S3Server]:
    with s3_server() as server:
        yield server


def make_classes(folder: Path, *names: str, count: int = 6, seed: int = 0) -> Path:
    """One subfolder per name, each with different images."""
    for number, name in enumerate(names):
        write_images(folder / name, count, seed + number)
    return folder


def source(path: Path, test_path: Path | None = None) -> FolderSource:
    return FolderSource(
        source="folder", path=str(path), test_path=None if test_path is None else str(test_path)
    )


def index(path: Path, test_path: Path | None = None) -> RawDataset:
    return download_dataset(source(path, test_path), path.parent / "store")


def refusal(path: Path, test_path: Path | None = None) -> str:
    with pytest.raises(RequestError) as caught:
        check_folders(source(path, test_path))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def used(raw: RawDataset) -> Counter[str]:
    rows = read_rows(raw.catalogue)
    return Counter(rows.class_names[code] for code in rows.classes[~find_contradictions(rows)])


def names(raw: RawDataset) -> set[str]:
    table = pq.read_table(raw.catalogue.path, columns=["name"])
    return set(table["name"].to_pylist())


def only_warning(raw: RawDataset) -> str:
    (warning,) = raw.warnings
    return warning


def listed(folder_source: FolderSource) -> list[ListedImage]:
    """The images of a listing, after all of them could be read as they were listed."""
    listing = list_folder(folder_source, Path("unused"))
    images = list(listing.images)
    for image in images:
        content = listing.reader.read(image.place)
        assert isinstance(content, bytes)
        assert image.stamp.startswith(f"{len(content)}-")
    return images


@pytest.mark.parametrize(
    "splits",
    [
        {"train": "train", "val": "validation", "test": "test"},
        {"Training": "train", "Testing": "test"},
        {"train2017": "train", "val2017": "validation"},
        {"seg_train": "train", "seg_test": "test"},
    ],
)
def test_the_splits_of_a_dataset_are_used(splits: dict[str, str], tmp_path: Path) -> None:
    pets = tmp_path / "pets"
    for seed, split in enumerate(splits):
        make_classes(pets / split, "cat", "dog", seed=10 * seed)
    images = listed(source(pets))
    assert {image.name: (image.class_name, image.part) for image in images} == {
        f"{split}/{name}/{number:05}.png": (name, part)
        for split, part in splits.items()
        for name in ("cat", "dog")
        for number in range(6)
    }
    assert images[0].part == "train"
    assert count_folder_classes(source(pets)) == 2


def test_splits_that_an_archive_wrapped_once_more_are_found_inside(tmp_path: Path) -> None:
    for split in ("seg_train", "seg_test"):
        make_classes(tmp_path / "intel" / split / split, "forest", "sea")
    names = {image.name for image in listed(source(tmp_path / "intel"))}
    assert {"seg_train/seg_train/sea/00000.png", "seg_test/seg_test/sea/00000.png"} < names


def test_splits_may_be_folders_of_their_own(tmp_path: Path) -> None:
    for seed, split in enumerate(("images", "held-out", "tuning")):
        make_classes(tmp_path / split, "cat", "dog", seed=10 * seed)
    own = source(tmp_path / "images", tmp_path / "held-out")
    images = listed(own.model_copy(update={"validation_path": str(tmp_path / "tuning")}))
    assert Counter((image.part, image.class_name) for image in images) == {
        (part, name): 6 for part in ("train", "validation", "test") for name in ("cat", "dog")
    }
    assert {image.name for image in images} == {f"{n}/{i:05}.png" for n in ("cat", "dog") for i in range(6)}
    assert len({image.origin for image in images}) == 36


def test_a_split_is_not_named_twice(tmp_path: Path) -> None:
    for split in ("pets/train", "pets/test", "more"):
        make_classes(tmp_path / split, "cat", "dog")
    message = refusal(tmp_path / "pets", tmp_path / "more")
    assert (
        f"dataset.test_path {tmp_path}/more is set, and dataset.path {tmp_path}/pets contains test" in message
    )
    assert f"Omit dataset.test_path, or set `dataset.path={tmp_path}/pets/train`." in message


@pytest.mark.parametrize(
    ("folders", "remedy"),
    [
        (("train/cat", "train/dog", "test"), "`dataset.path={}/train` `dataset.test_path={}/test`."),
        (("train/cat", "train/dog", "test/cat", "test/fox"), None),
        (("train1/cat", "train1/dog", "train2/cat", "train2/dog"), "`dataset.path={}/train1`."),
        (("train/cat", "train/dog", "test/cat", "test/dog", "extra"), "`dataset.path={}/train`"),
        (
            ("test/cat", "test/dog", "val/cat", "val/dog"),
            "Put the images of each class into a single folder.",
        ),
    ],
    ids=["without classes", "other classes", "two of a kind", "another folder", "no training images"],
)
def test_splits_that_are_not_clear_are_refused(
    folders: tuple[str, ...], remedy: str | None, tmp_path: Path
) -> None:
    for seed, folder in enumerate(folders):
        write_images(tmp_path / folder, 4, seed)
    message = refusal(tmp_path)
    assert (remedy or "test folder {}/test has a class 'fox'").replace("{}", str(tmp_path)) in message


def test_groups_are_folders_below_the_class_or_found_in_the_name(tmp_path: Path) -> None:
    pets = make_classes(tmp_path / "pets", "cat", "dog")
    for name in ("cat/clip 1", "cat/clip 2/left", "dog/clip 1"):
        write_images(pets / name, 2, seed=40)

    def groups(group_by: str) -> dict[str, str | None]:
        images = list_folder(source(pets).model_copy(update={"group_by": group_by}), tmp_path).images
        return {image.name: image.group for image in images}

    by_parent = groups("parent")
    assert by_parent["cat/00000.png"] is None
    assert by_parent["cat/clip 1/00001.png"] == by_parent["dog/clip 1/00000.png"] == "clip 1"
    assert by_parent["cat/clip 2/left/00000.png"] == "clip 2/left"
    by_number = groups(r"0000(\d)")
    assert by_number["cat/00003.png"] == by_number["dog/00003.png"] == "3"
    assert groups(r"clip \d")["dog/clip 1/00000.png"] == "clip 1"
    with pytest.raises(RequestError, match=r"dataset\.group_by 'frame' matches none of the 18 images"):
        groups("frame")


def test_a_group_by_that_is_no_expression_is_refused() -> None:
    with pytest.raises(RequestError, match=r"dataset\.group_by is '\[a'; expected .*unterminated"):
        load_recipe("folder", ["dataset.group_by=[a"])


def test_a_folder_at_an_address_is_listed_as_one_here(
    tmp_path: Path, s3: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    pets = tmp_path / "pets"
    for seed, split in enumerate(("train", "test")):
        make_classes(pets / split, "cat", "d & g", seed=seed)
    (pets / "train/cat/notes.txt").write_text("not read")
    (pets / "train/cat/.hidden.png").write_text("not read")
    write_images(pets / "train/cat/clip/50%20", 1)
    for name, value in s3.environment.items():
        monkeypatch.setenv(name, value)
    with s3.bucket("pictures"):
        s3.upload(pets, "pictures", "my pets")
        remote = FolderSource(source="folder", path="s3://pictures/my pets", group_by="parent")
        listing = list_folder(remote, tmp_path)
        images = list(listing.images)
        read = {image.name: listing.reader.read(image.place) for image in images}
        local = list(list_folder(source(pets), tmp_path).images)
        assert [(i.name, i.class_name, i.part) for i in images] == [
            (i.name, i.class_name, i.part) for i in local
        ]
        assert read == {image.name: Path(unescape(image.place)).read_bytes() for image in local}
        assert images[0].origin == "s3://pictures/my pets/train/cat/00000.png"
        assert [image.group for image in images if image.group] == ["clip/50%2520"]
        assert listing.left_out == {".txt": 1, "hidden": 1}
        assert len(check_folders(remote)[0].classes) == 2
        s3.client.put_object(Bucket="pictures", Key="my pets/train/cat/00000.png", Body=b"changed")
        again = {image.name: image.stamp for image in list_folder(remote, tmp_path).images}
        assert [image.name for image in images if again[image.name] != image.stamp] == ["train/cat/00000.png"]
        with pytest.raises(RequestError, match=r"dataset\.path s3://pictures/none does not exist"):
            check_folders(FolderSource(source="folder", path="s3://pictures/none"))
        with pytest.raises(RequestError, match="s3://elsewhere/pets cannot be reached"):
            check_folders(FolderSource(source="folder", path="s3://elsewhere/pets"))
        s3.client.delete_object(Bucket="pictures", Key="my pets/train/cat/00000.png")
        with pytest.raises(ImageFailure, match="unreadable: "):
            listing.reader.read(images[0].place)


def test_a_folder_that_disappears_while_it_is_listed_is_one_line(tmp_path: Path) -> None:
    pets = make_classes(tmp_path / "pets", "cat", "dog")
    write_images(pets / "cat/more", 2)
    write_images(pets / "cat/most", 2)
    images = iter(list_folder(source(pets), tmp_path).images)
    while not next(images).name.startswith("cat/more/"):
        pass
    shutil.rmtree(pets / "dog")
    with pytest.raises(WorkError, match=r"/dog/? disappeared while the dataset was listed"):
        list(images)


def test_folds_have_no_training_folder_to_name(tmp_path: Path) -> None:
    for fold in ("fold_1", "fold_2"):
        make_classes(tmp_path / fold, "cat", "dog")
    assert "Put the images of each class into a single folder." in refusal(tmp_path)


def test_classes_that_are_called_as_splits_are_classes(tmp_path: Path) -> None:
    make_classes(tmp_path / "vehicles", "train", "bus")
    assert used(index(tmp_path / "vehicles")) == {"train": 6, "bus": 6}


@pytest.mark.parametrize("name", ["train", "VALID", "dev-set", "test_images", "fold3", "images.test"])
def test_names_of_splits_are_known(name: str) -> None:
    assert is_split_name(name)


@pytest.mark.parametrize("name", ["cat", "trainer", "contest", "latest", "devon_rex", "évaluation", "1"])
def test_names_of_classes_are_no_splits(name: str) -> None:
    assert not is_split_name(name)


def test_classes_that_are_sorted_the_same_way_inside_are_used_with_a_warning(tmp_path: Path) -> None:
    for number, name in enumerate(("cat", "dog")):
        make_classes(tmp_path / "pets" / name, "indoor", "outdoor", seed=10 * number)
    raw = index(tmp_path / "pets")
    assert used(raw) == {"cat": 12, "dog": 12}
    assert "every class folder holds the same subfolders (indoor, outdoor)" in only_warning(raw)


def test_a_folder_around_the_dataset_is_not_the_dataset(tmp_path: Path) -> None:
    make_classes(tmp_path / "outer" / "pets", "cat", "dog")
    assert f"Did you mean `dataset.path={tmp_path}/outer/pets`?" in refusal(tmp_path / "outer")


def test_the_test_folder_is_apart_from_the_training_folder(tmp_path: Path) -> None:
    pets = make_classes(tmp_path / "pets", "cat", "dog")
    (tmp_path / "linked").symlink_to(pets)
    assert "is the folder of dataset.path" in refusal(pets, pets)
    assert "is the folder of dataset.path" in refusal(pets, tmp_path / "linked")
    make_classes(pets / "dog", "cat", "dog")
    assert f"dataset.test_path {pets}/dog lies inside dataset.path {pets}" in refusal(pets, pets / "dog")
    assert f"dataset.test_path {pets} contains dataset.path {pets}/dog" in refusal(pets / "dog", pets)


def test_test_images_that_are_trained_on_are_counted_and_named(tmp_path: Path) -> None:
    pets = make_classes(tmp_path / "pets", "cat", "dog")
    held_out = make_classes(tmp_path / "held-out", "cat", "dog", count=2, seed=5)
    shutil.copyfile(pets / "dog/00003.png", held_out / "dog/copy.png")
    raw = index(pets, held_out)
    assert "1 of 5 test images are also training images" in only_warning(raw)
    assert "dog/00003.png and dog/copy.png (test)" in only_warning(raw)
    assert used(raw).total() == 17


def test_duplicates_under_two_classes_are_left_out_of_both(tmp_path: Path) -> None:
    pets = make_classes(tmp_path / "pets", "cat", "dog")
    shutil.copyfile(pets / "cat/00000.png", pets / "dog/copy.png")
    shutil.copyfile(pets / "cat/00000.png", pets / "cat/copy.png")
    raw = index(pets)
    assert "3 images appear under more than one class and are left out of all" in only_warning(raw)
    assert "cat/00000.png and dog/copy.png" in only_warning(raw)
    assert used(raw) == {"cat": 5, "dog": 6}


def test_a_class_that_is_a_copy_of_another_is_refused(tmp_path: Path) -> None:
    pets = make_classes(tmp_path / "pets", "cat", "dog")
    shutil.copytree(pets / "cat", pets / "kitten")
    with pytest.raises(RequestError, match="Check the images that other classes share with cat, kitten"):
        index(pets)


def test_what_is_left_out_is_counted_by_extension(tmp_path: Path) -> None:
    pets = make_classes(tmp_path / "pets", "cat", "dog")
    for number in range(4):
        (pets / "cat" / f"{number}.CR2").write_bytes(b"not read")
    for name in ("dog/notes.txt", "dog/.hidden.png", "dog/LICENSE", "dog/.DS_Store", "cat/._0.png"):
        (pets / name).write_bytes(b"not read")
    shutil.copyfile(pets / "cat/00000.png", pets / "loose.png")
    (pets / "cat/gone.png").symlink_to("nowhere.png")
    (pets / "@eaDir").mkdir()
    os.mkfifo(pets / "dog/pipe.png")
    raw = index(pets)
    assert dict(raw.left_out) == {
        ".cr2": 4,
        ".txt": 1,
        "hidden": 1,
        "no extension": 1,
        ".DS_Store": 1,
        "@eaDir": 1,
        "system files": 1,
        "outside the class folders": 1,
        "links to nothing": 1,
        "pipes and devices": 1,
    }
    assert only_warning(raw).startswith(f"{pets}: 13 files left out: .cr2 4, ")
    assert used(raw) == {"cat": 6, "dog": 6}


def test_thumbnails_of_a_network_storage_are_no_images(tmp_path: Path) -> None:
    pets = make_classes(tmp_path / "pets", "cat", "dog")
    for name in ("cat", "dog"):
        write_images(pets / name / "@eaDir" / "00000.png", 3, seed=50)
    raw = index(pets)
    assert used(raw) == {"cat": 6, "dog": 6}
    assert dict(raw.left_out) == {"@eaDir": 2}


def test_linked_folders_are_entered_once_and_loops_end(tmp_path: Path) -> None:
    pets = make_classes(tmp_path / "pets", "cat", "dog")
    (fox := tmp_path / "fox").mkdir()
    write_images(fox, 4, seed=9)
    for name in ("cat/more", "cat/again"):
        (pets / name).symlink_to(fox)
    (pets / "dog/up").symlink_to(pets / "dog")
    (fox / "self").symlink_to(fox)
    raw = index(pets)
    assert used(raw) == {"cat": 10, "dog": 6}
    assert dict(raw.left_out) == {"folders that were seen already through another link": 3}
    assert names(raw) >= {"cat/again/00000.png", "cat/00000.png"}


def test_names_of_a_class_in_two_unicode_forms_are_one_class(tmp_path: Path) -> None:
    composed = unicodedata.normalize("NFC", "Möwe")
    decomposed = unicodedata.normalize("NFD", composed)
    pets = make_classes(tmp_path / "birds", composed, decomposed, "Adler", count=2)
    write_images(pets / "Adler", 4, seed=30)
    raw = index(pets)
    assert used(raw) == {"Adler": 4, composed: 4}
    assert r"'Mo\u0308we' and 'M\xf6we' are the same name in two Unicode forms" in only_warning(raw)


def test_classes_that_differ_in_letter_case_are_two_with_a_warning(tmp_path: Path) -> None:
    raw = index(make_classes(tmp_path / "pets", "cat", "Cat", "dog"))
    assert used(raw) == {"Cat": 6, "cat": 6, "dog": 6}
    assert "Cat, cat differ in letter case alone" in only_warning(raw)


def test_classes_of_the_test_folder_are_compared_in_one_unicode_form(tmp_path: Path) -> None:
    composed = unicodedata.normalize("NFC", "Möwe")
    make_classes(tmp_path / "birds", composed, "Adler")
    make_classes(tmp_path / "test", unicodedata.normalize("NFD", composed), "Adler", count=2, seed=7)
    assert used(index(tmp_path / "birds", tmp_path / "test")) == {"Adler": 8, composed: 8}


def test_a_class_folder_with_an_invalid_name_is_refused(tmp_path: Path) -> None:
    pets = make_classes(tmp_path / "pets", "cat", "dog")
    os.mkdir(os.fsencode(pets) + b"/caf\xe9")
    assert r"b'caf\xe9'" in refusal(pets)


def test_all_classes_with_too_few_images_are_named(tmp_path: Path) -> None:
    pets = make_classes(tmp_path / "pets", "cat", "dog")
    write_images(pets / "fox", 2, seed=20)
    (pets / "wolf").mkdir()
    message = refusal(pets)
    assert f"class 'fox' has 2 images, class 'wolf' has no images in {pets}; expected at least 3" in message


def test_a_class_that_only_one_folder_has_is_named(tmp_path: Path) -> None:
    pets = make_classes(tmp_path / "pets", "cat", "dog", "fox")
    more = make_classes(tmp_path / "more", "cat", "dog", seed=7)
    assert "has no class 'fox'" in refusal(pets, more)
    assert "has a class 'fox'" in refusal(more, pets)


def test_a_dataset_path_that_is_a_file_is_reported_as_one(tmp_path: Path) -> None:
    (tmp_path / "pets.zip").write_bytes(b"")
    assert f"dataset.path {tmp_path}/pets.zip is a file; " in refusal(tmp_path / "pets.zip")
    pets = make_classes(tmp_path / "pets", "cat", "dog")
    assert f"dataset.test_path {tmp_path}/none does not exist; " in refusal(pets, tmp_path / "none")


def test_the_prepared_dataset_has_names_warnings_and_counts(tmp_path: Path) -> None:
    pets = make_classes(tmp_path / "pets", "cat", "dog")
    odd = os.fsdecode(os.fsencode(pets / "cat") + b"/caf\xe9.png")
    os.rename(pets / "cat/00000.png", odd)
    sizes = ("image.height=8", "image.width=8", "image.channels=1")
    recipe = load_recipe("folder", [f"dataset.path={pets}", *sizes])
    first = prepare_dataset(download_dataset(recipe.dataset, tmp_path), recipe, tmp_path)
    names = [*first.names("train"), *first.names("validation"), *first.names("test")]
    assert "cat/caf%E9.png" in names
    assert len(set(names)) == 12
    assert [len(first.names(split)) for split in ("train", "validation", "test")] == list(
        first.counts.values()
    )
    assert [name.rsplit("/", 2)[1:] for name in first.test_origins()] == [
        name.split("/") for name in first.names("test")
    ]
    assert first.warnings == ()
    # Another file that is left out changes the manifest, but not the arrays.
    (pets / "dog/film.mov").write_bytes(b"")
    second = prepare_dataset(download_dataset(recipe.dataset, tmp_path), recipe, tmp_path)
    assert second.folder == first.folder
    manifest = read_manifest(second.folder)
    assert manifest["left_out"] == second.left_out == {".mov": 1}
    assert manifest["warnings"] == [f"{pets}: 1 file left out: .mov 1"] == list(second.warnings)
    # Renaming a file does change them, because the prepared dataset names its images.
    os.rename(pets / "dog/00000.png", pets / "dog/zero.png")
    third = prepare_dataset(download_dataset(recipe.dataset, tmp_path), recipe, tmp_path)
    assert "dog/zero.png" in json.dumps([third.names(split) for split in ("train", "validation", "test")])
