"""Random changes of a batch of training images: in the input pipeline, never in the model.

A step's draws depend on the seed, the epoch and the step alone, so a run that goes on after it was killed
sees the images that it would have seen.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

from pixelmill.pipeline.config import AugmentationSpec
from pixelmill.pipeline.images import Pixels

SoftLabels = npt.NDArray[np.float32]
"""[images, classes]: probabilities that add up to one."""
Places = npt.NDArray[np.float32]
"""[2, images, height, width]: x and y."""
# More bend a stroke within its own width.
_FIELDS = 4
# What cubics reach on either side.
_REACH = 2
# These, and where they come from, stay in a processor's cache.
_PIXELS_AT_ONCE = 1 << 15
# That OpenCV takes.
_MOST_ROWS = 32_766


def augment(
    pixels: Pixels, labels: SoftLabels, spec: AugmentationSpec, draws: np.random.Generator
) -> tuple[Pixels, SoftLabels]:
    """Change a batch.

    Args:
        pixels: uint8 [images, height, width, channels]; stays as it is.
        labels: The true probabilities; stay as they are.
        spec: How much of what.
        draws: Where chance comes from.
    """
    if spec.shift or spec.flip != "none" or _lands_between_pixels(spec):
        pixels = _move(pixels, spec, draws)
    if spec.cutout:
        pixels = _cut_out(pixels, spec.cutout, draws)
    if spec.mixup:
        pixels, labels = _mix_up(pixels, labels, spec.mixup, draws)
    return pixels, labels


def _lands_between_pixels(spec: AugmentationSpec) -> bool:
    return any((spec.rotation, spec.zoom, spec.shear, spec.elastic))


def _move(pixels: Pixels, spec: AugmentationSpec, draws: np.random.Generator) -> Pixels:
    """Shift, rotate, zoom, shear, flip and bend in one step; beyond the edge, the edge goes on.

    The network must not learn from blurred images when those that it will see are sharp: what is only
    shifted and flipped moves by whole pixels, and all else is interpolated with cubics, as bilinear
    interpolation averages neighbours.
    """
    count, height, width, _ = pixels.shape
    matrices = _matrices(count, height, width, spec, draws)
    away = draws.standard_normal((count, 2, _FIELDS, _FIELDS), dtype=np.float32) if spec.elastic else None
    moved = np.empty_like(pixels, order="C")
    at_once = max(1, min(_PIXELS_AT_ONCE // (height * width), _MOST_ROWS // (height + 2 * _REACH)))
    for first in range(0, count, at_once):
        part = slice(first, first + at_once)
        places = _places(matrices[part], height, width)
        if away is not None:
            places += _bends(away[part] * np.float32(spec.elastic), height, width)
        moved[part] = _read_at(pixels[part], places, _lands_between_pixels(spec))
    return moved


def _read_at(pixels: Pixels, places: Places, between: bool) -> Pixels:
    """Each image's values at places in it, x and y, interpolated where these lie between pixels.

    One call for all images, stacked to one: a call for each costs as much again, and the lock of the
    interpreter goes to and fro between the threads that make batches.
    """
    import cv2

    count, height, width, channels = pixels.shape
    # What an interpolation at an edge reaches of the images above and below must be that edge.
    tall = np.empty((count, height + 2 * _REACH, width, channels), np.uint8)
    tall[:, _REACH:-_REACH] = pixels
    tall[:, :_REACH], tall[:, -_REACH:] = pixels[:, :1], pixels[:, -1:]
    across, down = places
    np.clip(down, -1, height, out=down)
    down += (np.arange(count, dtype=np.float32) * (height + 2 * _REACH) + _REACH)[:, None, None]
    read: npt.NDArray[Any] = cv2.remap(
        tall.reshape(-1, width, channels),
        across.reshape(-1, width),
        down.reshape(-1, width),
        cv2.INTER_CUBIC if between else cv2.INTER_NEAREST,
        borderMode=cv2.BORDER_REPLICATE,
    )
    return read.reshape(pixels.shape)


def _matrices(
    count: int, height: int, width: int, spec: AugmentationSpec, draws: np.random.Generator
) -> npt.NDArray[np.float64]:
    """For each image the map from (x, y, 1) in the result to (x, y) in the source: float64 [images, 2, 3]."""
    angles = np.deg2rad(draws.uniform(-spec.rotation, spec.rotation, count))
    across, down = (
        np.where(draws.random(count) < (0.5 if spec.flip in (axis, "both") else 0), -1, 1)
        for axis in ("horizontal", "vertical")
    )
    shifts = draws.uniform(-spec.shift, spec.shift, (count, 2)) * (width, height)
    if not _lands_between_pixels(spec):
        shifts = np.rint(shifts)
    matrices = np.empty((count, 2, 3))
    matrices[:, 0, :2] = np.stack([across * np.cos(angles), -across * np.sin(angles)], axis=1)
    matrices[:, 1, :2] = np.stack([down * np.sin(angles), down * np.cos(angles)], axis=1)
    # An image that is to look larger is read from a smaller part of itself, and so on.
    matrices[:, :, :2] /= draws.uniform(1 - spec.zoom, 1 + spec.zoom, (count, 1, 1))
    slants = np.tan(np.deg2rad(draws.uniform(-spec.shear, spec.shear, (count, 1))))
    matrices[:, :, 1] += matrices[:, :, 0] * slants
    centre = np.array([(width - 1) / 2, (height - 1) / 2])
    matrices[:, :, 2] = centre - matrices[:, :, :2] @ centre + shifts
    return matrices


def _places(matrices: npt.NDArray[np.float64], height: int, width: int) -> Places:
    """Where the points of each image come from by its matrix."""
    of_x, of_y, constant = matrices.astype(np.float32).transpose(2, 1, 0)[..., np.newaxis]
    along_rows = of_x * np.arange(width, dtype=np.float32)
    along_columns = of_y * np.arange(height, dtype=np.float32) + constant
    places: Places = along_rows[:, :, np.newaxis, :] + along_columns[:, :, :, np.newaxis]
    return places


def _bends(away: npt.NDArray[np.float32], height: int, width: int) -> Places:
    """By how much the points of each image are displaced, its 4 x 4 fields by `away` in parts of the sides.

    The middles of the fields are displaced so, and all between them smoothly: Simard and others, 2003,
    doi:10.1109/ICDAR.2003.1227801, with a grid in place of the filter as Ronneberger and others have it,
    2015, arXiv:1505.04597.
    """
    import cv2

    fields = np.eye(_FIELDS, dtype=np.float32)
    rows = cv2.resize(fields, (_FIELDS, height), interpolation=cv2.INTER_CUBIC)
    columns = cv2.resize(fields, (width, _FIELDS), interpolation=cv2.INTER_CUBIC)
    sides = np.array([width, height], np.float32)[:, np.newaxis, np.newaxis, np.newaxis]
    bends = rows @ (away.transpose(1, 0, 2, 3) * sides) @ columns
    return bends.astype(np.float32, copy=False)


def _cut_out(pixels: Pixels, part: float, draws: np.random.Generator) -> Pixels:
    """Fill a square of each image with the image's mean: DeVries and Taylor, 2017, arXiv:1708.04552.

    The centre lies anywhere in the image, so that a square may reach beyond its edge.
    """
    count, height, width, _ = pixels.shape
    half = part * min(height, width) / 2
    rows = np.abs(np.arange(height) - draws.uniform(0, height - 1, (count, 1))) <= half
    columns = np.abs(np.arange(width) - draws.uniform(0, width - 1, (count, 1))) <= half
    mean = pixels.mean(axis=(1, 2), keepdims=True).astype(np.uint8)
    return np.where((rows[:, :, None] & columns[:, None, :])[..., None], mean, pixels)


def _mix_up(
    pixels: Pixels, labels: SoftLabels, alpha: float, draws: np.random.Generator
) -> tuple[Pixels, SoftLabels]:
    """Blend each image and its label with another's: Zhang and others, 2018, arXiv:1710.09412."""
    count = len(pixels)
    others = draws.permutation(count)
    share = draws.beta(alpha, alpha, count).astype(np.float32)

    def blend(values: Any) -> Any:
        own = share.reshape(count, *[1] * (values.ndim - 1))
        return values * own + values[others] * (1 - own)

    return np.rint(blend(pixels)).astype(np.uint8), blend(labels)
