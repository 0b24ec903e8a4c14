"""Changes of test images that leave their class as it is, to measure how much the predictions depend on them.

Every image is changed alike, but in varying directions: shifts go right, left, down and up in turn, and every
other rotation is counterclockwise. What comes in from outside the image repeats its edge.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from pixelmill.pipeline.config import ImageSpec
from pixelmill.pipeline.image_encoding import encode_jpeg
from pixelmill.pipeline.images import Pixels, decode

_SHIFTS = ((1, 0), (-1, 0), (0, 1), (0, -1))


@dataclass(frozen=True)
class Perturbation:
    """One way of changing images.

    Attributes:
        change: What is changed, as the report names it.
        unit: The unit of the levels.
        levels: The levels for images whose shorter side has this many pixels.
        apply: Changes uint8 [images, height, width, channels] to one level, into an array of the same shape.
    """

    change: str
    unit: str
    levels: Callable[[int], tuple[float, ...]]
    apply: Callable[[Pixels, float], Pixels]


def _shift(pixels: Pixels, level: float) -> Pixels:
    return _warp(
        pixels, lambda index: (np.eye(2), np.array(_SHIFTS[index % 4], np.float64) * level), smooth=False
    )


def _rotate(pixels: Pixels, level: float) -> Pixels:
    def turn(index: int) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        angle = math.radians(level if index % 2 else -level)
        cosine, sine = math.cos(angle), math.sin(angle)
        return np.array([[cosine, -sine], [sine, cosine]]), np.zeros(2)

    return _warp(pixels, turn)


def _scale(pixels: Pixels, level: float) -> Pixels:
    return _warp(pixels, lambda index: (np.eye(2) * level, np.zeros(2)))


def _add_noise(pixels: Pixels, level: float) -> Pixels:
    rng = np.random.default_rng(round(level))
    noise = rng.standard_normal(pixels.shape, dtype=np.float32) * np.float32(level)
    noisy: Pixels = np.clip(np.rint(pixels + noise), 0, 255).astype(np.uint8)
    return noisy


def _blur(pixels: Pixels, level: float) -> Pixels:
    import cv2

    blurred = [cv2.GaussianBlur(image, (0, 0), level, borderType=cv2.BORDER_REPLICATE) for image in pixels]
    return _stacked(blurred, pixels)


def _compress(pixels: Pixels, level: float) -> Pixels:
    height, width, channels = pixels.shape[1:]
    spec = ImageSpec.model_validate({"height": height, "width": width, "channels": channels})
    return np.stack([decode(encode_jpeg(image, round(level)), spec).pixels for image in pixels])


def _warp(
    pixels: Pixels,
    place: Callable[[int], tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]],
    smooth: bool = True,
) -> Pixels:
    """Move every pixel of image i to `matrix @ (x, y) + offset` around the centre: `place(i)` gives both."""
    import cv2

    height, width = pixels.shape[1:3]
    centre = np.array([(width - 1) / 2, (height - 1) / 2])
    warped = []
    for index, image in enumerate(pixels):
        matrix, offset = place(index)
        transform = np.column_stack([matrix, centre - matrix @ centre + offset])
        moved = cv2.warpAffine(
            image,
            transform,
            (width, height),
            flags=cv2.INTER_CUBIC if smooth else cv2.INTER_NEAREST,
            borderMode=cv2.BORDER_REPLICATE,
        )
        warped.append(moved)
    return _stacked(warped, pixels)


def _stacked(images: list[npt.NDArray[Any]], like: Pixels) -> Pixels:
    # OpenCV drops the channel of grey images.
    return np.stack(images).reshape(like.shape).astype(np.uint8, copy=False)


def _shift_levels(side: int) -> tuple[float, ...]:
    most = max(2, side // 8)
    return tuple(sorted({pixels for pixels in (1, 2, 3, 4, side // 16, most) if 1 <= pixels <= most}))


def _always(*levels: float) -> Callable[[int], tuple[float, ...]]:
    return lambda side: levels


def _blur_levels(side: int) -> tuple[float, ...]:
    return tuple(level for level in (0.5, 1, 2, 4) if level <= side / 16)


PERTURBATIONS = (
    Perturbation("shift", "pixels", _shift_levels, _shift),
    Perturbation("rotation", "degrees", _always(5, 15, 30, 45, 90, 180), _rotate),
    Perturbation("scale", "times", _always(0.7, 0.85, 1.15, 1.4), _scale),
    Perturbation("noise", "grey levels (standard deviation)", _always(8, 16, 32), _add_noise),
    Perturbation("blur", "pixels (standard deviation)", _blur_levels, _blur),
    Perturbation("JPEG", "quality", _always(90, 50, 20, 10), _compress),
)
