"""Tables in batches: each form gives the same rows, and a damaged row is a row with a problem."""

import datetime
import hashlib
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pixelmill.pipeline.datasets.table_batches import FORMS, TableBatch, read_batches, survey_table
from pixelmill.pipeline.errors import RequestError


def read(file: Path, column: str = "path") -> tuple[pa.Schema, list[TableBatch]]:
    form = FORMS[file.suffix]
    survey = survey_table(file, form)
    assert survey.sha256 == hashlib.sha256(file.read_bytes()).hexdigest()
    batches = list(read_batches(file, form, survey.schema, column))
    assert sum(len(batch.paths) for batch in batches) == survey.rows
    return survey.schema, batches


def rows_of(batches: list[TableBatch]) -> list[dict[str, Any]]:
    return [row for batch in batches for row in batch.rows.to_pylist()]


def test_csv_with_a_mark_crlf_quotes_and_semicolons(tmp_path: Path) -> None:
    file = tmp_path / "list.csv"
    file.write_bytes(b'\xef\xbb\xbfpath;note\r\n a.png ;"x; ""y""\r\nz"\r\n\r\nb.png;\r\n')
    _, (batch,) = read(file)
    assert batch.paths == ["a.png", "b.png"]
    assert batch.rows["note"].to_pylist() == ['x; "y"\r\nz', None]
    assert batch.problems == {}


def test_csv_with_damaged_lines(tmp_path: Path) -> None:
    file = tmp_path / "list.csv"
    file.write_bytes(b"path,note\na.png\nb\xff.png,\xfe\nc.png,1,2\n,x\n")
    _, (batch,) = read(file)
    assert batch.paths == ["a.png", "b\udcff.png", "c.png", None]
    assert batch.rows["note"].to_pylist() == [None, "\\xfe", "1", "x"]
    assert batch.problems == {0: "line 2 has 1 values, not 2", 2: "line 4 has 3 values, not 2"}


def test_json_lines_have_one_type_a_key(tmp_path: Path) -> None:
    file = tmp_path / "list.jsonl"
    lines = [
        '{"path": "a.png", "whole": 1, "number": 1, "flag": true, "mixed": "x", "deep": {"é": [1]}}',
        "",
        '{"path": "b.png", "whole": null, "number": 1.5, "flag": false, "mixed": 7}',
        "nonsense",
        '{"path": 3}',
        '{"path": null, "huge": 123456789012345678901234567890}',
    ]
    file.write_text("\n".join(lines))
    schema, (batch,) = read(file)
    types = {"whole": "int64", "number": "double", "flag": "bool", "mixed": "string", "deep": "string"}
    assert {name: str(schema.field(name).type) for name in types} == types
    assert batch.paths == ["a.png", "b.png", None, None, None]
    first, second, *_, last = rows_of([batch])
    assert (first["whole"], first["number"], first["mixed"], first["deep"]) == (1, 1.0, "x", '{"é": [1]}')
    assert (second["whole"], second["number"], second["mixed"]) == (None, 1.5, "7")
    assert last["huge"] == "123456789012345678901234567890"
    assert batch.problems == {
        2: "line 4 is not a JSON object in UTF-8",
        3: "line 5 has the path 3, which is not text",
    }


def test_parquet_keeps_its_types(tmp_path: Path) -> None:
    rows = pa.table(
        {
            "path": pa.array(["a.png", None, "c.png"]).dictionary_encode(),
            "when": pa.array(
                [datetime.datetime(2026, 1, 2, tzinfo=datetime.UTC).replace(tzinfo=None)] * 3,
                pa.timestamp("ns"),
            ),
            "boxes": pa.array([[{"x": 1.5}], [], None]),
            "small": pa.array([1, 2, 3], pa.uint8()),
        }
    )
    pq.write_table(rows, tmp_path / "list.parquet", row_group_size=2)
    schema, batches = read(tmp_path / "list.parquet")
    assert [str(kind) for kind in schema.types] == [
        "string",
        "timestamp[ns]",
        "list<element: struct<x: double>>",
        "uint8",
    ]
    assert rows_of(batches) == rows.to_pylist()
    assert [path for batch in batches for path in batch.paths] == ["a.png", None, "c.png"]


def test_one_path_a_line(tmp_path: Path) -> None:
    file = tmp_path / "list.txt"
    file.write_bytes(b"\xef\xbb\xbfa b.png\r\n\nc\xff.png\n d.png")
    assert read(file)[1][0].paths == ["a b.png", "c\udcff.png", " d.png"]


def test_more_rows_than_a_batch(tmp_path: Path) -> None:
    file = tmp_path / "list.csv"
    file.write_text("path,n\n" + "".join(f"{n}.png,{n}\n" for n in range(20_000)))
    _, batches = read(file)
    assert [len(batch.paths) for batch in batches] == [8192, 8192, 3616]
    assert rows_of(batches)[-1] == {"path": "19999.png", "n": "19999"}


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("list.csv", b'path,note\na.png,"never closed\n', "cannot be read"),
        ("list.csv", "path\na.png\n".encode("utf-16"), "is in UTF-16"),
        ("list.csv", b"path,path\na.png,b.png\n", "two columns 'path'"),
        ("list.parquet", b"nonsense", "cannot be read"),
        ("list.json", b'[{"path": "a.png"}]', "one JSON array"),
        ("list.txt", b"x" * (1 << 24), "in line 1"),
    ],
)
def test_a_file_that_is_no_table(name: str, content: bytes, words: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(RequestError, match=words):
        survey_table(tmp_path / name, FORMS[Path(name).suffix])
