"""BMP files: palettes, run-length encoding, and samples with arbitrary bit masks.

Pillow supports a fixed list of layouts and misreads some files (it assumes black and white for 1 bit per
pixel), so the pixels are decoded here.
"""

import struct
from functools import partial
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image

from pixelmill.pipeline.config import ImageSpec
from pixelmill.pipeline.images.exif import UPRIGHT
from pixelmill.pipeline.images.failures import corrupt, unsupported
from pixelmill.pipeline.images.header import EncodedImage, FileFacts
from pixelmill.pipeline.images.tensors import Pixels

_FILE_HEADER = 14
_CORE_HEADER = 12
_HEADERS = (_CORE_HEADER, 16, 40, 52, 56, 64, 108, 124)
_OS2_HEADERS = (16, 64)
_RAW, _RLE8, _RLE4, _MASKS, _MASKS_WITH_ALPHA = 0, 1, 2, 3, 6
_INDEXED = (1, 2, 4, 8)
_USUAL_MASKS = {16: (0x7C00, 0x3E0, 0x1F), 32: (0xFF0000, 0xFF00, 0xFF)}


class _Header(NamedTuple):
    """`colors`: how many the palette has; `start`: of the pixels; `masks`: of red, green, blue and maybe
    alpha.
    """

    size: int
    width: int
    height: int
    is_top_down: bool
    bits: int
    compression: int
    colors: int
    start: int
    masks: tuple[int, ...]

    @property
    def mode(self) -> str:
        if self.bits in _INDEXED:
            return "P"
        return "RGBA" if len(self.masks) == 4 else "RGB"


def accepts(data: bytes) -> bool:
    """Whether the bytes begin like a BMP file; its two letters alone would match too many text files."""
    return data.startswith(b"BM") and int.from_bytes(data[_FILE_HEADER:18], "little") in _HEADERS


def read(data: bytes) -> EncodedImage:
    """Read the header of a BMP file.

    Raises:
        ImageFailure: The header is truncated, or of an unsupported kind.
    """
    header = _parse(data)
    facts = FileFacts("BMP", header.mode, header.width, header.height, UPRIGHT)
    return EncodedImage(facts, partial(_load, data, header))


def _parse(data: bytes) -> _Header:
    (start, size) = struct.unpack_from("<II", data, 10)
    if size == _CORE_HEADER:
        width, height, _, bits = struct.unpack_from("<HHHH", data, 18)
        compression = colors = 0
    elif size in _OS2_HEADERS[:1]:
        raise unsupported("a BMP file with a short OS/2 header")
    else:
        width, height, _, bits, compression, _, _, _, colors = struct.unpack_from("<iiHHIIiiI", data, 18)
    if width < 1 or height == 0:
        raise corrupt(f"an image of {width} x {height} pixels")
    masks = _masks(data, size, bits, compression)
    palette_end = _FILE_HEADER + size
    if bits in _INDEXED:
        colors = colors or 1 << bits
        if colors > 256:
            raise corrupt(f"a palette of {colors} colors")
        palette_end += colors * _entry_bytes(size)
        # Some writers ignore the palette in the offset of the pixels.
        if start in (0, _FILE_HEADER + size):
            start = palette_end
    return _Header(
        size, width, abs(height), height < 0, bits, compression, colors, start or palette_end, masks
    )


def _entry_bytes(header_size: int) -> int:
    return 3 if header_size == _CORE_HEADER else 4


def _masks(data: bytes, size: int, bits: int, compression: int) -> tuple[int, ...]:
    if compression not in (_MASKS, _MASKS_WITH_ALPHA) or size in _OS2_HEADERS:
        return _USUAL_MASKS.get(bits, ())
    with_alpha = compression == _MASKS_WITH_ALPHA or size >= 56
    masks = struct.unpack_from("<4I" if with_alpha else "<3I", data, _FILE_HEADER + 40)
    return masks if masks[-1] else masks[:3]


def _load(data: bytes, header: _Header, _spec: ImageSpec) -> Image.Image:
    kind = header.bits, header.compression
    if header.size in _OS2_HEADERS and header.compression not in (_RAW, _RLE8, _RLE4):
        raise unsupported(f"OS/2 compression {header.compression}")
    if kind in ((8, _RLE8), (4, _RLE4)):
        rows: npt.NDArray[np.uint8] = _expand_runs(data, header)
    elif header.compression == _RAW or (
        header.compression in (_MASKS, _MASKS_WITH_ALPHA) and header.bits in _USUAL_MASKS
    ):
        rows = _raw_rows(data, header)
    else:
        raise unsupported(f"BMP compression {header.compression} of {header.bits} bits per pixel")
    if not header.is_top_down:
        rows = rows[::-1]
    if header.bits in _INDEXED:
        indices = rows if header.compression != _RAW else _unpack(rows, header)
        return Image.fromarray(_palette(data, header)[indices])
    if header.bits == 24:
        pixels = rows[:, : 3 * header.width].reshape(header.height, header.width, 3)
        return Image.fromarray(np.ascontiguousarray(pixels[..., ::-1]))
    if header.bits in _USUAL_MASKS:
        return Image.fromarray(_masked(rows, header))
    raise unsupported(f"BMP of {header.bits} bits per pixel")


def _raw_rows(data: bytes, header: _Header) -> npt.NDArray[np.uint8]:
    """The bytes of each row, uint8 [height, bytes], without padding."""
    used = -(-header.width * header.bits // 8)
    stride = -(-used // 4) * 4
    needed = stride * (header.height - 1) + used
    if header.start + needed > len(data):
        raise corrupt(f"the pixels need {needed} bytes, but the file has {max(0, len(data) - header.start)}")
    flat = np.frombuffer(data, np.uint8, needed, header.start)
    return np.lib.stride_tricks.as_strided(flat, (header.height, used), (stride, 1), writeable=False)


def _unpack(rows: npt.NDArray[np.uint8], header: _Header) -> npt.NDArray[np.uint8]:
    if header.bits == 8:
        return rows
    per_byte = 8 // header.bits
    shifts = np.arange(8 - header.bits, -1, -header.bits, dtype=np.uint8)
    spread = (rows[..., np.newaxis] >> shifts) & np.uint8((1 << header.bits) - 1)
    return spread.reshape(header.height, rows.shape[1] * per_byte)[:, : header.width]


def _palette(data: bytes, header: _Header) -> Pixels:
    """Red, green and blue of each index, uint8 [256, 3]; black beyond the end of the palette."""
    table = np.zeros((256, 3), np.uint8)
    entry = _entry_bytes(header.size)
    at = _FILE_HEADER + header.size
    count = min(header.colors, max(0, (min(header.start, len(data)) - at) // entry))
    table[:count] = np.frombuffer(data, np.uint8, count * entry, at).reshape(count, entry)[:, 2::-1]
    return table


def _masked(rows: npt.NDArray[np.uint8], header: _Header) -> Pixels:
    """Red, green, blue and optional alpha, uint8 [height, width, 3 or 4]."""
    values = np.ascontiguousarray(rows).view(f"<u{header.bits // 8}")
    channels = [_channel(values, mask) for mask in header.masks]
    # Alpha of 0 everywhere was never filled in; viewers show such an image as opaque.
    if len(channels) == 4 and not channels[3].any():
        channels.pop()
    return np.dstack(channels)


def _channel(values: npt.NDArray[np.uint16] | npt.NDArray[np.uint32], mask: int) -> Pixels:
    shift = (mask & -mask).bit_length() - 1
    most = mask >> max(shift, 0)
    if not mask or most & (most + 1):
        raise unsupported(f"a BMP mask of {mask:#x}")
    samples = (values >> np.array(shift, values.dtype)) & np.array(most, values.dtype)
    scaled = samples if most == 255 else samples.astype(np.uint64) * 255 // most
    channel: Pixels = scaled.astype(np.uint8)
    return channel


def _expand_runs(data: bytes, header: _Header) -> npt.NDArray[np.uint8]:
    """The indices of a run-length encoded image, uint8 [height, width], bottom row first."""
    width, height, at = header.width, header.height, header.start
    canvas = bytearray(width * height)
    x = y = filled = 0
    while filled < width * height:
        if at + 2 > len(data):
            raise corrupt("the file ends within the pixels")
        count, value = data[at], data[at + 1]
        at += 2
        if not count and value < 3:
            if value == 1:
                break
            if value == 0:
                x, y = 0, y + 1
            else:
                x, y, at = x + data[at], y + data[at + 1], at + 2
            continue
        if count:
            run = _repeat(value, count, header.bits)
        else:
            stored = data[at : at + -(-value * header.bits // 8)]
            at += -(-len(stored) // 2) * 2
            run = _nibbles(stored)[:value] if header.bits == 4 else stored
        if y >= height:
            raise corrupt("more rows than the header says")
        run = run[: max(0, width - x)]
        place = y * width + x
        canvas[place : place + len(run)] = run
        x, filled = x + len(run), filled + len(run)
    if filled < width * height:
        raise unsupported("run-length encoding that skips pixels, which viewers fill differently")
    return np.frombuffer(canvas, np.uint8).reshape(height, width)


def _repeat(value: int, count: int, bits: int) -> bytes:
    if bits == 8:
        return bytes((value,)) * count
    return (bytes((value >> 4, value & 15)) * (count // 2 + 1))[:count]


def _nibbles(stored: bytes) -> bytes:
    return bytes(half for byte in stored for half in (byte >> 4, byte & 15))
