"""Batches to augment."""

import numpy as np

from pixelmill.pipeline.config import AugmentationSpec
from pixelmill.pipeline.images import Pixels
from pixelmill.pipeline.training.augmentation import SoftLabels, augment

Augmented = tuple[Pixels, SoftLabels]


def random_batch(count: int, height: int, width: int, channels: int) -> Augmented:
    rng = np.random.default_rng(1)
    pixels = rng.integers(0, 256, (count, height, width, channels), np.uint8)
    return pixels, np.eye(10, dtype=np.float32)[rng.integers(0, 10, count)]


def augmented(pixels: Pixels, labels: SoftLabels | None = None, seed: int = 0, **spec: object) -> Augmented:
    labels = np.eye(1, dtype=np.float32)[[0] * len(pixels)] if labels is None else labels
    return augment(pixels, labels, AugmentationSpec.model_validate(spec), np.random.default_rng(seed))
