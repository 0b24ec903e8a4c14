"""Datasets from a folder with one subfolder per class."""

import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from logging import getLogger
from pathlib import Path
from typing import Literal

from pixelmill.pipeline.artifacts import sha256_of, write_text
from pixelmill.pipeline.config import FolderSource
from pixelmill.pipeline.datasets import RawDataset
from pixelmill.pipeline.datasets.class_folders import (
    ClassFolder,
    find_classes,
    layout_warnings,
    list_subfolders,
    require_disjoint_folders,
)
from pixelmill.pipeline.datasets.duplicates import (
    LabelledFile,
    drop_contradictions,
    duplicate_warnings,
)
from pixelmill.pipeline.datasets.image_files import (
    describe_excluded,
    exclusion_reason,
    has_images,
    list_image_files,
)
from pixelmill.pipeline.display import printable
from pixelmill.pipeline.errors import RequestError
from pixelmill.pipeline.file_names import escape_path, unescape
from pixelmill.pipeline.progress import progress

INDEX = "index.jsonl"
_log = getLogger(__name__)
_OUTSIDE = "outside the class folders"


@dataclass(frozen=True)
class PartFolder:
    """The folder of the training or test images.

    Attributes:
        part: Which of the two. Without a test folder, the test images are taken from the training folder.
        root: The path of the folder.
        classes: Its class folders, in the order of the classes.
        min_images: Minimum number of distinct images per class: one for each split taken from this folder.
    """

    part: Literal["train", "test"]
    root: Path
    classes: tuple[ClassFolder, ...]
    min_images: int


def index_folder(source: FolderSource, cache: Path) -> RawDataset:
    """Write an index of the images in a dataset folder, sorted by class and path.

    Files left out and problems that deserve attention are logged as warnings and kept with the dataset.

    Args:
        source: The dataset folder, and the test folder if there is one.
        cache: Where the index is written, named by the hash of its content.

    Raises:
        RequestError: `check_folders` fails, or a class has too few distinct images for its splits.
    """
    folders = check_folders(source)
    left_out: Counter[str] = Counter()
    files = _hash_images(folders, left_out)
    kept, dropped = drop_contradictions(files)
    title = printable(source.path)
    warnings = [line for folder in folders for line in layout_warnings(folder.root, folder.classes)]
    if left_out:
        count = left_out.total()
        warnings.append(f"{title}: {count} file{'s' * (count != 1)} left out: {describe_excluded(left_out)}")
    warnings += duplicate_warnings(title, kept, dropped)
    for line in warnings:
        _log.warning("%s", line)
    for folder in folders:
        _require_enough(folder, kept, dropped)
    return _write_index(kept, folders, cache, warnings, left_out)


def check_folders(source: FolderSource) -> tuple[PartFolder, ...]:
    """Find the class folders of the training and test images without reading any image.

    Raises:
        RequestError: A folder is missing or has no classes, a class has too few images, the test folder has
            different classes, or the test folder and the training folder share files.
    """
    folder = Path(source.path)
    min_images = 3 if source.test_path is None else 2
    found = [PartFolder("train", folder, find_classes(folder), min_images)]
    if source.test_path is not None:
        test_folder = Path(source.test_path)
        found.append(PartFolder("test", test_folder, find_classes(test_folder, "dataset.test_path"), 1))
        require_disjoint_folders(folder, test_folder)
        _require_same_classes(*found)
    for part in found:
        few = [entry for entry in part.classes if not _has_images(entry, part.min_images)]
        if few:
            raise _too_few(part, [(entry.name, _count(entry)) for entry in few])
    return tuple(found)


def read_index(raw: RawDataset) -> list[LabelledFile]:
    """The files of a folder dataset, in the order of the index."""
    rows = (json.loads(line) for line in raw.files[INDEX].read_text(encoding="utf-8").splitlines())
    return [LabelledFile(path=raw.files[row["part"]] / unescape(row["name"]), **row) for row in rows]


def _require_same_classes(train: PartFolder, test: PartFolder) -> None:
    known = [entry.name for entry in train.classes]
    tested = [entry.name for entry in test.classes]
    unknown = [name for name in tested if name not in known]
    missing = [name for name in known if name not in tested]
    if unknown or missing:
        raise RequestError(
            f"test folder {printable(str(test.root))} has "
            + (f"a class {unknown[0]!r}" if unknown else f"no class {missing[0]!r}"),
            f"the classes of {printable(str(train.root))}: {', '.join(map(printable, known))}",
            "Add training images of that class, or move its test folder away."
            if unknown
            else "Add test images of that class.",
        )


def _hash_images(folders: Sequence[PartFolder], left_out: Counter[str]) -> list[LabelledFile]:
    found: list[tuple[PartFolder, ClassFolder, Path]] = []
    with progress("list", None, "files") as advance:
        for folder in folders:
            left_out.update(_loose_entries(folder.root))
            for entry in folder.classes:
                for place in entry.folders:
                    found += [(folder, entry, path) for path in list_image_files(place, left_out, advance)]
    files = []
    with progress("hash", len(found), "images") as advance:
        for folder, entry, path in found:
            name = escape_path(path.relative_to(folder.root).as_posix())
            files.append(LabelledFile(path, name, entry.name, sha256_of(path), folder.part))
            advance(1, "")
    return files


def _has_images(entry: ClassFolder, count: int) -> bool:
    return any(has_images(folder, count) for folder in entry.folders) or _count(entry) >= count


def _count(entry: ClassFolder) -> int:
    ignored: Counter[str] = Counter()
    return sum(len(list_image_files(folder, ignored, lambda count, note: None)) for folder in entry.folders)


def _loose_entries(root: Path) -> Counter[str]:
    """Count what else is in the dataset folder besides the class folders, by reason."""
    classes = set(list_subfolders(root))
    return Counter(exclusion_reason(path) or _OUTSIDE for path in root.iterdir() if path not in classes)


def _require_enough(
    folder: PartFolder, kept: Sequence[LabelledFile], dropped: Sequence[LabelledFile]
) -> None:
    contents: dict[str, set[str]] = {entry.name: set() for entry in folder.classes}
    for file in kept:
        if file.part == folder.part:
            contents[file.class_name].add(file.sha256)
    few = [(name, len(found)) for name, found in contents.items() if len(found) < folder.min_images]
    if few:
        shared = {file.class_name for file in dropped} & {name for name, _ in few}
        raise _too_few(folder, few, sorted(shared))


def _too_few(
    folder: PartFolder, classes: Sequence[tuple[str, int]], shared: Sequence[str] = ()
) -> RequestError:
    counts = ", ".join(
        f"class {name!r} has {count or 'no'} image{'s' * (count != 1)}" for name, count in classes
    )
    if shared:
        return RequestError(
            f"{counts} not shared with other classes in {printable(str(folder.root))}",
            f"at least {folder.min_images} distinct images that no other class has",
            f"Check the images that other classes share with {', '.join(map(printable, shared))}.",
        )
    return RequestError(
        f"{counts} in {printable(str(folder.root))}",
        f"at least {folder.min_images} distinct images",
        "Add images to the class, or move its folder away.",
    )


def _write_index(
    files: Sequence[LabelledFile],
    folders: Sequence[PartFolder],
    cache: Path,
    warnings: Sequence[str],
    left_out: Counter[str],
) -> RawDataset:
    lines = list(_index_lines(files))
    facts = [json.dumps([file.class_name, file.sha256, file.part]) for file in files]
    names_sha256 = _sha256(lines)
    index = cache / f"{names_sha256}.jsonl"
    write_text(index, "\n".join(lines) + "\n")
    roots = {folder.part: folder.root.resolve() for folder in folders}
    return RawDataset(
        "folder",
        {INDEX: index, **{str(part): root for part, root in roots.items()}},
        _sha256(facts),
        escape_path(str(roots["train"])),
        names_sha256,
        tuple(warnings),
        dict(left_out.most_common()),
    )


def _index_lines(files: Sequence[LabelledFile]) -> Iterator[str]:
    for file in files:
        yield json.dumps(
            {"name": file.name, "class_name": file.class_name, "sha256": file.sha256, "part": file.part}
        )


def _sha256(lines: Sequence[str]) -> str:
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()
