"""The prediction table: its columns, its two forms, and that no value changes on the way."""

import csv
import itertools
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pandas.testing import assert_frame_equal

from pipeline.artifacts import MANIFEST, write_json
from pipeline.errors import RequestError
from pipeline.predictions import (
    CSV_FILE,
    Prediction,
    RunFacts,
    csv_columns,
    part_listing,
    part_name,
    read_columns,
    read_predictions,
    read_rows,
    schema,
    table_files,
    table_row,
    write_csv,
    write_part,
)

SHA256 = "0f" * 32
FACTS = RunFacts("digits", "7", "a1" * 32, "20260131T235959Z-digits-1a2b3c", "2026-01-31T23:59:59Z")
LABELS = ("cat", "dog", "bird")
COLUMNS = [
    "image_path",
    "image_sha256",
    "status",
    "error",
    "label",
    "class_index",
    "probability",
    "width",
    "height",
    "model_name",
    "model_version",
    "model_sha256",
    "run_id",
    "scored_at",
]
AFTER_PROBABILITY = COLUMNS.index("probability") + 1


def scored(path: str, *choices: tuple[int, float]) -> Prediction:
    exact = tuple((index, float(np.float32(probability))) for index, probability in choices)
    return Prediction(path, SHA256, None, exact, 640, 480)


def failed(path: str) -> Prediction:
    return Prediction(path, None, 'corrupt: a comma, a "quote"')


PREDICTIONS = (
    scored("a.png", (1, 0.7), (0, 0.2), (2, 0.1)),
    failed("b.png"),
    scored("c/d.png", (2, 0.9), (1, 0.06), (0, 0.04)),
)


class Table:
    """One run's table in both forms."""

    def __init__(
        self,
        folder: Path,
        predictions: Sequence[Prediction] = PREDICTIONS,
        labels: Sequence[str] = LABELS,
        facts: RunFacts = FACTS,
        top_k: int = 1,
        rows_in_a_part: int = 1000,
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.parquet, self.csv = folder / "parquet", folder / "csv"
        kept = [
            Prediction(p.image_path, p.image_sha256, p.error, p.choices[:top_k], p.width, p.height)
            for p in predictions
        ]
        self.rows = [table_row(prediction, labels, facts, top_k) for prediction in kept]
        self.parts = []
        for index, start in enumerate(range(0, len(self.rows), rows_in_a_part)):
            part = self.parquet / part_name(index)
            write_part(part, self.rows[start : start + rows_in_a_part], top_k, f"listing {index}")
            self.parts.append(part)
        write_csv(self.csv / CSV_FILE, self.parts, top_k)
        for form in (self.parquet, self.csv):
            write_json(form / MANIFEST, {"kind": "prediction-table", "files": {}})

    def csv_cells(self) -> list[dict[str, str]]:
        with (self.csv / CSV_FILE).open(encoding="utf-8", newline="") as file:
            return list(csv.DictReader(file))

    def shared_columns(self) -> tuple[pd.DataFrame, pd.DataFrame]:
        parquet, text = read_predictions(self.parquet), read_predictions(self.csv)
        return parquet[COLUMNS], text[COLUMNS]


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> "itertools.count[int]":
    """Numbers for fresh folders: hypothesis runs a test many times in one `tmp_path`."""
    return itertools.count()


def test_the_columns_are_the_documented_ones_in_their_order() -> None:
    assert schema(1).names == COLUMNS
    top = ["top_labels", "top_probabilities"]
    assert schema(3).names == [*COLUMNS[:AFTER_PROBABILITY], *top, *COLUMNS[AFTER_PROBABILITY:]]


def test_the_types_are_the_documented_ones() -> None:
    types = {field.name: field.type for field in schema(2)}
    assert types.pop("class_index") == types.pop("width") == types.pop("height") == pa.int32()
    assert types.pop("probability") == pa.float32()
    assert types.pop("top_labels") == pa.list_(pa.string())
    assert types.pop("top_probabilities") == pa.list_(pa.float32())
    assert set(types.values()) == {pa.string()}


def test_the_csv_columns_spell_the_lists_out() -> None:
    assert csv_columns(1) == COLUMNS
    more = ["label_2", "probability_2", "label_3", "probability_3"]
    assert csv_columns(3) == [*COLUMNS[:AFTER_PROBABILITY], *more, *COLUMNS[AFTER_PROBABILITY:]]


@pytest.mark.parametrize("top_k", [1, 3])
def test_what_is_written_has_those_columns(top_k: int, tmp_path: Path) -> None:
    table = Table(tmp_path, top_k=top_k)
    assert pq.read_schema(table.parts[0]).remove_metadata() == schema(top_k)
    assert list(pd.read_parquet(table.parts[0]).columns) == schema(top_k).names
    assert list(table.csv_cells()[0]) == csv_columns(top_k)


def test_a_scored_and_a_failed_row() -> None:
    one, other = (table_row(prediction, LABELS, FACTS, 1) for prediction in PREDICTIONS[:2])
    same = vars(FACTS)
    assert one == {
        "image_path": "a.png",
        "image_sha256": SHA256,
        "status": "scored",
        "error": None,
        "label": "dog",
        "class_index": 1,
        "probability": float(np.float32(0.7)),
        "width": 640,
        "height": 480,
        **same,
    }
    nothing = ["image_sha256", "label", "class_index", "probability", "width", "height"]
    assert other == {
        **dict.fromkeys(nothing),
        "image_path": "b.png",
        "status": "failed",
        "error": 'corrupt: a comma, a "quote"',
        **same,
    }


@pytest.mark.parametrize("top_k", [1, 2, 3])
def test_a_part_reads_back_as_it_was_written(top_k: int, tmp_path: Path) -> None:
    table = Table(tmp_path, top_k=top_k)
    assert read_rows(table.parts[0]) == table.rows
    assert pq.read_table(table.parts[0]).to_pylist() == table.rows
    assert read_columns(table.parts[0], ["label", "image_path"]) == {
        "label": ["dog", None, "bird"],
        "image_path": ["a.png", "b.png", "c/d.png"],
    }
    frame = pd.read_parquet(table.parts[0])
    assert frame["image_path"].tolist() == ["a.png", "b.png", "c/d.png"]
    assert frame["label"].isna().tolist() == [False, True, False]
    assert frame["probability"].dtype == np.float32
    if top_k > 1:
        assert frame["top_labels"].iloc[0].tolist() == ["dog", "cat", "bird"][:top_k]
        assert frame["top_labels"].iloc[1] is None


def test_parts_join_in_their_order(tmp_path: Path) -> None:
    predictions = [scored(f"{index:03d}.png", (index % 3, 0.5)) for index in range(25)]
    table = Table(tmp_path, predictions, rows_in_a_part=2)
    assert len(table.parts) == 13
    expected = [prediction.image_path for prediction in predictions]
    assert read_predictions(table.parquet)["image_path"].tolist() == expected
    assert read_predictions(table.csv)["image_path"].tolist() == expected


@pytest.mark.parametrize("rows_in_a_part", [1, 1000])
def test_both_forms_hold_the_same_values(rows_in_a_part: int, tmp_path: Path) -> None:
    parquet, text = Table(tmp_path, top_k=3, rows_in_a_part=rows_in_a_part).shared_columns()
    assert_frame_equal(text, parquet, check_dtype=False, check_exact=False, rtol=1e-7)


@pytest.mark.parametrize("predictions", [PREDICTIONS, PREDICTIONS[:1]], ids=["with failures", "without"])
def test_both_forms_read_to_the_same_types(predictions: tuple[Prediction, ...], tmp_path: Path) -> None:
    parquet, text = Table(tmp_path, predictions).shared_columns()
    assert text.dtypes.to_dict() == parquet.dtypes.to_dict()


def test_the_choices_after_the_first_are_the_same_in_both_forms(tmp_path: Path) -> None:
    table = Table(tmp_path, top_k=3)
    parquet, text = read_predictions(table.parquet), read_predictions(table.csv)
    for index in (0, 2):
        assert parquet["top_labels"][index].tolist() == [
            text[name][index] for name in ("label", "label_2", "label_3")
        ]
        values = [text[name][index] for name in ("probability", "probability_2", "probability_3")]
        assert parquet["top_probabilities"][index].tolist() == np.array(values, np.float32).tolist()
    assert text.loc[1, ["label_2", "label_3", "probability_2", "probability_3"]].isna().all()


def test_texts_made_of_digits_stay_texts_in_csv(tmp_path: Path) -> None:
    facts = RunFacts("2024", "1", "7" * 64, "20260131", "2026-01-31T23:59:59Z")
    prediction = Prediction("007", "1" * 64, None, ((0, 0.5), (1, 0.25)), 8, 8)
    frame = read_predictions(Table(tmp_path, [prediction], ["0", "01"], facts, top_k=2).csv)
    row = frame.iloc[0].to_dict()
    texts = ("image_path", "image_sha256", "label", "label_2", "model_name", "model_sha256", "run_id")
    assert {name: row[name] for name in texts} == {
        "image_path": "007",
        "image_sha256": "1" * 64,
        "label": "0",
        "label_2": "01",
        "model_name": "2024",
        "model_sha256": "7" * 64,
        "run_id": "20260131",
    }


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
def test_a_text_survives_both_forms(text: str, tmp_path: Path) -> None:
    path = text.replace("\r", "%0D").replace("\n", "%0A")  # As the listing escapes them.
    predictions = [scored(path, (0, 0.5)), failed(f"z{path}"), scored(f"zz{path}", (1, 0.5))]
    table = Table(tmp_path, predictions, [text, "dog"])
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
def test_any_label_survives_csv_in_a_row_of_its_own(
    labels: list[str], scratch: "itertools.count[int]", tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.getbasetemp() / f"labels-{next(scratch)}"
    predictions = [scored(f"{index:03d}.png", (index, 0.5)) for index in range(len(labels))]
    table = Table(folder, predictions, labels)
    assert len(table.csv_cells()) == len(labels)
    assert read_predictions(table.csv)["label"].tolist() == labels


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "'=", "''-"])
def test_no_cell_begins_like_a_formula(start: str, tmp_path: Path) -> None:
    path, label = f"{start}1+1.png", f'{start}cmd|"/c calc"!A1'
    predictions = [scored(path, (1, 0.5), (0, 0.25))]
    table = Table(tmp_path, predictions, ["cat", label], top_k=2)
    (cells,) = table.csv_cells()
    assert not [cell for cell in cells.values() if cell.startswith(("=", "+", "-", "@"))]
    assert cells["image_path"] == f"./{path}"
    assert cells["label"] == f"'{label}"
    table = Table(tmp_path / "second", predictions, [label, "dog"], top_k=2)
    assert table.csv_cells()[0]["label_2"] == f"'{label}"
    for folder in (table.parquet, table.csv):
        assert read_predictions(folder)["image_path"].tolist() == [path]
    assert read_predictions(table.csv)["label_2"].tolist() == [label]


def test_a_path_kept_from_being_a_formula_names_the_same_file(tmp_path: Path) -> None:
    table = Table(tmp_path, [scored("=a/b.png", (0, 0.5))])
    images = tmp_path / "images"
    (images / "=a").mkdir(parents=True)
    (images / "=a" / "b.png").write_bytes(b"an image")
    (cells,) = table.csv_cells()
    assert (images / cells["image_path"]).read_bytes() == b"an image"


float32s = st.floats(0, 1, width=32) | st.floats(0, 2.0**-100, width=32) | st.just(float(np.float32(1) / 3))


@settings(max_examples=100, deadline=None)
@given(values=st.lists(float32s, min_size=1, max_size=30))
def test_a_float32_survives_csv_exactly(
    values: list[float], scratch: "itertools.count[int]", tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.getbasetemp() / f"floats-{next(scratch)}"
    predictions = [scored(f"{i:03d}.png", (0, value), (1, value)) for i, value in enumerate(values)]
    table = Table(folder, predictions, top_k=2)
    expected = np.array(values, np.float32)
    assert np.array_equal(np.array([row["probability"] for row in table.csv_cells()], np.float32), expected)
    frame = read_predictions(table.csv)
    for name in ("probability", "probability_2"):
        assert np.array_equal(frame[name].to_numpy(np.float32), expected)
    assert np.array_equal(read_predictions(table.parquet)["probability"].to_numpy(np.float32), expected)


def test_csv_probabilities_are_plain_and_short(tmp_path: Path) -> None:
    predictions = [scored(f"{value}.png", (0, value)) for value in (0.1, 1.0, 1e-7)]
    cells = Table(tmp_path, predictions).csv_cells()
    assert [row["probability"] for row in cells] == ["0.1", "1.0", "0.0000001"]


def test_a_part_knows_the_listing_it_answers(tmp_path: Path) -> None:
    parts = Table(tmp_path, rows_in_a_part=2).parts
    assert [part_listing(part) for part in parts] == ["listing 0", "listing 1"]


def test_a_part_cut_short_answers_no_listing(tmp_path: Path) -> None:
    (part,) = Table(tmp_path).parts
    data = part.read_bytes()
    cut = tmp_path / "cut.parquet"
    for length in range(len(data)):
        cut.write_bytes(data[:length])
        assert part_listing(cut) is None


def test_a_part_with_a_damaged_footer_answers_a_listing_or_none(tmp_path: Path) -> None:
    (part,) = Table(tmp_path).parts
    data = part.read_bytes()
    footer = int.from_bytes(data[-8:-4], "little") + 8
    damaged = tmp_path / "damaged.parquet"
    for position, flipped in itertools.product(range(len(data) - footer, len(data)), (0x01, 0x80)):
        changed = bytearray(data)
        changed[position] ^= flipped
        damaged.write_bytes(changed)
        listing = part_listing(damaged)
        assert listing is None or len(listing) == len("listing 0")


@pytest.mark.parametrize("content", [b"", b"PAR1", b"PAR1" * 10, bytes(100)])
def test_a_file_that_is_no_part_answers_no_listing(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / part_name(0)
    assert part_listing(path) is None
    path.write_bytes(content)
    assert part_listing(path) is None


def test_a_part_of_another_writer_answers_no_listing(tmp_path: Path) -> None:
    pq.write_table(pa.table({"image_path": ["a.png"]}), tmp_path / part_name(0))
    assert part_listing(tmp_path / part_name(0)) is None


def test_rows_that_do_not_fit_leave_the_old_part(tmp_path: Path) -> None:
    (part,) = Table(tmp_path).parts
    before = part.read_bytes()
    with pytest.raises(pa.ArrowInvalid):
        write_part(part, [{"image_path": "a.png", "class_index": "no number"}], 1, "new")
    assert part.read_bytes() == before
    assert sorted(path.name for path in part.parent.iterdir()) == [MANIFEST, part.name]


def test_a_folder_without_a_finished_table_is_refused(tmp_path: Path) -> None:
    table = Table(tmp_path)
    (table.csv / MANIFEST).unlink()
    for folder in (tmp_path, table.csv):
        with pytest.raises(RequestError, match=MANIFEST):
            read_predictions(folder)
    write_json(table.parquet / MANIFEST, {"kind": "model-bundle", "files": {}})
    with pytest.raises(RequestError, match="holds no prediction table"):
        read_predictions(table.parquet)


def test_the_files_of_a_table_come_in_the_order_of_their_rows(tmp_path: Path) -> None:
    names = [part_name(index) for index in (0, 2, 10, 99_999, 100_000, 123_456)]
    for name in reversed(names):
        (tmp_path / name).write_bytes(b"")
    assert [path.name for path in table_files(tmp_path)] == names


def test_a_csv_file_is_one_of_a_table(tmp_path: Path) -> None:
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
        f".{CSV_FILE}.1a2b3c4d.tmp",
    ],
)
def test_files_of_others_are_none_of_a_table(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(b"")
    assert table_files(tmp_path) == []
