"""Arrays as pictures for the page: feature maps, kernels, and class activation maps over images."""

import base64
from math import ceil

import numpy as np
import numpy.typing as npt

from pixelmill.pipeline.image_encoding import encode_png, encode_tensor_thumbnail
from pixelmill.pipeline.images import Pixels
from pixelmill.pipeline.training.activations import Values

Colors = npt.NDArray[np.uint8]

MAX_SIDE = 56
"""The longer side of a feature map, in pixels; larger ones are averaged over squares."""
# From the largest negative value over zero, which is dark, to the largest positive one.
_STOPS = (-1.0, -0.55, 0.0, 0.55, 1.0)
_RAMP = ((205, 232, 255), (58, 120, 230), (22, 24, 30), (232, 120, 36), (255, 238, 190))
# The share of the colour where a class activation map is strongest.
_OPACITY = 0.75


def color(values: npt.NDArray[np.floating], limit: float) -> Colors:
    """Colours of values: blue below zero, dark at zero, orange above; uint8 [..., 3].

    Args:
        values: Any shape.
        limit: The value with the brightest orange; its negative has the brightest blue. If it is not above
            zero, all values are drawn as zero.
    """
    scaled = np.asarray(values, np.float64) / limit if limit > 0 else np.zeros(np.shape(values))
    channels = [np.interp(scaled, _STOPS, [stop[at] for stop in _RAMP]) for at in range(3)]
    return np.stack(channels, axis=-1).round().astype(np.uint8)


def draw_map(values: Values, limit: float) -> str:
    """One feature map, float32 [height, width], as a PNG in a data URL; large ones are reduced."""
    return data_url(color(shrink(values), limit))


def draw_kernel(kernel: Values) -> str:
    """One kernel, float32 [height, width, input channels], as a PNG in a data URL.

    With three input channels, the colours are the weights, and grey is zero; otherwise the first input
    channel is drawn in the colours of feature maps.
    """
    limit = float(np.abs(kernel).max())
    if kernel.shape[-1] != 3:
        return data_url(color(kernel[..., 0], limit))
    return data_url((127.5 + 127.5 * kernel / (limit or 1)).round().astype(np.uint8))


def draw_image(pixels: Pixels, side: int) -> str:
    """An image, uint8 [height, width, 1 or 3], at most `side` pixels wide and high, as a data URL."""
    data = encode_tensor_thumbnail(pixels, side)
    kind = "png" if data.startswith(b"\x89PNG") else "jpeg"
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"


def draw_overlay(pixels: Pixels, values: Values, limit: float) -> str:
    """A class activation map, float32 [height, width], over the grey image, as a PNG in a data URL."""
    grey = shrink(pixels.astype(np.float32).mean(axis=-1), 2 * MAX_SIDE)
    enlarged = enlarge(values, grey.shape[0], grey.shape[1])
    share = _OPACITY * np.clip(np.abs(enlarged) / limit, 0, 1) if limit > 0 else np.zeros(grey.shape)
    # A light tint keeps weak values visible over dark images.
    colors = color(np.where(enlarged < 0, -0.6, 0.6), 1.0)
    blended = (1 - share)[..., None] * grey[..., None] + share[..., None] * colors
    return data_url(blended.round().astype(np.uint8))


def shrink(values: Values, side: int = MAX_SIDE) -> Values:
    """Average squares of a map, float32 [height, width], so that no side is longer than `side`."""
    factor = ceil(max(values.shape) / side)
    if factor == 1:
        return values
    starts = [np.arange(0, length, factor) for length in values.shape]
    sums = np.add.reduceat(np.add.reduceat(values, starts[0], axis=0), starts[1], axis=1)
    rows, columns = (np.diff([*start, length]) for start, length in zip(starts, values.shape, strict=True))
    return np.asarray(sums / np.outer(rows, columns), np.float32)


def enlarge(values: Values, height: int, width: int) -> Values:
    """A map at another size, by linear interpolation between the centres of its positions."""
    rows, columns = (
        (np.arange(length) + 0.5) * before / length - 0.5
        for length, before in zip((height, width), values.shape, strict=True)
    )
    wide = [np.interp(columns, np.arange(values.shape[1]), line) for line in values]
    high = [np.interp(rows, np.arange(values.shape[0]), line) for line in np.transpose(wide)]
    return np.asarray(np.transpose(high), np.float32)


def data_url(colors: Colors) -> str:
    """Colours, uint8 [height, width, 3], as a PNG in a data URL."""
    return "data:image/png;base64," + base64.b64encode(encode_png(colors)).decode()
