"""The section on kernels: Sobel and Scharr beside those that the network learned."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pixelmill.pipeline.evaluation.inside.pictures import draw_kernel, draw_map
from pixelmill.pipeline.images import Pixels
from pixelmill.pipeline.layers.convolution import FIXED_KERNELS, Matrix
from pixelmill.pipeline.training.activations import FeatureMaps, Kernels, Values

# Learned kernels that point less in the direction of a fixed one are not compared with it.
_MIN_COSINE = 0.7


@dataclass(frozen=True)
class DrawnKernel:
    """One kernel and what it makes of the first image.

    Attributes:
        title: The name of a fixed kernel, or the number of a learned one.
        picture: A data URL.
        response: Its output for the first image, as a data URL; None if it is not known.
        weights: The weights of a fixed kernel.
        resembles: For a learned 3x3 kernel, the most similar fixed one with the cosine of the angle between
            them; None if none is similar.
    """

    title: str
    picture: str
    response: str | None
    weights: Matrix = ()
    resembles: tuple[str, float] | None = None


@dataclass(frozen=True)
class KernelRow:
    """The kernels of one layer."""

    kernels: Kernels
    drawn: list[DrawnKernel]


def draw_fixed_kernels(pixels: Pixels) -> list[DrawnKernel]:
    """Sobel and Scharr, and their responses to an image, uint8 [height, width, channels]."""
    grey = pixels.astype(np.float32).mean(axis=-1) / 255
    drawn = []
    for name, matrix in FIXED_KERNELS.items():
        kernel = np.array(matrix, np.float32)
        response = correlate(grey, kernel)
        drawn.append(
            DrawnKernel(
                name,
                draw_kernel(kernel[..., None]),
                draw_map(response, float(np.abs(response).max())),
                matrix,
            )
        )
    return drawn


def draw_kernel_rows(found: Sequence[Kernels], maps: Sequence[FeatureMaps]) -> list[KernelRow]:
    """The kernels of the network's first layers, with the feature maps of the first image."""
    by_name = {each.layer.name: each.values[0] for each in maps}
    return [
        KernelRow(
            kernels,
            [
                DrawnKernel(
                    str(at),
                    draw_kernel(kernels.values[..., at]),
                    _response(kernels, by_name.get(kernels.name), at),
                    resembles=resemblance(kernels.values[..., at]),
                )
                for at in range(kernels.values.shape[-1])
            ],
        )
        for kernels in found
    ]


def correlate(image: Values, kernel: Values) -> Values:
    """The cross-correlation of an image with a kernel of odd size, padded with zeros to the same size."""
    height, width = image.shape
    rows, columns = kernel.shape
    padded = np.pad(image, ((rows // 2, rows // 2), (columns // 2, columns // 2)))
    total = np.zeros_like(image)
    for row in range(rows):
        for column in range(columns):
            total += kernel[row, column] * padded[row : row + height, column : column + width]
    return total


def resemblance(kernel: Values) -> tuple[str, float] | None:
    """The fixed kernel that a kernel, float32 [3, 3, channels], resembles most up to its sign."""
    weights = kernel.mean(axis=-1)
    if weights.shape != (3, 3) or not np.any(weights):
        return None
    cosines = {
        name: float(np.sum(weights * matrix) / np.linalg.norm(weights) / np.linalg.norm(matrix))
        for name, matrix in FIXED_KERNELS.items()
    }
    best = max(cosines, key=lambda name: abs(cosines[name]))
    return (best, cosines[best]) if abs(cosines[best]) >= _MIN_COSINE else None


def _response(kernels: Kernels, maps: Values | None, at: int) -> str | None:
    """The feature map of a kernel; a separable convolution mixes them, so its kernels have none."""
    if maps is None or at >= maps.shape[-1] or kernels.kind == "separable":
        return None
    return draw_map(maps[..., at], float(np.abs(maps).max()))
