"""The preprocessing reimplemented from `preprocessing.json`, with only Pillow and NumPy."""

import io
from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

_TURNS = {
    1: None,
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def tensor_of(data: bytes, description: dict[str, Any]) -> npt.NDArray[np.uint8]:
    """Apply the steps of the description in order."""
    wanted, steps = description["input"], {step["step"]: step for step in description["steps"]}
    assert list(steps) == ["decode", "turn", "reduce_to_8_bits", "flatten_transparency", "convert", "resize"]
    image: Image.Image = Image.open(io.BytesIO(data))
    image.seek(steps["decode"]["frame"])
    orientation = image.getexif().get(274, 1)
    if image.format == "JPEG":
        width, height = image.size if orientation < 5 else image.size[::-1]
        fits = (f for f in (2, 4, 8) if width // f >= wanted["width"] and height // f >= wanted["height"])
        factor = max(fits, default=1)
        image.draft(None, (image.width // factor, image.height // factor))
    image.load()
    turn = _TURNS.get(orientation)
    image = image.transpose(turn) if turn is not None else image
    if image.mode.startswith("I;16"):
        image = Image.fromarray((np.asarray(image).astype(np.uint16) >> 8).astype(np.uint8))
    if image.has_transparency_data:
        layers = np.asarray(image.convert("RGBA"))
        canvas = np.zeros_like(layers)
        canvas[..., :3], canvas[..., 3] = steps["flatten_transparency"]["background"], 255
        image = Image.alpha_composite(Image.fromarray(canvas), Image.fromarray(layers)).convert("RGB")
    pixels = np.asarray(image.convert("RGB"))
    if steps["convert"]["to"] == "L":
        red, green, blue = np.moveaxis(pixels.astype(np.int64), -1, 0)
        pixels = ((19595 * red + 38470 * green + 7471 * blue + 32768) >> 16).astype(np.uint8)
    image = _resize(Image.fromarray(pixels), steps["resize"])
    shape = wanted["height"], wanted["width"], wanted["channels"]
    return np.asarray(image, np.uint8).reshape(shape)


def _resize(image: Image.Image, step: dict[str, Any]) -> Image.Image:
    width, height = step["width"], step["height"]
    if image.size == (width, height):
        return image
    bilinear = Image.Resampling.BILINEAR
    if step["how"] == "stretch":
        return image.resize((width, height), bilinear)
    if step["how"] == "crop":
        box_width = min(image.width, image.height * width / height)
        box_height = min(image.height, image.width * height / width)
        left, top = (image.width - box_width) / 2, (image.height - box_height) / 2
        return image.resize((width, height), bilinear, box=(left, top, left + box_width, top + box_height))
    if Fraction(image.width, image.height) > Fraction(width, height):
        size = width, max(1, round(image.height / image.width * width))
    else:
        size = max(1, round(image.width / image.height * height)), height
    padding = tuple(step["padding"])
    canvas = Image.new(image.mode, (width, height), padding if image.mode == "RGB" else padding[0])
    place = round((width - size[0]) / 2), round((height - size[1]) / 2)
    canvas.paste(image.resize(size, bilinear), place)
    return canvas
