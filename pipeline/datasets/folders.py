"""Datasets from a folder with one subfolder per class."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pixelmill.pipeline.config import FolderSource
from pixelmill.pipeline.datasets.catalogue import ListedImage, Listing
from pixelmill.pipeline.datasets.class_folders import (
    ClassFolder,
    find_classes,
    layout_warnings,
    list_subfolders,
    require_disjoint_folders,
)
from pixelmill.pipeline.datasets.image_files import (
    describe_excluded,
    exclusion_reason,
    has_images,
    list_image_files,
)
from pixelmill.pipeline.decoding.files import read_file
from pixelmill.pipeline.display import printable
from pixelmill.pipeline.errors import RequestError
from pixelmill.pipeline.file_names import escape_path, unescape

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


@dataclass(frozen=True)
class FileReader:
    def read(self, place: str) -> bytes:
        return read_file(Path(unescape(place)))


def list_folder(source: FolderSource, cache: Path) -> Listing:
    """List the images; to be replaced."""
    folders = check_folders(source)
    warnings = [line for folder in folders for line in layout_warnings(folder.root, folder.classes)]
    left_out: dict[str, int] = {}
    title = escape_path(str(Path(source.path).resolve()))

    def images() -> Iterator[ListedImage]:
        counts: Counter[str] = Counter()
        for folder in folders:
            counts.update(_loose_entries(folder.root))
            for entry in folder.classes:
                for place in entry.folders:
                    for path in list_image_files(place, counts, lambda count, note: None):
                        status = path.stat()
                        where = escape_path(str(path.resolve()))
                        yield ListedImage(
                            escape_path(path.relative_to(folder.root).as_posix()),
                            where,
                            where,
                            entry.name,
                            "test" if folder.part == "test" else None,
                            stamp=f"{status.st_size}-{status.st_mtime_ns}-{status.st_ctime_ns}",
                        )
        left_out.update(counts.most_common())
        if counts:
            count = counts.total()
            warnings.append(
                f"{title}: {count} file{'s' * (count != 1)} left out: {describe_excluded(counts)}"
            )

    names = tuple(entry.name for entry in folders[0].classes)
    return Listing(images(), FileReader(), names, title, warnings, left_out)


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


def _has_images(entry: ClassFolder, count: int) -> bool:
    return any(has_images(folder, count) for folder in entry.folders) or _count(entry) >= count


def _count(entry: ClassFolder) -> int:
    ignored: Counter[str] = Counter()
    return sum(len(list_image_files(folder, ignored, lambda count, note: None)) for folder in entry.folders)


def _loose_entries(root: Path) -> Counter[str]:
    """Count what else is in the dataset folder besides the class folders, by reason."""
    classes = set(list_subfolders(root))
    return Counter(exclusion_reason(path) or _OUTSIDE for path in root.iterdir() if path not in classes)


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
