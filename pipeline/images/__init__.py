"""Decoding of image files to uint8 tensors. No other package opens an image.

Training, evaluation and scoring all use it, so that an image becomes the same array in each of them.
`pixelmill.pipeline.bundles.preprocessing` documents the steps for readers in other languages.

Each file format has a module that reads the header, passes the decoder only what describes the pixels, and
rejects what would not decode exactly. Common JPEG files are decoded by simplejpeg, others by Pillow. Both use
libjpeg-turbo and give the same pixels, so only the speed differs.
"""

from collections.abc import Callable
from typing import NamedTuple

from PIL import Image

from pixelmill.pipeline.config import ImageSpec
from pixelmill.pipeline.images import avif, bmp, gif, heif, jpeg, png, tiff, webp
from pixelmill.pipeline.images.failures import FailureCode, ImageFailure, failing_as
from pixelmill.pipeline.images.header import EncodedImage, FileFacts
from pixelmill.pipeline.images.tensors import Pixels, to_image, to_tensor, turn_upright

__all__ = [
    "DECODER_VERSION",
    "DEFAULT_MAX_PIXELS",
    "EXTENSIONS",
    "FORMATS",
    "FURTHER_FORMATS",
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

EXTENSIONS = frozenset(
    (
        *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff"),
        *(".heic", ".heif", ".hif", ".avif"),
    )
)
DEFAULT_MAX_PIXELS = 89_478_485
"""Pillow's own limit for decompression bombs: a quarter of a gigabyte as RGB."""
DECODER_VERSION = 1
"""Raised when the same file and settings may give another tensor: prepared tensors are then made again."""

# For each format, the function that recognizes a file and the one that reads its header.
_READERS: dict[str, tuple[Callable[[bytes], bool], Callable[[bytes], EncodedImage]]] = {
    "JPEG": (jpeg.accepts, jpeg.read),
    "PNG": (png.accepts, png.read),
    "WEBP": (webp.accepts, webp.read),
    "BMP": (bmp.accepts, bmp.read),
    "GIF": (gif.accepts, gif.read),
    "TIFF": (tiff.accepts, tiff.read),
}
FORMATS = tuple(_READERS)
"""The formats whose tensors the preprocessing of a bundle defines exactly."""
FURTHER_FORMATS = ("HEIF", "AVIF")
"""Formats of which a bundle promises nothing: how their colors become RGB is left to the decoder."""
_READERS |= {
    "HEIF": (heif.accepts, heif.read),
    "AVIF": (avif.accepts, avif.read),
}


class DecodedImage(NamedTuple):
    """`pixels`: uint8 [height, width, channels] of the requested shape; `width`, `height`: as displayed."""

    pixels: Pixels
    width: int
    height: int


def decode(data: bytes, spec: ImageSpec, max_pixels: int = DEFAULT_MAX_PIXELS) -> DecodedImage:
    """Decode an image file, rotate it by its EXIF orientation, flatten transparency, and resize it.

    The format is detected from the content.

    Args:
        data: The whole file.
        spec: The shape of the tensor.
        max_pixels: The largest width times height.

    Raises:
        ImageFailure: The image cannot be decoded; the code gives the reason.
        MemoryError: The image does not fit into memory.
    """
    if jpeg.accepts(data):
        quick = jpeg.decode_quickly(data, spec, max_pixels)
        if quick is not None:
            with failing_as(FailureCode.UNSUPPORTED):
                return _finish(quick.image, quick.facts, spec)
    return decode_with_pillow(data, spec, max_pixels)


def decode_with_pillow(data: bytes, spec: ImageSpec, max_pixels: int = DEFAULT_MAX_PIXELS) -> DecodedImage:
    """Like `decode`, without the fast path for JPEG files.

    Raises:
        ImageFailure: The image cannot be decoded; the code gives the reason.
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
    """Read the header of an image file without decoding pixels.

    Raises:
        ImageFailure: The file is not an image, or its header is damaged.
    """
    return _read(data).facts


def fit_array(array: Pixels, spec: ImageSpec) -> Pixels:
    """Preprocess decoded pixels, uint8 [height, width] or [height, width, channels], as `decode` does."""
    return to_tensor(to_image(array), spec)


def _read(data: bytes) -> EncodedImage:
    if not data:
        raise ImageFailure(FailureCode.EMPTY, "the file is empty")
    # This limit replaces Pillow's, which warns on the terminal and raises no specific error.
    Image.MAX_IMAGE_PIXELS = None
    for accepts, read in _READERS.values():
        if accepts(data):
            with failing_as(FailureCode.CORRUPT):
                return read(data)
    raise ImageFailure(FailureCode.NOT_AN_IMAGE, f"{len(data)} bytes that are none of {', '.join(_READERS)}")


def _finish(image: Image.Image | Pixels, facts: FileFacts, spec: ImageSpec) -> DecodedImage:
    """Preprocess pixels as stored in the file."""
    width, height = facts.displayed_size
    if isinstance(image, Image.Image):
        return DecodedImage(to_tensor(turn_upright(image, facts.orientation), spec), width, height)
    if facts.orientation != 1 or image.shape != (spec.height, spec.width, spec.channels):
        image = to_tensor(turn_upright(to_image(image), facts.orientation), spec)
    return DecodedImage(image, width, height)
