"""The images on which two versions are compared: test images of the second, a folder, or a table."""

import hashlib
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path

from pixelmill.pipeline.bundles import ModelBundle
from pixelmill.pipeline.datasets.readers import FileReader, place_of
from pixelmill.pipeline.datasets.table_files import find_tables, folder_of, read_header, read_rows
from pixelmill.pipeline.display import printable
from pixelmill.pipeline.errors import RequestError
from pixelmill.pipeline.file_names import escape_path, unescape
from pixelmill.pipeline.images import ImageFailure
from pixelmill.pipeline.labels import normalize_label
from pixelmill.pipeline.promotion.test_images import TestImages
from pixelmill.pipeline.registry.training_data import find_dataset
from pixelmill.pipeline.scoring.listing import list_images
from pixelmill.pipeline.storage import Location, parse_location, require_reachable, sha256_of, workspace


@dataclass(frozen=True)
class ComparedImages:
    """Image files.

    Attributes:
        title: What they are, in words.
        names: Their names, as text.
        files: Local files; one that does not exist could not be read.
        sha256: The content of each, in hexadecimal; empty if it could not be read.
        labels: The true class of each; None if they are not known.
    """

    title: str
    names: tuple[str, ...]
    files: tuple[Path, ...]
    sha256: tuple[str, ...]
    labels: tuple[str, ...] | None


def find_images(
    store: Location, bundle: ModelBundle, images: str | None, class_names: Collection[str], folder: Path
) -> ComparedImages:
    """Find the images of a comparison.

    Args:
        store: The artifacts root.
        bundle: The version whose test images are used if `images` is None.
        images: A folder, whose subfolders give the classes if each of them is one; or a table, CSV or
            Parquet, with the column `path` and maybe `label`; local or an address.
        class_names: The classes of the two versions.
        folder: An existing folder for copies of images that are no local files.

    Raises:
        RequestError: There are no such images.
    """
    if images is None:
        return _test_images(store, bundle, folder)
    place = parse_location(images)
    require_reachable(place)
    named = _in_table(images) if _is_table(images) else _in_folder(place, images)
    names, places, labels = zip(*named, strict=True) if named else ((), (), ())
    if not names:
        raise RequestError(
            f"images {printable(images)} hold no image",
            "a folder of images, or a table with the column path",
            "Check the path.",
        )
    known = {normalize_label(name) for name in class_names}
    # A folder whose subfolders are no classes, and a table with gaps, have no labels.
    in_table = _is_table(images)
    is_labelled = all(label if in_table else label in known for label in labels)
    files, sha256 = zip(*_fetch(places, folder), strict=True)
    return ComparedImages(images, names, files, sha256, labels if is_labelled else None)


def _is_table(images: str) -> bool:
    return images.lower().endswith((".csv", ".tsv", ".txt", ".parquet")) and not Path(images).is_dir()


def _in_folder(folder: Location, images: str) -> list[tuple[str, str, str]]:
    if not folder.is_dir():
        raise RequestError(
            f"images {printable(images)} do not exist",
            "a folder of images, or a table in CSV or Parquet",
            "Check the path.",
        )
    paths = [image.path for image in list_images(folder) if image.problem is None]
    return [
        (path, place_of(folder, unescape(path)), normalize_label(unescape(path.partition("/")[0])))
        for path in paths
    ]


def _in_table(images: str) -> list[tuple[str, str, str]]:
    rows = []
    for file in find_tables(images, "images"):
        if "path" not in read_header(file):
            raise RequestError(
                f"table {printable(str(file))} has no column 'path'",
                "the columns path and, where the true classes are known, label",
                "Rename the column of the paths.",
            )
        root = folder_of(file)
        for row in read_rows(file):
            path = row.values.get("path", "")
            whole = path if "://" in path or path.startswith("/") else f"{root}/{path}"
            label = normalize_label(row.values.get("label", ""))
            rows.append((escape_path(path), escape_path(whole), label))
    return rows


def _fetch(places: Iterable[str], folder: Path) -> Iterable[tuple[Path, str]]:
    """The local file of each place, and its SHA-256."""
    reader = FileReader()
    for number, place in enumerate(places):
        if "://" not in place:
            file = Path(unescape(place))
            try:
                yield file, sha256_of(file)
            except OSError:
                yield file, ""
            continue
        copy = folder / f"{number:08d}"
        try:
            content = reader.read(place)
        except ImageFailure:
            yield copy, ""
            continue
        copy.write_bytes(content)
        yield copy, hashlib.sha256(content).hexdigest()


def _test_images(store: Location, bundle: ModelBundle, folder: Path) -> ComparedImages:
    reference = f"{bundle.name}@{bundle.version}"
    dataset = find_dataset(workspace(store), bundle)
    if dataset is None:
        raise RequestError(
            f"no images, and the dataset of {reference} is not in {workspace(store) / 'datasets'}",
            "the store in which it was trained, or other images",
            "Name a folder or a table with `images`.",
        )
    test = TestImages.of_dataset(dataset, folder)
    return ComparedImages(
        title=f"the test images of {reference}",
        names=tuple(dataset.names("test")),
        files=test.files,
        sha256=test.sha256,
        labels=tuple(normalize_label(dataset.class_names[label]) for label in test.labels),
    )
