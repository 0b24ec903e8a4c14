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
_LEVELS = np.arange(256.0)


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


_TYPES = {int: np.uint64, float: np.float64}
MEASURES_TYPE = np.dtype([(name, _TYPES[kind]) for name, kind in Measures.__annotations__.items()])
"""`Measures` as the elements of an array."""


def measure(pixels: Pixels) -> Measures:
    """Measure a tensor: uint8 [height, width, 1 or 3]."""
    return Measures(*measure_all(pixels[np.newaxis])[0].item())


def measure_all(tensors: Pixels) -> npt.NDArray[np.void]:
    """Measure several tensors at once, which is faster for small ones.

    Args:
        tensors: uint8 [images, height, width, 1 or 3].

    Returns:
        `MEASURES_TYPE` [images].
    """
    grey = _to_grey(tensors)
    counts = _count_levels(grey)
    size = grey[:1].size
    means = counts @ _LEVELS / size
    deviations = np.sqrt((counts * np.square(_LEVELS - means[:, np.newaxis])).sum(axis=1) / size)
    # At index i, the number of pixels below grey level i.
    below = np.zeros((len(counts), 257))
    np.cumsum(counts, axis=1, out=below[:, 1:])
    edges = np.divide(_edges(grey), deviations, out=np.zeros(len(grey)), where=deviations > 0)
    measures = np.empty(len(grey), MEASURES_TYPE)
    measures["perceptual_hash"] = perceptual_hashes(grey)
    measures["brightness"] = means / 255
    measures["contrast"] = deviations / 255
    measures["darkest"] = (below[:, 1:] >= _DARKEST * size).argmax(axis=1) / 255
    measures["brightest"] = (below[:, 1:] >= _BRIGHTEST * size).argmax(axis=1) / 255
    measures["sharpness"] = np.square(edges)
    measures["flatness"] = (below[:, _ALIKE:] - below[:, :-_ALIKE]).max(axis=1) / size
    return measures


def _count_levels(grey: Pixels) -> npt.NDArray[np.float64]:
    """The number of pixels of each grey level, float64 [images, 256]."""
    import cv2

    counts = [cv2.calcHist([image], [0], None, [256], [0, 256]).ravel() for image in grey]
    return np.array(counts, np.float64)


def _edges(grey: Pixels) -> npt.NDArray[np.float64]:
    """The standard deviation of the Laplacian of each image, float64 [images]."""
    import cv2

    return np.array([cv2.meanStdDev(cv2.Laplacian(image, cv2.CV_16S))[1][0, 0] for image in grey])


def perceptual_hashes(grey: Pixels) -> npt.NDArray[np.uint64]:
    """The bits of ImageHash's `phash` for each image, uint64 [images].

    It compares the lowest 8x8 coefficients of the discrete cosine transform of 32x32 pixels with their
    median. Here they are computed for all images at once, and rounded, so that coefficients that are equal
    give the same bits on every machine.
    """
    is_small = grey.shape[1:] == (_HASHED_SIDE, _HASHED_SIDE)
    # Pillow's filter, as in ImageHash.
    small = grey if is_small else np.stack([resize_grey(image, _HASHED_SIDE) for image in grey])
    steps = np.arange(_HASHED_SIDE)
    waves = 2 * np.cos(np.pi * steps[:8, np.newaxis] * (2 * steps + 1) / (2 * _HASHED_SIDE))
    lowest = np.round(waves @ small.astype(np.float64) @ waves.T, 6).reshape(len(grey), -1)
    bits = lowest > np.median(lowest, axis=1, keepdims=True)
    hashes: npt.NDArray[np.uint64] = np.packbits(bits, axis=1).view(">u8")[:, 0].astype(np.uint64)
    return hashes


def _to_grey(tensors: Pixels) -> Pixels:
    if tensors.shape[3] == 1:
        return tensors[..., 0]
    import cv2

    count, height, width, channels = tensors.shape
    grey = cv2.cvtColor(tensors.reshape(count * height, width, channels), cv2.COLOR_RGB2GRAY)
    return grey.reshape(count, height, width).astype(np.uint8, copy=False)
