"""The content of `baseline.json`: what the test images and the predictions for them are like."""

from typing import Any

import numpy as np
import numpy.typing as npt

from pixelmill.pipeline.drift.counts import PredictionCounts
from pixelmill.pipeline.drift.distribution import Distribution
from pixelmill.pipeline.drift.image_measures import IMAGE_MEASURES, ImageValues


def describe_baseline(
    probabilities: npt.NDArray[np.float32],
    labels: npt.NDArray[np.int64] | None = None,
    values: ImageValues | None = None,
) -> dict[str, Any]:
    """The baseline of a model.

    Args:
        probabilities: The predictions for the test images, float32 [images, classes].
        labels: The true classes, int64 [images]; None if they are not known.
        values: The measures of test images, float32 [any number of images, measures]; None if they were not
            measured.
    """
    top_1, confidences = probabilities.argmax(axis=1), probabilities.max(axis=1)
    counts = PredictionCounts.of(top_1, confidences, probabilities.shape[1])
    baseline = counts.to_baseline()
    if labels is not None and len(labels):
        gaps = (top_1 == labels) - confidences.astype(np.float64)
        baseline["confidence_gap"] = {
            "images": len(gaps),
            "accuracy": float(np.mean(top_1 == labels)),
            "mean": float(gaps.mean()),
            "variance": float(gaps.var()),
        }
        baseline["confusion"] = _confused(labels, top_1)
    if values is not None:
        baseline["image_measures"] = {
            name: Distribution.of(known).to_json()
            for name, column in zip(IMAGE_MEASURES, values.T, strict=True)
            if len(known := column[~np.isnan(column)])
        }
    return baseline


def _confused(labels: npt.NDArray[np.int64], top_1: npt.NDArray[np.int64]) -> list[list[int]]:
    """The cells of the confusion matrix that are not zero: true class, predicted class, images."""
    cells, images = np.unique(np.stack([labels, top_1], axis=1), axis=0, return_counts=True)
    return [[*cell, count] for cell, count in zip(cells.tolist(), images.tolist(), strict=True)]
