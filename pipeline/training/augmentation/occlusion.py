"""Hiding random parts of images."""

import math

import numpy as np
import numpy.typing as npt

from pixelmill.pipeline.config import AugmentationSpec
from pixelmill.pipeline.images import Pixels

# The range of the area and of the aspect ratio in the paper and in torchvision.
_ERASED_AREA = (0.02, 0.33)
_ERASED_ASPECT = (0.3, 1 / 0.3)


def cut_out(pixels: Pixels, spec: AugmentationSpec, rng: np.random.Generator) -> Pixels:
    """Fill a random square of each image with the image's mean: DeVries and Taylor, 2017, arXiv:1708.04552.

    The centre may lie anywhere in the image, so the square may extend beyond its edge.
    """
    count, height, width, _ = pixels.shape
    half = spec.cutout * min(height, width) / 2
    rows = np.abs(np.arange(height) - rng.uniform(0, height - 1, (count, 1))) <= half
    columns = np.abs(np.arange(width) - rng.uniform(0, width - 1, (count, 1))) <= half
    mean = pixels.mean(axis=(1, 2), keepdims=True).astype(np.uint8)
    return np.where((rows[:, :, None] & columns[:, None, :])[..., None], mean, pixels)


def erase(pixels: Pixels, spec: AugmentationSpec, rng: np.random.Generator) -> Pixels:
    """Replace a rectangle of some images by noise, a value for every pixel and channel: Zhong et al., 2017,
    arXiv:1708.04896, who found this better than one value.

    Its area is drawn from 2% to 33% of the image, its aspect ratio from 0.3 to 3.3; a side is at most as long
    as the image's.
    """
    count, height, width, _ = pixels.shape
    area = rng.uniform(*_ERASED_AREA, count) * height * width
    aspect = np.exp(rng.uniform(math.log(_ERASED_ASPECT[0]), math.log(_ERASED_ASPECT[1]), count))
    chosen = rng.random(count) < spec.erasing
    rows = _random_span(np.sqrt(area * aspect), height, rng)
    columns = _random_span(np.sqrt(area / aspect), width, rng)
    erased = pixels.copy(order="C")
    for index in np.flatnonzero(chosen).tolist():
        part = erased[index, slice(*rows[index]), slice(*columns[index])]
        part[...] = rng.integers(0, 256, part.shape, np.uint8)
    return erased


def _random_span(
    lengths: npt.NDArray[np.float64], side: int, rng: np.random.Generator
) -> npt.NDArray[np.int64]:
    """First and one past the last index of a span of each length within a side: int64 [images, 2]."""
    whole = np.clip(np.rint(lengths), 1, side).astype(np.int64)
    first = rng.integers(0, side - whole + 1)
    return np.stack([first, first + whole], axis=1)
