"""Duplicate files that distort a dataset: under two classes, or in both training and test images."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

_MAX_EXAMPLES = 3


@dataclass(frozen=True)
class LabelledFile:
    """One image file of a dataset folder.

    Attributes:
        path: The path of the file.
        name: The path relative to the dataset or test folder, as text; `file_names` restores the file name.
        class_name: The class in Unicode normalization form C.
        sha256: SHA-256 of its bytes, in hexadecimal.
        part: The folder it is in.
    """

    path: Path
    name: str
    class_name: str
    sha256: str
    part: Literal["train", "test"]


def drop_contradictions(files: Sequence[LabelledFile]) -> tuple[list[LabelledFile], list[LabelledFile]]:
    """Separate the files to use from those whose content also appears under another class.

    Nothing indicates which class is right, so none of the copies is used.
    """
    classes: dict[str, set[str]] = defaultdict(set)
    for file in files:
        classes[file.sha256].add(file.class_name)
    kept = [file for file in files if len(classes[file.sha256]) == 1]
    return kept, [file for file in files if len(classes[file.sha256]) > 1]


def duplicate_warnings(
    folder: str, kept: Sequence[LabelledFile], dropped: Sequence[LabelledFile]
) -> Iterator[str]:
    """Warnings about duplicate files, with examples.

    Args:
        folder: The name of the dataset in the warnings.
        kept: The files to use.
        dropped: The files with contradictory classes.
    """
    if dropped:
        pairs = [_differing(group) for group in _by_content(dropped)]
        yield (
            f"{folder}: {len(dropped)} images appear under more than one class and are left out of all: "
            f"{_examples(pairs)}"
        )
    trained = {file.sha256: file for file in reversed(kept) if file.part == "train"}
    test = [file for file in kept if file.part == "test"]
    shared = [(trained[file.sha256], file) for file in test if file.sha256 in trained]
    if shared:
        yield (
            f"{folder}: {len(shared)} of {len(test)} test images are also training images, so the test "
            f"accuracy will be too high: {_examples(shared)}"
        )


def _by_content(files: Sequence[LabelledFile]) -> list[list[LabelledFile]]:
    groups: dict[str, list[LabelledFile]] = defaultdict(list)
    for file in files:
        groups[file.sha256].append(file)
    return list(groups.values())


def _differing(group: Sequence[LabelledFile]) -> tuple[LabelledFile, LabelledFile]:
    return group[0], next(file for file in group if file.class_name != group[0].class_name)


def _examples(pairs: Sequence[tuple[LabelledFile, LabelledFile]]) -> str:
    shown = ", ".join(
        f"{_describe(first)} and {_describe(second)}" for first, second in pairs[:_MAX_EXAMPLES]
    )
    more = len(pairs) - _MAX_EXAMPLES
    return f"{shown}, and {more} more" if more > 0 else shown


def _describe(file: LabelledFile) -> str:
    return f"{file.name} (test)" if file.part == "test" else file.name
