"""Tables in batches of Arrow, with a path in each row: CSV, Parquet, JSON lines, or one path a line.

Nothing but a batch is in memory. A row that cannot be read is a row with a problem, so that no row is lost.
"""

import hashlib
import io
import itertools
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, BinaryIO, Literal, NamedTuple

from pixelmill.pipeline.datasets.table_files import csv_header, opened_table, reporting
from pixelmill.pipeline.display import printable
from pixelmill.pipeline.errors import RequestError
from pixelmill.pipeline.storage import Location

if TYPE_CHECKING:
    import pyarrow as pa

TableForm = Literal["csv", "parquet", "json", "lines"]
FORMS: dict[str, TableForm] = {
    ".csv": "csv",
    ".tsv": "csv",
    ".parquet": "parquet",
    ".jsonl": "json",
    ".ndjson": "json",
    ".json": "json",
    ".txt": "lines",
}
"""The form of a table by the extension of its file."""
BATCH_ROWS = 8192
PATH = "path"
"""The only column of a table with one path a line."""
_MOST_COLUMNS = 1000
_LONGEST_LINE = 1 << 24
_UTF16 = (b"\xff\xfe", b"\xfe\xff")
_INT64 = 1 << 63


class TableBatch(NamedTuple):
    """Some rows of a table.

    Attributes:
        rows: Their values.
        paths: The path in each row, as in the file system; None where there is none.
        problems: Why a row cannot be read, by its index.
    """

    rows: "pa.RecordBatch"
    paths: list[str | None]
    problems: dict[int, str]


@dataclass(frozen=True)
class TableSurvey:
    """What a first pass over a table finds.

    Attributes:
        sha256: The SHA-256 of the file, in hexadecimal.
        rows: The number of rows.
        schema: The Arrow types of the columns; text in CSV.
    """

    sha256: str
    rows: int
    schema: "pa.Schema"


def survey_table(file: Location, form: TableForm) -> TableSurvey:
    """Read a table once, to find its columns, the number of its rows, and its SHA-256.

    Raises:
        RequestError: It is damaged as a whole: the file is not of its form, a quote is never closed, or two
            columns have the same name.
    """
    with reporting(file), opened_table(file) as raw:
        hashing = _Hashing(raw)
        start = raw.read(2)
        raw.seek(0)
        if form != "parquet" and start in _UTF16:
            raise _refuse(file, "is in UTF-16", "UTF-8", "Save it as UTF-8.")
        rows, schema = _SURVEYS[form](file, raw if form == "parquet" else io.BufferedReader(hashing, 1 << 20))
        if form == "parquet":
            raw.seek(0)
        sha256 = hashing.finish()
    twice = next((name for name in schema.names if schema.names.count(name) > 1), None)
    if twice is not None:
        reason = f"has two columns {printable(twice)!r}"
        raise _refuse(file, reason, "columns with different names", "Rename one of them.")
    return TableSurvey(sha256, rows, schema)


def read_batches(file: Location, form: TableForm, schema: "pa.Schema", column: str) -> Iterator[TableBatch]:
    """The rows of a table in order.

    Args:
        file: The table, local or remote.
        form: Its form.
        schema: Its columns, as `survey_table` found them.
        column: The column of the paths.

    Raises:
        RequestError: The file cannot be read.
    """
    with reporting(file), opened_table(file) as raw:
        yield from _READERS[form](raw, schema, column)


class _Hashing(io.RawIOBase):
    """A file that hashes what is read from it."""

    def __init__(self, raw: BinaryIO) -> None:
        self._raw = raw
        self.digest = hashlib.sha256()

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self._raw.read(len(buffer))
        self.digest.update(data)
        buffer[: len(data)] = data
        return len(data)

    def finish(self) -> str:
        """Read the rest, and return the SHA-256. The wrappers around this object may be closed by now."""
        while data := self._raw.read(1 << 20):
            self.digest.update(data)
        return self.digest.hexdigest()


def _survey_csv(file: Location, raw: BinaryIO) -> "tuple[int, pa.Schema]":
    names, rows, _ = csv_header(raw, "surrogateescape")
    return sum(map(bool, rows)), _texts(map(_valid, names))


def _survey_parquet(file: Location, raw: BinaryIO) -> "tuple[int, pa.Schema]":
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pq.ParquetFile(raw)
    plain = [
        pa.field(field.name, field.type.value_type if pa.types.is_dictionary(field.type) else field.type)
        for field in table.schema_arrow
    ]
    return table.metadata.num_rows, pa.schema(plain)


def _survey_json(file: Location, raw: BinaryIO) -> "tuple[int, pa.Schema]":
    import pyarrow as pa

    kinds: dict[str, set[str]] = {}
    rows = 0
    for line in _lines(file, raw):
        if not rows and line.lstrip().startswith(b"["):
            raise _refuse(file, "is one JSON array", "one JSON object a line", "Write it as JSON lines.")
        rows += 1
        for name, value in (_parse_json(line) or {}).items():
            if value is not None:
                kinds.setdefault(name, set()).add(_kind_of(value))
        if len(kinds) > _MOST_COLUMNS:
            raise _refuse(file, f"has more than {_MOST_COLUMNS} keys", "fewer", "Leave some out.")
    types = {"bool": pa.bool_(), "int": pa.int64(), "float": pa.float64()}
    return rows, pa.schema(
        [(name, types.get(_common_kind(found), pa.string())) for name, found in kinds.items()]
    )


def _survey_lines(file: Location, raw: BinaryIO) -> "tuple[int, pa.Schema]":
    return sum(1 for _ in _lines(file, raw)), _texts([PATH])


def _read_csv(raw: BinaryIO, schema: "pa.Schema", column: str) -> Iterator[TableBatch]:
    _, rows, reader = csv_header(raw, "surrogateescape")
    place = schema.names.index(column)
    width = len(schema.names)
    for block in _blocks((values, reader.line_num) for values in rows if values):
        problems = {
            at: f"line {line} has {len(values)} values, not {width}"
            for at, (values, line) in enumerate(block)
            if len(values) != width
        }
        whole = [
            (*values[:width], *itertools.repeat("", width - len(values))) if at in problems else values
            for at, (values, _) in enumerate(block)
        ]
        columns = list(zip(*whole, strict=True))
        yield TableBatch(
            _text_batch(columns, schema), [path.strip() or None for path in columns[place]], problems
        )


def _read_parquet(raw: BinaryIO, schema: "pa.Schema", column: str) -> Iterator[TableBatch]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    for batch in pq.ParquetFile(raw, pre_buffer=False).iter_batches(BATCH_ROWS, use_threads=False):
        arrays = [
            array.dictionary_decode() if pa.types.is_dictionary(array.type) else array
            for array in batch.columns
        ]
        rows = pa.RecordBatch.from_arrays(arrays, schema=schema)
        paths = rows.column(column).to_pylist()
        yield TableBatch(rows, [os.fsdecode(path) if path else None for path in paths], {})


def _read_json(raw: BinaryIO, schema: "pa.Schema", column: str) -> Iterator[TableBatch]:
    import pyarrow as pa

    numbered = enumerate(raw, start=1)
    for block in _blocks((line, number) for number, line in numbered if line.strip()):
        parsed = [_parse_json(line) for line, _ in block]
        problems = {
            at: f"line {block[at][1]} is not a JSON object in UTF-8"
            for at, found in enumerate(parsed)
            if found is None
        }
        values = [found or {} for found in parsed]
        columns = [
            pa.array([_as_type(row.get(field.name), field.type) for row in values], field.type)
            for field in schema
        ]
        paths = [row.get(column) for row in values]
        for at, path in enumerate(paths):
            if path is not None and not isinstance(path, str):
                problems[at] = (
                    f"line {block[at][1]} has the path {_valid(json.dumps(path))}, which is not text"
                )
        texts = [path if isinstance(path, str) and path else None for path in paths]
        yield TableBatch(pa.RecordBatch.from_arrays(columns, schema=schema), texts, problems)


def _read_lines(raw: BinaryIO, schema: "pa.Schema", column: str) -> Iterator[TableBatch]:
    for block in _blocks(_lines(None, raw)):
        paths = list(map(os.fsdecode, block))
        yield TableBatch(_text_batch([paths], schema), list(paths), {})


_SURVEYS = {"csv": _survey_csv, "parquet": _survey_parquet, "json": _survey_json, "lines": _survey_lines}
_READERS = {"csv": _read_csv, "parquet": _read_parquet, "json": _read_json, "lines": _read_lines}


def _lines(file: Location | None, raw: BinaryIO) -> Iterator[bytes]:
    """The lines that are not empty, without their ends and without a byte order mark."""
    mark = b"\xef\xbb\xbf"
    for number, line in enumerate(iter(partial(raw.readline, _LONGEST_LINE), b""), start=1):
        if len(line) == _LONGEST_LINE and file is not None:
            raise _refuse(
                file, f"has more than {_LONGEST_LINE:,} bytes in line {number}", "text", "Check the file."
            )
        text = (line.removeprefix(mark) if number == 1 else line).rstrip(b"\r\n")
        if text:
            yield text


def _blocks(items: Iterator[Any]) -> Iterator[list[Any]]:
    while block := list(itertools.islice(items, BATCH_ROWS)):
        yield block


def _parse_json(line: bytes) -> dict[str, Any] | None:
    try:
        found = json.loads(line.removeprefix(b"\xef\xbb\xbf"))
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def _kind_of(value: object) -> str:
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, int):
        return "int" if -_INT64 <= value < _INT64 else "other"
    return "float" if isinstance(value, float) else "str" if isinstance(value, str) else "other"


def _common_kind(kinds: set[str]) -> str:
    if kinds == {"int", "float"}:
        return "float"
    return next(iter(kinds)) if len(kinds) == 1 else "other"


def _as_type(value: Any, kind: "pa.DataType") -> Any:
    import pyarrow as pa

    if value is None or not pa.types.is_string(kind):
        return value
    return _valid(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False))


def _text_batch(columns: Sequence[Sequence[str]], schema: "pa.Schema") -> "pa.RecordBatch":
    import pyarrow as pa

    arrays = [pa.array([_valid(value) or None for value in values], pa.string()) for values in columns]
    return pa.RecordBatch.from_arrays(arrays, schema=schema)


def _valid(text: str) -> str:
    """A text without what is not valid UTF-8, of which the bytes are shown."""
    for errors in ("strict", "surrogateescape", "surrogatepass"):
        try:
            return text.encode("utf-8", errors).decode("utf-8", "backslashreplace")
        except UnicodeEncodeError:  # JSON may hold halves of characters that no bytes stand for.
            continue
    return repr(text)


def _texts(names: Any) -> "pa.Schema":
    import pyarrow as pa

    return pa.schema([(name, pa.string()) for name in names])


def _refuse(file: Location, problem: str, expected: str, remedy: str) -> RequestError:
    return RequestError(f"table {printable(str(file))} {problem}", expected, remedy)
