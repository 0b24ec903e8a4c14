"""Parquet parts: read back as written, and written atomically."""

import itertools
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pixelmill.pipeline.artifacts import MANIFEST, write_json
from pixelmill.pipeline.errors import RequestError
from pixelmill.pipeline.predictions import CSV_FILE, PARTS_FOLDER, read_predictions, table_files
from pixelmill.pipeline.predictions.columns import TableLayout, schema
from pixelmill.pipeline.predictions.parts import (
    is_intact,
    is_part,
    part_name,
    part_shard_key,
    read_file_facts,
    read_part,
    read_row_groups,
    writing_part,
)
from pixelmill.pipeline.storage import parse_location
from tests.pipeline.predictions.tables import (
    FACTS,
    LABELS,
    PLAIN,
    ROWS,
    Row,
    Table,
    failed,
    file_facts,
    plain_row,
    predictions_of,
    scored,
)


@pytest.mark.parametrize("layout", [PLAIN, TableLayout(3), TableLayout(3, true_labels=True)])
def test_a_part_has_the_columns_of_its_layout(layout: TableLayout, tmp_path: Path) -> None:
    (part,) = Table(tmp_path, layout=layout).parts
    assert pq.read_schema(part).remove_metadata() == schema(layout)
    assert list(pd.read_parquet(part).columns) == schema(layout).names


@pytest.mark.parametrize("top_k", [1, 2, 3])
def test_a_part_is_read_as_written(top_k: int, tmp_path: Path) -> None:
    layout = TableLayout(top_k)
    (part,) = Table(tmp_path, layout=layout).parts
    rows = [plain_row(row, layout=layout) for row in ROWS]
    assert read_part(part).to_pylist() == rows
    assert pq.read_table(part).to_pylist() == rows
    assert read_part(part, ["label", "image_path"]).to_pydict() == {
        "label": ["dog", None, "bird"],
        "image_path": ["a.png", "b.png", "c/d.png"],
    }
    frame = pd.read_parquet(part)
    assert frame["image_path"].tolist() == ["a.png", "b.png", "c/d.png"]
    assert frame["label"].isna().tolist() == [False, True, False]
    assert frame["probability"].dtype == np.float32
    if top_k > 1:
        assert frame["top_labels"].iloc[0].tolist() == ["dog", "cat", "bird"][:top_k]
        assert frame["top_labels"].iloc[1] is None


def test_the_true_labels_are_kept(tmp_path: Path) -> None:
    (part,) = Table(tmp_path, layout=TableLayout(true_labels=True)).parts
    assert read_part(part)["true_label"].to_pylist() == [None, None, "c"]


@settings(deadline=None, max_examples=30)
@given(st.lists(st.integers(1, 9), max_size=6))
def test_row_groups_are_read_as_written(tmp_path_factory: pytest.TempPathFactory, sizes: list[int]) -> None:
    path = tmp_path_factory.mktemp("part") / part_name(0)
    numbers = itertools.count()
    groups = [[scored(f"{next(numbers):03d}.png", (1, 0.5)) for _ in range(size)] for size in sizes]
    with writing_part(path, PLAIN, "key") as part:
        for group in groups:
            part.write(predictions_of(group).to_table(LABELS, FACTS, PLAIN), file_facts(group))
    assert [found["image_path"].to_pylist() for found in read_row_groups(path)] == [
        [row.path for row in group] for group in groups
    ]
    rows = [row for group in groups for row in group]
    assert read_part(path, ["image_path"])["image_path"].to_pylist() == [row.path for row in rows]
    facts = read_file_facts(path)
    assert facts.dtype == np.int64
    assert facts.tolist() == file_facts(rows).tolist()


def test_a_part_records_the_facts_of_its_files(tmp_path: Path) -> None:
    extremes = np.array([[0, -1, 2**63 - 1], [-(2**63), 10**18 + 1, 0], [5, 6, 7]], np.int64)
    with writing_part(tmp_path / part_name(0), PLAIN, "key") as part:
        part.write(predictions_of(ROWS).to_table(LABELS, FACTS, PLAIN), extremes)
    assert read_file_facts(tmp_path / part_name(0)).tolist() == extremes.tolist()


def test_a_part_from_another_writer_has_no_file_facts(tmp_path: Path) -> None:
    pq.write_table(pa.table({"image_path": ["a.png"]}), tmp_path / part_name(0))
    assert read_file_facts(tmp_path / part_name(0)).shape == (0, 3)


def test_a_remote_part_is_read_like_a_local_one() -> None:
    path = parse_location("memory://test-parts/table") / part_name(0)
    with writing_part(path, PLAIN, "key") as part:
        part.write(predictions_of(ROWS).to_table(LABELS, FACTS, PLAIN), file_facts(ROWS))
    assert part_shard_key(path) == "key"
    assert read_part(path).to_pylist() == [plain_row(row) for row in ROWS]
    assert [len(group) for group in read_row_groups(path)] == [3]
    assert read_file_facts(path).tolist() == file_facts(ROWS).tolist()
    assert part_shard_key(path.with_name(part_name(1))) is None


def test_parts_are_joined_in_order(tmp_path: Path) -> None:
    rows = [scored(f"{index:03d}.png", (index % 3, 0.5)) for index in range(25)]
    table = Table(tmp_path, rows, rows_in_a_part=2)
    assert len(table.parts) == 13
    expected = [row.path for row in rows]
    assert read_predictions(table.parquet)["image_path"].tolist() == expected
    assert read_predictions(table.csv)["image_path"].tolist() == expected


def test_a_table_without_a_scored_row_has_the_same_types(tmp_path: Path) -> None:
    table = Table(tmp_path, [failed("a.png")])
    usual = read_predictions(Table(tmp_path / "usual").parquet)
    for folder in (table.parquet, table.csv):
        assert read_predictions(folder).dtypes.to_dict() == usual.dtypes.to_dict()


def test_a_part_records_its_listing(tmp_path: Path) -> None:
    parts = Table(tmp_path, rows_in_a_part=2).parts
    assert [part_shard_key(part) for part in parts] == ["listing 0", "listing 1"]


def test_a_truncated_part_has_no_key(tmp_path: Path) -> None:
    (part,) = Table(tmp_path).parts
    data = part.read_bytes()
    cut = tmp_path / "cut.parquet"
    for length in range(len(data)):
        cut.write_bytes(data[:length])
        assert part_shard_key(cut) is None


def test_a_part_with_a_damaged_footer_has_its_key_or_none(tmp_path: Path) -> None:
    (part,) = Table(tmp_path).parts
    data = part.read_bytes()
    footer = int.from_bytes(data[-8:-4], "little") + 8
    damaged = tmp_path / "damaged.parquet"
    for position, flipped in itertools.product(range(len(data) - footer, len(data)), (0x01, 0x80)):
        changed = bytearray(data)
        changed[position] ^= flipped
        damaged.write_bytes(changed)
        key = part_shard_key(damaged)
        assert key is None or len(key) == len("listing 0")


def test_a_part_is_intact_only_with_its_original_rows(tmp_path: Path) -> None:
    (part,) = Table(tmp_path, layout=TableLayout(2), rows_in_a_group=2).parts
    assert is_intact(part)
    rows, data = read_part(part), part.read_bytes()
    damaged = tmp_path / "damaged.parquet"
    footer = int.from_bytes(data[-8:-4], "little") + 8
    broken = wrong = 0
    for position in range(4, len(data) - footer, 3):
        changed = bytearray(data)
        changed[position] ^= 0x10
        damaged.write_bytes(changed)
        if is_intact(damaged):
            wrong += read_part(damaged) != rows
        else:
            broken += 1
    # Parquet has checksums of the content of pages, but not of their headers.
    assert broken > 500
    assert wrong < broken / 100
    damaged.write_bytes(data[:-1])
    assert not is_intact(damaged)
    assert not is_intact(tmp_path / "gone")


@pytest.mark.parametrize("content", [b"", b"PAR1", b"PAR1" * 10, bytes(100)])
def test_a_file_that_is_not_a_part_has_no_key(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / part_name(0)
    assert part_shard_key(path) is None
    path.write_bytes(content)
    assert part_shard_key(path) is None


def test_a_part_from_another_writer_has_no_key(tmp_path: Path) -> None:
    pq.write_table(pa.table({"image_path": ["a.png"]}), tmp_path / part_name(0))
    assert part_shard_key(tmp_path / part_name(0)) is None


@pytest.mark.parametrize(
    "kind", ["other columns", "one choice too many", "no table", "an error of the caller"]
)
def test_a_failed_write_leaves_the_old_part(kind: str, tmp_path: Path) -> None:
    (part,) = Table(tmp_path).parts
    before = part.read_bytes()
    good = predictions_of(ROWS).to_table(LABELS, FACTS, PLAIN)
    rows = {
        "other columns": good.drop_columns(["label"]),
        "one choice too many": predictions_of(ROWS, 2).to_table(LABELS, FACTS, TableLayout(2)),
        "no table": None,
        "an error of the caller": good,
    }[kind]
    with (  # noqa: PT012  # The writer's end counts as well.
        pytest.raises((ValueError, TypeError, ZeroDivisionError)),
        writing_part(part, PLAIN, "new") as writer,
    ):
        writer.write(good, file_facts(ROWS))
        writer.write(rows, file_facts(ROWS))
        raise ZeroDivisionError
    assert part.read_bytes() == before
    assert [path.name for path in part.parent.iterdir()] == [part.name]


def test_writing_a_part_does_not_import_pandas(tmp_path: Path) -> None:
    # pandas costs every worker process more time and memory than all its other imports.
    code = """
import sys, numpy as np
from pathlib import Path
from pixelmill.pipeline.predictions.columns import Predictions, RunFacts, TableLayout
from pixelmill.pipeline.predictions.parts import part_shard_key, read_part, read_row_groups, writing_part
predictions = Predictions(["a/x.png", "a/y.png"], 2)
predictions.errors[1] = "empty: no bytes"
facts, layout = RunFacts("m", "1", "s", "r", "t"), TableLayout(2, True)
with writing_part(Path(sys.argv[1]), layout, "key") as part:
    part.write(predictions.to_table(["cat", "dog"], facts, layout, ["a", "a"]), np.zeros((2, 3), np.int64))
assert part_shard_key(Path(sys.argv[1])) == "key"
print("pandas" in sys.modules)
"""
    path = tmp_path / part_name(0)
    done = subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "False\n"), done.stderr
    assert read_part(path)["label"].to_pylist() == ["cat", None]


@pytest.mark.skipif(
    not Path("/proc/self/task").is_dir(), reason="needs Linux, which lists a process's threads"
)
def test_reading_leaves_no_threads(tmp_path: Path) -> None:
    # A thread that releases a Python file while the process exits would abort it.
    code = """
import os, sys
from pathlib import Path
from pixelmill.pipeline.predictions.lookup import find_row, nearest_paths
from pixelmill.pipeline.predictions.parts import read_part, read_row_groups
from pixelmill.pipeline.predictions.table import open_table
import pyarrow.parquet

def threads():
    names = [Path("/proc/self/task", task, "comm").read_text() for task in os.listdir("/proc/self/task")]
    return sum("jemalloc" not in name for name in names)

before = threads()
part = Path(sys.argv[1])
read_part(part)
assert list(read_row_groups(part))
assert find_row(open_table(part.parent.parent), "a.png")["label"] == "dog"
assert nearest_paths(open_table(part.parent.parent), "c/z.png")
print(threads() - before)
"""
    (part,) = Table(tmp_path).parts
    done = subprocess.run([sys.executable, "-c", code, part], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "0\n"), done.stderr


def test_a_folder_without_a_finished_table_is_refused(tmp_path: Path) -> None:
    table = Table(tmp_path)
    (table.csv / MANIFEST).unlink()
    for folder in (tmp_path, table.csv):
        with pytest.raises(RequestError, match=MANIFEST):
            read_predictions(folder)
    write_json(table.parquet / MANIFEST, {"kind": "model-bundle", "files": {}})
    with pytest.raises(RequestError, match="contains no prediction table"):
        read_predictions(table.parquet)


def test_the_files_of_a_table_are_in_the_order_of_their_rows(tmp_path: Path) -> None:
    names = [part_name(index) for index in (0, 2, 10, 99_999, 100_000, 123_456)]
    (tmp_path / PARTS_FOLDER).mkdir()
    for name in reversed(names):
        (tmp_path / PARTS_FOLDER / name).write_bytes(b"")
        assert is_part(name)
    assert [path.name for path in table_files(tmp_path)] == names


def test_a_csv_file_belongs_to_a_table(tmp_path: Path) -> None:
    (tmp_path / CSV_FILE).write_bytes(b"")
    assert table_files(tmp_path) == [tmp_path / CSV_FILE]


@pytest.mark.parametrize(
    "name",
    [
        "photo.png",
        MANIFEST,
        "predictions.csv.bak",
        "my predictions.csv",
        "part-of-my-thesis.parquet",
        "part-1.parquet",
        "part-00000-6d2f8f1e-c000.snappy.parquet",
        "part-00000.parquet.crc",
        "part-00000.csv",
        "my-part-00000.parquet",
        "part-00000.parquet\n",
        f".{CSV_FILE}.1a2b3c4d.pixelmill-tmp",
    ],
)
def test_foreign_files_do_not_belong_to_a_table(name: str, tmp_path: Path) -> None:
    (tmp_path / PARTS_FOLDER).mkdir()
    for folder in (tmp_path, tmp_path / PARTS_FOLDER):
        (folder / name).write_bytes(b"")
    assert table_files(tmp_path) == []
    assert not is_part(name)


def test_a_row_keeps_any_path(tmp_path: Path) -> None:
    paths = ["\u2028.png", "é/日本.png", "%FF.png", "'=.png", " "]
    (part,) = Table(tmp_path, [Row(path, ((0, 1.0),)) for path in paths]).parts
    assert read_part(part)["image_path"].to_pylist() == paths
