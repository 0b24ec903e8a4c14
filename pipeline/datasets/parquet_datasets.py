"""Datasets from Parquet files with a column of images, in the layout of Hugging Face's datasets."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from pixelmill.pipeline.config import ParquetSource
from pixelmill.pipeline.datasets.catalogue import ListedImage, Listing, Part
from pixelmill.pipeline.datasets.class_folders import natural_order
from pixelmill.pipeline.datasets.image_files import stamp_of
from pixelmill.pipeline.datasets.readers import address_of
from pixelmill.pipeline.datasets.remote_stamps import RemoteStamps
from pixelmill.pipeline.datasets.split_folders import part_of
from pixelmill.pipeline.display import printable
from pixelmill.pipeline.errors import RequestError
from pixelmill.pipeline.file_names import escape_path, unescape
from pixelmill.pipeline.images import FailureCode, ImageFailure
from pixelmill.pipeline.labels import normalize_label
from pixelmill.pipeline.progress import progress
from pixelmill.pipeline.recipes.spelling import did_you_mean
from pixelmill.pipeline.storage import (
    Location,
    file_system,
    is_remote,
    is_remote_error,
    parse_location,
    require_reachable,
)

_METADATA = b"huggingface"
_BATCH_ROWS = 1 << 14


@dataclass(frozen=True)
class ParquetReader:
    """Reads the images of Parquet files. It keeps the row group that it read last, so rows are best read in
    their order.

    Attributes:
        column: The column of the images.
    """

    column: str

    def read(self, place: str) -> bytes:
        """The bytes of an image file.

        Args:
            place: `FILE!ROW_GROUP!ROW`, the row in its row group.

        Raises:
            ImageFailure: It cannot be read, or the row has no image.
        """
        import pyarrow

        file, group, row = place.rsplit("!", 2)
        try:
            value = _row_group(unescape(file), int(group), self.column)[int(row)].as_py()
        except Exception as error:
            known = (OSError, LookupError, pyarrow.ArrowException)
            if not isinstance(error, known) and not is_remote_error(error):
                raise
            raise ImageFailure(FailureCode.UNREADABLE, str(error) or type(error).__name__) from error
        content = value.get("bytes") if isinstance(value, dict) else value
        if not isinstance(content, bytes):
            raise ImageFailure(FailureCode.EMPTY, "the row has no bytes of an image")
        return content


def list_parquet(source: ParquetSource, cache: Path) -> Listing:
    """List the images of Parquet files without reading them.

    Raises:
        RequestError: `check_parquet` fails; while the images are consumed, a label names no class.
    """
    class_names = check_parquet(source)
    return Listing(
        _list(source, class_names),
        ParquetReader(source.image_column),
        class_names,
        escape_path(source.path),
    )


def check_parquet(source: ParquetSource) -> tuple[str, ...]:
    """The classes, in the order of the ClassLabel or in natural order; no image is read.

    Raises:
        RequestError: There is no such file, one cannot be read or lacks a column, two name different classes,
            or there are fewer than two classes.
    """
    files = find_parquet_files(source.path)
    if not files:
        raise RequestError(
            f"dataset.path {printable(source.path)} has no Parquet files",
            "a folder with files such as data/train-00000-of-00001.parquet, or one such file",
            "Set it with `dataset.path=FOLDER`.",
        )
    named: tuple[str, ...] | None = None
    labels: set[str] = set()
    for file in files:
        with _opened(file) as parquet:
            names = _class_names(parquet, source, file)
            if named is not None and names != named:
                raise RequestError(
                    f"{printable(str(file))} names other classes than the files before it",
                    "the same classes in all files",
                    "Remove the files of other datasets.",
                )
            named = names
            if not names:
                for batch in parquet.iter_batches(_BATCH_ROWS, columns=[source.label_column]):
                    labels |= set(map(str, batch.column(0).to_pylist()))
    found = named or tuple(sorted(map(normalize_label, labels), key=natural_order))
    if len(found) < 2:
        raise RequestError(
            f"dataset.path {printable(source.path)} has {len(found)} classes",
            "at least two classes",
            "Set dataset.label_column to the column of the classes.",
        )
    return found


def count_parquet_classes(source: ParquetSource) -> int | None:
    """The number of classes; None if the files are not on this machine.

    Raises:
        RequestError: `check_parquet` fails.
    """
    if is_remote(parse_location(source.path)) or not find_parquet_files(source.path):
        return None
    return len(check_parquet(source))


def find_parquet_files(path: str) -> list[Location]:
    """The Parquet files in a folder, its subfolder `data`, or subfolders called after splits; or one file.

    Raises:
        RequestError: The address cannot be reached.
    """
    location = parse_location(path)
    if is_remote(location):
        require_reachable(location)
        system, name = file_system(location)
        if location.suffix == ".parquet":
            return [location]
        found = [parse_location(system.unstrip_protocol(match)) for match in system.find(name)]
        found = [file for file in found if file.suffix == ".parquet"]
    elif location.is_file():
        return [location] if location.suffix == ".parquet" else []
    else:
        found = [*location.glob("*.parquet"), *location.glob("*/*.parquet")]
    return sorted(found, key=str)


def _list(source: ParquetSource, class_names: tuple[str, ...]) -> Iterator[ListedImage]:
    root = address_of(parse_location(source.path))
    with progress("list", None, "images") as advance:
        for file in find_parquet_files(source.path):
            place = address_of(file)
            stamp = RemoteStamps().of(place) if is_remote(file) else stamp_of(file.stat())
            name = place.removeprefix(root).strip("/") or file.name
            part = _part_of(name)
            number = 0
            with _opened(file) as parquet:
                names = _class_names(parquet, source, file)
                for group in range(parquet.num_row_groups):
                    column = parquet.read_row_group(group, columns=[source.label_column]).column(0)
                    for row, label in enumerate(column.to_pylist()):
                        class_name = _class_of(label, names, f"{file.name}, row {number}")
                        yield ListedImage(
                            escape_path(f"{name}/{number}"),
                            f"{escape_path(place)}!{group}!{row}",
                            f"{escape_path(place)}!{number}",
                            class_name,
                            part,
                            stamp=stamp,
                        )
                        number += 1
                        advance(1, "")


def _part_of(name: str) -> Part | None:
    """The split of a file: that of its own name, or that of its folder."""
    *folders, last = name.split("/")
    return part_of(last.split("-")[0].removesuffix(".parquet")) or (part_of(folders[-1]) if folders else None)


def _class_of(label: object, names: tuple[str, ...], place: str) -> str:
    if names:
        if isinstance(label, int) and 0 <= label < len(names):
            return names[label]
    elif label is not None and str(label):
        return normalize_label(str(label))
    raise RequestError(
        f"{printable(place)} has the label {label!r}",
        f"a number from 0 to {len(names) - 1}" if names else "a class",
        "Correct the row; a test set without labels cannot be used.",
    )


def _class_names(parquet: Any, source: ParquetSource, file: Location) -> tuple[str, ...]:
    """The names of the classes in the metadata; empty if it has none."""
    schema = parquet.schema_arrow
    for field in ("image_column", "label_column"):
        column = getattr(source, field)
        if column not in schema.names:
            raise RequestError(
                f"{printable(str(file))} has no column {column!r}",
                f"one of its columns: {', '.join(map(printable, schema.names))}",
                f"{did_you_mean(column, schema.names)} Set it with `dataset.{field}=COLUMN`.",
            )
    try:
        metadata = json.loads((schema.metadata or {}).get(_METADATA, b"{}"))
        names = metadata["info"]["features"][source.label_column]["names"]
        return tuple(normalize_label(str(name)) for name in names)
    except (ValueError, LookupError, TypeError):
        return ()


@contextmanager
def _opened(file: Location) -> Iterator[Any]:
    import pyarrow

    try:
        with _opened_parquet(file) as parquet:
            yield parquet
    except Exception as error:
        if not isinstance(error, OSError | pyarrow.ArrowException) and not is_remote_error(error):
            raise
        raise RequestError(
            f"{printable(str(file))} cannot be read ({error})", "a Parquet file", "Download or write it anew."
        ) from error


@contextmanager
def _opened_parquet(file: Location) -> Iterator[Any]:
    import pyarrow.parquet as pq

    if is_remote(file):
        system, name = file_system(file)
        with system.open(name, "rb") as raw:
            yield pq.ParquetFile(raw)
    else:
        with pq.ParquetFile(str(file)) as parquet:
            yield parquet


@lru_cache(maxsize=2)
def _row_group(file: str, group: int, column: str) -> Any:
    """The images of a row group, as an Arrow array."""
    with _opened_parquet(parse_location(file)) as parquet:
        return parquet.read_row_group(group, columns=[column]).column(0)
