"""The loss and accuracy of a model as it is saved, on the validation split."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from pixelmill.pipeline.datasets import Images
from pixelmill.pipeline.training.input_pipeline import ValidationBatches

# What Keras keeps a probability away from 0, so that its logarithm is a number.
_EPSILON = 1e-7


@dataclass(frozen=True)
class Validation:
    """`loss`: cross-entropy in nats; `accuracy`: 0 to 1."""

    loss: float
    accuracy: float


def validate(network: Any, images: Images, classes: int, devices: int = 1) -> Validation:
    """Measure a model on images, as `evaluate` of Keras does.

    Args:
        network: A Keras model that takes uint8 images and gives probabilities.
        images: The validation split.
        classes: How many probabilities it gives.
        devices: How many share a batch.
    """
    batches = ValidationBatches(images, classes, devices)
    predicted = np.concatenate([network.predict_on_batch(batches[step][0]) for step in range(len(batches))])
    given = predicted[np.arange(len(images.labels)), images.labels].astype(np.float64)
    return Validation(
        loss=float(-np.log(np.maximum(given, _EPSILON)).mean()),
        accuracy=float(np.mean(predicted.argmax(axis=1) == images.labels)),
    )
