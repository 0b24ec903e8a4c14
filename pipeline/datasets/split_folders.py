"""The folders of the splits of a dataset: `train`, `validation` and `test`, each with the same classes."""

import re
from collections.abc import Collection, Mapping

from pixelmill.pipeline.datasets.catalogue import Part
from pixelmill.pipeline.datasets.class_folders import (
    ClassFolder,
    enter,
    join_names,
    list_subfolders,
    natural_order,
    subfolder_names,
)
from pixelmill.pipeline.display import printable
from pixelmill.pipeline.errors import RequestError
from pixelmill.pipeline.labels import normalize_label
from pixelmill.pipeline.storage import Location

_WORDS: Mapping[Part, Collection[str]] = {
    "train": ("train", "training", "trainset"),
    "test": ("test", "testing", "testset"),
    "validation": ("val", "valid", "validation", "dev", "eval", "evaluation", "holdout"),
}
_SPLIT_WORDS = {word for words in _WORDS.values() for word in words} | {"fold", "split", "subset"}


def find_split_folders(folder: Location) -> dict[Part, Location]:
    """The folders of the splits in a dataset folder; empty if its subfolders are classes.

    Raises:
        RequestError: They are splits, and it is not clear which of the three each of them is: there is no
            training folder, two of a kind, another folder beside them, or one without classes.
    """
    subfolders = list_subfolders(folder)
    inner = {
        path: subfolder_names(ClassFolder(normalize_label(path.name), (path,)))
        for path in subfolders
        if is_split_name(path.name)
    }
    divided = [names for names in inner.values() if len(names) > 1]
    shared = len(divided) > 1 and set.intersection(*divided)
    if not (shared or (divided and len(inner) == len(subfolders))):
        return {}
    parts = {path: part_of(path.name) for path in subfolders}
    is_clear = shared and len(divided) == len(subfolders) and len(set(parts.values())) == len(parts)
    if is_clear and None not in parts.values() and "train" in parts.values():
        return {part: enter(path) for path, part in parts.items() if part is not None}
    raise RequestError(
        f"the subfolders of dataset.path {printable(str(folder))} are "
        f"{join_names([path.name for path in subfolders])}, some of which have subfolders themselves "
        f"({join_names(sorted(set.union(*divided), key=natural_order))})",
        "classes, or one folder each for train, validation and test, with the same classes",
        _remedy({part: path for path, part in reversed(parts.items()) if part is not None}),
    )


def is_split_name(name: str) -> bool:
    """Whether a folder name is typical for a split of a dataset: `train`, `val2017`, `seg_test`."""
    return not _words_of(name).isdisjoint(_SPLIT_WORDS)


def part_of(name: str) -> Part | None:
    """The split that a name means; None if it means none, or more than one."""
    words = _words_of(name)
    found = [part for part, known in _WORDS.items() if not words.isdisjoint(known)]
    return found[0] if len(found) == 1 else None


def _words_of(name: str) -> set[str]:
    return set(re.findall(r"[^\W\d_]+", name.lower()))


def _remedy(parts: Mapping[Part, Location]) -> str:
    if "train" not in parts:
        return "Put the images of each class into a single folder."
    keys: tuple[tuple[Part, str], ...] = (
        ("train", "dataset.path"),
        ("validation", "dataset.validation_path"),
        ("test", "dataset.test_path"),
    )
    words = (f"`{key}={printable(str(enter(parts[part])))}`" for part, key in keys if part in parts)
    return f"Set the folders of the splits: {' '.join(words)}."
