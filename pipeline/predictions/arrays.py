"""Arrow arrays made of their buffers, and read from them.

`pyarrow.array` would import pandas first, which costs every worker process more time and memory than all
its other imports, and nothing of it is used.
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
    """Strings; None is a null."""
    import pyarrow as pa

    encoded = [(value or "").encode() for value in values]
    ends = np.fromiter(accumulate(map(len, encoded), initial=0), np.int32, len(encoded) + 1)
    nulls = np.fromiter((value is None for value in values), bool, len(encoded))
    buffers = [_validity(nulls), pa.py_buffer(ends), pa.py_buffer(b"".join(encoded))]
    return pa.Array.from_buffers(pa.string(), len(encoded), buffers)


def number_array(values: npt.NDArray[Any], nulls: Mask | None = None) -> "pa.Array":
    """Numbers of the type that NumPy has them in; null where `nulls` is true."""
    import pyarrow as pa

    buffers = [_validity(nulls), pa.py_buffer(np.ascontiguousarray(values))]
    return pa.Array.from_buffers(pa.from_numpy_dtype(values.dtype), len(values), buffers)


def list_array(values: "pa.Array", length: int, nulls: Mask) -> "pa.ListArray":
    """Lists of one length, cut from `values` in turn; null where `nulls` is true, which takes none."""
    import pyarrow as pa

    ends = np.concatenate([[0], np.cumsum(np.where(nulls, 0, length))]).astype(np.int32)
    buffers = [_validity(nulls), pa.py_buffer(ends)]
    return pa.Array.from_buffers(pa.list_(values.type), len(nulls), buffers, children=[values])


def numbers_of(column: "pa.ChunkedArray", of: type[Number]) -> npt.NDArray[Number]:
    """The numbers of a column as they lie in memory; what stands in the place of a null means nothing."""
    array = column.combine_chunks()
    return np.frombuffer(array.buffers()[1], of)[array.offset : array.offset + len(array)]


def _validity(nulls: Mask | None) -> "pa.Buffer | None":
    import pyarrow as pa

    if nulls is None or not nulls.any():
        return None
    return pa.py_buffer(np.packbits(~nulls, bitorder="little"))
