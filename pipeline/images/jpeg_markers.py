"""The marker segments of a JPEG file (ITU-T T.81, annex B), and detection of missing scans."""

import re
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from pixelmill.pipeline.images.failures import corrupt

START_OF_SCAN = 0xDA
END_OF_IMAGE = 0xD9
_START_OF_IMAGE = 0xD8
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_PROGRESSIVE = 0xC2
_JFIF_SEGMENT, _ADOBE_SEGMENT = 0xE0, 0xEE
_COMMENT = 0xFE
_APPLICATION_SEGMENTS = frozenset(range(0xE0, 0xF0))
# Markers with a segment, unlike restart and temporary markers. 0xFF may be repeated as padding.
_MARKER = re.compile(rb"\xff+[^\x00\x01\xd0-\xd7\xff]")
_COEFFICIENTS = 64
_JFIF_VERSION = b"\x01\x02"


class Segment(NamedTuple):
    """A marker segment.

    `code`: the marker's second byte; `payload`: what follows the length; `coded`: after a start of scan, the
    entropy-coded data.
    """

    code: int
    payload: bytes
    coded: bytes = b""


class Frame(NamedTuple):
    """The content of a start of frame; `components`: their identifiers."""

    code: int
    precision: int
    height: int
    width: int
    components: bytes


def segments_of(data: bytes) -> Iterator[Segment]:
    """The segments of a JPEG file up to and including its end marker. Bytes between segments are skipped.

    Raises:
        ImageFailure: A segment is truncated, or a second image begins.
    """
    at = 2
    while found := _MARKER.search(data, at):
        code, at = found[0][-1], found.end()
        if code == _START_OF_IMAGE:
            raise corrupt("a second image begins within the first")
        if code == END_OF_IMAGE:
            yield Segment(code, b"")
            return
        end = at + int.from_bytes(data[at : at + 2])
        if end < at + 2 or end > len(data):
            raise corrupt(f"segment {code:02x} extends beyond the file, or has no length")
        payload, at = data[at + 2 : end], end
        if code == START_OF_SCAN:
            following = _MARKER.search(data, at)
            until = following.start() if following else len(data)
            yield Segment(code, payload, data[at:until])
            at = until
        else:
            yield Segment(code, payload)


def frame_of(segments: Iterable[Segment]) -> Frame | None:
    """The header of the first frame, or None."""
    for code, payload, _ in segments:
        if code in _FRAMES and len(payload) >= 6:
            height, width = int.from_bytes(payload[1:3]), int.from_bytes(payload[3:5])
            return Frame(code, payload[0], height, width, payload[6 : 6 + 3 * payload[5] : 3])
    return None


def missing_part(segments: list[Segment]) -> str:
    """A description of what is missing from the scans of a file; None if nothing is.

    A file that is truncated between two scans decodes without a warning: missing components become grey, and
    a progressive image stays coarse.
    """
    frame = frame_of(segments)
    if frame is None:
        return "the file has no frame"
    # For each component, the bits of each coefficient still missing from the scans; None before its first
    # scan.
    missing: dict[int, list[int | None]] = {name: [None] * _COEFFICIENTS for name in frame.components}
    for segment in segments:
        payload = segment.payload
        if segment.code != START_OF_SCAN or not payload or len(payload) < 4 + 2 * payload[0]:
            continue
        first, last, bits = payload[1 + 2 * payload[0] :][:3]
        if frame.code != _PROGRESSIVE:
            first, last, bits = 0, _COEFFICIENTS - 1, 0
        for name in payload[1 : 1 + 2 * payload[0] : 2]:
            for coefficient in range(first, min(last, _COEFFICIENTS - 1) + 1):
                if name in missing:
                    missing[name][coefficient] = bits & 15
    if any(bits for coefficients in missing.values() for bits in map(_is_missing, coefficients)):
        return "the file ends before its last scan"
    return ""


def _is_missing(bits: int | None) -> bool:
    return bits is None or bits > 0


def start_of_scans(data: bytes) -> int:
    """The offset of the first scan's segment in a file made by `keep_pixels_only`."""
    at = 2
    while data[at + 1] != START_OF_SCAN:
        at += 2 + int.from_bytes(data[at + 2 : at + 4])
    return at + 2 + int.from_bytes(data[at + 2 : at + 4])


def keep_pixels_only(segments: Iterable[Segment]) -> bytes:
    """A JPEG file with only the segments that affect the pixels.

    Metadata is removed, and values that decoders warn about and ignore are replaced with the ones they
    assume.
    """
    segments = list(segments)
    frame = frame_of(segments)
    is_sequential = frame is not None and frame.code != _PROGRESSIVE
    parts = [bytes((0xFF, _START_OF_IMAGE))]
    for code, payload, coded in segments:
        if code == END_OF_IMAGE:
            parts.append(bytes((0xFF, END_OF_IMAGE)))
            break
        if code == _COMMENT:
            continue
        if code in _APPLICATION_SEGMENTS:
            kept = _color_information(code, payload)
            if kept is None:
                continue
        elif code == START_OF_SCAN and is_sequential:
            kept = payload[:-3] + bytes((0, _COEFFICIENTS - 1, 0))
        else:
            kept = payload
        parts += [bytes((0xFF, code)), (len(kept) + 2).to_bytes(2), kept, coded]
    return b"".join(parts)


def _color_information(code: int, payload: bytes) -> bytes | None:
    """An application segment that determines the color space, without anything that decoders warn about.

    None for any other segment.
    """
    if code == _JFIF_SEGMENT and payload.startswith(b"JFIF\0") and len(payload) >= 14:
        return b"JFIF\0" + _JFIF_VERSION + payload[7:12] + b"\0\0"
    if code == _ADOBE_SEGMENT and payload.startswith(b"Adobe") and len(payload) >= 12:
        return payload[:12]
    return None
