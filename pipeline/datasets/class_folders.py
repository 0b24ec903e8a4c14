"""The class folders of a dataset folder, and checks of its layout."""

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from pixelmill.pipeline.clutter import is_clutter
from pixelmill.pipeline.config import FolderSource
from pixelmill.pipeline.display import printable
from pixelmill.pipeline.errors import RequestError
from pixelmill.pipeline.labels import normalize_label

_TRAINING_WORDS = ("train", "training", "trainset")
_TEST_WORDS = ("test", "testing", "testset")
_VALIDATION_WORDS = ("val", "valid", "validation", "dev", "eval", "evaluation", "holdout")
_SPLIT_WORDS = {*_TRAINING_WORDS, *_TEST_WORDS, *_VALIDATION_WORDS, "fold", "split", "subset"}
_MAX_NAMES = 8


@dataclass(frozen=True)
class ClassFolder:
    """A class and the folders of its images.

    Attributes:
        name: The name of the folder in Unicode normalization form C.
        folders: One folder, or several whose names differ only in their Unicode normalization.
    """

    name: str
    folders: tuple[Path, ...]


def find_classes(folder: Path, key: str = "dataset.path") -> tuple[ClassFolder, ...]:
    """The classes of a dataset folder, in the natural order of their names: "10" comes after "2".

    Args:
        folder: A folder with one subfolder per class.
        key: The key of the recipe that names the folder, for error messages.

    Raises:
        RequestError: The folder does not exist, has fewer than two classes or contains the splits of a
            dataset, or the name of a subfolder is not valid text.
    """
    if not folder.is_dir():
        raise RequestError(
            f"{key} {printable(str(folder))} {'is a file' if folder.is_file() else 'does not exist'}",
            "a folder with one subfolder per class",
            f"Set it with `{key}=FOLDER`.",
        )
    found: dict[str, list[Path]] = {}
    for path in list_subfolders(folder):
        found.setdefault(normalize_label(_as_text(path)), []).append(path)
    classes = tuple(ClassFolder(name, tuple(found[name])) for name in sorted(found, key=natural_order))
    if len(classes) < 2:
        raise _too_few_classes(folder, classes, key)
    _refuse_splits(folder, classes)
    return classes


def count_folder_classes(source: FolderSource) -> int | None:
    """The number of classes in a folder; None if the folder is not on this machine."""
    folder = Path(source.path)
    return len(find_classes(folder)) if folder.is_dir() else None


def require_disjoint_folders(path: Path, test_path: Path) -> None:
    """Require that the test folder and the training folder share no files.

    Raises:
        RequestError: They are the same folder, or one contains the other.
    """
    train, test = path.resolve(), test_path.resolve()
    if train == test:
        relation = "is the folder of dataset.path"
    elif train in test.parents:
        relation = f"lies inside dataset.path {printable(str(path))}"
    elif test in train.parents:
        relation = f"contains dataset.path {printable(str(path))}"
    else:
        return
    raise RequestError(
        f"dataset.test_path {printable(str(test_path))} {relation}",
        "a folder of images that are not used for training",
        "Choose another folder, or omit dataset.test_path to use dataset.test_fraction of the images as the "
        "test set.",
    )


def layout_warnings(folder: Path, classes: Sequence[ClassFolder]) -> Iterator[str]:
    """Warnings about class folders that look wrong but may be right."""
    for found in classes:
        if len(found.folders) > 1:
            names = " and ".join(ascii(path.name) for path in found.folders)
            yield (
                f"{printable(str(folder))}: {names} are the same name in two Unicode forms; "
                f"their images are merged into one class, {printable(found.name)}"
            )
    folded: dict[str, list[str]] = {}
    for found in classes:
        folded.setdefault(found.name.casefold(), []).append(found.name)
    for spellings in folded.values():
        if len(spellings) > 1:
            yield (
                f"{printable(str(folder))}: {_join(spellings)} differ in letter case alone, and are "
                "treated as separate classes"
            )
    inner = {frozenset(_subfolder_names(found)) for found in classes}
    shared = min(inner, key=len)
    if len(inner) == 1 and len(shared) > 1:
        yield (
            f"{printable(str(folder))}: every class folder holds the same subfolders "
            f"({_join(sorted(shared, key=natural_order))}); if those are the real classes, put the images of "
            "each into a single folder"
        )


def list_subfolders(folder: Path) -> list[Path]:
    """The subfolders of a folder, including linked ones, by name; hidden folders and clutter are left out."""
    with os.scandir(folder) as entries:
        return sorted(
            Path(entry.path)
            for entry in entries
            if entry.is_dir() and not entry.name.startswith(".") and not is_clutter(entry.name)
        )


def natural_order(name: str) -> list[tuple[int, int, str]]:
    """A sort key that compares runs of digits by value: "2" comes before "10"."""
    parts = re.findall(r"\d+|\D+", name)
    return [(0, int(part), part) if part.isdecimal() else (1, 0, part) for part in parts]


def is_split_name(name: str) -> bool:
    """Whether a folder name is typical for a split of a dataset: `train`, `val2017`, `seg_test`."""
    return _has_word(name, _SPLIT_WORDS)


def _has_word(name: str, words: Sequence[str] | set[str]) -> bool:
    return any(word in words for word in re.findall(r"[^\W\d_]+", name.lower()))


def _as_text(path: Path) -> str:
    try:
        path.name.encode()
    except UnicodeEncodeError as error:
        raise RequestError(
            f"dataset folder {printable(str(path.parent))} has a subfolder {os.fsencode(path.name)!r}",
            "class names in valid UTF-8",
            "Rename the subfolder.",
        ) from error
    return path.name


def _too_few_classes(folder: Path, classes: Sequence[ClassFolder], key: str) -> RequestError:
    inner = _enter(folder)
    deeper = inner != folder and len(list_subfolders(inner)) > 1
    return RequestError(
        f"{key} {printable(str(folder))} has {len(classes)} subfolder{'s' * (len(classes) != 1)}",
        "one subfolder per class, at least two",
        f"Did you mean `{key}={printable(str(inner))}`?"
        if deeper
        else "Sort the images into subfolders named after their classes.",
    )


def _refuse_splits(folder: Path, classes: Sequence[ClassFolder]) -> None:
    inner: Mapping[str, set[str]] = {
        found.name: _subfolder_names(found) for found in classes if is_split_name(found.name)
    }
    divided = [names for names in inner.values() if len(names) > 1]
    shared = len(divided) > 1 and set.intersection(*divided)
    if not (shared or (divided and len(inner) == len(classes))):
        return
    raise RequestError(
        f"the subfolders of dataset.path {printable(str(folder))} are {_join(list(inner))}, "
        f"which have subfolders themselves ({_join(sorted(set.union(*divided), key=natural_order))})",
        "subfolders that are the classes",
        _name_splits(folder, list(inner)),
    )


def _name_splits(folder: Path, names: Sequence[str]) -> str:
    def first(*kinds: Sequence[str]) -> str | None:
        found = [name for words in kinds for name in names if _has_word(name, words)]
        return printable(str(_enter(folder / found[0]))) if found else None

    train, test = first(_TRAINING_WORDS), first(_TEST_WORDS, _VALIDATION_WORDS)
    if train is None:
        return "Put the images of each class into a single folder."
    words = f"`dataset.path={train}`"
    if test is not None:
        words += f" `dataset.test_path={test}`"
    return f"Set the folders of the splits: {words}."


def _subfolder_names(found: ClassFolder) -> set[str]:
    return {
        normalize_label(path.name) for folder in found.folders for path in list_subfolders(_enter(folder))
    }


def _enter(folder: Path) -> Path:
    """Descend while a folder contains only another folder: archives often unpack to `pets/pets/...`."""
    seen = {folder.resolve()}
    while True:
        with os.scandir(folder) as entries:
            first_two = list(islice(entries, 2))
        if len(first_two) != 1 or not (inside := list_subfolders(folder)) or inside[0].resolve() in seen:
            return folder
        folder = inside[0]
        seen.add(folder.resolve())


def _join(names: Sequence[str]) -> str:
    shown = ", ".join(printable(name) for name in names[:_MAX_NAMES])
    return f"{shown} and {len(names) - _MAX_NAMES} more" if len(names) > _MAX_NAMES else shown
