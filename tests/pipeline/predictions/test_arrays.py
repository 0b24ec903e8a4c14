"""Arrow arrays built from buffers equal those that pyarrow builds."""

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from pixelmill.pipeline.predictions.arrays import list_array, number_array, text_array

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=12) | st.sampled_from(
    ["", "\0", "é🦜", "日本"]
)
numbers = st.sampled_from([np.int8, np.int32, np.int64, np.uint64, np.float32, np.float64]).flatmap(
    lambda kind: hnp.arrays(kind, st.integers(0, 40))
)
masked = numbers.flatmap(lambda values: st.tuples(st.just(values), hnp.arrays(bool, len(values))))


def same(made: pa.Array, expected: pa.Array) -> bool:
    """Whether arrays are equal in type, nulls and every bit of every value."""
    made.validate(full=True)
    assert (made.type, made.null_count) == (expected.type, expected.null_count)
    return bool(made.equals(expected) or repr(made.to_pylist()) == repr(expected.to_pylist()))  # NaN


@given(st.lists(texts | st.none(), max_size=40))
def test_strings(values: list[str | None]) -> None:
    assert same(text_array(values), pa.array(values, pa.string()))


@given(numbers)
def test_numbers(values: "np.ndarray[Any, Any]") -> None:
    assert same(number_array(values), pa.array(values))


@given(masked)
def test_numbers_and_nulls(case: "tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]") -> None:
    values, nulls = case
    # From plain values, because pyarrow's mask also turns NaN into null.
    plain = [None if null else value for value, null in zip(values.tolist(), nulls, strict=True)]
    assert same(number_array(values, nulls), pa.array(plain, pa.from_numpy_dtype(values.dtype)))


@given(hnp.arrays(np.int32, st.tuples(st.integers(0, 9), st.integers(2, 9))))
def test_a_column_of_a_matrix(values: "np.ndarray[Any, Any]") -> None:
    for column in values.T:
        assert number_array(column).to_pylist() == column.tolist()


@given(hnp.arrays(bool, st.integers(0, 40)), st.integers(1, 5))
def test_lists(nulls: "np.ndarray[Any, Any]", length: int) -> None:
    rows = [None if null else [f"{row}-{at}" for at in range(length)] for row, null in enumerate(nulls)]
    values = text_array([value for row in rows for value in row or []])
    assert same(list_array(values, length, nulls), pa.array(rows, pa.list_(pa.string())))


def test_none_is_refused_where_nulls_are_not_allowed() -> None:
    with pytest.raises(UnicodeEncodeError):
        text_array(["\udcff"])
