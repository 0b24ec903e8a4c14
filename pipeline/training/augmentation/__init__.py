"""Random augmentation of training batches: in the input pipeline, never in the model.

The random numbers of a step depend only on the seed, the epoch and the step, so a resumed run sees the same
images as an uninterrupted one.
"""

import numpy as np

from pixelmill.pipeline.config import AugmentationSpec
from pixelmill.pipeline.images import Pixels
from pixelmill.pipeline.training.augmentation.color import vary_colors
from pixelmill.pipeline.training.augmentation.geometry import warp
from pixelmill.pipeline.training.augmentation.mixing import SoftLabels, mix
from pixelmill.pipeline.training.augmentation.occlusion import cut_out, erase
from pixelmill.pipeline.training.augmentation.policies import apply_policy

__all__ = ["SoftLabels", "augment"]


def augment(
    pixels: Pixels, labels: SoftLabels, spec: AugmentationSpec, rng: np.random.Generator
) -> tuple[Pixels, SoftLabels]:
    """Augment a batch: geometry, then policy, colours, occlusion, and mixing.

    Args:
        pixels: uint8 [images, height, width, channels]; not modified.
        labels: float32 [images, classes], the target probabilities; not modified.
        spec: The augmentations and their strength.
        rng: The source of random numbers.

    Returns:
        The augmented images and labels, of the same shapes and dtypes.
    """
    used = spec.used
    if not used:
        return pixels, labels
    for fields, apply in _OPERATIONS:
        if used.keys() & fields:
            pixels = apply(pixels, spec, rng)
    return mix(pixels, labels, spec, rng)


# Each runs if one of its fields is on.
_OPERATIONS = (
    ({"shift", "rotation", "zoom", "shear", "crop", "elastic", "flip"}, warp),
    ({"policy"}, apply_policy),
    ({"brightness", "contrast", "saturation", "hue", "grey"}, vary_colors),
    ({"cutout"}, cut_out),
    ({"erasing"}, erase),
)
