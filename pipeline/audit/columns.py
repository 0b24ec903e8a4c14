"""Columns of `AuditInput.images` as NumPy arrays."""

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    import pyarrow as pa

Codes = npt.NDArray[np.int64]
SPLITS = ("train", "validation", "test")


def codes_of(column: "pa.ChunkedArray") -> Codes:
    """A number for each value, int64 [rows]: equal for equal values, -1 for null."""
    encoded = column.combine_chunks().dictionary_encode()
    codes: Codes = encoded.indices.fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int64)
    return codes


def integers_of(column: "pa.ChunkedArray") -> Codes:
    """A column of integers, int64 [rows]; -1 for null."""
    values: Codes = column.cast("int64").fill_null(-1).to_numpy()
    return values


def numbers_of(column: "pa.ChunkedArray") -> npt.NDArray[np.float64]:
    """A column of numbers, float64 [rows]; NaN for null."""
    values: npt.NDArray[np.float64] = column.cast("float64").to_numpy()
    return values


def splits_of(column: "pa.ChunkedArray") -> Codes:
    """The split of each row by its place in `SPLITS`, int64 [rows]; -1 for null."""
    import pyarrow as pa
    import pyarrow.compute as pc

    return integers_of(pc.index_in(column, value_set=pa.array(SPLITS)))


def first_of_each(keys: Codes, *preferred: Codes) -> Codes:
    """For each row, the first row with the same key, int64 [rows].

    Args:
        keys: int64 [rows]; a row with a negative key is alone.
        preferred: Of the rows with a key, the first is that with the lowest of these values, then the
            earliest.
    """
    rows = np.arange(len(keys))
    keys = np.where(keys < 0, -1 - rows, keys)
    order = np.lexsort((rows, *reversed(preferred), keys))
    starts = np.r_[True, np.diff(keys[order]) != 0] if len(keys) else np.zeros(0, bool)
    first = np.empty_like(rows)
    first[order] = order[starts][np.cumsum(starts) - 1]
    return first
