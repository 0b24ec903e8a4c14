"""Small files that need much memory or time to decode, but not too much for a test."""

import io
import struct
import zlib

import numpy as np
import numpy.typing as npt
from PIL import Image


def zeros(count: int) -> bytes:
    """The given number of zeros, compressed."""
    compressor = zlib.compressobj(9)
    blocks = [compressor.compress(bytes(min(count - at, 1 << 24))) for at in range(0, count, 1 << 24)]
    return b"".join([*blocks, compressor.flush()])


def png(width: int, height: int, depth: int, color: int, channels: int) -> bytes:
    """A black PNG file."""
    header = struct.pack(">IIBBBBB", width, height, depth, color, 0, 0, 0)
    row = 1 + (width * channels * depth + 7) // 8
    chunks = [(b"IHDR", header), (b"IDAT", zeros(row * height)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))
        for name, content in chunks
    )


def tiff(side: int, tile: int, order: str = "<", big: bool = False) -> bytes:
    """A black TIFF file with few pixels in one large, compressed tile."""
    content = zeros(tile * tile)
    start = 16 if big else 8
    long = 16 if big else 4
    tags = [(256, long, side), (257, long, side), (258, 3, 8), (259, 3, 8), (262, 3, 1), (277, 3, 1)]
    tags += [(322, long, tile), (323, long, tile), (324, long, start), (325, long, len(content))]
    number, entry = ("Q", "HHQ8s") if big else ("I", "HHI4s")
    packed = b"".join(
        struct.pack(order + entry, tag, kind, 1, struct.pack(order + {3: "H", 4: "I", 16: "Q"}[kind], value))
        for tag, kind, value in tags
    )
    mark = b"II" if order == "<" else b"MM"
    version = struct.pack(order + "HHH", 43, 8, 0) if big else struct.pack(order + "H", 42)
    count = struct.pack(order + ("Q" if big else "H"), len(tags))
    return (
        mark
        + version
        + struct.pack(order + number, start + len(content))
        + content
        + count
        + packed
        + bytes(8 if big else 4)
    )


def jpeg_with_scans(side: int, scans: int) -> bytes:
    """A progressive JPEG file whose last scan is repeated."""
    buffer = io.BytesIO()
    Image.new("L", (side, side), 128).save(buffer, "JPEG", progressive=True)
    data = buffer.getvalue()
    last = data.rindex(b"\xff\xda")
    return data[:-2] + data[last:-2] * scans + b"\xff\xd9"


def photograph(width: int, height: int) -> npt.NDArray[np.uint8]:
    """Noise, which compresses as badly as an image can; uint8 [height, width, 3]."""
    noise = np.random.default_rng(0).integers(0, 256, (500, 500, 3), np.uint8)
    return np.tile(noise, (height // 500, width // 500, 1))
