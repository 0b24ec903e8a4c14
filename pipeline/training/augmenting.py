"""Random changes of a batch of training images: in the input pipeline, never in the model.

A step's draws depend on the seed, the epoch and the step alone, so a run that goes on after it was killed
sees the images that it would have seen.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.config import AugmentationSpec
from pipeline.images import Pixels

SoftLabels = npt.NDArray[np.float32]
"""[images, classes]: probabilities that add up to one."""
# More bend a stroke within its own width.
_FIELDS = 4


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
    import cv2

    count, height, width, _ = pixels.shape
    matrices = _matrices(count, height, width, spec, draws)
    moved = np.empty_like(pixels, order="C")
    if spec.elastic:
        bent = _bent(matrices, height, width, spec.elastic, draws)
        for image, target, (across, down) in zip(pixels, moved, bent, strict=True):
            cv2.remap(image, across, down, cv2.INTER_CUBIC, dst=target, borderMode=cv2.BORDER_REPLICATE)
        return moved
    interpolation = cv2.INTER_CUBIC if _lands_between_pixels(spec) else cv2.INTER_NEAREST
    flags = interpolation | cv2.WARP_INVERSE_MAP
    for image, target, matrix in zip(pixels, moved, matrices, strict=True):
        cv2.warpAffine(
            image, matrix, (width, height), dst=target, flags=flags, borderMode=cv2.BORDER_REPLICATE
        )
    return moved


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


def _bent(
    matrices: npt.NDArray[np.float64],
    height: int,
    width: int,
    strength: float,
    draws: np.random.Generator,
) -> Iterator[npt.NDArray[np.float32]]:
    """For each image where its points come from, x and y: float32 [2, height, width].

    The middles of 4 x 4 fields are displaced at random, and all between them smoothly: Simard and others,
    2003, doi:10.1109/ICDAR.2003.1227801, with a grid in place of the filter as Ronneberger and others have
    it, 2015, arXiv:1505.04597.
    """
    import cv2

    fields = np.eye(_FIELDS, dtype=np.float32)
    rows = cv2.resize(fields, (_FIELDS, height), interpolation=cv2.INTER_CUBIC)
    columns = cv2.resize(fields, (width, _FIELDS), interpolation=cv2.INTER_CUBIC)
    points = np.ones((3, height * width), np.float32)
    points[:2] = np.indices((height, width), np.float32)[::-1].reshape(2, -1)
    spread = np.array([[[width]], [[height]]], np.float32) * np.float32(strength)
    away = draws.standard_normal((len(matrices), 2, _FIELDS, _FIELDS), np.float32) * spread
    for matrix, displaced in zip(matrices.astype(np.float32), away, strict=True):
        yield (matrix @ points).reshape(2, height, width) + rows @ displaced @ columns


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
