"""The table as CSV: the same values as in Parquet, and no cell that a spreadsheet would run as a formula."""

import io
import itertools
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pandas.testing import assert_frame_equal

from pixelmill.pipeline.predictions import CSV_FILE, read_predictions
from pixelmill.pipeline.predictions.columns import RunFacts, TableLayout
from pixelmill.pipeline.predictions.csv_format import csv_columns, read_csv, write_csv
from tests.pipeline.predictions.tables import (
    AFTER_PROBABILITY,
    COLUMNS,
    PLAIN,
    ROWS,
    Row,
    Table,
    failed,
    scored,
)


@pytest.fixture(scope="module")
def scratch() -> "itertools.count[int]":
    """Numbers for new folders, because hypothesis runs a test many times in one `tmp_path`."""
    return itertools.count()


def test_the_csv_columns_replace_the_lists() -> None:
    assert csv_columns(PLAIN) == COLUMNS
    before, after = COLUMNS[:AFTER_PROBABILITY], COLUMNS[AFTER_PROBABILITY:]
    more = ["label_2", "probability_2", "label_3", "probability_3"]
    assert csv_columns(TableLayout(3)) == [*before, *more, *after]
    assert csv_columns(TableLayout(3, true_labels=True)) == [*before, *more, "true_label", *after]


@pytest.mark.parametrize("layout", [PLAIN, TableLayout(3), TableLayout(2, true_labels=True)])
def test_the_written_file_has_these_columns(layout: TableLayout, tmp_path: Path) -> None:
    table = Table(tmp_path, layout=layout)
    assert list(table.csv_cells()[0]) == csv_columns(layout)
    assert list(read_csv(io.BytesIO((table.csv / CSV_FILE).read_bytes())).columns) == csv_columns(layout)


@pytest.mark.parametrize("rows_in_a_group", [1, 2, 1000])
@pytest.mark.parametrize("rows_in_a_part", [1, 1000])
def test_both_formats_contain_the_same_values(
    rows_in_a_part: int, rows_in_a_group: int, tmp_path: Path
) -> None:
    table = Table(
        tmp_path,
        layout=TableLayout(3),
        rows_in_a_part=rows_in_a_part,
        rows_in_a_group=rows_in_a_group,
    )
    parquet, text = table.shared_columns()
    assert_frame_equal(text, parquet, check_dtype=False, check_exact=False, rtol=1e-7)


@pytest.mark.parametrize("rows", [ROWS, ROWS[:1]], ids=["with failures", "without"])
def test_both_formats_are_read_with_the_same_types(rows: tuple[Row, ...], tmp_path: Path) -> None:
    parquet, text = Table(tmp_path, rows).shared_columns()
    assert text.dtypes.to_dict() == parquet.dtypes.to_dict()


def test_the_top_k_predictions_are_the_same_in_both_formats(tmp_path: Path) -> None:
    table = Table(tmp_path, layout=TableLayout(3))
    parquet, text = read_predictions(table.parquet), read_predictions(table.csv)
    for index in (0, 2):
        assert parquet["top_labels"][index].tolist() == [
            text[name][index] for name in ("label", "label_2", "label_3")
        ]
        values = [text[name][index] for name in ("probability", "probability_2", "probability_3")]
        assert parquet["top_probabilities"][index].tolist() == np.array(values, np.float32).tolist()
    assert text.loc[1, ["label_2", "label_3", "probability_2", "probability_3"]].isna().all()


def test_the_true_labels_are_the_same_in_both_formats(tmp_path: Path) -> None:
    rows = [scored("007/a.png", (0, 0.5)), scored("=1/b.png", (0, 0.5)), failed("NA/c.png"), failed("d.png")]
    table = Table(tmp_path, rows, layout=TableLayout(true_labels=True))
    for folder in (table.parquet, table.csv):
        truths = read_predictions(folder)["true_label"]
        assert truths.fillna("missing").tolist() == ["007", "=1", "NA", "missing"]
    assert [cells["true_label"] for cells in table.csv_cells()] == ["007", "'=1", "NA", ""]


def test_strings_of_digits_remain_strings_in_csv(tmp_path: Path) -> None:
    facts = RunFacts("2024", "1", "7" * 64, "20260131", "2026-01-31T23:59:59Z")
    row = Row("007", ((0, 0.5), (1, 0.25)), None, "1" * 64, 8, 8)
    frame = read_predictions(Table(tmp_path, [row], ["0", "01"], facts, TableLayout(2)).csv)
    read = frame.iloc[0].to_dict()
    texts = ("image_path", "image_sha256", "label", "label_2", "model_name", "model_sha256", "run_id")
    assert {name: read[name] for name in texts} == {
        "image_path": "007",
        "image_sha256": "1" * 64,
        "label": "0",
        "label_2": "01",
        "model_name": "2024",
        "model_sha256": "7" * 64,
        "run_id": "20260131",
    }
    assert read["model_version"] == "1"


TEXTS = [
    "a, comma",
    'a "quote"',
    '"',
    "a\nnewline",
    "a\rreturn",
    "both\r\nof them",
    "\n",
    " spaces ",
    "Ünïcödé 日本語 🦜",
    "right to left \u05d0\u05d1",
    "a\u2028separator",
    "\ufeffmark",
    "a;semicolon",
    "NA",
    "nan",
    "null",
    "None",
    "0",
    "1e5",
    "True",
    "'quoted'",
    "#hash",
    "\\n",
    "100%25",
]


@pytest.mark.parametrize("text", TEXTS)
def test_any_string_is_preserved_in_both_formats(text: str, tmp_path: Path) -> None:
    path = text.replace("\r", "%0D").replace("\n", "%0A")  # As the listing escapes them.
    rows = [scored(path, (0, 0.5)), failed(f"z{path}"), scored(f"zz{path}", (1, 0.5))]
    table = Table(tmp_path, rows, [text, "dog"])
    for folder in (table.parquet, table.csv):
        frame = read_predictions(folder)
        assert frame["image_path"].tolist() == [path, f"z{path}", f"zz{path}"]
        assert frame["label"].fillna("missing").tolist() == [text, "missing", "dog"]
        assert frame["error"].fillna("missing").tolist() == [
            "missing",
            'corrupt: a comma, a "quote"',
            "missing",
        ]


@settings(max_examples=60, deadline=None)
@given(
    labels=st.lists(
        st.tuples(
            st.sampled_from(["", "=", "+", "-", "@", "\t", "\r", "'", "'=", "''+"]),
            st.text(st.characters(codec="utf-8", exclude_characters="\0/"), min_size=1),
        ).map("".join),
        min_size=1,
    )
)
def test_any_label_is_preserved_in_csv(
    labels: list[str], scratch: "itertools.count[int]", tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.getbasetemp() / f"labels-{next(scratch)}"
    rows = [scored(f"{index:03d}.png", (index, 0.5)) for index in range(len(labels))]
    table = Table(folder, rows, labels)
    cells = table.csv_cells()
    assert len(cells) == len(labels)
    assert not [row["label"] for row in cells if row["label"].startswith(("=", "+", "-", "@", "\t", "\r"))]
    assert read_predictions(table.csv)["label"].tolist() == labels


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "'=", "''-"])
def test_no_cell_begins_like_a_formula(start: str, tmp_path: Path) -> None:
    path, label = f"{start}1+1.png", f'{start}cmd|"/c calc"!A1'
    rows = [scored(path, (1, 0.5), (0, 0.25))]
    table = Table(tmp_path, rows, ["cat", label], layout=TableLayout(2))
    (cells,) = table.csv_cells()
    assert not [cell for cell in cells.values() if cell.startswith(("=", "+", "-", "@"))]
    assert cells["image_path"] == f"./{path}"
    assert cells["label"] == f"'{label}"
    table = Table(tmp_path / "second", rows, [label, "dog"], layout=TableLayout(2))
    assert table.csv_cells()[0]["label_2"] == f"'{label}"
    for folder in (table.parquet, table.csv):
        assert read_predictions(folder)["image_path"].tolist() == [path]
    assert read_predictions(table.csv)["label_2"].tolist() == [label]


def test_a_path_guarded_against_formulas_names_the_same_file(tmp_path: Path) -> None:
    table = Table(tmp_path, [scored("=a/b.png", (0, 0.5))])
    images = tmp_path / "images"
    (images / "=a").mkdir(parents=True)
    (images / "=a" / "b.png").write_bytes(b"an image")
    (cells,) = table.csv_cells()
    assert (images / cells["image_path"]).read_bytes() == b"an image"


float32s = st.floats(0, 1, width=32) | st.floats(0, 2.0**-100, width=32) | st.just(float(np.float32(1) / 3))


@settings(max_examples=100, deadline=None)
@given(values=st.lists(float32s, min_size=1, max_size=30))
def test_a_float32_is_preserved_exactly_in_csv(
    values: list[float], scratch: "itertools.count[int]", tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.getbasetemp() / f"floats-{next(scratch)}"
    rows = [scored(f"{i:03d}.png", (0, value), (1, value)) for i, value in enumerate(values)]
    table = Table(folder, rows, layout=TableLayout(2))
    expected = np.array(values, np.float32)
    assert np.array_equal(np.array([row["probability"] for row in table.csv_cells()], np.float32), expected)
    frame = read_predictions(table.csv)
    for name in ("probability", "probability_2"):
        assert np.array_equal(frame[name].to_numpy(np.float32), expected)
    assert np.array_equal(read_predictions(table.parquet)["probability"].to_numpy(np.float32), expected)


def test_csv_probabilities_are_short_decimals(tmp_path: Path) -> None:
    rows = [scored(f"{value}.png", (0, value)) for value in (0.1, 1.0, 1e-7)]
    cells = Table(tmp_path, rows).csv_cells()
    assert [row["probability"] for row in cells] == ["0.1", "1.0", "0.0000001"]


def test_an_unreadable_part_leaves_the_old_csv(tmp_path: Path) -> None:
    table = Table(tmp_path, rows_in_a_part=1)
    path = table.csv / CSV_FILE
    before = path.read_bytes()
    table.parts[1].write_bytes(table.parts[1].read_bytes()[:-20])
    with pytest.raises(ValueError, match="Parquet"):
        write_csv(path, table.parts, PLAIN)
    assert path.read_bytes() == before
    assert sorted(file.name for file in table.csv.iterdir()) == ["manifest.json", CSV_FILE]
