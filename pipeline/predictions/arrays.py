"""Conversion between NumPy and Arrow arrays through their buffers.

`pyarrow.array` would import pandas, which costs every worker process more time and memory than all its other
imports together.
"""

from collections.abc import Sequence
from itertools import accumulate
from typing import TYPE_CHECKING, Any, TypeVar

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


def numbers_of(column: "pa.ChunkedArray", of: type[Number]) -> npt.NDArray[Number]:
    """A view of a column as a NumPy array; the values of nulls are undefined."""
    array = column.combine_chunks()
    return np.frombuffer(array.buffers()[1], of)[array.offset : array.offset + len(array)]


def _validity(nulls: Mask | None) -> "pa.Buffer | None":
    import pyarrow as pa

    if nulls is None or not nulls.any():
        return None
    return pa.py_buffer(np.packbits(~nulls, bitorder="little"))
