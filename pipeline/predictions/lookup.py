"""Lookup of one row of a prediction table by its path, without reading the rest of the table."""

import csv
import io
import itertools
import math
from bisect import bisect_left
from collections.abc import Iterator
from contextlib import contextmanager
from difflib import get_close_matches
from typing import Any, BinaryIO

from pixelmill.pipeline.predictions.csv_format import read_csv
from pixelmill.pipeline.predictions.parts import USE_THREADS
from pixelmill.pipeline.predictions.table import DamagedTable, StoredFile, StoredTable
from pixelmill.pipeline.storage import Location

_PATH = "image_path"
_NEIGHBOURS = 100
_ROWS_AT_ONCE = 1 << 16


def find_row(table: StoredTable, path: str) -> dict[str, Any] | None:
    """The row of one image by column, as in the Parquet format; None if there is no such row.

    The first one, if several rows have the path.

    Args:
        table: A finished table in either format.
        path: The path as in the column `image_path`.

    Raises:
        DamagedTable: The file with the row is not the one listed in the manifest.
    """
    files = table.files
    if table.is_csv:
        return _find_in_csv(files[0], path)
    if not table.is_sorted:
        return next(filter(None, (_find_in_unsorted(file, path) for file in files)), None)
    # The parts are sorted by path.
    place = bisect_left(files, path, key=_last_path)
    return _find_in_part(files[place], path) if place < len(files) else None


def nearest_paths(table: StoredTable, path: str, count: int = 3) -> list[str]:
    """The paths of a table most similar to a missing one, from its neighbours and files of the same name."""
    before: list[str] = []
    after: list[str] = []
    namesakes: list[str] = []
    name = path.rpartition("/")[2]
    for paths in itertools.chain.from_iterable(_blocks_of_paths(table, file) for file in table.files):
        place = bisect_left(paths, path)
        if place:
            before = paths[max(place - _NEIGHBOURS, 0) : place]
        after = after or paths[place : place + _NEIGHBOURS]
        if len(namesakes) < _NEIGHBOURS:
            namesakes += [other for other in paths if other.rpartition("/")[2] == name][:_NEIGHBOURS]
    candidates = list(dict.fromkeys([*before, *after, *namesakes]))
    # A file of the same name in another folder is a match however different the folder names are.
    likest = get_close_matches(path, candidates, count)
    return list(dict.fromkeys([*likest, *namesakes]))[:count]


def _find_in_part(file: StoredFile, path: str) -> dict[str, Any] | None:
    import pyarrow.parquet as pq

    with file.opened() as content:
        part = pq.ParquetFile(content, pre_buffer=USE_THREADS)
        for group in range(part.num_row_groups):
            if _last_of(part, group) >= path:
                paths = _paths_of(part, group)
                if path not in paths:
                    return None
                rows = part.read_row_group(group, use_threads=USE_THREADS)
                row: dict[str, Any] = rows.slice(paths.index(path), 1).to_pylist()[0]
                return row
    return None


def _find_in_unsorted(file: StoredFile, path: str) -> dict[str, Any] | None:
    import pyarrow.parquet as pq

    with file.opened() as content:
        part = pq.ParquetFile(content, pre_buffer=USE_THREADS)
        for group in range(part.num_row_groups):
            paths = _paths_of(part, group)
            if path in paths:
                rows = part.read_row_group(group, use_threads=USE_THREADS)
                row: dict[str, Any] = rows.slice(paths.index(path), 1).to_pylist()[0]
                return row
    return None


def _last_path(file: StoredFile) -> str:
    with _opened(file.path) as part:
        return _last_of(part, part.num_row_groups - 1)


def _last_of(part: Any, group: int) -> str:
    """The last path of a row group, from its statistics if available."""
    statistics = part.metadata.row_group(group).column(0).statistics
    if part.schema_arrow.names[0] == _PATH and statistics is not None and statistics.has_min_max:
        return str(statistics.max)
    return _paths_of(part, group)[-1]


def _paths_of(part: Any, group: int) -> list[str]:
    rows = part.read_row_group(group, columns=[_PATH], use_threads=USE_THREADS)
    paths: list[str] = rows[_PATH].to_pylist()
    return paths


@contextmanager
def _opened(file: Location) -> Iterator[Any]:
    """A part opened for reading; only its footer is read at once."""
    import pyarrow.parquet as pq

    with file.open("rb") as content:
        try:
            yield pq.ParquetFile(content, pre_buffer=USE_THREADS)
        except ValueError as error:  # Arrow raises this on damaged bytes.
            raise DamagedTable(
                f"{file} cannot be read ({error})",
                "a part of a table written by `pixelmill score`",
                "Score the folder again, or restore the part from a copy.",
            ) from error


def _find_in_csv(file: StoredFile, path: str) -> dict[str, Any] | None:
    # Lines are compared as bytes: there may be millions, and only one has to be parsed. A path that a
    # spreadsheet would run as a formula is prefixed with `./`.
    beginnings = tuple(_first_cell(text) for text in (path, f"./{path}"))
    with file.opened() as lines:
        header = next(lines)
        for line in lines:
            if line.startswith(beginnings):
                # The record may span several lines, as class names may contain line breaks.
                texts = (text.decode() for text in itertools.chain([line], lines))
                return _parse(header, next(csv.reader(texts)))
    return None


def _first_cell(text: str) -> bytes:
    return _as_csv([text, ""]).encode(errors="surrogateescape").removesuffix(b"\r\n")


def _as_csv(cells: list[str]) -> str:
    buffer = io.StringIO(newline="")
    csv.writer(buffer, lineterminator="\r\n").writerow(cells)
    return buffer.getvalue()


def _parse(header: bytes, cells: list[str]) -> dict[str, Any]:
    alone: BinaryIO = io.BytesIO(header + _as_csv(cells).encode())
    (found,) = read_csv(alone).to_dict("records")
    row: dict[str, Any] = {str(name): _known(value) for name, value in found.items()}
    for name in ("class_index", "width", "height"):
        row[name] = None if row[name] is None else int(row[name])
    more = [name.removeprefix("label_") for name in row if name.startswith("label_")]
    if more and row["label"] is not None:
        row["top_labels"] = [row["label"], *(row[f"label_{place}"] for place in more)]
        row["top_probabilities"] = [row["probability"], *(row[f"probability_{place}"] for place in more)]
    return row


def _known(value: Any) -> Any:
    return None if isinstance(value, float) and math.isnan(value) else value


def _blocks_of_paths(table: StoredTable, file: StoredFile) -> Iterator[list[str]]:
    if table.is_csv:
        import pandas as pd

        with file.path.open("rb") as content:
            blocks = pd.read_csv(
                content, usecols=[_PATH], dtype=str, keep_default_na=False, chunksize=_ROWS_AT_ONCE
            )
            for block in blocks:
                yield block[_PATH].str.removeprefix("./").tolist()
        return
    with _opened(file.path) as part:
        for rows in part.iter_batches(_ROWS_AT_ONCE, columns=[_PATH], use_threads=USE_THREADS):
            yield rows.column(0).to_pylist()
