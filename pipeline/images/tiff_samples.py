"""Decoding of the strips or tiles of a TIFF page to samples of any depth, order and compression."""

import io
import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import TiffImagePlugin

from pixelmill.pipeline.images import jpeg
from pixelmill.pipeline.images.failures import corrupt, unsupported
from pixelmill.pipeline.images.libtiff import libtiff_errors
from pixelmill.pipeline.images.tiff_colors import Samples

_RAW, _JPEG = 1, 7
_FAX = (2, 3, 4)
# Decompressed by zlib, which verifies the checksum after the data; libtiff does not.
_DEFLATE = (8, 32946)
# Decompressed by Pillow's libtiff: LZW, PackBits, LZMA, Zstandard.
_BYTE_COMPRESSIONS = (5, 32773, 34925, 50000)
# Compressions that may be combined with a predictor, which stores differences between samples.
_WITH_PREDICTOR = (5, 8, 32946, 34925, 50000)
_HORIZONTAL = 2
_SHORT, _LONG = 3, 4
_REVERSED = bytes(int(f"{value:08b}"[::-1], 2) for value in range(256))
_ADOBE_MARKER = b"\xff\xee\x00\x0eAdobe\x00\x64\x00\x00\x00\x00"
_JPEG_START = b"\xff\xd8"


@dataclass(frozen=True)
class SampleLayout:
    """The location and packing of the samples of a page.

    A block is a strip or a tile. `order`: `<` or `>`; `is_planar`: each block holds one sample of its pixels;
    `is_bit_reversed`: the first pixel is in a byte's lowest bits.
    """

    width: int
    height: int
    samples: int
    bits: int
    order: str
    is_planar: bool
    compression: int
    predictor: int
    is_bit_reversed: bool
    fax_options: dict[int, int]
    jpeg_tables: bytes
    is_ycbcr: bool
    block_width: int
    block_height: int
    is_tiled: bool
    offsets: tuple[int, ...]
    byte_counts: tuple[int, ...]

    @property
    def is_jpeg(self) -> bool:
        """Whether each block is a JPEG stream, which is decoded to RGB."""
        return self.compression == _JPEG

    @property
    def block_samples(self) -> int:
        """The number of samples of a pixel stored side by side."""
        return 1 if self.is_planar else self.samples

    @property
    def row_bytes(self) -> int:
        """The length of a block's row in bytes; each row begins with a new byte."""
        return -(-self.block_width * self.block_samples * self.bits // 8)


def read_samples(data: bytes, layout: SampleLayout) -> Samples:
    """Decode all samples of a page.

    Args:
        data: The whole file.
        layout: The layout from the tags of the page.

    Returns:
        uint8 or uint16 [height, width, samples].

    Raises:
        ImageFailure: Data is missing, or its packing is not supported.
    """
    if layout.block_width < 1 or layout.block_height < 1:
        raise corrupt(f"strips or tiles of {layout.block_width} x {layout.block_height} pixels")
    across = -(-layout.width // layout.block_width)
    down = -(-layout.height // layout.block_height)
    planes = layout.samples if layout.is_planar else 1
    if len(layout.offsets) < across * down * planes:
        raise corrupt(f"{len(layout.offsets)} strips or tiles where the image has {across * down * planes}")
    done = [
        _read_plane(data, layout, range(plane * across * down, (plane + 1) * across * down), across)
        for plane in range(planes)
    ]
    return done[0] if len(done) == 1 else np.concatenate(done, axis=2)


def _read_plane(data: bytes, layout: SampleLayout, numbers: Sequence[int], across: int) -> Samples:
    """The samples of the given blocks, uint [height, width, samples of a block]."""
    down = len(numbers) // across
    heights = [layout.block_height] * len(numbers)
    if not layout.is_tiled:
        heights[-1] = layout.height - layout.block_height * (down - 1)
    if layout.is_jpeg:
        stacked = np.concatenate(
            [
                _decode_jpeg(_block(data, layout, number), layout, height)
                for number, height in zip(numbers, heights, strict=True)
            ]
        )
    else:
        stacked = _uncompressed(data, layout, numbers, heights)
    if not layout.is_tiled:
        return stacked
    shape = down, across, layout.block_height, layout.block_width, layout.block_samples
    joined = stacked.reshape(shape).transpose(0, 2, 1, 3, 4)
    whole = joined.reshape(down * layout.block_height, across * layout.block_width, layout.block_samples)
    return whole[: layout.height, : layout.width]


def _uncompressed(
    data: bytes, layout: SampleLayout, numbers: Sequence[int], heights: Sequence[int]
) -> Samples:
    """The samples of stacked blocks, uint [rows, block width, samples of a block]."""
    if layout.compression == _RAW:
        stored = b"".join(
            _raw_block(data, layout, number, height) for number, height in zip(numbers, heights, strict=True)
        )
        stored = stored.translate(_REVERSED) if layout.is_bit_reversed else stored
        rows = np.frombuffer(stored, np.uint8).reshape(sum(heights), layout.row_bytes)
        return _unpack(rows, layout)
    blocks = [_block(data, layout, number) for number in numbers]
    if layout.compression in _FAX:
        if layout.bits != 1 or layout.block_samples != 1:
            raise unsupported("fax compression of samples other than black and white")
        return _decompress(blocks, layout, layout.block_width, sum(heights), 1)[..., np.newaxis]
    if layout.compression in _DEFLATE:
        inflated = b"".join(
            _inflate(block.translate(_REVERSED) if layout.is_bit_reversed else block, layout, height)
            for block, height in zip(blocks, heights, strict=True)
        )
        rows = np.frombuffer(inflated, np.uint8).reshape(sum(heights), layout.row_bytes)
    elif layout.compression in _BYTE_COMPRESSIONS:
        rows = _decompress(blocks, layout, layout.row_bytes, sum(heights), 8)
    else:
        raise unsupported(f"TIFF compression {layout.compression}")
    samples = _unpack(rows, layout)
    if layout.compression not in _WITH_PREDICTOR or layout.predictor == 1:
        return samples
    if layout.predictor != _HORIZONTAL or layout.bits not in (8, 16):
        raise unsupported(f"TIFF predictor {layout.predictor} of {layout.bits} bits")
    return np.add.accumulate(samples, axis=1, dtype=samples.dtype)


def _block(data: bytes, layout: SampleLayout, number: int) -> bytes:
    if number >= len(layout.byte_counts):
        raise corrupt("the lengths of the strips or tiles are missing")
    end = layout.offsets[number] + layout.byte_counts[number]
    if end > len(data):
        raise corrupt("a strip or tile is beyond the end of the file")
    return data[layout.offsets[number] : end]


def _raw_block(data: bytes, layout: SampleLayout, number: int, height: int) -> bytes:
    start, needed = layout.offsets[number], height * layout.row_bytes
    if start + needed > len(data):
        raise corrupt("the file ends within the pixels")
    return data[start : start + needed]


def _unpack(rows: npt.NDArray[np.uint8], layout: SampleLayout) -> Samples:
    """Samples from rows of bytes, uint [rows, block width, samples of a block]."""
    shape = len(rows), layout.block_width, layout.block_samples
    if layout.bits == 8:
        return rows.reshape(shape)
    if layout.bits == 16:
        return np.ascontiguousarray(rows).view(f"{layout.order}u2").astype(np.uint16).reshape(shape)
    count = layout.block_width * layout.block_samples
    bits = np.unpackbits(rows, axis=1)[:, : count * layout.bits].reshape(len(rows), count, layout.bits)
    samples = np.zeros((len(rows), count), np.uint8 if layout.bits < 8 else np.uint16)
    for place in range(layout.bits):
        samples = samples << 1 | bits[..., place]
    return samples.reshape(shape)


def _inflate(block: bytes, layout: SampleLayout, height: int) -> bytes:
    """Decompress Deflate; the last strip may have more rows than remain in the image."""
    decoder = zlib.decompressobj()
    needed, most = height * layout.row_bytes, layout.block_height * layout.row_bytes
    try:
        # One byte more than expected, so that zlib also reads the checksum after the data.
        data = decoder.decompress(block, most + 1)
    except zlib.error as error:
        raise corrupt(str(error)) from error
    if not needed <= len(data) <= most:
        raise corrupt(f"a strip or tile of {len(data)} bytes instead of {needed}")
    return data[:needed]


def _decompress(
    blocks: Sequence[bytes], layout: SampleLayout, width: int, height: int, bits: int
) -> npt.NDArray[np.uint8]:
    """Decompress blocks, each of whole rows, by wrapping them in a minimal TIFF file.

    Returns:
        uint8 [height, width]: bytes, or for `bits` of 1 black and white samples.
    """
    body = b"".join(blocks)
    offsets = np.cumsum([8, *map(len, blocks)])[:-1].tolist()
    tags = {
        256: (_LONG, [width]),
        257: (_LONG, [height]),
        258: (_SHORT, [bits]),
        259: (_SHORT, [layout.compression]),
        262: (_SHORT, [1]),
        266: (_SHORT, [2 if layout.is_bit_reversed else 1]),
        273: (_LONG, offsets),
        277: (_SHORT, [1]),
        278: (_LONG, [layout.block_height]),
        279: (_LONG, [len(block) for block in blocks]),
        **{tag: (_LONG, [value]) for tag, value in layout.fax_options.items()},
    }
    image = TiffImagePlugin.TiffImageFile(io.BytesIO(_tiff_file(body, tags)))
    with libtiff_errors() as errors:
        image.load()
    if errors:
        raise corrupt(errors[0].decode(errors="replace"))
    pixels: npt.NDArray[np.uint8] = np.asarray(image, dtype=np.uint8)
    return pixels


def _tiff_file(body: bytes, tags: dict[int, tuple[int, list[int]]]) -> bytes:
    """A little-endian TIFF file with one page, whose `body` is at byte 8."""
    body += b"\0" * (len(body) % 2)
    entries, outside = b"", b""
    start = 8 + len(body)
    for tag, (kind, values) in sorted(tags.items()):
        content = struct.pack(f"<{len(values)}{'H' if kind == _SHORT else 'I'}", *values)
        if len(content) > 4:
            place = struct.pack("<I", start + len(outside))
            outside += content
        else:
            place = content.ljust(4, b"\0")
        entries += struct.pack("<HHI", tag, kind, len(values)) + place
    directory = struct.pack("<H", len(tags)) + entries + bytes(4)
    return b"II*\0" + struct.pack("<I", start + len(outside)) + body + outside + directory


def _decode_jpeg(block: bytes, layout: SampleLayout, height: int) -> Samples:
    """The samples of a JPEG stream, uint8 [height, block width, samples of a block]; YCbCr becomes RGB."""
    if layout.bits != 8 or layout.is_bit_reversed or (layout.is_planar and layout.is_ycbcr):
        raise unsupported(f"JPEG within TIFF of {layout.bits} bits, in planes or with reversed bits")
    if not all(part.startswith(_JPEG_START) for part in (block, layout.jpeg_tables or _JPEG_START)):
        raise corrupt("a strip or tile that is not a JPEG stream")
    tables = layout.jpeg_tables.removeprefix(_JPEG_START).removesuffix(b"\xff\xd9")
    # Otherwise a decoder would guess from the component IDs whether they are RGB or YCbCr.
    transform = bytes((1 if layout.is_ycbcr else 0,))
    pixels = jpeg.decode_strip(
        _JPEG_START + _ADOBE_MARKER + transform + tables + block.removeprefix(_JPEG_START)
    )
    if pixels.shape[0] < height or pixels.shape[1:] != (layout.block_width, layout.block_samples):
        raise corrupt(f"a JPEG stream of {pixels.shape}, which does not match the strips or tiles")
    return pixels[:height]
