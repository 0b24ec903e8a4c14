"""The loss and accuracy of the saved model on the validation split."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from pixelmill.pipeline.datasets import Images
from pixelmill.pipeline.inference import Probabilities
from pixelmill.pipeline.training.input_pipeline import ValidationBatches

# Keras clips probabilities to this value, so that the logarithm is finite.
_EPSILON = 1e-7


@dataclass(frozen=True)
class Validation:
    """`loss`: cross-entropy in nats; `accuracy`: 0 to 1; `probabilities`: float32 [images, classes]."""

    loss: float
    accuracy: float
    probabilities: Probabilities


def validate(network: Any, images: Images, classes: int, devices: int = 1) -> Validation:
    """Predictions, loss and accuracy of a model on images, computed as by `evaluate` of Keras.

    Args:
        network: A Keras model from uint8 images to probabilities.
        images: The validation split.
        classes: Number of classes.
        devices: Number of devices that share each batch.
    """
    batches = ValidationBatches(images, classes, devices)
    predicted = np.concatenate([network.predict_on_batch(batches[step][0]) for step in range(len(batches))])
    given = predicted[np.arange(len(images.labels)), images.labels].astype(np.float64)
    return Validation(
        loss=float(-np.log(np.maximum(given, _EPSILON)).mean()),
        accuracy=float(np.mean(predicted.argmax(axis=1) == images.labels)),
        probabilities=predicted.astype(np.float32),
    )
