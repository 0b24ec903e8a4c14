"""JPEG files: a quick way for the usual ones, and a careful way for all others.

libjpeg fills what is missing from a damaged file with grey, and says so in a warning only. simplejpeg raises
on the first warning, Pillow swallows them all. So no pixels are believed before simplejpeg has decoded the
file without a warning; where the first warning is a harmless one, its cause is removed and the file decoded
again.
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
from pixelmill.pipeline.images.fitting import Pixels
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
from pixelmill.pipeline.images.stored import FileFacts, StoredImage

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
# How many equal bytes before extraneous ones of the same value are no coincidence.
_FILLED = 16
# What libjpeg wants to see behind the last pixels; bits that begin no short code.
_READ_AHEAD = b"\xfe" * 8
# How many runs of extraneous bytes are removed before a file is given up.
_MOST_REPAIRS = 32


class QuickImage(NamedTuple):
    """`image`: the pixels as stored, uint8 [height, width, channels], shrunk maybe; `facts`: of the file."""

    image: Pixels
    facts: FileFacts


def accepts(data: bytes) -> bool:
    """Whether the bytes begin as a JPEG file does."""
    return data.startswith(_START)


def decode_quickly(data: bytes, spec: ImageSpec, max_pixels: int) -> QuickImage | None:
    """Decode a usual JPEG file without a flaw, or None where `read` has to say what the file is."""
    try:
        height, width, colors, _ = simplejpeg.decode_jpeg_header(data)
        if colors not in ("Gray", "YCbCr", "RGB") or width * height > max_pixels or max(height, width) < 8:
            return None  # Below 8 pixels a size does not tell its scale, and simplejpeg is asked for sizes.
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


def read(data: bytes) -> StoredImage:
    """Read the header of any JPEG file; what is wrong behind it is a failure of loading.

    Raises:
        ImageFailure: The header ends before it says how large the image is.
    """
    segments, problem = list[Segment](), None
    try:
        segments += segments_of(data)
    except ImageFailure as failure:
        problem = failure
    frame = frame_of(segments)
    if frame is None:
        raise problem or corrupt("the file ends before it says how large the image is")
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
    return StoredImage(facts, partial(_load, segments, facts, problem))


def _load(
    segments: list[Segment], facts: FileFacts, problem: ImageFailure | None, spec: ImageSpec
) -> Image.Image:
    if problem is not None:
        raise problem
    frame = frame_of(segments)
    if frame is None or not facts.width:
        raise corrupt("the image has no width")
    if not facts.height:
        raise unsupported("the height is not in the header, but after the first scan (DNL)")
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
    """Decode a JPEG stream within another file, uint8 [rows, width, components] as its components are.

    Raises:
        ImageFailure: The stream is damaged or not of 8 bits.
    """
    segments = list(segments_of(data))
    frame = frame_of(segments)
    if frame is None:
        raise corrupt("a JPEG stream without a frame")
    if frame.precision != 8 or frame.code in _KINDS or len(frame.components) not in _COLORSPACES:
        raise unsupported("a JPEG stream that is not of the usual kind")
    if missing := missing_part(segments):
        raise corrupt(missing)
    colorspace = _COLORSPACES[len(frame.components)]
    clean = _without_extraneous_bytes(keep_pixels_only(segments), len(frame.components))
    pixels: Pixels = simplejpeg.decode_jpeg(clean, colorspace)
    return pixels


def _factor(facts: FileFacts, spec: ImageSpec) -> int:
    """By how much a JPEG file is shrunk while it is decoded: both sides stay at least as long as asked."""
    width, height = facts.displayed_size
    most = min(width // spec.width, height // spec.height)
    return 1 if most < 2 else max(factor for factor in _FACTORS if factor <= most)


def _glance(data: bytes) -> tuple[int, bool]:
    """The orientation, and whether the first scan is the whole image; for files without a flaw.

    This stands beside `segments_of` because it costs every small file a few microseconds.

    Raises:
        ValueError: Something lies between the segments of the header.
        IndexError: The header is cut short.
    """
    at, orientation, components = 2, UPRIGHT, 0
    while data[at] == 0xFF:
        code = data[at + 1]
        if code == START_OF_SCAN:
            return orientation, data[at + 4] == components
        if 0xC0 <= code <= 0xCF and code not in _NO_FRAMES:
            # Only in a sequential file can one scan hold everything.
            components = data[at + 9] if code in _SEQUENTIAL else 0
        end = at + 2 + (data[at + 2] << 8 | data[at + 3])
        if code == _EXIF_SEGMENT and orientation == UPRIGHT and data.startswith(_EXIF, at + 4):
            orientation = orientation_of(data[at + 4 : end])
        at = end
    raise ValueError("bytes between the segments of the header")


def _warning(data: bytes, components: int) -> str:
    """What libjpeg objects to first, or nothing; all entropy-coded data is decoded to find it."""
    try:
        # Shrunk by 8, so that the check costs little memory.
        simplejpeg.decode_jpeg(data, _COLORSPACES[components], min_height=1, min_width=1)
    except ValueError as error:
        return str(error)
    return ""


def _without_extraneous_bytes(data: bytes, components: int) -> bytes:
    """The file without the bytes before a marker that decoders skip, if nothing else is wrong with it.

    Raises:
        ImageFailure: libjpeg warns of anything else.
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
    """Refuse an image of one scan that ends before its last row, where simplejpeg cannot decode the file at
    all.

    Without an end marker Pillow waits for more data where libjpeg would make it up, and leaves the rows that
    it did not reach as they were. A cut in the last of several scans goes unnoticed.
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

    The warning does not say where they are. The shortest part of the file that gives it ends just behind
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
        raise corrupt("extraneous bytes that cannot be told from the image")
    start = ends[low] - int(found[1])
    # A gap in the file that was filled with one byte: its first part was taken for pixels.
    if data[start - _FILLED : start] == data[start : start + 1] * _FILLED:
        raise corrupt("the pixels end within bytes that fill a gap")
    return data[:start] + data[ends[low] :]
