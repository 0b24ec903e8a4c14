"""Counts of predictions: how many of each class, and with which confidence."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

CONFIDENCE_BINS = 10
_SMALLEST_SHARE = 1e-4
# Most probabilities are close to 1, where bins of equal width would see no change.
CONFIDENCE_EDGES: npt.NDArray[np.float64] = np.concatenate(
    [np.linspace(0, 0.9, 19), 1 - np.logspace(-1.25, -6, 20), [1.0]]
)


def _no_counts() -> npt.NDArray[np.int64]:
    return np.zeros(len(CONFIDENCE_EDGES) - 1, np.int64)


@dataclass(frozen=True)
class PredictionCounts:
    """Counts of the top-1 predictions of some images.

    Attributes:
        classes: The images of each predicted class, int64 [classes].
        confidences: A histogram of the top-1 probabilities in ten equal bins over 0..1.
        fine_confidences: A histogram of the same between `CONFIDENCE_EDGES`.
        confidence_sum: The sum of these probabilities.
    """

    classes: npt.NDArray[np.int64]
    confidences: npt.NDArray[np.int64]
    fine_confidences: npt.NDArray[np.int64] = field(default_factory=_no_counts)
    confidence_sum: float = 0.0

    @property
    def images(self) -> int:
        """The number of images."""
        return int(self.classes.sum())

    @staticmethod
    def of(class_indices: npt.ArrayLike, probabilities: npt.ArrayLike, classes: int) -> "PredictionCounts":
        """Count predictions from the top-1 class indices and probabilities, both [images]."""
        histogram, _ = np.histogram(probabilities, bins=CONFIDENCE_BINS, range=(0.0, 1.0))
        fine, _ = np.histogram(probabilities, bins=CONFIDENCE_EDGES)
        counts = np.bincount(np.asarray(class_indices, np.int64), minlength=classes)
        total = float(np.sum(probabilities, dtype=np.float64))
        return PredictionCounts(counts, histogram.astype(np.int64), fine.astype(np.int64), total)

    def __add__(self, other: "PredictionCounts") -> "PredictionCounts":
        return PredictionCounts(
            self.classes + other.classes,
            self.confidences + other.confidences,
            self.fine_confidences + other.fine_confidences,
            self.confidence_sum + other.confidence_sum,
        )

    def to_baseline(self) -> dict[str, Any]:
        """The entries of `baseline.json`."""
        return {
            "images": self.images,
            "mean_confidence": self.confidence_sum / max(self.images, 1),
            "class_counts": self.classes.tolist(),
            "confidence_bins": np.linspace(0, 1, CONFIDENCE_BINS + 1).round(6).tolist(),
            "confidence_counts": self.confidences.tolist(),
            "fine_confidence_bins": CONFIDENCE_EDGES.tolist(),
            "fine_confidence_counts": self.fine_confidences.tolist(),
        }


def population_stability_index(expected: npt.ArrayLike, actual: npt.ArrayLike) -> float:
    """The sum over all bins of (a - e) ln(a / e), where a and e are the actual and expected shares.

    Empty bins count as a share of 0.0001. Source: N. Siddiqi, Credit Risk Scorecards, Wiley 2006.
    """
    e, a = (
        np.maximum(np.asarray(counts, float) / np.sum(counts), _SMALLEST_SHARE)
        for counts in (expected, actual)
    )
    return float(np.sum((a - e) * np.log(a / e)))
