"""Mixing each image and its label with those of another of the batch."""

from typing import Any

import numpy as np
import numpy.typing as npt

from pixelmill.pipeline.config import AugmentationSpec
from pixelmill.pipeline.images import Pixels

SoftLabels = npt.NDArray[np.float32]
"""[images, classes]: each row sums to one."""


def mix(
    pixels: Pixels, labels: SoftLabels, spec: AugmentationSpec, rng: np.random.Generator
) -> tuple[Pixels, SoftLabels]:
    """Apply mixup or cutmix; if both are on, to each batch one of them, with equal probability."""
    if spec.mixup and spec.cutmix:
        chosen = _mixup if rng.random() < 0.5 else _cutmix
    elif spec.mixup:
        chosen = _mixup
    elif spec.cutmix:
        chosen = _cutmix
    else:
        return pixels, labels
    return chosen(pixels, labels, spec, rng)


def _mixup(
    pixels: Pixels, labels: SoftLabels, spec: AugmentationSpec, rng: np.random.Generator
) -> tuple[Pixels, SoftLabels]:
    """Blend each image and its label with those of another: Zhang et al., 2018, arXiv:1710.09412."""
    count = len(pixels)
    others = rng.permutation(count)
    share = rng.beta(spec.mixup, spec.mixup, count).astype(np.float32)
    return np.rint(_blend(pixels, others, share)).astype(np.uint8), _blend(labels, others, share)


def _cutmix(
    pixels: Pixels, labels: SoftLabels, spec: AugmentationSpec, rng: np.random.Generator
) -> tuple[Pixels, SoftLabels]:
    """Paste a rectangle of another image into each, and mix the labels by area: Yun et al., 2019,
    arXiv:1905.04899.

    The rectangle has the aspect ratio of the image and its centre anywhere in it. What lies beyond the edge
    is lost, and the labels are mixed by the pixels that were pasted.
    """
    count, height, width, _ = pixels.shape
    others = rng.permutation(count)
    side: npt.NDArray[np.float64] = np.sqrt(1 - rng.beta(spec.cutmix, spec.cutmix, size=(count,)))
    rows = _spans(height * rng.random(count), side * height, height)
    columns = _spans(width * rng.random(count), side * width, width)
    mixed = pixels.copy(order="C")
    for index, other in enumerate(others.tolist()):
        part = slice(*rows[index]), slice(*columns[index])
        mixed[index][part] = pixels[other][part]
    area = np.diff(rows)[:, 0] * np.diff(columns)[:, 0] / (height * width)
    return mixed, _blend(labels, others, (1 - area).astype(np.float32))


def _spans(
    centres: npt.NDArray[np.float64], lengths: npt.NDArray[np.float64], side: int
) -> npt.NDArray[np.int64]:
    """First and one past the last pixel of spans, cut at the ends of a side: int64 [images, 2]."""
    ends = np.stack([centres - lengths / 2, centres + lengths / 2], axis=1)
    return np.clip(np.rint(ends), 0, side).astype(np.int64)


def _blend(values: npt.NDArray[Any], others: npt.NDArray[np.int64], share: npt.NDArray[np.float32]) -> Any:
    own = share.reshape(len(values), *[1] * (values.ndim - 1))
    return values * own + values[others] * (1 - own)
