"""Preprocessing of a decoded image: orientation, 8 bits, transparency, channels, size."""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps

from pixelmill.pipeline.config import ImageSpec
from pixelmill.pipeline.images.failures import unsupported

Pixels = npt.NDArray[np.uint8]

# The operation that undoes each EXIF orientation.
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def to_image(array: Pixels) -> Image.Image:
    """A uint8 array [height, width] or [height, width, channels] as a Pillow image."""
    return Image.fromarray(array[..., 0] if array.ndim == 3 and array.shape[2] == 1 else array)


def turn_upright(image: Image.Image, orientation: int) -> Image.Image:
    """Undo an EXIF orientation from 1 to 8."""
    turn = _TURNS.get(orientation)
    return image if turn is None else image.transpose(turn)


def to_tensor(image: Image.Image, spec: ImageSpec) -> Pixels:
    """The uint8 tensor [height, width, channels] of an upright image, in the shape of the spec."""
    image = _flatten(_to_8_bits(image), spec.background)
    if image.mode != _mode(spec):  # Otherwise Pillow makes a copy.
        image = image.convert(_mode(spec))
    if image.size != (spec.width, spec.height):
        image = _RESIZE[spec.resize](image, spec)
    return np.asarray(image, dtype=np.uint8).reshape(spec.height, spec.width, spec.channels)


def resize_grey(array: Pixels, side: int) -> Pixels:
    """A uint8 array [height, width] resized to [side, side] with Pillow's Lanczos filter."""
    return np.asarray(Image.fromarray(array).resize((side, side), Image.Resampling.LANCZOS))


def show_only(image: Image.Image, box: tuple[int, int, int, int]) -> Image.Image:
    """The image with everything outside the box (left, top, right, bottom) made transparent."""
    if box[0] <= 0 and box[1] <= 0 and box[2] >= image.width and box[3] >= image.height:
        return image
    inside = image.convert("RGBA")
    canvas = Image.new("RGBA", image.size)
    canvas.paste(inside.crop(box), box[:2])
    return canvas


def _to_8_bits(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I;16"):
        samples = np.asarray(image).astype(np.uint16)
        return Image.fromarray((samples >> 8).astype(np.uint8))
    if image.mode in ("I", "F"):
        raise unsupported(f"pixels of mode {image.mode}, whose range is undefined")
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
    # Like `ImageOps.pad`, which fails if a long image would become less than one pixel high.
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
