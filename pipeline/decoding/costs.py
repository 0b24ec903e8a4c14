"""Lower bounds on the cost of decoding a file, estimated from its header.

Only files that are certain to exceed a limit are rejected; the rest is left to the limits on the process that
decodes. This makes the common kinds of decompression bomb cheap to reject.
"""

import struct
from collections.abc import Callable, Iterator
from typing import Literal

from pixelmill.pipeline.decoding import DecodingLimits
from pixelmill.pipeline.images import FailureCode, ImageFailure

# Bytes per pixel in Pillow, by PNG colour type.
_PNG_BYTES = {0: 1, 2: 4, 3: 1, 4: 4, 6: 4}
_PNG_HEADER = struct.Struct(">8x4x4sIIBB")
# A shorter file has too few scans to matter.
_SHORT_JPEG = 4096
_FRAME_HEADERS = frozenset((*range(0xC0, 0xD0),)) - {0xC4, 0xC8, 0xCC}
_START_OF_SCAN = 0xDA
# A decoder needs at least this long: empty scans were measured at 5.6 billion pixels per second, others are
# slower.
_PIXELS_A_SECOND = 2_000_000_000
_TIFF_STARTS = {b"II*\0": ("<", False), b"MM\0*": (">", False), b"II+\0": ("<", True), b"MM\0+": (">", True)}
_TIFF_NUMBERS = {1: "B", 3: "H", 4: "I", 16: "Q"}
_WIDTH, _BITS, _SAMPLES, _STRIP_ROWS, _PLANES, _TILE_WIDTH, _TILE_HEIGHT = 256, 258, 277, 278, 284, 322, 323
_HEIGHT = 257
_MOST_TAGS = 4096


def require_affordable(data: bytes, limits: DecodingLimits) -> None:
    """Reject a file whose header shows that decoding it exceeds a limit.

    Raises:
        ImageFailure: With the code `too_costly`.
    """
    refuse = _REFUSALS.get(data[:4])
    if refuse is not None:
        refuse(data, limits)


def _refuse_png(data: bytes, limits: DecodingLimits) -> None:
    if len(data) < _PNG_HEADER.size:
        return
    kind, width, height, depth, color = _PNG_HEADER.unpack_from(data)
    # Images with too many pixels have a failure code of their own, which `decode` raises.
    if kind == b"IHDR" and width * height <= limits.max_pixels:
        size = 2 if (color, depth) == (0, 16) else _PNG_BYTES.get(color, 0)
        _require_memory(width * height * size, f"{width} x {height} pixels", limits)


def _refuse_jpeg(data: bytes, limits: DecodingLimits) -> None:
    if len(data) < _SHORT_JPEG:
        return
    pixels = components = 0
    for marker, start, stop in _jpeg_segments(data):
        if marker in _FRAME_HEADERS and stop - start >= 6:
            height, width, components = struct.unpack_from(">HHB", data, start + 1)
            pixels = width * height
        elif marker == _START_OF_SCAN and start < len(data):
            if pixels > limits.max_pixels:
                return
            has_one_scan = data[start] == components and data[stop - 3 : stop] == b"\0\x3f\0"
            scans = 1 if has_one_scan else data.count(b"\xff\xda", start)
            if scans * pixels > limits.max_seconds * _PIXELS_A_SECOND:
                raise ImageFailure(
                    FailureCode.TOO_COSTLY,
                    f"decoding {scans:,} scans of {pixels:,} pixels exceeds the limit of "
                    f"{limits.max_seconds:g} s",
                )
            return


def _jpeg_segments(data: bytes) -> Iterator[tuple[int, int, int]]:
    """Marker, start and end of each segment's payload, up to and including the first start of scan."""
    at = 2
    while at + 4 <= len(data) and data[at] == 0xFF:
        marker = data[at + 1]
        if marker == 0xFF:  # A marker may be preceded by any number of fill bytes.
            at += 1
            continue
        stop = at + 2 + int.from_bytes(data[at + 2 : at + 4])
        yield marker, at + 4, stop
        if marker == _START_OF_SCAN or stop < at + 4:
            return
        at = stop


def _refuse_tiff(data: bytes, limits: DecodingLimits) -> None:
    tags = _tiff_tags(data)
    width, height = tags.get(_WIDTH, 0), tags.get(_HEIGHT, 0)
    if width * height > limits.max_pixels:
        return
    samples = tags.get(_SAMPLES, 1) if tags.get(_PLANES, 1) == 1 else 1
    bits = samples * tags.get(_BITS, 1)
    if _TILE_WIDTH in tags:
        name, wide, high = "tiles", tags[_TILE_WIDTH], tags.get(_TILE_HEIGHT, 0)
    else:
        name, wide, high = "strips", width, min(tags.get(_STRIP_ROWS, height), height)
    _require_memory((wide * bits + 7) // 8 * high, f"{name} of {wide} x {high} pixels", limits)


def _tiff_tags(data: bytes) -> dict[int, int]:
    """The first value of each integer tag of the first page; empty if the file is damaged."""
    order, is_big = _TIFF_STARTS[data[:4]]
    try:
        (offset,) = struct.unpack_from(f"{order}{'Q' if is_big else 'I'}", data, 8 if is_big else 4)
        (count,) = struct.unpack_from(f"{order}{'Q' if is_big else 'H'}", data, offset)
        entry = struct.Struct(f"{order}HH{'Q' if is_big else 'I'}{8 if is_big else 4}s")
        start = offset + (8 if is_big else 2)
        tags: dict[int, int] = {}
        for number in range(min(count, _MOST_TAGS)):
            tag, kind, values, content = entry.unpack_from(data, start + number * entry.size)
            if kind not in _TIFF_NUMBERS or not values:
                continue
            value = struct.Struct(order + _TIFF_NUMBERS[kind])
            if value.size * values <= len(content):
                (tags[tag],) = value.unpack_from(content)
            else:
                (tags[tag],) = value.unpack_from(data, int.from_bytes(content, _ENDIAN[order]))
    except (struct.error, OverflowError):
        return {}
    return tags


def _require_memory(size: int, of: str, limits: DecodingLimits) -> None:
    if size > limits.max_memory:
        raise ImageFailure(
            FailureCode.TOO_COSTLY,
            f"decoding {of} takes {size:,} bytes of memory, over the limit of {limits.max_memory:,}",
        )


_ENDIAN: dict[str, Literal["little", "big"]] = {"<": "little", ">": "big"}
# By the first four bytes of a file.
_REFUSALS: dict[bytes, Callable[[bytes, DecodingLimits], None]] = {
    b"\x89PNG": _refuse_png,
    **{b"\xff\xd8\xff" + bytes([marker]): _refuse_jpeg for marker in range(256)},
    **dict.fromkeys(_TIFF_STARTS, _refuse_tiff),
}
