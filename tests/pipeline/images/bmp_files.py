"""Writing BMP files from the specification, with every header."""

import struct
from typing import Any

import numpy as np
import numpy.typing as npt

from pixelmill.pipeline.images import Pixels

HEIGHT, WIDTH = 11, 13
RAW, RLE8, RLE4, MASKS = 0, 1, 2, 3
BGRA = (0xFF0000, 0xFF00, 0xFF, 0xFF000000)

COLORS = np.random.default_rng(1).integers(0, 256, (256, 3), np.uint8)


def bmp(
    body: bytes,
    bits: int,
    *,
    size: int = 40,
    compression: int = RAW,
    masks: tuple[int, ...] = (),
    palette: npt.NDArray[np.uint8] | None = None,
    colors: int = 0,
    top_down: bool = False,
    start: int | None = None,
) -> bytes:
    """A file with the given rows, as stored."""
    height = -HEIGHT if top_down else HEIGHT
    if size == 12:
        head = struct.pack("<IHHHH", 12, WIDTH, HEIGHT, 1, bits)
    else:
        head = struct.pack("<IiiHHIIiiII", size, WIDTH, height, 1, bits, compression, 0, 0, 0, colors, 0)
        head += struct.pack(f"<{len(masks)}I", *masks)
        head = head.ljust(size, b"\0")
    table = b""
    if palette is not None:
        padding = np.zeros((len(palette), 0 if size == 12 else 1), np.uint8)
        table = np.hstack([palette[:, ::-1], padding]).astype(np.uint8).tobytes()
    at = 14 + len(head) + len(table)
    whole = at + len(body)
    return b"BM" + struct.pack("<IHHI", whole, 0, 0, at if start is None else start) + head + table + body


def padded(rows: npt.NDArray[Any]) -> bytes:
    """Rows of bytes, bottom row first, each padded to four bytes."""
    data = np.ascontiguousarray(rows[::-1]).view(np.uint8).reshape(len(rows), -1)
    return np.pad(data, [(0, 0), (0, -data.shape[1] % 4)]).tobytes()


def indices(bits: int) -> Pixels:
    return np.random.default_rng(0).integers(0, 1 << bits, (HEIGHT, WIDTH), np.uint8)


def packed(values: Pixels, bits: int) -> bytes:
    spread = (values[..., np.newaxis] >> np.arange(bits)[::-1]) & 1
    return padded(np.packbits(spread.reshape(HEIGHT, -1).astype(np.uint8), axis=1))


def run_lengths(values: Pixels, bits: int, absolute: bool) -> bytes:
    """Rows as runs of one pixel, or unencoded, bottom row first."""
    out = b""
    for row in values[::-1]:
        if not absolute:
            out += b"".join(bytes((1, value << 4 if bits == 4 else value)) for value in row)
        elif bits == 8:
            out += bytes((0, WIDTH)) + row.tobytes() + b"\0" * (WIDTH % 2)
        else:
            pairs = np.pad(row, (0, WIDTH % 2)).reshape(-1, 2)
            data = (pairs[:, 0] << 4 | pairs[:, 1]).astype(np.uint8).tobytes()
            out += bytes((0, WIDTH)) + data + b"\0" * (len(data) % 2)
        out += b"\0\0"
    return out + b"\0\1"
