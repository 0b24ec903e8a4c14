"""Datasets from a table with a row for each image."""

import os
import posixpath
from array import array
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np

from pixelmill.pipeline.config import TableSource
from pixelmill.pipeline.datasets.catalogue import ListedImage, Listing, Part
from pixelmill.pipeline.datasets.class_folders import natural_order
from pixelmill.pipeline.datasets.image_files import stamp_of
from pixelmill.pipeline.datasets.readers import FileReader, address_of
from pixelmill.pipeline.datasets.remote_stamps import RemoteStamps
from pixelmill.pipeline.datasets.split_folders import part_of
from pixelmill.pipeline.datasets.table_files import (
    TableRow,
    find_files,
    find_tables,
    folder_of,
    read_header,
    read_rows,
)
from pixelmill.pipeline.display import printable
from pixelmill.pipeline.errors import RequestError
from pixelmill.pipeline.file_names import escape_path
from pixelmill.pipeline.labels import normalize_label
from pixelmill.pipeline.progress import progress
from pixelmill.pipeline.recipes.spelling import did_you_mean
from pixelmill.pipeline.storage import Location, is_remote, parse_location

_LOOKED_FOR = 100


class TableEntry(NamedTuple):
    """A row with its meaning.

    Attributes:
        place: Where it is, for messages.
        name: The path of the image relative to the root.
        file: Its absolute path or its address.
        label: The class.
        part: The split, if the table has one.
        group: The group, if the table has one.
        slices: All other columns.
    """

    place: str
    name: str
    file: str
    label: str
    part: Part | None
    group: str | None
    slices: Mapping[str, str]


@dataclass(frozen=True)
class _Survey:
    """What a first pass over a table finds.

    Attributes:
        class_names: In natural order.
        repeated: The hashes of the files that more than one row names.
    """

    class_names: tuple[str, ...]
    repeated: frozenset[int]


def list_table(source: TableSource, cache: Path) -> Listing:
    """List the images of a table without reading them.

    A file that does not exist is listed, and found to be unreadable when it is read.

    Raises:
        RequestError: `check_table` fails.
    """
    survey = check_table(source)
    warnings: list[str] = []
    images = _list(source, survey, warnings)
    return Listing(images, FileReader(), survey.class_names, escape_path(source.path), warnings)


def check_table(source: TableSource) -> _Survey:
    """Read a table without reading any image.

    Raises:
        RequestError: It lacks a column, a path or a label; it has an unknown split, fewer than two classes,
            or two rows that contradict each other; or none of the first files exists.
    """
    stamps = tuple((str(file), _stamp(file)) for file in find_tables(source.path))
    survey = _survey(source, stamps)
    if len(survey.class_names) < 2:
        names = ", ".join(map(printable, survey.class_names)) or "none"
        raise RequestError(
            f"table {printable(source.path)} has {len(survey.class_names)} classes ({names})",
            "at least two classes",
            "Set dataset.label_column to the column of the classes.",
        )
    first = [entry for entry in islice(read_entries(source), _LOOKED_FOR) if "://" not in entry.file]
    if first and not any(os.path.exists(entry.file) for entry in first):  # noqa: PTH110
        raise RequestError(
            f"the files of {printable(source.path)} do not exist (the first: {printable(first[0].file)})",
            f"paths relative to {printable(_root(source, find_tables(source.path)[0]))}",
            "Set dataset.root to the folder of the images.",
        )
    return survey


def count_table_classes(source: TableSource) -> int | None:
    """The number of classes in a table; None if it is not on this machine.

    Raises:
        RequestError: `check_table` fails.
    """
    if is_remote(parse_location(source.path)) or not find_files(source.path):
        return None
    return len(check_table(source).class_names)


@lru_cache(maxsize=4)
def _survey(source: TableSource, stamps: tuple[tuple[str, str], ...]) -> _Survey:
    """The first pass; `stamps` tell that the files have not changed since."""
    hashes = array("q")
    labels: set[str] = set()
    for entry in read_entries(source):
        hashes.append(hash(entry.file))
        labels.add(entry.label)
    values, counts = np.unique(np.array(hashes, np.int64), return_counts=True)
    repeated = frozenset(values[counts > 1].tolist())
    if repeated:
        for _ in _distinct(source, repeated, []):
            pass
    return _Survey(tuple(sorted(labels, key=natural_order)), repeated)


def _list(source: TableSource, survey: _Survey, warnings: list[str]) -> Iterator[ListedImage]:
    remote = RemoteStamps()
    with progress("list", None, "images") as advance:
        for entry in _distinct(source, survey.repeated, warnings):
            path = escape_path(entry.file)
            stamp = remote.of(entry.file) if "://" in entry.file else _local_stamp(entry.file)
            name = escape_path(entry.name)
            yield ListedImage(
                name, path, path, entry.label, entry.part, entry.group, entry.slices, stamp=stamp
            )
            advance(1, "")


def _distinct(source: TableSource, repeated: frozenset[int], warnings: list[str]) -> Iterator[TableEntry]:
    """The rows, of those that say the same of a file the first.

    Raises:
        RequestError: Two rows say different things of a file.
    """
    seen: dict[str, TableEntry] = {}
    again = 0
    for entry in read_entries(source):
        if hash(entry.file) in repeated:
            first = seen.setdefault(entry.file, entry)
            if first is not entry:
                _require_agreement(first, entry)
                again += 1
                continue
        yield entry
    if again:
        warnings.append(f"{printable(source.path)}: {again} row{'s' * (again != 1)} repeat an earlier row")


def _require_agreement(first: TableEntry, second: TableEntry) -> None:
    for what, one, other in (
        ("label", first.label, second.label),
        ("split", first.part, second.part),
        ("group", first.group, second.group),
    ):
        if one != other:
            raise RequestError(
                f"{printable(first.name)} has the {what} {one!r} in {printable(first.place)}, and {other!r} "
                f"in {printable(second.place)}",
                f"one {what} for each file",
                "Correct or remove one of the rows.",
            )


def read_entries(source: TableSource) -> Iterator[TableEntry]:
    """All rows of all files; no image is looked for.

    Raises:
        RequestError: A column is missing, or a row lacks a path or a label or has an unknown split.
    """
    for file in find_tables(source.path):
        columns = read_header(file)
        _require_columns(source, file, columns)
        special = {source.path_column, source.label_column, source.split_column, source.group_column}
        further = [name for name in columns if name not in special]
        root = _root(source, file)
        for row in read_rows(file):
            values = row.values
            file_name = _absolute(_required(row, source.path_column), root)
            word = values.get(source.split_column, "")
            part = part_of(word) if word else None
            if word and part is None:
                raise RequestError(
                    f"{printable(row.place)} has the split {word!r}",
                    "train, validation or test",
                    "Correct it.",
                )
            yield TableEntry(
                row.place,
                _relative(file_name, root),
                file_name,
                normalize_label(_required(row, source.label_column)),
                part,
                values.get(source.group_column) or None,
                {key: values[key] for key in further if key in values},
            )


def _require_columns(source: TableSource, file: Location, columns: list[str]) -> None:
    fields = ["path_column", "label_column"]
    fields += [
        name
        for name in ("split_column", "group_column")
        if getattr(source, name) != TableSource.model_fields[name].default
    ]
    for field in fields:
        name = getattr(source, field)
        if name not in columns:
            raise RequestError(
                f"table {printable(str(file))} has no column {name!r}",
                f"one of its columns: {', '.join(map(printable, columns)) or 'none'}",
                f"{did_you_mean(name, columns)} Set it with `dataset.{field}=COLUMN`.",
            )


def _required(row: TableRow, column: str) -> str:
    value = row.values.get(column, "")
    if not value:
        raise RequestError(
            f"{printable(row.place)} has no {column}", "a path and a label in every row", "Correct the row."
        )
    return value


def _root(source: TableSource, file: Location) -> str:
    return folder_of(file) if source.root is None else address_of(parse_location(source.root))


def _absolute(path: str, root: str) -> str:
    """The absolute path or address of a path in a table."""
    if "://" in path:
        return path
    kind, colon, folder = root.rpartition("://")
    if path.startswith("/"):
        return posixpath.normpath(path)
    return kind + colon + posixpath.normpath(posixpath.join(folder, path))


def _relative(file: str, root: str) -> str:
    """A path relative to the root, if it is below it; else without the kind of an address."""
    return file.removeprefix(f"{root}/").rpartition("://")[2].lstrip("/")


def _local_stamp(file: str) -> str:
    try:
        return stamp_of(os.stat(file))  # noqa: PTH116
    except OSError:
        return ""  # Reading the file will report the error.


def _stamp(file: Location) -> str:
    text = address_of(file)
    return RemoteStamps().of(text) if "://" in text else _local_stamp(text)
