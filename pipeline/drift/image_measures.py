"""What a few numbers say of an image, whatever it shows: how bright it is, how sharp, how large.

They are measured on the tensor that the network sees, at a few hundred points, in microseconds.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Pixels = npt.NDArray[np.uint8]
ImageValues = npt.NDArray[np.float32]
IMAGE_MEASURES = {
    "brightness": "mean grey level, 0 to 1",
    "contrast": "standard deviation of the grey levels, 0 to 1",
    "sharpness": "mean difference of a pixel from the one beside it, divided by the contrast",
    "saturation": "mean distance of the strongest from the weakest colour channel, 0 to 1",
    "warmth": "mean of red less blue, -1 to 1",
    "horizontal_centre": "centre of the brightness from left to right, 0 to 1",
    "vertical_centre": "centre of the brightness from top to bottom, 0 to 1",
    "size": "square root of the number of pixels of the file",
    "aspect": "width divided by height",
}
"""The measures, in the order of their columns, and what each of them is."""
_POINTS = 16
_AT_ONCE = 256


def measure_images(tensors: Sequence[Pixels], widths: npt.ArrayLike, heights: npt.ArrayLike) -> ImageValues:
    """Measure images.

    Args:
        tensors: uint8 [height, width, 1 or 3] each, all of the same shape.
        widths: Of the files as displayed, in pixels [images].
        heights: The same.

    Returns:
        float32 [images, measures]; NaN for the colours of grey images and for an unknown size.
    """
    found = np.full((len(tensors), len(IMAGE_MEASURES)), np.nan, np.float32)
    for start in range(0, len(tensors), _AT_ONCE):
        found[start : start + _AT_ONCE, :7] = _measure_tensors(tensors[start : start + _AT_ONCE])
    width, height = np.asarray(widths, np.float64), np.asarray(heights, np.float64)
    known = (width > 0) & (height > 0)
    found[known, 7] = np.sqrt(width[known] * height[known])
    found[known, 8] = width[known] / height[known]
    return found


def _measure_tensors(tensors: Sequence[Pixels]) -> ImageValues:
    """The measures of pixels. All sums are of integers below 2**24, which float32 adds without rounding."""
    height, width, channels = tensors[0].shape
    step_y, step_x = -(-height // _POINTS), -(-width // _POINTS)
    beside = min(1, width - 1)
    lines = np.stack([tensor[::step_y] for tensor in tensors])
    here = lines[:, :, : width - beside : step_x]
    grey = _grey(here)
    rows, columns = grey.shape[1:]
    points = rows * columns
    total = _sum(grey)
    mean = total / points
    deviation = np.sqrt(np.maximum(_sum(grey * grey) / points - mean**2, 0))
    differences = _sum(np.abs(_grey(lines[:, :, beside::step_x]) - grey)) / points
    values = np.full((len(tensors), 7), np.nan, np.float32)
    values[:, 0], values[:, 1] = mean / 255, deviation / 255
    values[:, 2] = differences / (deviation + 1)
    if channels == 3:
        red, green, blue = (here[..., channel] for channel in range(3))
        strongest, weakest = (
            np.maximum(np.maximum(red, green), blue),
            np.minimum(np.minimum(red, green), blue),
        )
        values[:, 3] = _sum((strongest - weakest).astype(np.float32)) / points / 255
        values[:, 4] = (_sum(red.astype(np.float32)) - _sum(blue.astype(np.float32))) / points / 255
    values[:, 5] = _centre(grey, np.tile(np.arange(columns), rows), total, columns)
    values[:, 6] = _centre(grey, np.repeat(np.arange(rows), columns), total, rows)
    return values


def _grey(pixels: Pixels) -> npt.NDArray[np.float32]:
    """Whole grey levels from 0 to 255."""
    if pixels.shape[-1] == 1:
        return pixels[..., 0].astype(np.float32)
    red, green, blue = (pixels[..., channel].astype(np.uint16) for channel in range(3))
    # About the weights of ITU-R BT.601, which sum to 8.
    grey: npt.NDArray[np.float32] = ((2 * red + 5 * green + blue) >> 3).astype(np.float32)
    return grey


def _sum(values: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    flat = values.reshape(len(values), -1)
    return (flat @ np.ones(flat.shape[1], np.float32)).astype(np.float64)


def _centre(
    grey: npt.NDArray[np.float32],
    places: npt.NDArray[np.int64],
    totals: npt.NDArray[np.float64],
    length: int,
) -> npt.NDArray[np.float64]:
    sums = (grey.reshape(len(grey), -1) @ places.astype(np.float32)).astype(np.float64)
    middle = np.full(len(totals), (length - 1) / 2)
    scaled: npt.NDArray[np.float64] = (np.divide(sums, totals, out=middle, where=totals > 0) + 0.5) / length
    return scaled
