"""How probable each class is, given an image and a label that may be wrong.

A label is right with probability `1 - rate`, and otherwise one of the other classes, each as likely. The
logits of a classifier, divided by a temperature, are those of the true class. Both numbers are fitted to the
labels by maximum likelihood, the rate with a minimum of 3%, about the mean that Northcutt, Athalye and
Mueller found in ten well-known datasets (2021, arXiv:2103.14749). Two classes that are often mistaken for
each other in the same direction look to it like two that the classifier confuses.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from pixelmill.pipeline.datasets import Labels
from pixelmill.pipeline.inference import Probabilities

LOWEST_RATE = 0.03
_SMALLEST = 1e-300
Logits = npt.NDArray[np.floating[Any]]


@dataclass(frozen=True)
class LabelNoise:
    """What is known of the labels and of a classifier.

    Attributes:
        temperature: What its logits are divided by.
        rate: The share of wrong labels, from 0.03 to 1.
    """

    temperature: float
    rate: float


def fit_label_noise(logits: Logits, labels: Labels) -> LabelNoise:
    """Fit the temperature and the rate.

    Args:
        logits: [images, classes], of a classifier that was not fitted to these images. At least two classes.
        labels: int64 [images].
    """
    from scipy.optimize import minimize
    from scipy.special import expit

    def noise(point: npt.NDArray[np.float64]) -> LabelNoise:
        rate = LOWEST_RATE + (1 - LOWEST_RATE) * expit(point[1])
        return LabelNoise(float(np.exp(point[0])), float(rate))

    def loss(point: npt.NDArray[np.float64]) -> float:
        joint = _joint(logits, labels, noise(point))
        return float(-np.log(np.maximum(joint.sum(axis=1), _SMALLEST)).mean())

    # The likelihood may have two maxima: labels that are wrong, or a classifier that is unsure.
    starts = ((0.0, -5.0), (0.0, -2.0), (2.0, -5.0))
    found = min((minimize(loss, start, method="Nelder-Mead") for start in starts), key=lambda end: end.fun)
    return noise(found.x)


def class_probabilities(logits: Logits, labels: Labels, noise: LabelNoise) -> Probabilities:
    """The probability of each class, given the image and its label: float32 [images, classes]."""
    joint = np.maximum(_joint(logits, labels, noise), _SMALLEST)
    probabilities: Probabilities = (joint / joint.sum(axis=1, keepdims=True)).astype(np.float32)
    return probabilities


def _joint(logits: Logits, labels: Labels, noise: LabelNoise) -> npt.NDArray[np.float64]:
    """The probability of each true class together with the label, given the image."""
    from scipy.special import softmax

    rows = np.arange(len(labels))
    joint: npt.NDArray[np.float64] = softmax(logits.astype(np.float64) / noise.temperature, axis=1)
    of_labels = joint[rows, labels] * (1 - noise.rate)
    joint *= noise.rate / (logits.shape[1] - 1)
    joint[rows, labels] = of_labels
    return joint
