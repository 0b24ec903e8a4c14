"""The index of a segment of tensors: one row for each content, as a Parquet file."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from pixelmill.pipeline.artifacts import canonical_json, replacing
from pixelmill.pipeline.datasets.contents import CONTENT_SIZE, KIND, as_arrow
from pixelmill.pipeline.datasets.measures import Measures

INDEX_SUFFIX = ".parquet"
_FACTS = b"pixelmill"
_MEASURE_TYPES = {int: pa.uint64(), float: pa.float32()}
INDEX_SCHEMA = pa.schema(
    [
        pa.field("sha256", pa.binary(32)),
        pa.field("row", pa.int32()),
        pa.field("width", pa.int32()),
        pa.field("height", pa.int32()),
        pa.field("offset", pa.int64()),
        pa.field("size", pa.int64()),
        *(pa.field(name, _MEASURE_TYPES[kind]) for name, kind in Measures.__annotations__.items()),
        pa.field("error", pa.string()),
    ]
)
"""`row` is -1, and the columns of the tensor are null, where `error` says why there is no tensor."""


def write_index(
    path: Path,
    contents: bytes,
    rows: npt.NDArray[np.void],
    failures: Mapping[bytes, str],
    facts: Mapping[str, object],
) -> None:
    """Write an index.

    Args:
        path: The file.
        contents: The SHA-256 of each tensor, 32 bytes after another.
        rows: `ROW_TYPE` [tensors].
        failures: Why other contents are no tensors, by their SHA-256.
        facts: The size and SHA-256 of the file of the tensors.
    """
    schema = INDEX_SCHEMA.with_metadata({_FACTS: canonical_json(facts)})
    written = {
        "sha256": as_arrow(np.frombuffer(contents, KIND)),
        **{name: np.ascontiguousarray(rows[name]) for name in rows.dtype.names or ()},
    }
    failed = {
        "sha256": pa.array(list(failures), pa.binary(CONTENT_SIZE)),
        "row": np.full(len(failures), -1, np.int32),
        "error": pa.array(list(failures.values()), pa.string()),
    }
    table = pa.concat_tables([pa.table(written), pa.table(failed)], promote_options="default")
    with replacing(path) as temporary:
        pq.write_table(table.select(schema.names).cast(schema), temporary, write_page_checksum=True)


def read_index(path: Path, columns: Sequence[str]) -> pa.Table:
    """Read columns of an index."""
    table = pq.read_table(path, columns=list(columns), page_checksum_verification=True)
    return table.replace_schema_metadata()


def read_facts(path: Path) -> dict[str, object]:
    """The size and SHA-256 of the file of the tensors."""
    facts: dict[str, object] = json.loads(pq.read_schema(path).metadata[_FACTS])
    return facts


def empty_index(columns: Sequence[str]) -> pa.Table:
    """Columns of an index without rows, with the column `segment`."""
    fields = [*(INDEX_SCHEMA.field(name) for name in columns), pa.field("segment", pa.int32())]
    return pa.schema(fields).empty_table()
