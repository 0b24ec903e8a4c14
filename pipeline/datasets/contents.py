"""SHA-256 hashes of contents as arrays of 32 bytes each, which take half the memory of text."""

import hashlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from pixelmill.pipeline.images import Pixels

if TYPE_CHECKING:
    from hashlib import _Hash

    import pyarrow as pa

CONTENT_SIZE = 32
"""Bytes of a SHA-256."""
Contents = npt.NDArray[np.bytes_]
"""bytes32 [contents]."""
KIND = np.dtype(f"S{CONTENT_SIZE}")
"""Of an element of `Contents`."""


def as_contents(hexadecimal: "Sequence[str] | pa.StringArray") -> Contents:
    """The hashes given as 64 hexadecimal digits each."""
    if not isinstance(hexadecimal, Sequence):
        hexadecimal = hexadecimal.to_pylist()
    return np.frombuffer(bytes.fromhex("".join(hexadecimal)), KIND)


def as_hexadecimal(contents: Contents) -> list[str]:
    """The hashes as 64 hexadecimal digits each."""
    # Not by element: NumPy drops the zero bytes at the end of one.
    text = np.ascontiguousarray(contents).tobytes().hex()
    return [text[start : start + 64] for start in range(0, len(text), 64)]


def as_arrow(contents: Contents) -> "pa.FixedSizeBinaryArray":
    """The hashes as an Arrow array, without a copy."""
    import pyarrow as pa

    buffer = pa.py_buffer(np.ascontiguousarray(contents, KIND))
    return pa.FixedSizeBinaryArray.from_buffers(pa.binary(32), len(contents), [None, buffer])


def hash_content(content: bytes | Pixels) -> "_Hash":
    """The SHA-256 of the bytes of a file or of the pixels of an array."""
    return hashlib.sha256(content if isinstance(content, bytes) else np.ascontiguousarray(content).data)
