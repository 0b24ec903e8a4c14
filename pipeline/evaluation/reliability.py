"""Whether probabilities can be relied on: reliability diagram, and coverage against precision."""

import numpy as np

from pixelmill.pipeline.datasets import Labels
from pixelmill.pipeline.evaluation.intervals import interval_of_proportion
from pixelmill.pipeline.evaluation.metrics_file import CoveragePoint, ReliabilityBin
from pixelmill.pipeline.inference import Probabilities

_BINS = 15
_POINTS = 20


def reliability_bins(probabilities: Probabilities, labels: Labels) -> list[ReliabilityBin]:
    """Compare the top-1 probabilities with the accuracy, in 15 ranges of equal width from 0 to 1.

    These are the ranges of the expected calibration error.

    Args:
        probabilities: float32 [images, classes].
        labels: int64 [images].
    """
    confidence = probabilities.max(axis=1).astype(np.float64)
    right = probabilities.argmax(axis=1) == labels
    bins = np.minimum((confidence * _BINS).astype(np.int64), _BINS - 1)
    counts = np.bincount(bins, minlength=_BINS).tolist()
    rights = np.bincount(bins, right, _BINS).astype(int).tolist()
    sums = np.bincount(bins, confidence, _BINS).tolist()
    return [
        ReliabilityBin(
            low=index / _BINS,
            high=(index + 1) / _BINS,
            images=count,
            confidence=total / count if count else None,
            accuracy=correct / count if count else None,
            accuracy_interval=interval_of_proportion(correct, count) if count else None,
        )
        for index, (count, correct, total) in enumerate(zip(counts, rights, sums, strict=True))
    ]


def coverage_curve(probabilities: Probabilities, labels: Labels) -> list[CoveragePoint]:
    """The precision of the predictions above a threshold, for thresholds that keep more and more images.

    Images with the same top-1 probability are kept or left together.

    Args:
        probabilities: float32 [images, classes].
        labels: int64 [images].

    Returns:
        At most 20 points, by ascending coverage; the last one keeps every image.
    """
    confidence = probabilities.max(axis=1)
    order = np.argsort(-confidence, kind="stable")
    confidence = confidence[order]
    right = (probabilities.argmax(axis=1) == labels)[order].cumsum()
    last_of_ties = np.append(np.flatnonzero(np.diff(confidence)), len(labels) - 1)
    wanted = np.ceil(np.arange(1, _POINTS + 1) / _POINTS * len(labels)).astype(np.int64) - 1
    places = np.unique(last_of_ties[np.searchsorted(last_of_ties, wanted)])
    return [
        CoveragePoint(
            coverage=(place + 1) / len(labels),
            images=place + 1,
            threshold=float(confidence[place]),
            precision=int(right[place]) / (place + 1),
            precision_interval=interval_of_proportion(int(right[place]), place + 1),
        )
        for place in places.tolist()
    ]
