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
_DIGITS = 2 * CONTENT_SIZE


def as_contents(hexadecimal: "Sequence[str] | pa.StringArray") -> Contents:
    """The hashes given as 64 hexadecimal digits each."""
    if isinstance(hexadecimal, Sequence):
        return np.frombuffer(bytes.fromhex("".join(hexadecimal)), KIND)
    # Arrow keeps the digits of all hashes one after the other, so there is no text for each.
    first, digits = hexadecimal.offset * _DIGITS, hexadecimal.buffers()[2]
    size = len(hexadecimal) * _DIGITS
    text = digits.slice(first, size).to_pybytes() if digits is not None else b""
    return np.frombuffer(bytes.fromhex(text.decode("ascii")), KIND)


def as_hexadecimal(contents: Contents) -> list[str]:
    """The hashes as 64 hexadecimal digits each."""
    # Not by element: NumPy drops the zero bytes at the end of one.
    text = np.ascontiguousarray(contents).tobytes().hex()
    return [text[start : start + _DIGITS] for start in range(0, len(text), _DIGITS)]


def as_text(contents: Contents) -> "pa.StringArray":
    """The hashes as an Arrow array of 64 hexadecimal digits each."""
    import pyarrow as pa

    digits = np.ascontiguousarray(contents, KIND).tobytes().hex().encode()
    offsets = np.arange(len(contents) + 1, dtype=np.int32) * _DIGITS
    return pa.StringArray.from_buffers(len(contents), pa.py_buffer(offsets), pa.py_buffer(digits))


def as_arrow(contents: Contents) -> "pa.FixedSizeBinaryArray":
    """The hashes as an Arrow array, without a copy."""
    import pyarrow as pa

    buffer = pa.py_buffer(np.ascontiguousarray(contents, KIND))
    return pa.FixedSizeBinaryArray.from_buffers(pa.binary(32), len(contents), [None, buffer])


def hash_content(content: bytes | Pixels) -> "_Hash":
    """The SHA-256 of the bytes of a file or of the pixels of an array."""
    return hashlib.sha256(content if isinstance(content, bytes) else np.ascontiguousarray(content).data)
