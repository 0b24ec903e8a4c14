"""Writing GIF files with one frame from the specification."""

import struct

import numpy as np

from pixelmill.pipeline.images import Pixels

SIZE = 16
"""The width and height of the canvas."""
COLORS = np.array([[0, 160, 0], [200, 0, 0], [0, 0, 250], [30, 30, 30]], np.uint8)
VALUES = np.random.default_rng(0).integers(0, 4, (7, 5), np.uint8)


def lzw(values: Pixels) -> bytes:
    """Compressed GIF data for indices below 4, with a clear code before each."""
    codes = [code for value in values.ravel() for code in (4, int(value))] + [5]
    bits = "".join(format(code, "03b")[::-1] for code in codes)
    data = bytes(int(bits[at : at + 8][::-1].rjust(8, "0"), 2) for at in range(0, len(bits), 8))
    blocks = (data[at : at + 255] for at in range(0, len(data), 255))
    return b"\2" + b"".join(bytes((len(block),)) + block for block in blocks) + b"\0"


def gif(
    values: Pixels,
    left: int,
    top: int,
    *,
    transparent: int | None = None,
    local: bool = False,
    flags: int = 0,
) -> bytes:
    table = COLORS.tobytes()
    height, width = values.shape
    control = b"" if transparent is None else b"!\xf9\4\1\0\0" + bytes((transparent, 0))
    flags |= 0x81 if local else 0
    descriptor = b"," + struct.pack("<HHHHB", left, top, width, height, flags)
    screen = struct.pack("<HHBBB", SIZE, SIZE, 0x01 if local else 0x81, 0, 0)
    own, shared = (table, b"") if local else (b"", table)
    return b"GIF89a" + screen + shared + control + descriptor + own + lzw(values) + b";"
