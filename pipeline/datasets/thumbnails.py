"""Thumbnails of image tensors, and how much they differ.

Sums of products of pixels are exact, so that the same images differ by the same on every machine.
"""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from pixelmill.pipeline.images import Pixels

COARSE, FINE = 8, 32
"""Sides of thumbnails in pixels. The products of 32x32 pixels of -128..127 add up to at most 2**24, up to
which float32 holds integers exactly."""
_MIDDLE = np.float32(128)
_IMAGES_AT_ONCE, _PAIRS_AT_ONCE = 256, 256
# Images of hardly any contrast, such as a clear sky, differ by noise alone: a variance in grey levels.
_NOISE = 16.0
# A difference in the mean of a channel that is no more than a little light, in grey levels.
_MAX_SHIFT = 16
_PLAIN_SHARE, _PLAIN_LEVELS, _PLAIN_CONTRAST = 0.35, 16, 32
Floats = npt.NDArray[np.float32]
Indices = npt.NDArray[np.int64]


class Tensors(Protocol):
    """Tensors on disk or in memory, uint8 [images, height, width, channels]."""

    @property
    def shape(self) -> tuple[int, ...]:
        """The number of images, their height, width and channels."""

    def __getitem__(self, rows: Indices, /) -> Pixels:
        """The tensors with these indices, uint8 [indices, height, width, channels]."""


@dataclass(frozen=True)
class Thumbnails:
    """Small versions of some images, and what their differences are computed from.

    Attributes:
        rows: The indices of the images, ascending, int64 [rows].
        pixels: uint8 [rows, channels, pixels], at most 1024 pixels.
        sums: The sum of the pixels less 128, by channel, float64 [rows, channels].
        squares: The sum of their squares over all channels, float64 [rows].
    """

    rows: Indices
    pixels: Pixels
    sums: npt.NDArray[np.float64]
    squares: npt.NDArray[np.float64]

    def differences(self, pairs: Indices) -> Floats:
        """How much images differ: their mean squared difference divided by their mean variance.

        Each channel is taken relative to its mean, so that a little more light makes no difference.

        Args:
            pairs: Indices of images, int64 [pairs, 2].

        Returns:
            float32 [pairs]; infinite where the means of a channel are far apart.
        """
        one, two = np.searchsorted(self.rows, pairs).T
        size = self.pixels.shape[2]
        shift = self.sums[one] - self.sums[two]
        apart = self.squares[one] + self.squares[two] - 2 * self._products(one, two)
        apart -= np.square(shift).sum(axis=1) / size
        variance = self.squares - np.square(self.sums).sum(axis=1) / size
        noise = _NOISE * size * shift.shape[1]
        found = apart / ((variance[one] + variance[two]) / 2 + noise)
        return np.where(np.abs(shift).max(axis=1) <= _MAX_SHIFT * size, found, np.inf).astype(np.float32)

    def _products(self, one: Indices, two: Indices) -> npt.NDArray[np.float64]:
        """The sums of the products of two thumbnails, float64 [pairs]."""
        found = np.empty(len(one))
        for start in range(0, len(one), _PAIRS_AT_ONCE):
            some = slice(start, start + _PAIRS_AT_ONCE)
            products = _multiply(_centred(self.pixels[one[some]]), _centred(self.pixels[two[some]]))
            found[some] = products.sum(axis=1)
        return found

    def are_plain(self) -> npt.NDArray[np.bool_]:
        """Whether images have strong contrast and a ground of the darkest or brightest level, bool [rows]."""
        plain = np.empty(len(self.pixels), np.bool_)
        for start in range(0, len(self.pixels), _IMAGES_AT_ONCE):
            levels = self.pixels[start : start + _IMAGES_AT_ONCE].astype(np.int16)
            levels = levels.reshape(len(levels), -1)
            darkest, brightest = levels.min(1, keepdims=True), levels.max(1, keepdims=True)
            dark = (levels <= darkest + _PLAIN_LEVELS).mean(axis=1)
            bright = (levels >= brightest - _PLAIN_LEVELS).mean(axis=1)
            has_ground = np.maximum(dark, bright) > _PLAIN_SHARE
            plain[start : start + _IMAGES_AT_ONCE] = has_ground & (levels.std(axis=1) > _PLAIN_CONTRAST)
        return plain


def make_thumbnails(rows: Indices, tensors: Tensors, side: int, *, blurs: bool = False) -> Thumbnails:
    """Downscale images.

    Args:
        rows: Indices of images, ascending.
        tensors: The image tensors.
        side: The largest width and height, `COARSE` or `FINE`.
        blurs: Whether to remove fine detail, which moves with a crop of one pixel.
    """
    height, width, channels = tensors.shape[1:]
    size = (min(side, width), min(side, height))
    pixels = np.empty((len(rows), channels, size[0] * size[1]), np.uint8)
    sums, squares = np.empty((len(rows), channels)), np.empty(len(rows))
    for start in range(0, len(rows), _IMAGES_AT_ONCE):
        some = slice(start, start + _IMAGES_AT_ONCE)
        small = _downscale(tensors[rows[some]], size, blurs and min(size) > COARSE)
        pixels[some] = small.reshape(len(small), -1, channels).transpose(0, 2, 1)
        centred = _centred(pixels[some])
        sums[some] = centred.sum(axis=2)
        squares[some] = _multiply(centred, centred).sum(axis=1)
    return Thumbnails(rows, pixels, sums, squares)


def _downscale(tensors: Pixels, size: tuple[int, int], blurs: bool) -> Pixels:
    """uint8 [images, height, width, channels]."""
    import cv2

    made = np.empty((len(tensors), size[1], size[0], tensors.shape[3]), np.uint8)
    is_small = tensors.shape[2:0:-1] == size
    for index, pixels in enumerate(tensors):
        small = pixels if is_small else cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)
        made[index] = (cv2.blur(small, (3, 3)) if blurs else small).reshape(made.shape[1:])
    return made


def _centred(pixels: Pixels) -> Floats:
    return pixels.astype(np.float32) - _MIDDLE


def _multiply(one: Floats, two: Floats) -> npt.NDArray[np.float64]:
    """The sum of the products of the pixels by channel, float64 [images, channels]."""
    products: npt.NDArray[np.float64] = np.einsum("icp,icp->ic", one, two).astype(np.float64)
    return products
