"""From a file's bytes to the uint8 tensor a network takes: the only module that opens an image.

Training, evaluation and scoring all come here, so an image is the same array for each of them.
`pipeline.preprocessing` tells the steps to readers in another language.

JPEG files go through simplejpeg, all others and odd JPEG files through Pillow. Both rest on libjpeg-turbo
and give the same pixels, so the way a file takes changes its speed alone.
"""

import io
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import simplejpeg
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from pipeline.config import ImageSpec

Pixels = npt.NDArray[np.uint8]

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF")
EXTENSIONS = frozenset((".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff"))
_LONGEST_WORDS = 500
_JPEG_START = b"\xff\xd8\xff"
_JPEG_FACTORS = (1, 2, 4, 8)
# Below this many bytes a search of the whole file is faster than finding its header's end.
_SHORT_JPEG = 4096
# What undoes each orientation of EXIF.
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
DEFAULT_MAX_PIXELS = 89_478_485
"""Pillow's own line between an image and a decompression bomb: a quarter of a gigabyte as RGB."""


class FailureCode(StrEnum):
    """Why an image has no prediction; the first word of a row's `error`."""

    UNREADABLE = "unreadable"
    CHANGED = "changed"
    NOT_A_FILE = "not_a_file"
    EMPTY = "empty"
    NOT_AN_IMAGE = "not_an_image"
    CORRUPT = "corrupt"
    TOO_MANY_PIXELS = "too_many_pixels"
    TOO_LARGE = "too_large"
    TOO_COSTLY = "too_costly"
    UNSUPPORTED = "unsupported"
    WORKER_DIED = "worker_died"
    INVALID_PREDICTION = "invalid_prediction"


class ImageFailure(Exception):
    """An image that cannot become a tensor; `str()` gives the code, then words, in one line."""

    def __init__(self, code: FailureCode, words: str) -> None:
        super().__init__(code, words)
        self.code = code
        self.words = words

    def __str__(self) -> str:
        # A library's words may be of any length, and hold bytes of the file that are not text.
        text = " ".join(f"{self.code}: {self.words}".split())[:_LONGEST_WORDS]
        return text.encode("utf-8", "backslashreplace").decode()


class DecodedImage(NamedTuple):
    """`pixels`: uint8 [height, width, channels] as the spec asks; `width`, `height`: as displayed."""

    pixels: Pixels
    width: int
    height: int


@dataclass(frozen=True)
class FileFacts:
    """What a file's header says: `width`, `height` as stored; `orientation` from 1 to 8 as EXIF counts."""

    format: str
    mode: str
    width: int
    height: int
    orientation: int


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
    if data.startswith(_JPEG_START):
        decoded = _decode_plain_jpeg(data, spec, max_pixels)
        if decoded is not None:
            return decoded
    return decode_with_pillow(data, spec, max_pixels)


def decode_with_pillow(data: bytes, spec: ImageSpec, max_pixels: int = DEFAULT_MAX_PIXELS) -> DecodedImage:
    """What `decode` gives, by the slower way that every file can take.

    Raises:
        ImageFailure: With the code that says why.
    """
    image = _open(data, max_pixels)
    orientation = _orientation(image)
    width, height = _as_displayed(image.size, orientation)
    if image.format in ("JPEG", "MPO"):
        factor = _jpeg_factor(width, height, spec)
        image.draft(None, (image.width // factor, image.height // factor))
    try:
        image.load()
    except MemoryError:
        raise
    except Exception as error:  # Pillow's decoders raise a dozen types on a damaged file.
        raise ImageFailure(FailureCode.CORRUPT, f"{type(error).__name__}: {error}") from error
    if image.format == "TIFF":  # Pillow turns these upright as it loads them.
        orientation, (width, height) = 1, image.size
    try:
        pixels = _to_tensor(_turn_upright(image, orientation), spec)
    except (ImageFailure, MemoryError):
        raise
    except Exception as error:  # Colour spaces that Pillow opens and cannot convert.
        raise ImageFailure(FailureCode.UNSUPPORTED, f"mode {image.mode}: {error}") from error
    return DecodedImage(pixels, width, height)


def describe_file(data: bytes) -> FileFacts:
    """What a file's header says, for people.

    Raises:
        ImageFailure: The bytes are no image.
    """
    image = _open(data, max_pixels=None)
    return FileFacts(image.format or "", image.mode, *image.size, _orientation(image))


def fit_array(array: Pixels, spec: ImageSpec) -> Pixels:
    """Make a decoded image, uint8 [height, width] or [height, width, channels], what `decode` would."""
    return _to_tensor(_to_image(array), spec)


def _to_image(array: Pixels) -> Image.Image:
    return Image.fromarray(array[..., 0] if array.ndim == 3 and array.shape[2] == 1 else array)


def _decode_plain_jpeg(data: bytes, spec: ImageSpec, max_pixels: int) -> DecodedImage | None:
    """Decode a JPEG file the fast way, or None where Pillow has to say what it is, or what is wrong."""
    try:
        height, width, colors, _ = simplejpeg.decode_jpeg_header(data)
        if colors not in ("Gray", "YCbCr", "RGB") or width * height > max_pixels or max(height, width) < 8:
            return None  # Below 8 pixels a size does not tell its scale, and simplejpeg is asked for sizes.
        orientation = _jpeg_orientation(data)
        shown_width, shown_height = _as_displayed((width, height), orientation)
        factor = _jpeg_factor(shown_width, shown_height, spec)
        pixels: Pixels = simplejpeg.decode_jpeg(
            data,
            "GRAY" if colors == "Gray" and spec.channels == 1 else "RGB",
            min_height=-(-height // factor) if factor > 1 else 0,
            min_width=-(-width // factor) if factor > 1 else 0,
        )
    except ValueError:
        return None
    if orientation != 1 or pixels.shape != (spec.height, spec.width, spec.channels):
        pixels = _to_tensor(_turn_upright(_to_image(pixels), orientation), spec)
    return DecodedImage(pixels, shown_width, shown_height)


def _jpeg_factor(width: int, height: int, spec: ImageSpec) -> int:
    """By how much a JPEG file is shrunk while it is decoded: both sides stay at least as long as asked."""
    most = min(width // spec.width, height // spec.height)
    return 1 if most < 2 else max(factor for factor in _JPEG_FACTORS if factor <= most)


def _jpeg_orientation(data: bytes) -> int:
    # Few files tell of an orientation, and reading EXIF takes longer than decoding a small file.
    end = len(data) if len(data) < _SHORT_JPEG else _start_of_scan(data)
    if data.find(b"Exif\0\0", 0, end) < 0 and data.find(b"tiff:Orientation", 0, end) < 0:
        return 1
    try:
        return _orientation(Image.open(io.BytesIO(data), formats=("JPEG",)))
    except Exception as error:
        raise ValueError("no header that Pillow reads") from error


def _start_of_scan(data: bytes) -> int:
    """Where the compressed image begins, behind all that describes it (ITU-T T.81, B.1.1)."""
    at = 2
    while data[at : at + 1] == b"\xff" and data[at + 1 : at + 2] != b"\xda":
        at += 2 + int.from_bytes(data[at + 2 : at + 4])
    return at if data[at : at + 2] == b"\xff\xda" else len(data)


def _open(data: bytes, max_pixels: int | None) -> Image.Image:
    """An image whose header is read, and its pixels not yet."""
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
    if max_pixels is not None and width * height > max_pixels:
        raise ImageFailure(
            FailureCode.TOO_MANY_PIXELS,
            f"{width} x {height} pixels, over the limit of {max_pixels}",
        )
    return image


def _orientation(image: Image.Image) -> int:
    """1 to 8 as EXIF counts; 1, as it lies, where EXIF says nothing or is broken, as viewers take it."""
    try:
        with warnings.catch_warnings(action="ignore"):
            found = image.getexif().get(ExifTags.Base.Orientation, 1)
        return found if found in _TURNS else 1
    except Exception:  # noqa: BLE001  # Pillow's parser raises a dozen types.
        return 1


def _as_displayed(size: tuple[int, int], orientation: int) -> tuple[int, int]:
    return (size[1], size[0]) if orientation >= 5 else size


def _turn_upright(image: Image.Image, orientation: int) -> Image.Image:
    turn = _TURNS.get(orientation)
    return image if turn is None else image.transpose(turn)


def _to_tensor(image: Image.Image, spec: ImageSpec) -> Pixels:
    image = _flatten(_to_8_bits(image), spec.background)
    if image.mode != _mode(spec):  # Else Pillow makes a copy.
        image = image.convert(_mode(spec))
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
    # What `ImageOps.pad` does, which fails where a long image would become less than a pixel high.
    if image.width * spec.height > image.height * spec.width:
        size = spec.width, max(1, round(image.height / image.width * spec.width))
    else:
        size = max(1, round(image.width / image.height * spec.height)), spec.height
    color = (spec.background,) * spec.channels if spec.channels == 3 else spec.background
    canvas = Image.new(image.mode, (spec.width, spec.height), color)
    place = round((spec.width - size[0]) / 2), round((spec.height - size[1]) / 2)
    canvas.paste(image.resize(size, Image.Resampling.BILINEAR), place)
    return canvas


_RESIZE: dict[str, Callable[[Image.Image, ImageSpec], Image.Image]] = {
    "stretch": _stretch,
    "crop": _crop,
    "pad": _pad,
}
