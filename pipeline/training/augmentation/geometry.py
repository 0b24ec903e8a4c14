"""Random geometry of images: shift, rotation, zoom, shear, crop, flip and elastic deformation."""

from typing import Any

import numpy as np
import numpy.typing as npt

from pixelmill.pipeline.config import AugmentationSpec
from pixelmill.pipeline.images import Pixels

Coordinates = npt.NDArray[np.float32]
"""[2, images, height, width]: x and y."""
# A finer grid would bend a stroke within its own width.
_GRID = 4
# Cubic interpolation reads two pixels to either side.
_CUBIC_RADIUS = 2
# This many pixels and their coordinates fit in a processor's cache.
_PIXELS_PER_CHUNK = 1 << 15
# cv2.remap accepts no taller image.
_MAX_REMAP_ROWS = 32_766


def _needs_interpolation(spec: AugmentationSpec) -> bool:
    return any((spec.rotation, spec.zoom, spec.shear, spec.crop, spec.elastic))


def warp(pixels: Pixels, spec: AugmentationSpec, rng: np.random.Generator) -> Pixels:
    """Shift, rotate, zoom, shear, flip, bend and crop in one step, replicating the edge pixels.

    The network must not be trained on blurred images when it will predict sharp ones: if images are only
    shifted and flipped, they move by whole pixels. Everything else uses cubic interpolation, because
    bilinear interpolation averages neighbouring pixels.
    """
    count, height, width, _ = pixels.shape
    matrices = _matrices(count, height, width, spec, rng)
    displacements = rng.standard_normal((count, 2, _GRID, _GRID), dtype=np.float32) if spec.elastic else None
    warped = np.empty_like(pixels, order="C")
    chunk = max(
        1, min(_PIXELS_PER_CHUNK // (height * width), _MAX_REMAP_ROWS // (height + 2 * _CUBIC_RADIUS))
    )
    for first in range(0, count, chunk):
        part = slice(first, first + chunk)
        coordinates = _source_coordinates(matrices[part], height, width)
        if displacements is not None:
            coordinates += _elastic_displacement(
                displacements[part] * np.float32(spec.elastic), height, width
            )
        warped[part] = _sample(pixels[part], coordinates, _needs_interpolation(spec))
    return warped


def _sample(pixels: Pixels, coordinates: Coordinates, interpolate: bool) -> Pixels:
    """Sample each image at the given coordinates, with cubic interpolation or the nearest pixel.

    The images are stacked into one, so that a single call handles all of them: one call per image takes
    twice as long, and the threads that prepare batches would contend for the interpreter lock.
    """
    import cv2

    count, height, width, channels = pixels.shape
    # Interpolation at an edge must read that edge, not the images stacked above and below.
    tall = np.empty((count, height + 2 * _CUBIC_RADIUS, width, channels), np.uint8)
    tall[:, _CUBIC_RADIUS:-_CUBIC_RADIUS] = pixels
    tall[:, :_CUBIC_RADIUS], tall[:, -_CUBIC_RADIUS:] = pixels[:, :1], pixels[:, -1:]
    across, down = coordinates
    np.clip(down, -1, height, out=down)
    down += (np.arange(count, dtype=np.float32) * (height + 2 * _CUBIC_RADIUS) + _CUBIC_RADIUS)[:, None, None]
    read: npt.NDArray[Any] = cv2.remap(
        tall.reshape(-1, width, channels),
        across.reshape(-1, width),
        down.reshape(-1, width),
        cv2.INTER_CUBIC if interpolate else cv2.INTER_NEAREST,
        borderMode=cv2.BORDER_REPLICATE,
    )
    return read.reshape(pixels.shape)


def _matrices(
    count: int, height: int, width: int, spec: AugmentationSpec, rng: np.random.Generator
) -> npt.NDArray[np.float64]:
    """Affine matrices from (x, y, 1) in the output to (x, y) in the input: float64 [images, 2, 3]."""
    angles = np.deg2rad(rng.uniform(-spec.rotation, spec.rotation, count))
    across, down = (
        np.where(rng.random(count) < (0.5 if spec.flip in (axis, "both") else 0), -1, 1)
        for axis in ("horizontal", "vertical")
    )
    shifts = rng.uniform(-spec.shift, spec.shift, (count, 2)) * (width, height)
    if not _needs_interpolation(spec):
        shifts = np.rint(shifts)
    matrices = np.empty((count, 2, 3))
    matrices[:, 0, :2] = np.stack([across * np.cos(angles), -across * np.sin(angles)], axis=1)
    matrices[:, 1, :2] = np.stack([down * np.sin(angles), down * np.cos(angles)], axis=1)
    # The matrices map output to input, so zooming in divides.
    matrices[:, :, :2] /= rng.uniform(1 - spec.zoom, 1 + spec.zoom, (count, 1, 1))
    slants = np.tan(np.deg2rad(rng.uniform(-spec.shear, spec.shear, (count, 1))))
    matrices[:, :, 1] += matrices[:, :, 0] * slants
    centre = np.array([(width - 1) / 2, (height - 1) / 2])
    matrices[:, :, 2] = centre - matrices[:, :, :2] @ centre + shifts
    return _crop(matrices, height, width, spec.crop, rng) if spec.crop else matrices


def _crop(
    matrices: npt.NDArray[np.float64], height: int, width: int, most: float, rng: np.random.Generator
) -> npt.NDArray[np.float64]:
    """Matrices that first map the output to a random crop of it: Szegedy et al., 2015, arXiv:1409.4842.

    As in `RandomResizedCrop` of torchvision, the area is uniform, here from 1 - most to 1, and the logarithm
    of the aspect ratio is uniform from 3/4 to 4/3. Ratios with which the crop would not fit are not drawn.
    """
    area = rng.uniform(1 - most, 1, len(matrices))
    ratio = np.exp(rng.uniform(np.log(np.maximum(3 / 4, area)), np.log(np.minimum(4 / 3, 1 / area))))
    scale = np.sqrt(np.stack([area * ratio, area / ratio], axis=1))
    first = rng.random(scale.shape) * (1 - scale) * (width, height)
    # The centre of the pixel 0 lies at 0.5.
    constant = (scale - 1) / 2 + first
    cropped = matrices.copy()
    cropped[:, :, 2] += np.einsum("nij,nj->ni", matrices[:, :, :2], constant)
    cropped[:, :, :2] *= scale[:, None, :]
    return cropped


def _source_coordinates(matrices: npt.NDArray[np.float64], height: int, width: int) -> Coordinates:
    """The input coordinates of every output pixel under each image's matrix."""
    of_x, of_y, constant = matrices.astype(np.float32).transpose(2, 1, 0)[..., np.newaxis]
    along_rows = of_x * np.arange(width, dtype=np.float32)
    along_columns = of_y * np.arange(height, dtype=np.float32) + constant
    coordinates: Coordinates = along_rows[:, :, np.newaxis, :] + along_columns[:, :, :, np.newaxis]
    return coordinates


def _elastic_displacement(displacements: npt.NDArray[np.float32], height: int, width: int) -> Coordinates:
    """Interpolate random displacements on a 4x4 grid to a smooth displacement of every pixel.

    Simard et al., 2003, doi:10.1109/ICDAR.2003.1227801, with a coarse grid instead of a Gaussian filter as
    in Ronneberger et al., 2015, arXiv:1505.04597.

    Args:
        displacements: float32 [images, 2, 4, 4], as a share of width and height.
        height: Of the images, in pixels.
        width: Of the images, in pixels.
    """
    import cv2

    fields = np.eye(_GRID, dtype=np.float32)
    rows = cv2.resize(fields, (_GRID, height), interpolation=cv2.INTER_CUBIC)
    columns = cv2.resize(fields, (width, _GRID), interpolation=cv2.INTER_CUBIC)
    sides = np.array([width, height], np.float32)[:, np.newaxis, np.newaxis, np.newaxis]
    bends = rows @ (displacements.transpose(1, 0, 2, 3) * sides) @ columns
    return bends.astype(np.float32, copy=False)
