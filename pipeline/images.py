"""From a file's bytes to the uint8 tensor a network takes: the only module that opens an image.

Training, evaluation and scoring all come here, so an image is the same array for each of them.
`describe_preprocessing` tells the steps exactly enough to write them again in another language.
"""

import hashlib
import io
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
import numpy.typing as npt
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from pipeline.artifacts import canonical_json
from pipeline.config import ImageSpec

Pixels = npt.NDArray[np.uint8]

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF")
EXTENSIONS = frozenset((".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff"))
DEFAULT_MAX_PIXELS = 89_478_485
"""Pillow's own line between an image and a decompression bomb: a quarter of a gigabyte as RGB."""


class FailureCode(StrEnum):
    """Why an image has no prediction; the first word of a row's `error`."""

    UNREADABLE = "unreadable"
    NOT_A_FILE = "not_a_file"
    EMPTY = "empty"
    NOT_AN_IMAGE = "not_an_image"
    CORRUPT = "corrupt"
    TOO_MANY_PIXELS = "too_many_pixels"
    TOO_LARGE = "too_large"
    UNSUPPORTED = "unsupported"
    WORKER_DIED = "worker_died"


class ImageFailure(Exception):
    """An image that cannot become a tensor; `str()` gives the code, then words, in one line."""

    def __init__(self, code: FailureCode, words: str) -> None:
        super().__init__(code, words)
        self.code = code
        self.words = words

    def __str__(self) -> str:
        return " ".join(f"{self.code}: {self.words}".split())


@dataclass(frozen=True)
class DecodedImage:
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
        ImageFailure: With the code that says why.
    """
    if not data:
        raise ImageFailure(FailureCode.EMPTY, "the file holds no bytes")
    image = _load(data, max_pixels)
    image = _turn_upright(image)
    width, height = image.size
    try:
        pixels = _to_tensor(image, spec)
    except (ImageFailure, MemoryError):
        raise
    except Exception as error:  # Colour spaces that Pillow opens and cannot convert.
        raise ImageFailure(FailureCode.UNSUPPORTED, f"mode {image.mode}: {error}") from error
    return DecodedImage(pixels, width, height)


def fit_array(array: Pixels, spec: ImageSpec) -> Pixels:
    """Make a decoded image, uint8 [height, width] or [height, width, channels], what `decode` would."""
    return _to_tensor(_to_image(array), spec)


def encode_png(array: Pixels) -> bytes:
    """An array, uint8 [height, width, 1 or 3], as the bytes of a PNG file."""
    buffer = io.BytesIO()
    _to_image(array).save(buffer, "PNG")
    return buffer.getvalue()


def describe_preprocessing(spec: ImageSpec) -> dict[str, object]:
    """Every step from file bytes to the input tensor, for readers in another language."""
    return {
        "input": {
            "name": "image",
            "dtype": "uint8",
            "layout": "NHWC",
            "height": spec.height,
            "width": spec.width,
            "channels": spec.channels,
            "channel_order": "RGB" if spec.channels == 3 else "grey",
            "range": [0, 255],
        },
        "steps": [
            {"step": "decode", "formats": list(FORMATS), "by": "content", "frame": 0},
            {"step": "turn", "by": "EXIF orientation, tag 274"},
            {"step": "reduce_to_8_bits", "how": "the upper byte of each 16-bit sample"},
            {"step": "flatten_transparency", "background": [spec.background] * 3},
            {
                "step": "convert",
                "to": _mode(spec),
                "grey": "(19595 R + 38470 G + 7471 B + 32768) >> 16",
            },
            {
                "step": "resize",
                "how": spec.resize,
                "height": spec.height,
                "width": spec.width,
                "filter": "triangle, widened by the scale when shrinking (Pillow's BILINEAR)",
                "padding": [spec.background] * spec.channels if spec.resize == "pad" else None,
                "skipped_when": "the size is right already",
            },
        ],
        "scaling": "none: the graph takes uint8 and scales inside",
        "spec": spec.model_dump(),
    }


def preprocessing_sha256(description: dict[str, object]) -> str:
    """The hash of a description of the preprocessing, as the ONNX file carries it."""
    return hashlib.sha256(canonical_json(description).encode()).hexdigest()


def _to_image(array: Pixels) -> Image.Image:
    return Image.fromarray(array[..., 0] if array.ndim == 3 and array.shape[2] == 1 else array)


def _load(data: bytes, max_pixels: int) -> Image.Image:
    # Our limit stands in for Pillow's, which warns on the terminal and has no code of its own.
    Image.MAX_IMAGE_PIXELS = None
    try:
        image = Image.open(io.BytesIO(data), formats=FORMATS)
    except UnidentifiedImageError:
        raise ImageFailure(
            FailureCode.NOT_AN_IMAGE, f"{len(data)} bytes that are none of {', '.join(FORMATS)}"
        ) from None
    except MemoryError:
        raise
    except Exception as error:
        raise ImageFailure(FailureCode.CORRUPT, f"broken header: {error}") from error
    width, height = image.size
    if width * height > max_pixels:
        raise ImageFailure(
            FailureCode.TOO_MANY_PIXELS,
            f"{width} x {height} pixels, over the limit of {max_pixels}",
        )
    try:
        image.load()
    except MemoryError:
        raise
    except Exception as error:  # Pillow's decoders raise a dozen types on a damaged file.
        raise ImageFailure(FailureCode.CORRUPT, f"{type(error).__name__}: {error}") from error
    return image


def _turn_upright(image: Image.Image) -> Image.Image:
    try:
        orientation = image.getexif().get(ExifTags.Base.Orientation, 1)
        return ImageOps.exif_transpose(image) if orientation != 1 else image
    except Exception:  # noqa: BLE001  # Broken EXIF: viewers show such a file as it lies, and so do we.
        return image


def _to_tensor(image: Image.Image, spec: ImageSpec) -> Pixels:
    image = _flatten(_to_8_bits(image), spec.background).convert(_mode(spec))
    if image.size != (spec.width, spec.height):
        image = _RESIZE[spec.resize](image, spec)
    return np.asarray(image, dtype=np.uint8).reshape(spec.height, spec.width, spec.channels)


def _to_8_bits(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I;16"):
        samples = np.asarray(image).astype(np.uint16)
        return Image.fromarray((samples >> 8).astype(np.uint8))
    if image.mode in ("I", "F"):
        raise ImageFailure(FailureCode.UNSUPPORTED, f"pixels of mode {image.mode} have no defined range")
    return image


def _flatten(image: Image.Image, background: int) -> Image.Image:
    if not image.has_transparency_data:
        return image
    canvas = Image.new("RGBA", image.size, (background, background, background, 255))
    return Image.alpha_composite(canvas, image.convert("RGBA")).convert("RGB")


def _mode(spec: ImageSpec) -> str:
    return "RGB" if spec.channels == 3 else "L"


def _stretch(image: Image.Image, spec: ImageSpec) -> Image.Image:
    return image.resize((spec.width, spec.height), Image.Resampling.BILINEAR)


def _crop(image: Image.Image, spec: ImageSpec) -> Image.Image:
    return ImageOps.fit(image, (spec.width, spec.height), Image.Resampling.BILINEAR)


def _pad(image: Image.Image, spec: ImageSpec) -> Image.Image:
    color = (spec.background,) * spec.channels if spec.channels == 3 else spec.background
    return ImageOps.pad(image, (spec.width, spec.height), Image.Resampling.BILINEAR, color=color)


_RESIZE: dict[str, Callable[[Image.Image, ImageSpec], Image.Image]] = {
    "stretch": _stretch,
    "crop": _crop,
    "pad": _pad,
}
