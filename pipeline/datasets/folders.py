"""Datasets from a folder with one subfolder per class, on this machine or at an address."""

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations, islice
from pathlib import Path

from pixelmill.pipeline.config import FolderSource
from pixelmill.pipeline.datasets.catalogue import ListedImage, Listing, Part
from pixelmill.pipeline.datasets.class_folders import (
    ClassFolder,
    find_classes,
    layout_warnings,
    list_subfolders,
    require_disjoint_folders,
    require_folder,
)
from pixelmill.pipeline.datasets.image_files import (
    FoundFile,
    describe_excluded,
    exclusion_reason,
    has_images,
    walk_images,
)
from pixelmill.pipeline.datasets.readers import FileReader, address_of
from pixelmill.pipeline.datasets.remote_files import list_remote, walk_remote_images
from pixelmill.pipeline.datasets.split_folders import find_split_folders
from pixelmill.pipeline.display import printable
from pixelmill.pipeline.errors import RequestError
from pixelmill.pipeline.file_names import escape_path
from pixelmill.pipeline.progress import progress
from pixelmill.pipeline.storage import Location, is_remote, parse_location

PARENT = "parent"
_OUTSIDE = "outside the class folders"
_KEYS: dict[Part, str] = {"validation": "dataset.validation_path", "test": "dataset.test_path"}


@dataclass(frozen=True)
class PartFolder:
    """A folder with class folders.

    Attributes:
        part: The split that its images belong to; None if it is still to be chosen.
        root: The folder.
        prefix: Comes before the names of its images.
        classes: Its class folders, in the order of the classes.
        min_images: Minimum number of images per class: one for each split taken from this folder.
    """

    part: Part | None
    root: Location
    prefix: str
    classes: tuple[ClassFolder, ...]
    min_images: int


def list_folder(source: FolderSource, cache: Path) -> Listing:
    """List the images in a dataset folder without reading them.

    Names are relative to the dataset folder, or to that of `test_path` or `validation_path`.

    Raises:
        RequestError: `check_folders` fails; while the images are consumed, `group_by` matches none of them.
        WorkError: A folder disappears while the images are consumed.
    """
    folders = check_folders(source)
    warnings: list[str] = []
    left_out: dict[str, int] = {}
    for folder in folders:
        warnings += layout_warnings(folder.root, folder.classes)
    return Listing(
        _list_all(source, folders, warnings, left_out),
        FileReader(),
        tuple(entry.name for entry in folders[0].classes),
        escape_path(address_of(parse_location(source.path))),
        warnings,
        left_out,
    )


def check_folders(source: FolderSource) -> tuple[PartFolder, ...]:
    """Find the class folders of each split without reading any image; the training images come first.

    Raises:
        RequestError: A folder is missing or has no classes, a class has too few images, two splits have
            different classes or share a folder, or a split is named twice.
    """
    found = _find_parts(source)
    for other in found[1:]:
        _require_same_classes(found[0], other)
    for part in found:
        few = [] if is_remote(part.root) else [entry for entry in part.classes if _lacks(entry, part)]
        if few:
            raise _too_few(part, [(entry.name, _count(entry)) for entry in few])
    return found


def count_folder_classes(source: FolderSource) -> int | None:
    """The number of classes in a folder; None if it is not on this machine."""
    folder = parse_location(source.path)
    if is_remote(folder) or not folder.is_dir():
        return None
    return len(_find_parts(source)[0].classes)


def _find_parts(source: FolderSource) -> tuple[PartFolder, ...]:
    folder = parse_location(source.path)
    require_folder(folder, "dataset.path")
    inside = find_split_folders(folder)
    paths: dict[Part, str | None] = {"validation": source.validation_path, "test": source.test_path}
    named = {part: parse_location(path) for part, path in paths.items() if path is not None}
    twice = next((part for part in _KEYS if part in inside and part in named), None)
    if twice is not None:
        raise RequestError(
            f"{_KEYS[twice]} {printable(str(named[twice]))} is set, and dataset.path "
            f"{printable(str(folder))} contains {inside[twice].name}",
            f"one folder of {twice} images",
            f"Omit {_KEYS[twice]}, or set `dataset.path={printable(str(inside['train']))}`.",
        )
    places = [("dataset.path", folder), *((_KEYS[part], path) for part, path in named.items())]
    for first, second in combinations(places, 2):
        require_disjoint_folders(first, second)
    others: dict[Part, Location] = {
        part: inside.get(part) or named[part] for part in _KEYS if part in inside or part in named
    }
    part: Part | None = "train" if others else None
    train = inside.get("train", folder)
    found = [PartFolder(part, train, _prefix(train, folder), find_classes(train), 3 - len(others))]
    for part, root in others.items():
        key = _KEYS[part] if part in named else "dataset.path"
        prefix = "" if part in named else _prefix(root, folder)
        found.append(PartFolder(part, root, prefix, find_classes(root, key), 1))
    return tuple(found)


def _prefix(root: Location, folder: Location) -> str:
    """The path of a split's folder relative to the dataset folder, with a final slash; empty for itself."""
    return str(root).removeprefix(str(folder)).strip("/") + "/" if root != folder else ""


def _require_same_classes(train: PartFolder, other: PartFolder) -> None:
    known = [entry.name for entry in train.classes]
    tested = [entry.name for entry in other.classes]
    unknown = [name for name in tested if name not in known]
    missing = [name for name in known if name not in tested]
    if unknown or missing:
        raise RequestError(
            f"{other.part} folder {printable(str(other.root))} has "
            + (f"a class {unknown[0]!r}" if unknown else f"no class {missing[0]!r}"),
            f"the classes of {printable(str(train.root))}: {', '.join(map(printable, known))}",
            f"Add training images of that class, or move its {other.part} folder away."
            if unknown
            else f"Add {other.part} images of that class.",
        )


def _list_all(
    source: FolderSource, folders: Sequence[PartFolder], warnings: list[str], left_out: dict[str, int]
) -> Iterator[ListedImage]:
    counts: Counter[str] = Counter()
    ungrouped = total = 0
    with progress("list", None, "files") as advance:
        for folder in folders:
            counts.update(_loose_entries(folder.root))
            for image, found in _list_part(folder, source.group_by):
                advance(1, "")
                if image is None:
                    counts[found.left_out or ""] += 1
                    continue
                total += 1
                ungrouped += image.group is None
                yield image
    left_out.update(counts.most_common())
    title = printable(source.path)
    if counts:
        count = counts.total()
        warnings.append(f"{title}: {count} file{'s' * (count != 1)} left out: {describe_excluded(counts)}")
    if source.group_by is not None and ungrouped:
        if ungrouped == total:
            raise RequestError(
                f"dataset.group_by {source.group_by!r} matches none of the {total} images in {title}",
                "`parent` for images in folders below those of the classes, or a regular expression that is "
                "found in paths such as cat/0001.jpg",
                "Correct it, or omit dataset.group_by.",
            )
        warnings.append(
            f"{title}: {ungrouped} of {total} images have no group by dataset.group_by {source.group_by!r}"
        )


def _list_part(folder: PartFolder, group_by: str | None) -> Iterator[tuple[ListedImage | None, FoundFile]]:
    """Each file below the class folders, with its image if it is one."""
    for entry in folder.classes:
        for place in entry.folders:
            address = f"{address_of(folder.root)}/{place.name}"
            for found in walk_remote_images(place) if is_remote(place) else walk_images(place):
                if found.left_out is not None:
                    yield None, found
                    continue
                path = escape_path(f"{address}/{found.name}")
                name = escape_path(f"{folder.prefix}{place.name}/{found.name}")
                group = None if group_by is None else _group_of(group_by, name, found.name)
                yield ListedImage(name, path, path, entry.name, folder.part, group, stamp=found.stamp), found


def _group_of(group_by: str, name: str, below_class: str) -> str | None:
    """The group of an image; None if it has none."""
    if group_by == PARENT:
        return escape_path(below_class.rpartition("/")[0]) or None
    match = re.search(group_by, name)
    if match is None:
        return None
    return match[1] if match.re.groups else match[0]


def _lacks(entry: ClassFolder, part: PartFolder) -> bool:
    found = any(has_images(folder, part.min_images) for folder in _local_folders(entry))
    return not found and _count(entry) < part.min_images


def _count(entry: ClassFolder) -> int:
    return sum(found.left_out is None for folder in _local_folders(entry) for found in walk_images(folder))


def _local_folders(entry: ClassFolder) -> list[Path]:
    return [folder for folder in entry.folders if not is_remote(folder)]


def _loose_entries(root: Location) -> Counter[str]:
    """Count what else is in the folder besides the class folders, by reason."""
    classes = {path.name for path in list_subfolders(root)}
    names = (
        [name for name, _ in list_remote(root)] if is_remote(root) else [path.name for path in root.iterdir()]
    )
    return Counter(exclusion_reason(name) or _OUTSIDE for name in names if name and name not in classes)


def _too_few(folder: PartFolder, classes: Sequence[tuple[str, int]]) -> RequestError:
    counts = ", ".join(
        f"class {name!r} has {count or 'no'} image{'s' * (count != 1)}" for name, count in islice(classes, 8)
    )
    return RequestError(
        f"{counts} in {printable(str(folder.root))}",
        f"at least {folder.min_images} distinct images",
        "Add images to the class, or move its folder away.",
    )
