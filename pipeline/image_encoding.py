"""From arrays and files to the bytes of new image files: for pages, for people, for golden vectors."""

import io
from collections.abc import Callable
from typing import Literal

import numpy as np
from PIL import ExifTags, Image

from pixelmill.pipeline.config import ImageSpec
from pixelmill.pipeline.images import FailureCode, Pixels, decode, describe_file
from pixelmill.pipeline.images.failures import failing_as
from pixelmill.pipeline.images.fitting import to_image

ImageForm = Literal["plain", "enlarged", "turned", "transparent"]
"""A way to hold an image that a reader has to undo."""
_TURNED_LEFT = 6


def encode_png(array: Pixels) -> bytes:
    """An array, uint8 [height, width, 1 or 3], as the bytes of a PNG file."""
    return _encode(to_image(array), "PNG")


def encode_thumbnail(data: bytes, side: int) -> bytes:
    """A small picture of a file, at most `side` pixels wide and high.

    Returns:
        The bytes of a JPEG file, or those of a PNG file where the image was that small already.

    Raises:
        ImageFailure: The bytes are no image that can be shown; nothing else is raised but `MemoryError`.
    """
    facts = describe_file(data)
    with failing_as(FailureCode.CORRUPT):
        scale = min(1, side / max(facts.displayed_size))
        width, height = (max(1, round(length * scale)) for length in facts.displayed_size)
        image = to_image(decode(data, ImageSpec(height=height, width=width, channels=3)).pixels)
        return _encode(image, "PNG" if scale == 1 else "JPEG")


def encode_as(form: ImageForm, array: Pixels) -> tuple[str, bytes]:
    """An array, uint8 [height, width, 1 or 3], as a file that a reader has to do more with than to decode it.

    Returns:
        The extension for the file's name, and its bytes.
    """
    return _FORMS[form](to_image(array))


def _plain(image: Image.Image) -> tuple[str, bytes]:
    return ".png", _encode(image, "PNG")


def _enlarged(image: Image.Image) -> tuple[str, bytes]:
    # By no whole number, so that a filter of another kind gives other pixels.
    size = 2 * image.width + 3, 3 * image.height + 1
    return ".png", _encode(image.resize(size, Image.Resampling.BICUBIC), "PNG")


def _turned(image: Image.Image) -> tuple[str, bytes]:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = _TURNED_LEFT
    large = image.resize((4 * image.width, 4 * image.height), Image.Resampling.BICUBIC)
    laid_down = large.transpose(Image.Transpose.ROTATE_90)
    return ".jpg", _encode(laid_down, "JPEG", quality=95, exif=exif)


def _transparent(image: Image.Image) -> tuple[str, bytes]:
    rows, columns = np.indices((image.height, image.width))
    alpha = (255 * (rows + columns) // max(image.height + image.width - 2, 1)).astype(np.uint8)
    see_through = image.convert("RGBA")
    see_through.putalpha(Image.fromarray(alpha))
    return ".png", _encode(see_through, "PNG")


_FORMS: dict[ImageForm, Callable[[Image.Image], tuple[str, bytes]]] = {
    "plain": _plain,
    "enlarged": _enlarged,
    "turned": _turned,
    "transparent": _transparent,
}


def _encode(image: Image.Image, file_format: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, file_format, **options)
    return buffer.getvalue()
