"""Writing PNG files from the specification, chunk by chunk."""

import struct
import zlib

import numpy as np
import numpy.typing as npt

SIGNATURE = b"\x89PNG\r\n\x1a\n"
GREY, COLOR, PALETTE, GREY_ALPHA, COLOR_ALPHA = 0, 2, 3, 4, 6
SAMPLES = {GREY: 1, COLOR: 3, PALETTE: 1, GREY_ALPHA: 2, COLOR_ALPHA: 4}
# First row, first column, and distances of rows and columns in each pass.
_PASSES = (
    (0, 0, 8, 8),
    (0, 4, 8, 8),
    (4, 0, 8, 4),
    (0, 2, 4, 4),
    (2, 0, 4, 2),
    (0, 1, 2, 2),
    (1, 0, 2, 1),
)
Samples = npt.NDArray[np.uint16]


def chunk(name: bytes, payload: bytes, check_sum: int | None = None) -> bytes:
    """A chunk, with a valid or an invalid checksum."""
    right = zlib.crc32(name + payload)
    return (
        struct.pack(">I", len(payload))
        + name
        + payload
        + struct.pack(">I", right if check_sum is None else check_sum)
    )


def header(width: int, height: int, depth: int, color: int, interlaced: bool = False) -> bytes:
    """The first chunk."""
    return chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, color, 0, 0, interlaced))


def pixels(samples: Samples, depth: int, interlaced: bool = False) -> bytes:
    """The data of samples [height, width, samples]."""
    passes = [samples[top::down, left::across] for top, left, down, across in _PASSES]
    rows = [row for part in (passes if interlaced else [samples]) if part.size for row in part]
    return chunk(b"IDAT", zlib.compress(b"".join(b"\0" + _pack(row, depth) for row in rows)))


def _pack(row: Samples, depth: int) -> bytes:
    if depth == 16:
        return row.astype(">u2").tobytes()
    bits = (row.reshape(-1, 1) >> np.arange(depth)[::-1]) & 1
    return np.packbits(bits.astype(np.uint8)).tobytes()


def png(samples: Samples, depth: int, color: int, *between: bytes, interlaced: bool = False) -> bytes:
    """A complete file; `between`: chunks before the pixels."""
    height, width = samples.shape[:2]
    head = SIGNATURE + header(width, height, depth, color, interlaced)
    return head + b"".join(between) + pixels(samples, depth, interlaced) + chunk(b"IEND", b"")
