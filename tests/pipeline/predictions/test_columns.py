"""The columns of the table, and the predictions that fill them."""

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pixelmill.pipeline.predictions.columns import Predictions, TableLayout, schema
from tests.pipeline.predictions.tables import (
    AFTER_PROBABILITY,
    COLUMNS,
    FACTS,
    LABELS,
    PLAIN,
    ROWS,
    SHA256,
    Row,
    failed,
    plain_row,
    predictions_of,
    scored,
)

float32s = st.floats(0, 1, width=32)
paths = st.text(st.characters(exclude_categories=["Cs"]), max_size=9)
sizes = st.integers(0, 2**31 - 1)
choices = st.lists(st.tuples(st.integers(0, 2), float32s), min_size=3, max_size=3).map(tuple)
any_row = st.builds(
    Row, paths, choices, st.none(), st.just(SHA256), st.integers(1, 9), st.integers(1, 9)
) | st.builds(Row, paths, st.just(()), paths.filter(bool), st.none() | st.just(SHA256), sizes, sizes)


def test_the_columns_match_the_documentation_in_order() -> None:
    assert schema(PLAIN).names == COLUMNS
    top = ["top_labels", "top_probabilities"]
    before, after = COLUMNS[:AFTER_PROBABILITY], COLUMNS[AFTER_PROBABILITY:]
    assert schema(TableLayout(top_k=3)).names == [*before, *top, *after]
    assert schema(TableLayout(true_labels=True)).names == [*before, "true_label", *after]
    assert schema(TableLayout(2, true_labels=True)).names == [*before, *top, "true_label", *after]
    whole = schema(TableLayout(2, true_labels=True, decisions=True))
    assert whole.names == [*before, *top, "decision", "true_label", *after]


def test_the_types_match_the_documentation() -> None:
    types = {field.name: field.type for field in schema(TableLayout(2, true_labels=True))}
    assert types.pop("class_index") == types.pop("width") == types.pop("height") == pa.int32()
    assert types.pop("probability") == pa.float32()
    assert types.pop("top_labels") == pa.list_(pa.string())
    assert types.pop("top_probabilities") == pa.list_(pa.float32())
    assert set(types.values()) == {pa.string()}


def test_required_columns_are_never_null() -> None:
    required = {field.name for field in schema(TableLayout(2, true_labels=True)) if not field.nullable}
    assert required == {"image_path", "status", *vars(FACTS)}


def test_a_scored_and_a_failed_row() -> None:
    one, other = predictions_of(ROWS[:2]).to_table(LABELS, FACTS, PLAIN).to_pylist()
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


def test_the_top_k_predictions_of_a_row_are_lists() -> None:
    layout = TableLayout(top_k=3)
    one, other, _ = predictions_of(ROWS, 3).to_table(LABELS, FACTS, layout).to_pylist()
    assert one["top_labels"] == ["dog", "cat", "bird"]
    assert one["top_probabilities"] == np.array([0.7, 0.2, 0.1], np.float32).tolist()
    assert other["top_labels"] is other["top_probabilities"] is None


@given(
    st.lists(any_row, max_size=12),
    st.integers(1, 3),
    st.none() | st.lists(st.none() | paths, min_size=12, max_size=12),
)
def test_any_predictions_give_the_expected_rows(
    rows: list[Row], top_k: int, true_labels: list[str | None] | None
) -> None:
    layout = TableLayout(top_k, true_labels is not None)
    truths = (true_labels or [None] * 12)[: len(rows)]
    table = predictions_of(rows, top_k).to_table(LABELS, FACTS, layout, truths)
    table.validate(full=True)
    assert table.schema == schema(layout)
    assert table.to_pylist() == [
        plain_row(row, layout=layout, true_label=truth) for row, truth in zip(rows, truths, strict=True)
    ]


def test_a_decision_compares_the_probability_with_the_threshold_of_the_predicted_class() -> None:
    rows = [
        scored("at.png", (1, 0.7)),
        scored("below.png", (1, 0.69)),
        scored("never.png", (2, 1.0)),
        scored("other.png", (0, 0.5)),
        failed("failed.png"),
    ]
    threshold = float(np.float32(0.7))
    table = predictions_of(rows).to_table(
        LABELS, FACTS, TableLayout(decisions=True), thresholds=(0.4, threshold, None)
    )
    table.validate(full=True)
    assert table["decision"].to_pylist() == ["accept", "review", "review", "accept", None]


def test_a_failed_row_hides_its_undefined_prediction() -> None:
    predictions = predictions_of([scored("a.png", (2, 0.9)), scored("b.png", (1, 0.8))])
    predictions.errors[0], predictions.class_indices[0] = "corrupt: at its end", 99
    row = predictions.to_table(LABELS, FACTS, PLAIN).to_pylist()[0]
    assert (row["status"], row["label"], row["class_index"], row["probability"]) == (
        "failed",
        None,
        None,
        None,
    )
    assert (row["width"], row["height"], row["image_sha256"]) == (640, 480, SHA256)


def test_an_index_that_is_not_a_class_is_an_error() -> None:
    with pytest.raises(pa.ArrowIndexError):
        predictions_of([scored("a.png", (3, 0.9))]).to_table(LABELS, FACTS, PLAIN)


def test_a_column_that_is_too_short_is_an_error() -> None:
    predictions = predictions_of(ROWS)
    layout = TableLayout(true_labels=True)
    for true_labels in (None, ["cat", "dog"]):
        with pytest.raises(pa.ArrowInvalid):
            predictions.to_table(LABELS, FACTS, layout, true_labels)
    predictions.sha256.pop()
    with pytest.raises(pa.ArrowInvalid):
        predictions.to_table(LABELS, FACTS, PLAIN)


@pytest.mark.parametrize("source", [0, 1])
def test_a_copied_row_differs_only_in_its_file(source: int) -> None:
    rows = [scored("a.png", (1, 0.7), (0, 0.2)), failed("b.png"), Row("c.png", sha256="11" * 32)]
    predictions, layout = predictions_of(rows, 2), TableLayout(top_k=2)
    before = predictions.to_table(LABELS, FACTS, layout).to_pylist()
    predictions.copy_row(source, 2)
    after = predictions.to_table(LABELS, FACTS, layout).to_pylist()
    assert after[:2] == before[:2]
    assert after[2] == {**before[source], "image_path": "c.png", "image_sha256": "11" * 32}


@given(st.lists(any_row, max_size=8), st.lists(any_row, max_size=4), st.integers(1, 3), st.data())
def test_pasted_rows_replace_the_same_number_of_rows(
    rows: list[Row], others: list[Row], top_k: int, data: st.DataObject
) -> None:
    others = others[: len(rows)]
    start = data.draw(st.integers(0, len(rows) - len(others)))
    stop = start + len(others)
    # Rows keep their paths.
    others = [replace(other, path=row.path) for other, row in zip(others, rows[start:stop], strict=True)]
    predictions = predictions_of(rows, top_k)
    predictions.paste(start, predictions_of(others, top_k))
    expected = predictions_of([*rows[:start], *others, *rows[stop:]], top_k)
    layout = TableLayout(top_k)
    assert predictions.to_table(LABELS, FACTS, layout) == expected.to_table(LABELS, FACTS, layout)


def test_new_predictions_are_undefined() -> None:
    (row,) = Predictions(["a.png"], 1).to_table(LABELS, FACTS, PLAIN).to_pylist()
    assert row["image_sha256"] is row["width"] is row["height"] is row["error"] is None
