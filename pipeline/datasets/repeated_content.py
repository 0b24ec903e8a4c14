"""The same bytes in two places where they must not be: under two classes, or in training and test."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

_MOST_EXAMPLES = 3


@dataclass(frozen=True)
class LabelledFile:
    """One image file of a dataset folder.

    Attributes:
        path: Of the file.
        name: The path below the dataset folder (or the test folder), as text: `file_names` gives
            the file's name back.
        class_name: In Unicode's composed form.
        sha256: Of its bytes, in hexadecimal.
        part: Which folder it is from.
    """

    path: Path
    name: str
    class_name: str
    sha256: str
    part: Literal["train", "test"]


def drop_contradictions(files: Sequence[LabelledFile]) -> tuple[list[LabelledFile], list[LabelledFile]]:
    """Part files in those to use and those whose content also lies under another class.

    Nothing tells which of the two classes is right, so none of the copies is used.
    """
    classes: dict[str, set[str]] = defaultdict(set)
    for file in files:
        classes[file.sha256].add(file.class_name)
    kept = [file for file in files if len(classes[file.sha256]) == 1]
    return kept, [file for file in files if len(classes[file.sha256]) > 1]


def repetition_warnings(
    folder: str, kept: Sequence[LabelledFile], dropped: Sequence[LabelledFile]
) -> Iterator[str]:
    """What a person should know of contents that occur twice, with examples.

    Args:
        folder: What to call the dataset.
        kept: The files used.
        dropped: Those that contradict each other.
    """
    if dropped:
        pairs = [_differing(group) for group in _by_content(dropped)]
        yield (
            f"{folder}: {len(dropped)} images lie under more than one class and are left out of all: "
            f"{_examples(pairs)}"
        )
    trained = {file.sha256: file for file in reversed(kept) if file.part == "train"}
    test = [file for file in kept if file.part == "test"]
    shared = [(trained[file.sha256], file) for file in test if file.sha256 in trained]
    if shared:
        yield (
            f"{folder}: {len(shared)} of {len(test)} test images are training images too, so the test "
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
    shown = ", ".join(f"{_place(first)} and {_place(second)}" for first, second in pairs[:_MOST_EXAMPLES])
    more = len(pairs) - _MOST_EXAMPLES
    return f"{shown}, and {more} more" if more > 0 else shown


def _place(file: LabelledFile) -> str:
    return f"{file.name} of the test" if file.part == "test" else file.name
