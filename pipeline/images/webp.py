"""WebP files: the still image, or an animation's first frame on a transparent canvas."""

import io
from collections.abc import Iterator
from functools import partial

from PIL import Image, WebPImagePlugin

from pixelmill.pipeline.config import ImageSpec
from pixelmill.pipeline.images.exif import UPRIGHT, orientation_of
from pixelmill.pipeline.images.header import EncodedImage, FileFacts
from pixelmill.pipeline.images.tensors import show_only

_HEADER_BYTES = 12
_FRAME_HEADER_BYTES = 16


def accepts(data: bytes) -> bool:
    """Whether the bytes begin like a WebP file."""
    return data.startswith(b"RIFF") and data[8:12] == b"WEBP"


def read(data: bytes) -> EncodedImage:
    """Read the header of a WebP file."""
    image = WebPImagePlugin.WebPImageFile(io.BytesIO(data))
    orientation, frame = UPRIGHT, (0, 0, *image.size)
    is_first = True
    for name, payload in _chunks(data):
        if name == b"EXIF":
            orientation = orientation_of(payload)
        elif name == b"ANMF" and is_first and len(payload) >= _FRAME_HEADER_BYTES:
            is_first, frame = False, _frame(payload)
    facts = FileFacts("WEBP", image.mode, *image.size, orientation)
    return EncodedImage(facts, partial(_load, image, frame))


def _load(
    image: WebPImagePlugin.WebPImageFile, frame: tuple[int, int, int, int], _spec: ImageSpec
) -> Image.Image:
    image.load()
    return show_only(image, frame)


def _chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    at = _HEADER_BYTES
    while at + 8 <= len(data):
        size = int.from_bytes(data[at + 4 : at + 8], "little")
        yield data[at : at + 4], data[at + 8 : at + 8 + size]
        at += 8 + size + size % 2


def _frame(payload: bytes) -> tuple[int, int, int, int]:
    """The box of an animation frame: left, top, right and bottom."""
    left, top, width, height = (int.from_bytes(payload[at : at + 3], "little") for at in (0, 3, 6, 9))
    return 2 * left, 2 * top, 2 * left + width + 1, 2 * top + height + 1
