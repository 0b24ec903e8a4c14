"""What is measured of every image tensor, for the search for near duplicates and for the audit."""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from pixelmill.pipeline.images import Pixels
from pixelmill.pipeline.images.tensors import resize_grey

_DARKEST, _BRIGHTEST = 0.01, 0.99
# JPEG leaves the pixels of a single colour a few grey levels apart.
_ALIKE = 16
_HASHED_SIDE = 32


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
    return measure_all(pixels[np.newaxis])[0]


def measure_all(tensors: Pixels) -> list[Measures]:
    """Measure several tensors at once, which is faster for small ones.

    Args:
        tensors: uint8 [images, height, width, 1 or 3].
    """
    grey = _to_grey(tensors)
    flat = grey.reshape(len(grey), -1)
    deviations = flat.std(axis=1)
    counts = np.zeros((len(flat), 257), np.int64)
    for index, values in enumerate(flat):
        counts[index, 1:] = np.bincount(values, minlength=256)
    # At index i, the number of pixels below grey level i.
    below = counts.cumsum(axis=1)
    size = flat.shape[1]
    columns = (
        _perceptual_hashes(grey),
        flat.mean(axis=1) / 255,
        deviations / 255,
        (below[:, 1:] >= _DARKEST * size).argmax(axis=1) / 255,
        (below[:, 1:] >= _BRIGHTEST * size).argmax(axis=1) / 255,
        np.divide(_edges(grey), deviations, out=np.zeros(len(flat)), where=deviations > 0) ** 2,
        (below[:, _ALIKE:] - below[:, :-_ALIKE]).max(axis=1) / size,
    )
    return [Measures(*values) for values in zip(*(column.tolist() for column in columns), strict=True)]


def _edges(grey: Pixels) -> npt.NDArray[np.float64]:
    """The standard deviation of the Laplacian of each image, float64 [images]."""
    import cv2

    return np.array([cv2.meanStdDev(cv2.Laplacian(image, cv2.CV_16S))[1][0, 0] for image in grey])


def _perceptual_hashes(grey: Pixels) -> npt.NDArray[np.uint64]:
    """The bits of ImageHash's `phash` for each image, uint64 [images].

    It compares the lowest 8x8 coefficients of the discrete cosine transform of 32x32 pixels with their
    median. Here they are computed for all images at once, and rounded, so that coefficients that are equal
    give the same bits on every machine.
    """
    small = np.stack([_shrink(image) for image in grey]).astype(np.float64)
    steps = np.arange(_HASHED_SIDE)
    waves = 2 * np.cos(np.pi * steps[:8, np.newaxis] * (2 * steps + 1) / (2 * _HASHED_SIDE))
    lowest = np.round(waves @ small @ waves.T, 6).reshape(len(grey), -1)
    bits = lowest > np.median(lowest, axis=1, keepdims=True)
    hashes: npt.NDArray[np.uint64] = np.packbits(bits, axis=1).view(">u8")[:, 0].astype(np.uint64)
    return hashes


def _shrink(image: Pixels) -> Pixels:
    if image.shape == (_HASHED_SIDE, _HASHED_SIDE):
        return image
    # Pillow's filter, as in ImageHash.
    return resize_grey(image, _HASHED_SIDE)


def _to_grey(tensors: Pixels) -> Pixels:
    if tensors.shape[3] == 1:
        return tensors[..., 0]
    import cv2

    count, height, width, channels = tensors.shape
    grey = cv2.cvtColor(tensors.reshape(count * height, width, channels), cv2.COLOR_RGB2GRAY)
    return grey.reshape(count, height, width).astype(np.uint8, copy=False)
