"""Random changes of the colours of images."""

from typing import Any

import numpy as np
import numpy.typing as npt

from pixelmill.pipeline.config import AugmentationSpec
from pixelmill.pipeline.images import Pixels

# The weights of red, green and blue in a grey value: ITU-R BT.601, as in Pillow and torchvision.
_LUMA = np.array([0.299, 0.587, 0.114])


def vary_colors(pixels: Pixels, spec: AugmentationSpec, rng: np.random.Generator) -> Pixels:
    """Change brightness, contrast, saturation and hue by random factors; make some images grey.

    The factors are those of `ColorJitter` of torchvision, and one order of the operations: the first three
    are linear, so they are one matrix for each image, and only its result is rounded and clipped.

    Args:
        pixels: uint8 [images, height, width, 1 or 3]; images with one channel change in brightness and
            contrast only.
        spec: The largest changes; the factors are drawn from 1 - x to 1 + x.
        rng: The source of random numbers.
    """
    count, channels = len(pixels), pixels.shape[-1]
    brightness, contrast, saturation = (
        rng.uniform(1 - most, 1 + most, count) for most in (spec.brightness, spec.contrast, spec.saturation)
    )
    if spec.grey:
        saturation = np.where(rng.random(count) < spec.grey, 0, saturation)
    pixels = _transform(pixels, _matrices(pixels, brightness, contrast, saturation))
    if spec.hue and channels == 3:
        pixels = turn_hue(pixels, rng.uniform(-spec.hue, spec.hue, count))
    return pixels


def _matrices(
    pixels: Pixels, brightness: npt.NDArray[Any], contrast: npt.NDArray[Any], saturation: npt.NDArray[Any]
) -> npt.NDArray[np.float64]:
    """From the channels of a pixel and 1 to the new channels: float64 [images, channels, channels + 1].

    Brightness b multiplies; contrast c is c * x + (1 - c) * mean grey value; saturation s is
    s * x + (1 - s) * grey value. Grey values do not change with the saturation, so the mean is added last.
    """
    import cv2

    channels = pixels.shape[-1]
    weights = _LUMA if channels == 3 else np.ones(1)
    mean = np.array([cv2.mean(np.ascontiguousarray(image))[:channels] for image in pixels]) @ weights
    mixed = saturation[:, None, None] * np.eye(channels) + (1 - saturation)[:, None, None] * weights
    scaled = (contrast * brightness)[:, None, None] * mixed
    constant = np.broadcast_to(
        ((1 - contrast) * brightness * mean)[:, None, None], (len(pixels), channels, 1)
    )
    return np.concatenate([scaled, constant], axis=2)


def _transform(pixels: Pixels, matrices: npt.NDArray[np.float64]) -> Pixels:
    import cv2

    changed = np.empty_like(pixels, order="C")
    for image, matrix, target in zip(pixels, matrices, changed, strict=True):
        target[...] = cv2.transform(image, matrix).reshape(image.shape)
    return changed


def turn_hue(pixels: Pixels, turns: npt.NDArray[np.float64]) -> Pixels:
    """Turn the hue of each image, in 256 steps of the HSV colour wheel, as Pillow and torchvision do.

    Args:
        pixels: uint8 [images, height, width, 3].
        turns: Shares of a full turn, float64 [images].
    """
    import cv2

    count, height, width, channels = pixels.shape
    colors: npt.NDArray[Any] = cv2.cvtColor(
        pixels.reshape(count * height, width, channels), cv2.COLOR_RGB2HSV_FULL
    )
    steps = np.rint(turns * 256).astype(np.int64).astype(np.uint8)  # Wraps, like the colour wheel.
    colors.reshape(pixels.shape)[..., 0] += steps[:, None, None]
    turned: npt.NDArray[Any] = cv2.cvtColor(colors, cv2.COLOR_HSV2RGB_FULL).reshape(pixels.shape)
    return turned
