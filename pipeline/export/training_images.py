"""The list of the images of a model: which it was trained, validated and tested on."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from pixelmill.pipeline.datasets import PreparedDataset

_COLUMNS = ["sha256", "label", "split", "group"]


def write_training_images(dataset: PreparedDataset, path: Path) -> None:
    """Write the different images of a dataset as a Parquet file, sorted by content.

    Columns: `sha256`, of the content in hexadecimal; `label`, the class name; `split`, one of train,
    validation and test; `group`, null for an image without one.
    """
    rows = dataset.rows(columns=_COLUMNS)
    names = pa.array(dataset.class_names, pa.string()).take(rows["label"].combine_chunks())
    columns = {**{name: rows[name].cast(pa.string()) for name in _COLUMNS if name != "label"}, "label": names}
    table = pa.table({name: columns[name] for name in _COLUMNS})
    different = table.group_by(_COLUMNS).aggregate([]).select(_COLUMNS)
    ordered = different.sort_by([(name, "ascending") for name in ("sha256", "split", "group", "label")])
    pq.write_table(ordered, path, compression="zstd")
