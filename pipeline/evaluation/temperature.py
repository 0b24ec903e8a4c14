"""Temperature scaling: one number, fitted on the validation images, that corrects all probabilities.

The logits are divided by it before the softmax, so the top-1 class of no image changes: Guo et al., 2017,
arXiv:1706.04599.
"""

from dataclasses import dataclass

import numpy as np

from pixelmill.pipeline.datasets import Labels
from pixelmill.pipeline.evaluation.calibration import expected_calibration_error
from pixelmill.pipeline.evaluation.intervals import Interval
from pixelmill.pipeline.inference import Probabilities

_LOWEST, _HIGHEST = 0.25, 8.0
_SMALLEST = float(np.finfo(np.float32).tiny)
_SEED = 0


@dataclass(frozen=True)
class Calibration:
    """A fitted temperature, and what it does to the calibration error on the test images.

    Attributes:
        temperature: What the logits are divided by.
        is_used: Whether it is; not if the error becomes larger, or if no temperature fits.
        error: The expected calibration error without it, 0 to 1.
        error_interval: The 95% interval of that error.
        scaled_error: The error with it.
        scaled_error_interval: The 95% interval of that error.
        validation_images: The number of images it was fitted on.
        images: The number of test images.
    """

    temperature: float
    is_used: bool
    error: float
    error_interval: Interval
    scaled_error: float
    scaled_error_interval: Interval
    validation_images: int
    images: int


def calibrate(
    validation: Probabilities, validation_labels: Labels, test: Probabilities, test_labels: Labels
) -> Calibration:
    """Fit a temperature on the validation images, and compare the calibration error on the test images.

    Args:
        validation: float32 [validation images, classes].
        validation_labels: int64 [validation images].
        test: float32 [test images, classes].
        test_labels: int64 [test images].
    """
    temperature = fit_temperature(validation, validation_labels)
    before, before_interval = _error(test, test_labels)
    after, after_interval = _error(scale(test, temperature), test_labels)
    is_inside = _LOWEST * 1.01 < temperature < _HIGHEST * 0.99
    return Calibration(
        temperature=temperature,
        is_used=is_inside and after <= before,
        error=before,
        error_interval=before_interval,
        scaled_error=after,
        scaled_error_interval=after_interval,
        validation_images=len(validation),
        images=len(test),
    )


def fit_temperature(probabilities: Probabilities, labels: Labels) -> float:
    """The temperature from 0.25 to 8 with the lowest cross-entropy.

    Args:
        probabilities: float32 [images, classes].
        labels: int64 [images].
    """
    from scipy.optimize import minimize_scalar

    logits = np.log(np.maximum(probabilities.astype(np.float64), _SMALLEST))
    rows = np.arange(len(labels))

    def loss(log_temperature: float) -> float:
        scaled = logits / np.exp(log_temperature)
        highest = scaled.max(axis=1, keepdims=True)
        normalizers = highest[:, 0] + np.log(np.exp(scaled - highest).sum(axis=1))
        return float((normalizers - scaled[rows, labels]).mean())

    found = minimize_scalar(loss, bounds=(np.log(_LOWEST), np.log(_HIGHEST)), method="bounded")
    return float(np.exp(found.x))


def scale(probabilities: Probabilities, temperature: float) -> Probabilities:
    """The probabilities of a network whose logits are divided by a temperature: float32 [images, classes].

    The logarithm of a softmax differs from the logits by a constant, which the second softmax removes.
    """
    logits = np.log(np.maximum(probabilities.astype(np.float64), _SMALLEST)) / temperature
    exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
    scaled: Probabilities = (exponentials / exponentials.sum(axis=1, keepdims=True)).astype(np.float32)
    return scaled


def _error(probabilities: Probabilities, labels: Labels) -> tuple[float, Interval]:
    # The same resamples for both, so that they differ by the temperature only.
    error, ends = expected_calibration_error(probabilities, labels, np.random.default_rng(_SEED))
    return error, Interval(*ends)
