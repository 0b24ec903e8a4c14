"""What is measured of every image tensor, for the search for near duplicates and for the audit."""

from typing import NamedTuple

import numpy as np

from pixelmill.pipeline.images import Pixels
from pixelmill.pipeline.images.tensors import to_image

_DARKEST, _BRIGHTEST = 0.01, 0.99
# JPEG leaves the pixels of a single colour a few grey levels apart.
_ALIKE = 16


class Measures(NamedTuple):
    """Measurements of one tensor. Grey levels and their statistics are scaled to 0..1.

    Attributes:
        perceptual_hash: The 64 bits of ImageHash's `phash`; similar images differ in few of them.
        brightness: The mean grey level.
        contrast: The standard deviation of the grey levels; at most 0.5.
        darkest: The grey level that 1% of the pixels do not exceed.
        brightest: The grey level that 1% of the pixels exceed.
        sharpness: The variance of the Laplacian divided by the variance of the grey levels, 0 to 64: it does
            not depend on contrast, and is near 0 for a blurred image. 0 for an image of one grey level.
        flatness: The largest share of pixels whose grey levels lie within 16 of 256 levels.
    """

    perceptual_hash: int
    brightness: float
    contrast: float
    darkest: float
    brightest: float
    sharpness: float
    flatness: float


def measure(pixels: Pixels) -> Measures:
    """Measure a tensor: uint8 [height, width, 1 or 3]."""
    import cv2
    import imagehash

    grey: Pixels = pixels[..., 0] if pixels.shape[2] == 1 else _to_grey(pixels)
    mean, deviation = (float(value[0, 0]) for value in cv2.meanStdDev(grey))
    _, edges = cv2.meanStdDev(cv2.Laplacian(grey, cv2.CV_16S))
    # OpenCV 5 returns the histogram with one dimension, OpenCV 4 with two.
    counts = cv2.calcHist([grey], [0], None, [256], [0, 256]).ravel()
    # At index i, the number of pixels below grey level i.
    below = np.concatenate(([0], counts.cumsum(dtype=np.float64)))
    alike = (below[_ALIKE:] - below[:-_ALIKE]).max()
    darkest, brightest = np.searchsorted(below[1:], (_DARKEST * grey.size, _BRIGHTEST * grey.size))
    bits = imagehash.phash(to_image(grey)).hash
    return Measures(
        perceptual_hash=int.from_bytes(np.packbits(bits).tobytes()),
        brightness=mean / 255,
        contrast=deviation / 255,
        darkest=float(darkest) / 255,
        brightest=float(brightest) / 255,
        sharpness=float((edges[0, 0] / deviation) ** 2) if deviation else 0.0,
        flatness=float(alike / grey.size),
    )


def _to_grey(pixels: Pixels) -> Pixels:
    import cv2

    return cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY).astype(np.uint8, copy=False)
