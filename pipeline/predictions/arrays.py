"""Conversion between NumPy and Arrow arrays through their buffers.

`pyarrow.array` would import pandas, which costs every worker process more time and memory than all its other
imports together.
"""

import base64
from collections.abc import Iterator, Sequence
from itertools import accumulate
from typing import TYPE_CHECKING, Any, BinaryIO, TypeVar

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    import pyarrow as pa

Number = TypeVar("Number", np.int32, np.float32)
Mask = npt.NDArray[np.bool_]


def text_array(values: Sequence[str | None]) -> "pa.StringArray":
    """An array of strings; None becomes null."""
    import pyarrow as pa

    encoded = [(value or "").encode() for value in values]
    ends = np.fromiter(accumulate(map(len, encoded), initial=0), np.int32, len(encoded) + 1)
    nulls = np.fromiter((value is None for value in values), bool, len(encoded))
    buffers = [_validity(nulls), pa.py_buffer(ends), pa.py_buffer(b"".join(encoded))]
    return pa.Array.from_buffers(pa.string(), len(encoded), buffers)


def number_array(values: npt.NDArray[Any], nulls: Mask | None = None) -> "pa.Array":
    """An array of the same dtype as `values`; null where `nulls` is true."""
    import pyarrow as pa

    buffers = [_validity(nulls), pa.py_buffer(np.ascontiguousarray(values))]
    return pa.Array.from_buffers(pa.from_numpy_dtype(values.dtype), len(values), buffers)


def list_array(values: "pa.Array", lengths: int | npt.NDArray[np.intp], nulls: Mask) -> "pa.ListArray":
    """An array of lists, taken from `values` in order; null where `nulls` is true.

    Args:
        values: The values of all lists.
        lengths: The length of each list, or of all of them.
        nulls: bool [lists].
    """
    import pyarrow as pa

    ends = np.concatenate([[0], np.cumsum(np.where(nulls, 0, lengths))]).astype(np.int32)
    buffers = [_validity(nulls), pa.py_buffer(ends)]
    return pa.Array.from_buffers(pa.list_(values.type), len(nulls), buffers, children=[values])


def fixed_list_array(values: npt.NDArray[np.float32]) -> "pa.FixedSizeListArray":
    """An array of lists from the rows of a matrix."""
    import pyarrow as pa

    kind = pa.list_(pa.field("element", pa.float32()), values.shape[1])
    return pa.Array.from_buffers(kind, len(values), [None], children=[number_array(values.ravel())])


def matrix_of(column: "pa.ChunkedArray") -> npt.NDArray[np.float32]:
    """The values of a column of lists of equal length without nulls, float32 [rows, values]."""
    array = column.combine_chunks()
    values = array.flatten()  # Of these rows alone, where the column is a slice.
    flat = np.frombuffer(values.buffers()[1], np.float32)[values.offset : values.offset + len(values)]
    matrix: npt.NDArray[np.float32] = flat.reshape(len(array), array.type.list_size)
    return matrix


def numbers_of(column: "pa.ChunkedArray", of: type[Number]) -> npt.NDArray[Number]:
    """A view of a column as a NumPy array; the values of nulls are undefined."""
    array = column.combine_chunks()
    return np.frombuffer(array.buffers()[1], of)[array.offset : array.offset + len(array)]


def write_blocks(table: "pa.Table", rows: int) -> bytes:
    """A table in Arrow's stream format, with a batch for each block of rows."""
    import pyarrow as pa

    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        for start in range(0, len(table), rows):
            writer.write_table(table.slice(start, rows).combine_chunks(), max_chunksize=rows)
    content: bytes = sink.getvalue().to_pybytes()
    return content


def read_blocks(file: BinaryIO) -> "Iterator[pa.Table]":
    """The blocks of `write_blocks`, one at a time."""
    import pyarrow as pa

    with pa.ipc.open_stream(file) as reader:
        for batch in reader:
            yield pa.Table.from_batches([batch])


def schema_to_text(schema: "pa.Schema | Sequence[pa.Field]") -> str:
    """The names and types of columns as text for JSON."""
    import pyarrow as pa

    return base64.b64encode(pa.schema(schema).serialize().to_pybytes()).decode()


def schema_of_text(text: str) -> "pa.Schema":
    """The inverse of `schema_to_text`; no columns for an empty text."""
    import pyarrow as pa

    return pa.ipc.read_schema(pa.py_buffer(base64.b64decode(text))) if text else pa.schema([])


def _validity(nulls: Mask | None) -> "pa.Buffer | None":
    import pyarrow as pa

    if nulls is None or not nulls.any():
        return None
    return pa.py_buffer(np.packbits(~nulls, bitorder="little"))
