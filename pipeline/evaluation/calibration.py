"""How well the probabilities of a model agree with how often it is right."""

import numpy as np

from pixelmill.pipeline.datasets import Labels
from pixelmill.pipeline.inference import Probabilities

_BINS = 15
_RESAMPLES = 500


def expected_calibration_error(
    probabilities: Probabilities, labels: Labels, rng: np.random.Generator
) -> tuple[float, tuple[float, float]]:
    """The expected calibration error and its 95% interval by bootstrap.

    The top-1 probabilities are divided into 15 bins of equal width; the error is the mean distance of their
    mean probability from their accuracy, weighted by images: Guo et al., 2017, arXiv:1706.04599.

    Args:
        probabilities: float32 [images, classes].
        labels: int64 [images].
        rng: Draws the resamples.

    Returns:
        The error, 0 to 1, and its interval.
    """
    confidence = probabilities.max(axis=1).astype(np.float64)
    right = probabilities.argmax(axis=1) == labels
    bins = np.minimum((confidence * _BINS).astype(np.int64), _BINS - 1)
    excess = confidence - right

    def error(weights: np.ndarray) -> float:
        return float(np.abs(np.bincount(bins, weights * excess, _BINS)).sum() / len(labels))

    draws = []
    for _ in range(_RESAMPLES):
        counts = np.bincount(rng.integers(0, len(labels), len(labels)), minlength=len(labels))
        draws.append(error(counts))
    low, high = np.quantile(draws, [0.025, 0.975])
    found = error(np.ones(len(labels)))
    # Resampling adds noise to every bin, which can only make the error larger.
    return found, (min(float(low), found), float(high))
