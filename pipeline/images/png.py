"""PNG files: checksums are verified here, and only the chunks that affect the pixels are passed to Pillow.

Text, color profiles and animations do not affect the pixels. They are removed before Pillow sees the file,
so that they can neither fail nor expand to gigabytes.
"""

import io
import re
import zlib
from functools import partial
from typing import NamedTuple

import numpy as np
from PIL import Image, PngImagePlugin

from pixelmill.pipeline.config import ImageSpec
from pixelmill.pipeline.images.exif import UPRIGHT, orientation_of
from pixelmill.pipeline.images.failures import ImageFailure, corrupt, unsupported
from pixelmill.pipeline.images.header import EncodedImage, FileFacts

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_GREY, _COLOR, _PALETTE, _GREY_ALPHA, _COLOR_ALPHA = 0, 2, 3, 4, 6
_DEPTHS = {
    _GREY: (1, 2, 4, 8, 16),
    _COLOR: (8, 16),
    _PALETTE: (1, 2, 4, 8),
    _GREY_ALPHA: (8, 16),
    _COLOR_ALPHA: (8, 16),
}
_MODES = {_GREY: "L", _COLOR: "RGB", _PALETTE: "P", _GREY_ALPHA: "LA", _COLOR_ALPHA: "RGBA"}
_HEADER, _COLORS, _TRANSPARENCY, _PIXELS, _END = b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND"
_ORIENTATION = b"eXIf"
_SHOWN = frozenset((_HEADER, _COLORS, _TRANSPARENCY, _PIXELS, _END, _ORIENTATION))
_SHOWN_NAME = re.compile(b"|".join(sorted(_SHOWN)))
# Registered chunks that do not affect the pixels; only these are ignored if their checksum is wrong.
_METADATA = frozenset(
    b"acTL bKGD caBX cHRM cICP cLLI cLLi dSIG fcTL fdAT fRAc gAMA gIFg gIFt gIFx hIST iCCP iTXt iDOT mDCV "
    b"mDCv npTc oFFs orNT pCAL pHYs sBIT sCAL sPLT sRGB sTER tEXt tIME vpAg zTXt".split()
)


class _Header(NamedTuple):
    width: int
    height: int
    depth: int
    color: int


def accepts(data: bytes) -> bool:
    """Whether the bytes begin like a PNG file."""
    return data.startswith(_SIGNATURE)


def read(data: bytes) -> EncodedImage:
    """Read the chunks of a PNG file. Problems after the header are raised when the pixels are loaded.

    Raises:
        ImageFailure: The header is missing or invalid.
    """
    chunks = _Chunks(data)
    content: bytes | ImageFailure
    try:
        content = chunks.collect()
    except ImageFailure as failure:
        content = failure
    header = chunks.header
    if header is None:
        raise content if isinstance(content, ImageFailure) else corrupt("the file has no header")
    orientation = orientation_of(chunks.exif) if chunks.exif else UPRIGHT
    mode = "I;16" if header.depth == 16 and header.color == _GREY else _MODES[header.color]
    facts = FileFacts("PNG", mode, header.width, header.height, orientation)
    return EncodedImage(facts, partial(_load, header, content))


class _Chunks:
    """A pass over the chunks of a file."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.kept = [_SIGNATURE]
        self.seen: set[bytes] = set()
        self.last = b""
        self.header: _Header | None = None
        self.exif = b""

    def collect(self) -> bytes:
        """A PNG file with only the header, palette, transparency and pixels."""
        at = len(_SIGNATURE)
        while at + 8 <= len(self.data) and _END not in self.seen:
            end = at + 12 + int.from_bytes(self.data[at : at + 4])
            name = self.data[at + 4 : at + 8]
            self._take(name, at, end)
            at = end
        if self.header is None or _PIXELS not in self.seen:
            raise corrupt("the file ends before the pixels")
        if self.header.color == _PALETTE and _COLORS not in self.seen:
            raise corrupt("the image has no palette")
        if _END not in self.seen:
            # The decoder checks whether the pixels are complete.
            self.kept.append(_chunk(_END, b""))
        return b"".join(self.kept)

    def _take(self, name: bytes, at: int, end: int) -> None:
        self._check_sum(name, at, end)
        if name not in _SHOWN:
            if not name[0] & 32:
                raise unsupported(f"an unknown critical chunk {name!r}")
            # Remembered only to detect pixel data after it, which would be out of order.
            self._remember(b"")
            return
        payload = self.data[at + 8 : end - 4]
        self._check_order(name)
        self._remember(name)
        if name == _ORIENTATION:
            self.exif = payload
            return
        if name == _HEADER:
            self.header = _parse_header(payload)
        elif name == _COLORS and (not payload or len(payload) % 3 or len(payload) > 3 * 256):
            raise corrupt(f"a palette of {len(payload)} bytes")
        self.kept.append(self.data[at:end])

    def _remember(self, name: bytes) -> None:
        self.seen.add(name)
        self.last = name

    def _check_sum(self, name: bytes, at: int, end: int) -> None:
        is_whole = end <= len(self.data)
        if is_whole:
            # Memory views, because a chunk may be most of a large file.
            content = memoryview(self.data)[at + 4 : end - 4]
            if zlib.crc32(content) == int.from_bytes(self.data[end - 4 : end]):
                return
        if name in _METADATA and not self._hides_pixels(at + 8, end):
            return
        if not name.isalpha():
            raise corrupt(f"invalid chunk at byte {at}")
        raise corrupt(
            f"the checksum of chunk {name.decode()} is wrong" if is_whole else "the file ends early"
        )

    def _hides_pixels(self, start: int, end: int) -> bool:
        """Whether a chunk with a damaged length includes a chunk that affects the pixels."""
        for found in _SHOWN_NAME.finditer(self.data, start, min(end, len(self.data))):
            name_at = found.start()
            stop = name_at + 4 + int.from_bytes(self.data[name_at - 4 : name_at])
            expected = self.data[stop : stop + 4]
            if len(expected) == 4 and zlib.crc32(self.data[name_at:stop]) == int.from_bytes(expected):
                return True
        return False

    def _check_order(self, name: bytes) -> None:
        if (name == _HEADER) != (not self.seen):
            raise corrupt("the header is not the first chunk")
        if name == _PIXELS:
            if name in self.seen and self.last != name:
                raise corrupt("the pixels are interrupted by another chunk")
        elif name != _END and name in self.seen:
            raise corrupt(f"duplicate chunk {name.decode()}")
        if name in (_COLORS, _TRANSPARENCY) and _PIXELS in self.seen:
            raise corrupt(f"the chunk {name.decode()} comes after the pixels")


def _parse_header(payload: bytes) -> _Header:
    if len(payload) != 13:
        raise corrupt(f"a header of {len(payload)} bytes instead of 13")
    width, height = int.from_bytes(payload[:4]), int.from_bytes(payload[4:8])
    depth, color, compression, filtering, interlacing = payload[8:]
    if not width or not height:
        raise corrupt(f"an image of {width} x {height} pixels")
    if depth not in _DEPTHS.get(color, ()) or compression or filtering or interlacing > 1:
        raise corrupt(f"a header with values that PNG does not define: {payload[8:].hex(' ')}")
    return _Header(width, height, depth, color)


def _chunk(name: bytes, payload: bytes) -> bytes:
    return len(payload).to_bytes(4) + name + payload + zlib.crc32(name + payload).to_bytes(4)


def _load(header: _Header, content: bytes | ImageFailure, _spec: ImageSpec) -> Image.Image:
    if isinstance(content, ImageFailure):
        raise content
    image = PngImagePlugin.PngImageFile(io.BytesIO(content))
    image.load()
    level = image.info.get("transparency")
    if level is None or header.color not in (_GREY, _COLOR):
        return image
    depth = header.depth
    if depth == 16:
        return _with_16_bit_transparency(image, content, level)
    # Pillow scales samples of 2 and 4 bits to 8 bits, but not the transparent level they are compared with.
    if header.color == _GREY and depth in (2, 4):
        most = (1 << depth) - 1
        image.info["transparency"] = (level & most) * (255 // most)
    return image


def _with_16_bit_transparency(image: Image.Image, data: bytes, level: int | tuple[int, ...]) -> Image.Image:
    """Compare full 16-bit samples with the transparent one, then keep their upper bytes."""
    if image.mode == "RGB":
        upper = np.asarray(image)
        samples = upper.astype(np.uint16) << 8 | np.asarray(_load_lower_bytes(data))
        is_clear = (samples == np.array(level, np.uint16)).all(axis=2)
    else:
        samples = np.asarray(image).astype(np.uint16)
        upper = np.repeat((samples >> 8).astype(np.uint8)[..., np.newaxis], 3, axis=2)
        is_clear = samples == level
    alpha = np.where(is_clear, 0, 255).astype(np.uint8)
    return Image.fromarray(np.dstack([upper, alpha]))


def _load_lower_bytes(data: bytes) -> Image.Image:
    image = PngImagePlugin.PngImageFile(io.BytesIO(data))
    # With little-endian in place of big-endian, Pillow keeps the other byte of each sample.
    image.tile = [tile._replace(args="RGB;16L") for tile in image.tile]
    image.load()
    return image
