"""Encoding of arrays as image files, for reports and golden images, and of thumbnails."""

import io
from collections.abc import Callable
from typing import Literal

import numpy as np
from PIL import ExifTags, Image

from pixelmill.pipeline.config import ImageSpec
from pixelmill.pipeline.images import FailureCode, Pixels, decode, describe_file, fit_array
from pixelmill.pipeline.images.failures import failing_as
from pixelmill.pipeline.images.tensors import to_image

ImageForm = Literal["plain", "enlarged", "turned", "transparent"]
"""A form of storing an image that exercises a step of the preprocessing."""
_TURNED_LEFT = 6


def encode_png(array: Pixels) -> bytes:
    """Encode an array, uint8 [height, width, 1 or 3], as a PNG file."""
    return _encode(to_image(array), "PNG")


def encode_jpeg(array: Pixels, quality: int = 95) -> bytes:
    """Encode an array, uint8 [height, width, 1 or 3], as a JPEG file of a quality from 1 to 95."""
    return _encode(to_image(array), "JPEG", quality=quality, subsampling=0)


def encode_thumbnail(data: bytes, side: int) -> bytes:
    """Make a thumbnail of an image file, at most `side` pixels wide and high.

    Returns:
        The bytes of a JPEG file, or of a PNG file if the image was not larger than that.

    Raises:
        ImageFailure: The image cannot be decoded. Nothing else is raised but `MemoryError`.
    """
    facts = describe_file(data)
    with failing_as(FailureCode.CORRUPT):
        scale = min(1, side / max(facts.displayed_size))
        width, height = (max(1, round(length * scale)) for length in facts.displayed_size)
        image = to_image(decode(data, ImageSpec(height=height, width=width, channels=3)).pixels)
        return _encode(image, "PNG" if scale == 1 else "JPEG")


def encode_tensor_thumbnail(pixels: Pixels, side: int) -> bytes:
    """Make a thumbnail of a tensor, uint8 [height, width, 1 or 3], at most `side` pixels wide and high.

    Returns:
        The bytes of a JPEG file, or of a PNG file if the tensor was not larger than that.
    """
    scale = side / max(pixels.shape[:2])
    if scale >= 1:
        return encode_png(pixels)
    height, width = (max(1, round(length * scale)) for length in pixels.shape[:2])
    channels: Literal[1, 3] = 1 if pixels.shape[2] == 1 else 3
    small = fit_array(pixels, ImageSpec(height=height, width=width, channels=channels))
    return _encode(to_image(small), "JPEG")


def encode_as(form: ImageForm, array: Pixels) -> tuple[str, bytes]:
    """Encode an array, uint8 [height, width, 1 or 3], as a file that needs preprocessing beyond decoding.

    Returns:
        The file extension, and the bytes of the file.
    """
    return _FORMS[form](to_image(array))


def _plain(image: Image.Image) -> tuple[str, bytes]:
    return ".png", _encode(image, "PNG")


def _enlarged(image: Image.Image) -> tuple[str, bytes]:
    # Not by an integer factor, so that a different resampling filter gives different pixels.
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
