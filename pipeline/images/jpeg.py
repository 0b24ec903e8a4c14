"""JPEG files: a fast path for common files, and a careful path for all others.

libjpeg fills the missing parts of a damaged file with grey and only warns about it. simplejpeg raises on the
first warning, Pillow ignores them all. So pixels are accepted only if simplejpeg decodes the file without a
warning. If the first warning is harmless, its cause is removed and the file is decoded again.
"""

import io
import re
from contextlib import suppress
from functools import partial
from typing import NamedTuple

import numpy as np
import simplejpeg
from PIL import Image, JpegImagePlugin

from pixelmill.pipeline.config import ImageSpec
from pixelmill.pipeline.images.exif import UPRIGHT, orientation_of
from pixelmill.pipeline.images.failures import ImageFailure, corrupt, unsupported
from pixelmill.pipeline.images.header import EncodedImage, FileFacts
from pixelmill.pipeline.images.jpeg_markers import (
    END_OF_IMAGE,
    START_OF_SCAN,
    Segment,
    frame_of,
    keep_pixels_only,
    missing_part,
    segments_of,
    start_of_scans,
)
from pixelmill.pipeline.images.tensors import Pixels

_START = b"\xff\xd8\xff"
_END = bytes((0xFF, END_OF_IMAGE))
_FACTORS = (1, 2, 4, 8)
_EXIF_SEGMENT = 0xE1
_EXIF = b"Exif\0\0"
_MODES = {1: "L", 3: "RGB", 4: "CMYK"}
_COLORSPACES = {1: "GRAY", 3: "RGB", 4: "CMYK"}
_SEQUENTIAL = (0xC0, 0xC1)
_NO_FRAMES = (0xC4, 0xC8, 0xCC)
_KINDS = {
    **dict.fromkeys((0xC3, 0xC7, 0xCB, 0xCF), "lossless"),
    **dict.fromkeys((0xC5, 0xC6, 0xCD, 0xCE), "hierarchical"),
    **dict.fromkeys((0xC9, 0xCA), "arithmetic"),
}
_EXTRANEOUS = re.compile(r"Corrupt JPEG data: (\d+) extraneous bytes before marker")
_ANY_MARKER = re.compile(rb"\xff+[^\x00\xff]")
_UNKNOWN_SUBSAMPLING = "Could not determine subsampling"
# The number of equal bytes before extraneous ones of the same value that rules out coincidence.
_FILLED = 16
# Padding that libjpeg expects after the last pixels: bits that do not begin a short code.
_READ_AHEAD = b"\xfe" * 8
# The largest number of runs of extraneous bytes that are removed from a file.
_MOST_REPAIRS = 32


class QuickImage(NamedTuple):
    """`image`: the stored pixels, uint8 [height, width, channels], possibly shrunk; `facts`: of the file."""

    image: Pixels
    facts: FileFacts


def accepts(data: bytes) -> bool:
    """Whether the bytes begin like a JPEG file."""
    return data.startswith(_START)


def decode_quickly(data: bytes, spec: ImageSpec, max_pixels: int) -> QuickImage | None:
    """Decode a common, flawless JPEG file; None for files that need `read`."""
    try:
        height, width, colors, _ = simplejpeg.decode_jpeg_header(data)
        if colors not in ("Gray", "YCbCr", "RGB") or width * height > max_pixels or max(height, width) < 8:
            return None  # simplejpeg takes a target size, which below 8 pixels does not determine the scale.
        orientation, has_one_scan = _glance(data)
        if not has_one_scan and missing_part(list(segments_of(data))):
            return None
        facts = FileFacts("JPEG", "L" if colors == "Gray" else "RGB", width, height, orientation)
        factor = _factor(facts, spec)
        pixels: Pixels = simplejpeg.decode_jpeg(
            data,
            "GRAY" if colors == "Gray" and spec.channels == 1 else "RGB",
            min_height=-(-height // factor) if factor > 1 else 0,
            min_width=-(-width // factor) if factor > 1 else 0,
        )
    except MemoryError:
        raise
    except Exception:  # noqa: BLE001  # simplejpeg raises KeyError for 4:4:1, IndexError for others, ...
        return None
    return QuickImage(pixels, facts)


def read(data: bytes) -> EncodedImage:
    """Read the header of any JPEG file. Problems after the header are raised when the pixels are loaded.

    Raises:
        ImageFailure: The header ends before the size of the image.
    """
    segments, problem = list[Segment](), None
    try:
        segments += segments_of(data)
    except ImageFailure as failure:
        problem = failure
    frame = frame_of(segments)
    if frame is None:
        raise problem or corrupt("the file ends before the size of the image")
    orientation = next(
        (
            orientation_of(segment.payload)
            for segment in segments
            if segment.code == _EXIF_SEGMENT and segment.payload.startswith(_EXIF)
        ),
        UPRIGHT,
    )
    components = len(frame.components)
    mode = _MODES.get(components, f"{components} components")
    facts = FileFacts("JPEG", mode, frame.width, frame.height, orientation)
    return EncodedImage(facts, partial(_load, segments, facts, problem))


def _load(
    segments: list[Segment], facts: FileFacts, problem: ImageFailure | None, spec: ImageSpec
) -> Image.Image:
    if problem is not None:
        raise problem
    frame = frame_of(segments)
    if frame is None or not facts.width:
        raise corrupt("the image has no width")
    if not facts.height:
        raise unsupported("the height is after the first scan instead of in the header (DNL)")
    if frame.code in _KINDS:
        raise unsupported(f"{_KINDS[frame.code]} JPEG")
    if frame.precision != 8:
        raise unsupported(f"JPEG of {frame.precision} bits per sample")
    if facts.mode not in _MODES.values():
        raise unsupported(f"JPEG of {facts.mode}")
    if missing := missing_part(segments):
        raise corrupt(missing)
    data = _without_extraneous_bytes(keep_pixels_only(segments), len(frame.components))
    image = JpegImagePlugin.JpegImageFile(io.BytesIO(data))
    factor = _factor(facts, spec)
    image.draft(None, (image.width // factor, image.height // factor))
    image.load()
    return image


def decode_strip(data: bytes) -> Pixels:
    """Decode a JPEG stream within another file without color conversion, uint8 [rows, width, components].

    Raises:
        ImageFailure: The stream is damaged, or not of 8 bits.
    """
    segments = list(segments_of(data))
    frame = frame_of(segments)
    if frame is None:
        raise corrupt("a JPEG stream without a frame")
    if frame.precision != 8 or frame.code in _KINDS or len(frame.components) not in _COLORSPACES:
        raise unsupported("a JPEG stream of an unusual kind")
    if missing := missing_part(segments):
        raise corrupt(missing)
    colorspace = _COLORSPACES[len(frame.components)]
    clean = _without_extraneous_bytes(keep_pixels_only(segments), len(frame.components))
    pixels: Pixels = simplejpeg.decode_jpeg(clean, colorspace)
    return pixels


def _factor(facts: FileFacts, spec: ImageSpec) -> int:
    """The factor by which a JPEG file is shrunk during decoding, to no less than the requested size."""
    width, height = facts.displayed_size
    most = min(width // spec.width, height // spec.height)
    return 1 if most < 2 else max(factor for factor in _FACTORS if factor <= most)


def _glance(data: bytes) -> tuple[int, bool]:
    """The orientation, and whether the first scan is the whole image, for flawless files.

    A fast alternative to `segments_of`, as the time matters for small files.

    Raises:
        ValueError: There are bytes between the segments of the header.
        IndexError: The header is truncated.
    """
    at, orientation, components = 2, UPRIGHT, 0
    while data[at] == 0xFF:
        code = data[at + 1]
        if code == START_OF_SCAN:
            return orientation, data[at + 4] == components
        if 0xC0 <= code <= 0xCF and code not in _NO_FRAMES:
            # Only a sequential file can hold everything in one scan.
            components = data[at + 9] if code in _SEQUENTIAL else 0
        end = at + 2 + (data[at + 2] << 8 | data[at + 3])
        if code == _EXIF_SEGMENT and orientation == UPRIGHT and data.startswith(_EXIF, at + 4):
            orientation = orientation_of(data[at + 4 : end])
        at = end
    raise ValueError("bytes between the segments of the header")


def _warning(data: bytes, components: int) -> str:
    """The first warning of libjpeg, if any, after decoding all entropy-coded data."""
    try:
        # Shrunk by 8 to save memory.
        simplejpeg.decode_jpeg(data, _COLORSPACES[components], min_height=1, min_width=1)
    except ValueError as error:
        return str(error)
    return ""


def _without_extraneous_bytes(data: bytes, components: int) -> bytes:
    """The file without the extraneous bytes before markers, which decoders skip.

    Raises:
        ImageFailure: libjpeg warns about anything else.
    """
    for _ in range(_MOST_REPAIRS):
        warning = _warning(data, components)
        if not warning:
            return data
        if warning.startswith("Unsupported"):
            raise unsupported(warning)
        if _UNKNOWN_SUBSAMPLING in warning:
            _check_last_row(data)
            return data
        if not _EXTRANEOUS.match(warning):
            raise corrupt(warning)
        data = _drop_first_extraneous(data, components)
    raise corrupt("extraneous bytes before more markers than can be repaired")


def _check_last_row(data: bytes) -> None:
    """Reject a single-scan image that ends before its last row, for files that simplejpeg cannot decode.

    Without an end marker, Pillow waits for more data and leaves the remaining rows unchanged, where libjpeg
    would make them up. Truncation in the last of several scans is not detected.
    """
    unfinished = data.removesuffix(_END) + _READ_AHEAD
    rows = []
    for level in (0, 255):
        image = JpegImagePlugin.JpegImageFile(io.BytesIO(unfinished))
        image.im = Image.new(image.mode, image.size, (level,) * len(image.getbands())).im
        with suppress(OSError):
            image.load()
        image.tile = []
        rows.append(np.asarray(image)[-1])
    if data.count(bytes((0xFF, START_OF_SCAN))) == 1 and not np.array_equal(*rows):
        raise corrupt("the pixels end before the last row")


def _drop_first_extraneous(data: bytes, components: int) -> bytes:
    """Drop the extraneous bytes that the first warning is about.

    The warning does not give their position. The shortest prefix of the file that causes it ends right after
    them.
    """
    ends = [found.start() for found in _ANY_MARKER.finditer(data, start_of_scans(data))]
    low, high = 0, len(ends) - 1
    while low < high:
        middle = (low + high) // 2
        if _EXTRANEOUS.match(_warning(data[: ends[middle]] + _END, components)):
            high = middle
        else:
            low = middle + 1
    found = _EXTRANEOUS.match(_warning(data[: ends[low]] + _END, components))
    if not found:
        raise corrupt("extraneous bytes that cannot be distinguished from the image")
    start = ends[low] - int(found[1])
    # The bytes fill a gap in the file, and the first of them were decoded as pixels.
    if data[start - _FILLED : start] == data[start : start + 1] * _FILLED:
        raise corrupt("the pixels end within bytes that fill a gap")
    return data[:start] + data[ends[low] :]
