"""The files of the images to review: read again, checked, and made ready for a browser."""

import hashlib
from collections.abc import Iterator, Sequence
from functools import partial

import numpy as np

from pixelmill.pipeline.config import ImageSpec
from pixelmill.pipeline.datasets.measures import perceptual_hashes
from pixelmill.pipeline.decoding import DecodingLimits
from pixelmill.pipeline.decoding.costs import require_affordable
from pixelmill.pipeline.decoding.pool import map_guarded
from pixelmill.pipeline.image_encoding import encode_jpeg, encode_png
from pixelmill.pipeline.images import FailureCode, ImageFailure, decode, describe_file, fit_array
from pixelmill.pipeline.progress import progress
from pixelmill.pipeline.resources import processor_limit
from pixelmill.pipeline.review import Picture, Row
from pixelmill.pipeline.scoring.sources import ImageSource
from pixelmill.pipeline.scoring.worker.source_reader import read_image

SIDE = 224
"""The largest width and height of a thumbnail, in pixels."""
_QUALITY = 80
_COPIES_AT_ONCE = 4
_HASHED = ImageSpec(height=32, width=32, channels=1)
# What every browser shows as it is; any other format becomes a PNG file.
_ENDINGS = {"JPEG": "jpg", "PNG": "png", "WEBP": "webp", "GIF": "gif", "BMP": "bmp"}


def make_pictures(images: ImageSource, rows: Sequence[Row]) -> dict[str, Picture | ImageFailure]:
    """Make the thumbnail and the perceptual hash of each row, in processes that a decoder may crash.

    Args:
        images: Where the images of the table are.
        rows: Rows with different contents.

    Returns:
        By SHA-256, the picture, or why there is none: the file is gone, changed or cannot be decoded.
    """
    made = map_guarded(partial(_make, images), rows, processor_limit().count)
    found = {}
    with progress("read images", len(rows), "images") as advance:
        for row, picture in zip(rows, made, strict=True):
            found[row.sha256] = picture
            advance(1, "")
    return found


def ending_of(picture: Picture) -> str:
    """The file name extension of the copy of an image."""
    return _ENDINGS.get(picture.format, "png")


def make_copies(images: ImageSource, rows: Sequence[Row]) -> Iterator[bytes | ImageFailure]:
    """The bytes of each full-size copy, in order: those of the file, or a PNG file of what it shows."""
    return map_guarded(partial(_copy, images), rows, processor_limit().count, at_once=_COPIES_AT_ONCE)


def _make(images: ImageSource, row: Row) -> Picture:
    data = _read(images, row)
    facts = describe_file(data)
    require_affordable(data, DecodingLimits())
    width, height = facts.displayed_size
    scale = min(1, SIDE / max(width, height))
    small = [max(1, round(length * scale)) for length in (height, width)]
    # The hash is that of the thumbnail, so that a large file is decoded once.
    pixels = decode(data, ImageSpec(height=small[0], width=small[1], channels=3)).pixels
    grey = fit_array(pixels, _HASHED)[np.newaxis, :, :, 0]
    return Picture(
        hash=int(perceptual_hashes(grey)[0]),
        thumbnail=encode_png(pixels) if scale == 1 else encode_jpeg(pixels, _QUALITY),
        format=facts.format,
        width=width,
        height=height,
    )


def _copy(images: ImageSource, row: Row) -> bytes:
    data = _read(images, row)
    facts = describe_file(data)
    if facts.format in _ENDINGS:
        return data
    require_affordable(data, DecodingLimits())
    width, height = facts.displayed_size
    return encode_png(decode(data, ImageSpec(height=height, width=width, channels=3)).pixels)


def _read(images: ImageSource, row: Row) -> bytes:
    """The bytes of a file, which are those that were scored."""
    try:
        data = read_image(images, row.path)
    except OSError as error:
        raise ImageFailure(FailureCode.UNREADABLE, "gone, or no longer readable") from error
    if hashlib.sha256(data).hexdigest() != row.sha256:
        raise ImageFailure(FailureCode.CHANGED, "modified since it was scored")
    return data
