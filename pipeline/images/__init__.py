"""From a file's bytes to the uint8 tensor a network takes: the only package that opens an image.

Training, evaluation and scoring all come here, so an image is the same array for each of them.
`pixelmill.pipeline.bundles.preprocessing` tells the steps to readers in another language.

Each file format has a module that reads its header, hands the decoder nothing but what describes the pixels,
and refuses what would not decode exactly. JPEG files go through simplejpeg, odd ones through Pillow. Both
rest on libjpeg-turbo and give the same pixels, so the way a file takes changes its speed alone.
"""

from collections.abc import Callable
from typing import NamedTuple

from PIL import Image

from pixelmill.pipeline.config import ImageSpec
from pixelmill.pipeline.images import bmp, gif, jpeg, png, tiff, webp
from pixelmill.pipeline.images.failures import FailureCode, ImageFailure, failing_as
from pixelmill.pipeline.images.fitting import Pixels, to_image, to_tensor, turn_upright
from pixelmill.pipeline.images.stored import FileFacts, StoredImage

__all__ = [
    "DEFAULT_MAX_PIXELS",
    "EXTENSIONS",
    "FORMATS",
    "DecodedImage",
    "FailureCode",
    "FileFacts",
    "ImageFailure",
    "Pixels",
    "decode",
    "decode_with_pillow",
    "describe_file",
    "fit_array",
]

EXTENSIONS = frozenset((".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff"))
DEFAULT_MAX_PIXELS = 89_478_485
"""Pillow's own line between an image and a decompression bomb: a quarter of a gigabyte as RGB."""

# How a file of each format is recognised, and what reads its header.
_READERS: dict[str, tuple[Callable[[bytes], bool], Callable[[bytes], StoredImage]]] = {
    "JPEG": (jpeg.accepts, jpeg.read),
    "PNG": (png.accepts, png.read),
    "WEBP": (webp.accepts, webp.read),
    "BMP": (bmp.accepts, bmp.read),
    "GIF": (gif.accepts, gif.read),
    "TIFF": (tiff.accepts, tiff.read),
}
FORMATS = tuple(_READERS)


class DecodedImage(NamedTuple):
    """`pixels`: uint8 [height, width, channels] as the spec asks; `width`, `height`: as displayed."""

    pixels: Pixels
    width: int
    height: int


def decode(data: bytes, spec: ImageSpec, max_pixels: int = DEFAULT_MAX_PIXELS) -> DecodedImage:
    """Decode a file's bytes by content, turn by EXIF, flatten transparency, resize.

    Args:
        data: The whole file.
        spec: The tensor to make.
        max_pixels: The largest width times height that is decoded at all.

    Raises:
        ImageFailure: With the code that says why; whatever a decoder raises becomes one.
        MemoryError: The image does not fit into memory.
    """
    if jpeg.accepts(data):
        quick = jpeg.decode_quickly(data, spec, max_pixels)
        if quick is not None:
            with failing_as(FailureCode.UNSUPPORTED):
                return _finish(quick.image, quick.facts, spec)
    return decode_with_pillow(data, spec, max_pixels)


def decode_with_pillow(data: bytes, spec: ImageSpec, max_pixels: int = DEFAULT_MAX_PIXELS) -> DecodedImage:
    """What `decode` gives, by the slower way that every file can take.

    Raises:
        ImageFailure: With the code that says why; whatever a decoder raises becomes one.
        MemoryError: The image does not fit into memory.
    """
    stored = _read(data)
    facts = stored.facts
    if facts.width * facts.height > max_pixels:
        raise ImageFailure(
            FailureCode.TOO_MANY_PIXELS,
            f"{facts.width} x {facts.height} pixels, over the limit of {max_pixels}",
        )
    with failing_as(FailureCode.CORRUPT):
        image = stored.load(spec)
    with failing_as(FailureCode.UNSUPPORTED):
        return _finish(image, facts, spec)


def describe_file(data: bytes) -> FileFacts:
    """What a file's header says, for people; no pixel is decoded.

    Raises:
        ImageFailure: The bytes are no image, or its header is broken.
    """
    return _read(data).facts


def fit_array(array: Pixels, spec: ImageSpec) -> Pixels:
    """Make a decoded image, uint8 [height, width] or [height, width, channels], what `decode` would."""
    return to_tensor(to_image(array), spec)


def _read(data: bytes) -> StoredImage:
    if not data:
        raise ImageFailure(FailureCode.EMPTY, "the file holds no bytes")
    # Our limit stands in for Pillow's, which warns on the terminal and has no code of its own.
    Image.MAX_IMAGE_PIXELS = None
    for accepts, read in _READERS.values():
        if accepts(data):
            with failing_as(FailureCode.CORRUPT):
                return read(data)
    raise ImageFailure(FailureCode.NOT_AN_IMAGE, f"{len(data)} bytes that are none of {', '.join(FORMATS)}")


def _finish(image: Image.Image | Pixels, facts: FileFacts, spec: ImageSpec) -> DecodedImage:
    """Make the tensor of stored pixels."""
    width, height = facts.displayed_size
    if isinstance(image, Image.Image):
        return DecodedImage(to_tensor(turn_upright(image, facts.orientation), spec), width, height)
    if facts.orientation != 1 or image.shape != (spec.height, spec.width, spec.channels):
        image = to_tensor(turn_upright(to_image(image), facts.orientation), spec)
    return DecodedImage(image, width, height)
