"""Detecting ONNX models that store weights in external files, without the package `onnx`.

A tensor may refer to another file, at any path, instead of containing its values. A bundle's manifest does
not cover such a file, so the model could change without notice.
"""

from collections.abc import Iterator
from typing import Literal

from pixelmill.pipeline.errors import WorkError

_Message = Literal["model", "training", "graph", "function", "node", "attribute", "sparse tensor", "tensor"]
# The fields of onnx.proto's messages, by number, that may contain tensors.
_FIELDS: dict[_Message, dict[int, _Message]] = {
    "model": {7: "graph", 20: "training", 25: "function"},
    "training": {1: "graph", 2: "graph"},
    "graph": {1: "node", 5: "tensor", 15: "sparse tensor"},
    "function": {7: "node", 11: "attribute"},
    "node": {5: "attribute"},
    "attribute": {
        5: "tensor",
        6: "graph",
        10: "tensor",
        11: "graph",
        22: "sparse tensor",
        23: "sparse tensor",
    },
    "sparse tensor": {1: "tensor", 2: "tensor"},
    "tensor": {},
}
_EXTERNAL_DATA, _DATA_LOCATION, _EXTERNAL = 13, 14, 1
_KEY, _VALUE = 1, 2
_VARINT, _FIXED64, _LENGTH, _FIXED32 = 0, 1, 2, 5


def external_locations(model: bytes) -> tuple[str, ...]:
    """The external files that the tensors of a serialized ONNX model refer to, sorted.

    Empty for bytes that are not an ONNX model; engines reject those.
    """
    found: dict[str, None] = {}
    waiting: list[tuple[_Message, memoryview]] = [("model", memoryview(model))]
    while waiting:
        message, content = waiting.pop()
        if message == "tensor":
            location = _location_of(content)
            if location is not None:
                found[location] = None
            continue
        children = _FIELDS[message]
        for field, value in _fields(content):
            if field in children and isinstance(value, memoryview):
                waiting.append((children[field], value))
    return tuple(sorted(found))


def require_embedded_weights(model: bytes, title: str) -> None:
    """Check that a model stores all of its weights in its own file.

    Args:
        model: The file's bytes.
        title: The name to use in an error.

    Raises:
        WorkError: A tensor is stored in another file.
    """
    locations = external_locations(model)
    if locations:
        more = f" and {len(locations) - 1:,} more" if len(locations) > 1 else ""
        raise WorkError(
            f"{title} stores weights in another file, {locations[0]}{more}",
            "a model with all weights in the one file that the manifest lists",
            "Do not use it: get the bundle from its source again, or export the model again.",
        )


def _location_of(tensor: memoryview) -> str | None:
    is_external, location = False, ""
    for field, value in _fields(tensor):
        if field == _DATA_LOCATION and value == _EXTERNAL:
            is_external = True
        if field == _EXTERNAL_DATA and isinstance(value, memoryview):
            entry = {number: bytes(text) for number, text in _fields(value) if isinstance(text, memoryview)}
            if entry.get(_KEY) == b"location":
                location = entry.get(_VALUE, b"").decode(errors="replace")
    return location if is_external else None


def _fields(message: memoryview) -> Iterator[tuple[int, memoryview | int | None]]:
    """The fields of a protobuf message: number, and bytes or an integer. Stops where it is malformed."""
    place, end = 0, len(message)
    while place < end:
        tag, place = _varint(message, place)
        field, kind = tag >> 3, tag & 7
        value: memoryview | int | None = None
        if kind == _VARINT:
            value, place = _varint(message, place)
        elif kind == _LENGTH:
            length, place = _varint(message, place)
            value, place = message[place : place + length], place + length
        elif kind in (_FIXED64, _FIXED32):
            place += 8 if kind == _FIXED64 else 4
        # Groups, which are deprecated, need no handling: their tags enclose ordinary fields.
        if place > end:
            return
        yield field, value


def _varint(message: memoryview, place: int) -> tuple[int, int]:
    """A varint and the position after it; a position past the end if it is malformed."""
    value = 0
    for shift in range(0, 70, 7):
        if place >= len(message):
            break
        byte = message[place]
        place += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, place
    return 0, len(message) + 1
