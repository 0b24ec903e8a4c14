"""A dataset of one's own: a folder with one subfolder per class."""

import hashlib
import json
import os
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from pipeline.artifacts import sha256_of, write_text
from pipeline.config import FolderSource
from pipeline.datasets import RawDataset
from pipeline.errors import RequestError
from pipeline.images import EXTENSIONS

INDEX = "index.jsonl"


@dataclass(frozen=True)
class LabelledFile:
    """One image file: its path, the name of its class, the SHA-256 of its bytes, its part."""

    path: str
    class_name: str
    sha256: str
    part: Literal["train", "test"]


def index_folder(source: FolderSource, cache: Path) -> RawDataset:
    """Look a folder over and write down what it holds, in the order of classes and paths.

    Args:
        source: The folder, and the test's where it has one of its own.
        cache: Where the index goes, under the fingerprint of what it lists.

    Raises:
        RequestError: Fewer than two classes, or a class with too few images for its splits.
    """
    folder = Path(source.path)
    classes = list_classes(folder)
    if source.test_path is None:
        # One image each for training, validation and test.
        files = _list_images(folder, classes, "train", fewest=3)
    else:
        unknown = set(list_classes(Path(source.test_path))) - set(classes)
        if unknown:
            raise RequestError(
                f"test folder {source.test_path} has a class {min(unknown)!r}",
                f"the classes of {folder}: {', '.join(classes)}",
                "Add its training images, or move it away.",
            )
        files = _list_images(folder, classes, "train", fewest=2)
        files += _list_images(Path(source.test_path), classes, "test", fewest=1)
    lines = [json.dumps(asdict(file)) for file in files]
    facts = [json.dumps([file.class_name, file.sha256, file.part]) for file in files]
    fingerprint = hashlib.sha256("\n".join(facts).encode()).hexdigest()
    index = cache / f"{fingerprint}.jsonl"
    write_text(index, "\n".join(lines) + "\n")
    return RawDataset("folder", {INDEX: index}, fingerprint, str(folder.resolve()))


def read_index(raw: RawDataset) -> list[LabelledFile]:
    """The files of a folder dataset, in the index's order."""
    lines = raw.files[INDEX].read_text(encoding="utf-8").splitlines()
    return [LabelledFile(**json.loads(line)) for line in lines]


def list_classes(folder: Path) -> tuple[str, ...]:
    """The names of the subfolders in natural order, so that "10" comes after "2".

    Raises:
        RequestError: There are fewer than two.
    """
    if not folder.is_dir():
        raise RequestError(
            f"dataset folder {folder} does not exist",
            "a folder with one subfolder per class",
            "Name it with --set dataset.path=FOLDER.",
        )
    names = [path.name for path in folder.iterdir() if path.is_dir() and path.name[0] != "."]
    unreadable = [name for name in names if not _is_text(name)]
    if unreadable:
        raise RequestError(
            f"dataset folder {folder} has a subfolder {os.fsencode(unreadable[0])!r}",
            "class names that are text in UTF-8",
            "Rename it.",
        )
    if len(names) < 2:
        raise RequestError(
            f"dataset folder {folder} has {len(names)} subfolders",
            "one subfolder per class, at least two",
            "Sort the images into subfolders named after their classes.",
        )
    return tuple(sorted(names, key=natural_order))


def count_folder_classes(source: FolderSource) -> int | None:
    """How many classes a folder holds; None where it is not here."""
    folder = Path(source.path)
    return len(list_classes(folder)) if folder.is_dir() else None


def natural_order(name: str) -> list[tuple[int, int, str]]:
    """A key that sorts runs of digits by their value: "2" before "10"."""
    parts = re.findall(r"\d+|\D+", name)
    return [(0, int(part), part) if part.isdecimal() else (1, 0, part) for part in parts]


def _walk(folder: Path) -> list[Path]:
    """Every file below a folder, sorted, hidden ones and hidden folders left out."""

    def refuse(error: OSError) -> None:
        raise error  # Leaving a folder out would change the dataset without a word.

    found = []
    for parent, folders, files in os.walk(folder, onerror=refuse):
        folders[:] = [name for name in folders if not name.startswith(".")]
        found += [Path(parent, name) for name in files if not name.startswith(".")]
    return sorted(found)


def _is_text(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _list_images(
    folder: Path, classes: Sequence[str], part: Literal["train", "test"], fewest: int
) -> list[LabelledFile]:
    listed = []
    for name in classes:
        found = [
            LabelledFile(str(path), name, sha256_of(path), part)
            for path in _walk(folder / name)
            if path.suffix.lower() in EXTENSIONS and path.is_file()
        ]
        contents = len({file.sha256 for file in found})
        if contents < fewest:
            raise RequestError(
                f"class {name!r} in {folder} has {contents or 'no'} image{'s' * (contents != 1)}",
                f"at least {fewest} of different content",
                "Add images to the class, or move its folder away.",
            )
        listed += found
    return listed
