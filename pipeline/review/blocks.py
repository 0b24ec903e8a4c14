"""The scored rows of a table in either format, a row group at a time."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from pixelmill.pipeline.predictions.columns import EMBEDDING
from pixelmill.pipeline.predictions.csv_format import read_csv
from pixelmill.pipeline.predictions.parts import row_groups_of
from pixelmill.pipeline.predictions.table import StoredTable

if TYPE_CHECKING:
    import pyarrow as pa

_COLUMNS = ("image_path", "image_sha256", "status", "label", "class_index", "probability")
_FURTHER = ("top_labels", "top_probabilities", "true_label")


def scored_blocks(table: StoredTable, embeddings: bool = False) -> "Iterator[pa.Table]":
    """The scored rows of a table.

    Args:
        table: A finished table.
        embeddings: Whether to read the column `embedding`, if the table has it.

    Yields:
        Rows with `image_path`, `image_sha256`, `label`, `class_index`, `probability`, `second_label`,
        `second_probability`, `true_label` and maybe `embedding`; null where the table has no such column.
    """
    import pyarrow.compute as pc

    for block in _blocks(table, embeddings):
        yield _with_second(block.filter(pc.equal(block["status"], "scored")))


def _blocks(table: StoredTable, embeddings: bool) -> "Iterator[pa.Table]":
    import pyarrow as pa

    wanted = {*_COLUMNS, *_FURTHER, *([EMBEDDING] if embeddings else [])}
    for file in table.files:
        with file.opened() as content:
            if table.is_csv:
                yield pa.Table.from_pandas(read_csv(content), preserve_index=False)
            else:
                yield from row_groups_of(content, wanted)


def _with_second(rows: "pa.Table") -> "pa.Table":
    """The rows with the columns of `scored_blocks`."""
    import pyarrow as pa
    import pyarrow.compute as pc

    found: dict[str, Any] = {
        "image_path": rows["image_path"].cast(pa.string()),
        "image_sha256": rows["image_sha256"].cast(pa.string()),
        "label": rows["label"].cast(pa.string()),
        "class_index": rows["class_index"].cast(pa.int32()),
        "probability": rows["probability"].cast(pa.float32()),
    }
    if "top_labels" in rows.column_names:
        found["second_label"] = pc.list_element(rows["top_labels"], 1)
        found["second_probability"] = pc.list_element(rows["top_probabilities"], 1)
    elif "label_2" in rows.column_names:
        found["second_label"] = rows["label_2"].cast(pa.string())
        found["second_probability"] = rows["probability_2"].cast(pa.float32())
    else:
        found["second_label"] = pa.nulls(len(rows), pa.string())
        found["second_probability"] = pa.nulls(len(rows), pa.float32())
    has_truth = "true_label" in rows.column_names
    found["true_label"] = (
        rows["true_label"].cast(pa.string()) if has_truth else pa.nulls(len(rows), pa.string())
    )
    if EMBEDDING in rows.column_names:
        found[EMBEDDING] = rows[EMBEDDING]
    return pa.table(found)
