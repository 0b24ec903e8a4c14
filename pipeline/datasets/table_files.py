"""Reading the rows of tables, CSV or Parquet, one at a time and as text; `table_batches` reads batches."""

import csv
import io
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from glob import glob
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple

from pixelmill.pipeline.datasets.readers import address_of
from pixelmill.pipeline.datasets.remote_files import list_remote
from pixelmill.pipeline.display import printable
from pixelmill.pipeline.errors import RequestError
from pixelmill.pipeline.storage import (
    Location,
    file_system,
    is_remote,
    is_remote_error,
    parse_location,
    require_reachable,
)

if TYPE_CHECKING:
    from upath import UPath

_PARQUET = ".parquet"
_CSV = (".csv", ".tsv", ".txt")
_DELIMITERS = ",;\t"
_PATTERN = re.compile(r"[*?[]")
_BATCH_ROWS = 1 << 14


class TableRow(NamedTuple):
    """A row of a table.

    Attributes:
        place: Where it is, for messages: `labels.csv, line 17`.
        values: Its values by column, without surrounding spaces; empty for a missing value.
    """

    place: str
    values: dict[str, str]


def find_tables(path: str, key: str = "dataset.path") -> list[Location]:
    """The files of a table, sorted by name.

    Args:
        path: A file, a folder, or a pattern with `*`, `?` or `[`; local or an address.
        key: The key of the recipe that names it, for error messages.

    Raises:
        RequestError: There is none, or the address cannot be reached.
    """
    found = find_files(path)
    if not found:
        raise RequestError(
            f"{key} {printable(path)} names no table",
            "a file in CSV (.csv, .tsv) or Parquet (.parquet), a folder of such files, or a pattern",
            f"Set it with `{key}=TABLE`.",
        )
    return found


def find_files(path: str) -> list[Location]:
    """As `find_tables`; empty if there is none.

    Raises:
        RequestError: The address cannot be reached.
    """
    location = parse_location(path)
    return _find_remote(location) if is_remote(location) else _find_here(path)


def read_header(file: Location) -> list[str]:
    """The names of the columns.

    Raises:
        RequestError: The file cannot be read, or two columns have the same name.
    """
    with reporting(file), opened_table(file) as raw:
        names = _parquet_columns(raw) if _is_parquet(file) else csv_header(raw)[0]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise RequestError(
            f"table {printable(str(file))} has two columns {printable(twice)!r}",
            "columns with different names",
            "Rename one of them.",
        )
    return names


def read_rows(file: Location) -> Iterator[TableRow]:
    """All rows of a file, in its order.

    Columns of a Parquet file that are no text, numbers or times are left out.

    Raises:
        RequestError: The file cannot be read, or a row has too many or too few values.
    """
    with reporting(file), opened_table(file) as raw:
        yield from _parquet_rows(raw, file.name) if _is_parquet(file) else _csv_rows(raw, file)


def folder_of(file: Location) -> str:
    """The absolute path or address of the folder that a table is in."""
    return address_of(file).rpartition("/")[0]


def _find_here(path: str) -> list[Location]:
    place = Path(path)
    if place.is_dir():
        return sorted(found for found in place.iterdir() if _is_table(found) and found.is_file())
    found = [path] if place.is_file() else glob(path)  # noqa: PTH207  # Folders may be patterns, too.
    return [Path(name) for name in sorted(found) if _is_table(Path(name))]


def _find_remote(path: "UPath") -> list[Location]:
    require_reachable(path)
    system, name = file_system(path)
    if _PATTERN.search(name):
        found = [parse_location(system.unstrip_protocol(match)) for match in sorted(system.glob(name))]
    elif _is_table(path) and system.isfile(name):
        found = [path]
    else:
        found = [path / last for last, entry in list_remote(path) if entry["type"] == "file"]
    return [file for file in found if _is_table(file)]


def _is_table(file: Location) -> bool:
    return file.suffix.lower() in (*_CSV, _PARQUET) and not file.name.startswith(".")


def _is_parquet(file: Location) -> bool:
    return file.suffix.lower() == _PARQUET


@contextmanager
def opened_table(file: Location) -> Iterator[BinaryIO]:
    """A file of a table, local or at an address, for reading."""
    if is_remote(file):
        system, name = file_system(file)
        with system.open(name, "rb") as raw:
            yield raw
    else:
        with file.open("rb") as raw:
            yield raw


@contextmanager
def reporting(file: Location) -> Iterator[None]:
    """Turn the errors of a damaged or unreadable file into one line."""
    import pyarrow

    try:
        yield
    except Exception as error:
        known = (csv.Error, UnicodeDecodeError, pyarrow.ArrowException, OSError)
        if not isinstance(error, known) and not is_remote_error(error):
            raise
        raise RequestError(
            f"table {printable(str(file))} cannot be read ({error})",
            "a CSV file in UTF-8 with a header, or a Parquet file",
            "Correct the file.",
        ) from error


def csv_header(raw: BinaryIO, errors: str = "strict") -> tuple[list[str], Iterator[list[str]], Any]:
    """The names of the columns of a CSV file, its rows, and the reader, which counts lines.

    Args:
        raw: The file. A byte order mark is skipped, and the separator found in the first line.
        errors: How bytes that are not UTF-8 are read, as for `open`.
    """
    text = io.TextIOWrapper(raw, "utf-8-sig", errors, newline="")
    first = text.readline()
    delimiter = max(_DELIMITERS, key=first.count)

    def lines() -> Iterator[str]:
        yield first
        yield from text

    reader = csv.reader(lines(), delimiter=delimiter, strict=True)
    return [name.strip() for name in next(reader, [])], reader, reader


def _csv_rows(raw: BinaryIO, file: Location) -> Iterator[TableRow]:
    names, rows, reader = csv_header(raw)
    for values in rows:
        if len(values) == len(names):
            yield TableRow(
                f"{file.name}, line {reader.line_num}",
                dict(zip(names, map(str.strip, values), strict=True)),
            )
        elif values:
            raise RequestError(
                f"line {reader.line_num} of table {printable(str(file))} has {len(values)} values",
                f"{len(names)} values, as in its header",
                "Put a value that contains the separator in double quotes.",
            )


def _parquet_columns(raw: BinaryIO) -> list[str]:
    import pyarrow.parquet as pq

    schema = pq.ParquetFile(raw).schema_arrow
    return [field.name for field in schema if is_plain(field.type)]


def _parquet_rows(raw: BinaryIO, name: str) -> Iterator[TableRow]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    file = pq.ParquetFile(raw)
    names = [field.name for field in file.schema_arrow if is_plain(field.type)]
    number = 0
    for batch in file.iter_batches(_BATCH_ROWS, columns=names):
        columns: list[Sequence[str | None]] = []
        for column in batch.columns:
            values = column.dictionary_decode() if pa.types.is_dictionary(column.type) else column
            columns.append(values.cast(pa.string()).to_pylist())
        for values in zip(*columns, strict=True):
            number += 1
            texts = ((value or "").strip() for value in values)
            yield TableRow(f"{name}, row {number}", dict(zip(batch.schema.names, texts, strict=True)))


def is_plain(kind: Any) -> bool:
    """Whether the values of an Arrow type have a form as text."""
    import pyarrow as pa

    types = pa.types
    inner = kind.value_type if types.is_dictionary(kind) else kind
    return not (types.is_nested(inner) or types.is_binary(inner) or types.is_large_binary(inner))
